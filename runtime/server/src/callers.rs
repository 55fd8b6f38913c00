//! Those who wait for an answer: who they are, and how what can wait makes room for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long after the last caller has gone the next one is still expected.
const EXPECTED: Duration = Duration::from_millis(100);

/// Counts the callers that are inside. Clones share the count.
#[derive(Clone)]
pub struct Callers(Arc<Inner>);

struct Inner {
    inside: AtomicUsize,
    start: Instant,
    /// When the last one left: milliseconds after `start`, and 0 where none has been here.
    left: AtomicU64,
}

/// A caller that is inside. Dropping it leaves.
pub struct Caller(Callers);

impl Callers {
    /// Nobody.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            inside: AtomicUsize::new(0),
            start: Instant::now(),
            left: AtomicU64::new(0),
        }))
    }

    /// Counts one more.
    pub fn enter(&self) -> Caller {
        self.0.inside.fetch_add(1, Relaxed);
        Caller(self.clone())
    }

    /// Whether somebody is inside, or was a moment ago.
    pub fn any(&self) -> bool {
        let left = self.0.left.load(Relaxed);
        let lately = || self.0.now().saturating_sub(left) < EXPECTED.as_millis() as u64;
        self.0.inside.load(Relaxed) > 0 || (left > 0 && lately())
    }
}

impl Inner {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let Self(Callers(inner)) = self;
        inner.left.store(inner.now().max(1), Relaxed);
        inner.inside.fetch_sub(1, Relaxed);
    }
}

/// Gives this thread the lowest priority, and those that it starts.
pub fn yield_to_them() {
    // On Linux, a nice value is that of a thread and not of its process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "a thread that should yield to callers keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_counts_while_inside_and_a_moment_longer() {
        let callers = Callers::new();
        assert!(!callers.any());
        let caller = callers.enter();
        assert!(callers.any());
        drop(caller);
        assert!(callers.any());
        std::thread::sleep(EXPECTED * 2);
        assert!(!callers.any());
    }
}
