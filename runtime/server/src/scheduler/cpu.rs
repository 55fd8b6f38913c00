//! The processor time of runs that share threads.
//!
//! A run's work is spread over a pool, so no thread's clock is a run's. What all threads together
//! spend between two moments is divided evenly among the runs that were under way: exact in sum.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Measures the runs on some threads.
#[derive(Default)]
pub(super) struct RunMeter(Mutex<State>);

#[derive(Default)]
struct State {
    threads: Vec<ThreadClock>,
    /// What the threads had spent when it was last divided.
    seen: Duration,
    running: HashMap<u64, Duration>,
    next: u64,
}

/// A run that is measured.
pub(super) struct Measured<'a> {
    meter: &'a RunMeter,
    run: u64,
}

impl RunMeter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the calling thread among those that are measured. It must not end before the last
    /// measurement.
    pub fn add_this_thread(&self) {
        let mut state = self.lock();
        state.divide();
        state.threads.extend(ThreadClock::of_this_thread());
        state.seen = state.spent();
    }

    /// Starts to measure a run.
    pub fn start(&self) -> Measured<'_> {
        let mut state = self.lock();
        state.divide();
        let run = state.next;
        state.next += 1;
        state.running.insert(run, Duration::ZERO);
        Measured { meter: self, run }
    }
}

impl Measured<'_> {
    /// What the run has spent.
    pub fn stop(self) -> Duration {
        let mut state = self.meter.lock();
        state.divide();
        state.running.remove(&self.run).unwrap_or_default()
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.meter.lock().running.remove(&self.run);
    }
}

impl State {
    fn spent(&self) -> Duration {
        self.threads.iter().filter_map(ThreadClock::read).sum()
    }

    fn divide(&mut self) {
        let spent = self.spent();
        let count = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let since = spent.saturating_sub(self.seen);
        if let Some(each) = since.checked_div(count) {
            self.running.values_mut().for_each(|run| *run += each);
        }
        self.seen = spent;
    }
}

/// The processor time of one thread.
#[cfg(target_os = "linux")]
struct ThreadClock(libc::clockid_t);

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "calls into libc")]
impl ThreadClock {
    fn of_this_thread() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: the thread lives, and `clock` is there to be written.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (failed == 0).then_some(Self(clock))
    }

    fn read(&self) -> Option<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is there to be written; the clock of a thread that ended is an error.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanos = u32::try_from(time.tv_nsec).ok()?;
        (failed == 0).then(|| Duration::new(seconds, nanos))
    }
}

/// Elsewhere nothing is measured.
#[cfg(not(target_os = "linux"))]
struct ThreadClock;

#[cfg(not(target_os = "linux"))]
impl ThreadClock {
    fn of_this_thread() -> Option<Self> {
        None
    }

    fn read(&self) -> Option<Duration> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Instant;

    use super::*;

    fn work(time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn what_is_spent_is_divided_among_those_that_run() {
        let meter = RunMeter::default();
        meter.add_this_thread();
        let before = meter.lock().spent();
        let first = meter.start();
        work(Duration::from_millis(20));
        let second = meter.start();
        work(Duration::from_millis(20));
        let second = second.stop();
        let first = first.stop();
        let all = meter.lock().spent() - before;
        // The first had its first part alone, and then they shared.
        assert!(first > second, "{first:?} {second:?}");
        assert!(second > Duration::ZERO);
        assert!(first + second <= all, "{first:?} {second:?} {all:?}");
        assert!(
            first + second >= all.mul_f64(0.9),
            "{first:?} {second:?} {all:?}"
        );
        // Nobody runs: nobody is charged.
        work(Duration::from_millis(5));
        assert!(meter.start().stop() < Duration::from_millis(5));
    }
}
