//! Processor time, by the clock of the thread that spends it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

/// Adds up the processor time of one call, as it is spent: what a call that fails, or that is given
/// up half-way, has cost is in it as well. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub struct CpuMeter(Arc<AtomicU64>);

impl CpuMeter {
    /// Adds `time`.
    pub fn add(&self, time: Duration) {
        let nanoseconds = time.as_nanos().try_into().unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    /// Awaits a future and adds what its turns on a thread take, as long as the sum is not over
    /// `most`. A guest that computes is asked at each epoch.
    pub(crate) async fn count<F: Future>(
        &self,
        most: Option<Duration>,
        future: F,
    ) -> Result<F::Output, OutOfCpu> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let before = thread_cpu_time();
            let answer = future.as_mut().poll(context);
            self.add(thread_cpu_time().saturating_sub(before));
            match answer {
                Poll::Ready(value) => Poll::Ready(Ok(value)),
                Poll::Pending if most.is_some_and(|most| self.get() > most) => {
                    Poll::Ready(Err(OutOfCpu))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// A future had more processor time than it may.
#[derive(Debug)]
pub(crate) struct OutOfCpu;

/// The processor time that this thread has used so far. Where the system doesn't tell, the time
/// that has passed.
fn thread_cpu_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::{sync::LazyLock, time::Instant};
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn work_counts_and_waiting_does_not() {
        let meter = CpuMeter::default();
        let work = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let started = thread_cpu_time();
            while thread_cpu_time() - started < Duration::from_millis(20) {
                std::hint::black_box(Instant::now());
            }
        };
        meter.count(None, work).await.unwrap();
        let counted = meter.get();
        assert!(counted >= Duration::from_millis(20), "{counted:?}");
        assert!(counted < Duration::from_millis(60), "{counted:?}");
    }
}
