//! Futures that wake themselves are polled again at once.
//!
//! A connection does so for each request with a body: hyper's reader wakes hyper's writer, which is
//! the same task. To tokio that is a task that yields, and a reason to wake another thread that
//! might take it over, which costs a small request tens of microseconds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Polls in a row, after which others of the thread get their turn.
const TURNS: usize = 16;

/// Stands between a future and its task.
pub struct Again {
    state: Arc<State>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    task: AtomicWaker,
    /// Whether the future is being polled: then `woken` is looked at before its task sleeps.
    polled: AtomicBool,
    woken: AtomicBool,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.polled.load(SeqCst) {
            self.task.wake();
        }
    }
}

impl Again {
    /// For one future.
    pub fn new() -> Self {
        let state = Arc::new(State::default());
        let waker = Waker::from(state.clone());
        Self { state, waker }
    }

    /// Polls the future until it waits for something else than itself.
    pub fn poll<F: Future>(&self, mut future: Pin<&mut F>, cx: &Context<'_>) -> Poll<F::Output> {
        let State {
            task,
            polled,
            woken,
        } = &*self.state;
        task.register(cx.waker());
        for _ in 0..TURNS {
            polled.store(true, SeqCst);
            woken.store(false, SeqCst);
            let ended = future.as_mut().poll(&mut Context::from_waker(&self.waker));
            polled.store(false, SeqCst);
            if ended.is_ready() {
                return ended;
            }
            // Who woke it before `polled` was taken back has left it to us; who does after, wakes
            // the task.
            if !woken.load(SeqCst) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// How often a future that wakes itself so many times is polled by one poll, and wakes its task.
    fn polls(wakes: usize) -> (usize, usize) {
        let (mut polls, counted) = (0, Arc::new(Counted::default()));
        let mut future = std::pin::pin!(std::future::poll_fn(|cx| {
            if polls < wakes {
                cx.waker().wake_by_ref();
            }
            polls += 1;
            Poll::<()>::Pending
        }));
        let waker = Waker::from(counted.clone());
        let again = Again::new();
        let ended = again.poll(future.as_mut(), &Context::from_waker(&waker));
        assert!(ended.is_pending());
        (polls, counted.0.load(SeqCst))
    }

    #[test]
    fn what_wakes_itself_is_polled_again_and_its_task_sleeps_on() {
        assert_eq!(polls(0), (1, 0));
        assert_eq!(polls(3), (4, 0));
        assert_eq!(polls(99), (TURNS, 1), "others get their turn");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { while sender.send(()).await.is_ok() {} });
        let count = async {
            for _ in 0..20_000 {
                receiver.recv().await;
            }
        };
        let (again, mut count) = (Again::new(), std::pin::pin!(count));
        let all = std::future::poll_fn(|cx| again.poll(count.as_mut(), cx));
        let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(ended.is_ok());
    }
}
