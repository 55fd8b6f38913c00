//! Runs models on a bounded set of threads outside tokio.
//!
//! A caller puts a [`Job`] in the queue and sleeps until its answer comes; no
//! tokio thread ever computes. Three things follow from the queue being one
//! place that all jobs pass: it is bounded, so a burst is refused instead of
//! piling up; a job whose caller has gone (deadline, closed connection) is
//! dropped when its turn comes, before it costs anything; and a thread can look
//! at what else waits for the same model, which is where merging calls into
//! batches and serving tiers in order belong.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebox_engine::{Model, RunError, Tensor};
use firebox_sandbox::thread_cpu_time;
use tokio::sync::oneshot;

/// Named tensors in or out of a model.
pub type Named = Vec<(String, Tensor)>;

/// What can be run with inputs. Only [`Model`] outside tests.
pub trait Compute: Send + Sync + 'static {
    /// Computes; blocking.
    fn compute(&self, inputs: Named) -> Result<Named, RunError>;
}

impl Compute for Model {
    fn compute(&self, inputs: Named) -> Result<Named, RunError> {
        self.run(inputs)
    }
}

/// A model run has no outputs.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Too many jobs wait already.
    #[error("{limit} model runs are waiting already")]
    Full {
        /// The length of the queue.
        limit: usize,
    },
    /// The model refused the inputs or failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model's code panicked; the thread lives on.
    #[error("the model's computation panicked: {0}")]
    Panic(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Outputs and what they cost.
#[derive(Debug)]
pub struct Computed {
    /// In the graph's order.
    pub outputs: Named,
    /// From the call to the start of the computation.
    pub queued: Duration,
    /// The computation alone.
    pub compute: Duration,
    /// The processor time of its thread. What the engine has its pool do is not in it.
    pub cpu: Duration,
}

struct Job {
    model: Arc<dyn Compute>,
    inputs: Named,
    queued_at: Instant,
    answer: oneshot::Sender<Result<Computed, ComputeError>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    limit: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The compute threads and their queue.
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// Starts `threads` threads over a queue of at most `limit` waiting jobs.
    pub fn start(threads: usize, limit: usize) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared {
            queue,
            filled: Condvar::new(),
            limit,
        });
        for n in 0..threads.max(1) {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("compute-{n}"));
            thread.spawn(move || work(&shared))?;
        }
        Ok(Self { shared })
    }

    /// Runs `model` when a thread is free. Dropping the future withdraws the job,
    /// unless it is being computed already.
    pub async fn run(
        &self,
        model: Arc<dyn Compute>,
        inputs: Named,
    ) -> Result<Computed, ComputeError> {
        let (answer, answered) = oneshot::channel();
        self.push(Job {
            model,
            inputs,
            queued_at: Instant::now(),
            answer,
        })?;
        answered.await.unwrap_or(Err(ComputeError::Stopped))
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    fn push(&self, job: Job) -> Result<(), ComputeError> {
        let mut queue = self.shared.lock();
        if queue.stopped {
            return Err(ComputeError::Stopped);
        }
        if queue.jobs.len() >= self.shared.limit {
            queue.jobs.retain(|job| !job.answer.is_closed());
        }
        if queue.jobs.len() >= self.shared.limit {
            return Err(ComputeError::Full {
                limit: self.shared.limit,
            });
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.filled.notify_one();
        Ok(())
    }
}

impl Drop for Scheduler {
    /// Answers waiting jobs with `Stopped`. The threads end with what they
    /// compute; nobody waits for that, so a stop can't hang on a long run.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stopped = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.filled.notify_all();
    }
}

fn work(shared: &Shared) {
    while let Some(job) = next(shared) {
        let answer = compute(&job.model, job.inputs, job.queued_at);
        // The model may be the last hold on its weights: let go before the
        // caller can notice that the run is over.
        drop(job.model);
        let _ = job.answer.send(answer);
    }
}

/// The next job that somebody still waits for; `None` once stopped.
fn next(shared: &Shared) -> Option<Job> {
    let mut queue = shared.lock();
    loop {
        if queue.stopped {
            return None;
        }
        match queue.jobs.pop_front() {
            Some(job) if job.answer.is_closed() => {}
            Some(job) => return Some(job),
            None => {
                queue = shared
                    .filled
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}

fn compute(
    model: &Arc<dyn Compute>,
    inputs: Named,
    queued_at: Instant,
) -> Result<Computed, ComputeError> {
    let (started, before) = (Instant::now(), thread_cpu_time());
    let outputs = catch_unwind(AssertUnwindSafe(|| model.compute(inputs)))
        .map_err(|panic| ComputeError::Panic(panic_text(panic.as_ref())))??;
    Ok(Computed {
        outputs,
        queued: started - queued_at,
        compute: started.elapsed(),
        cpu: thread_cpu_time().saturating_sub(before),
    })
}

/// The message of a caught panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    /// Counts its runs; the first input's name tells what else to do.
    struct Probe {
        runs: AtomicUsize,
        gate: Mutex<mpsc::Receiver<()>>,
    }

    impl Compute for Probe {
        fn compute(&self, inputs: Named) -> Result<Named, RunError> {
            self.runs.fetch_add(1, SeqCst);
            match inputs.first().map(|(name, _)| name.as_str()) {
                Some("wait") => self.gate.lock().unwrap().recv().unwrap(),
                Some("panic") => panic!("no such luck"),
                _ => {}
            }
            Ok(inputs)
        }
    }

    fn probe() -> (Arc<Probe>, mpsc::Sender<()>) {
        let (open, gate) = mpsc::channel();
        (
            Arc::new(Probe {
                runs: AtomicUsize::new(0),
                gate: Mutex::new(gate),
            }),
            open,
        )
    }

    fn input(name: &str) -> Named {
        vec![(name.into(), Tensor::from_f32(vec![1], &[1.0]).unwrap())]
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_is_never_computed() {
        let scheduler = Arc::new(Scheduler::start(1, 8).unwrap());
        let (model, open) = probe();
        let spawn = |name: &'static str| {
            let (scheduler, model) = (scheduler.clone(), model.clone());
            tokio::spawn(async move { scheduler.run(model, input(name)).await })
        };
        let first = spawn("wait");
        until(|| model.runs.load(SeqCst) == 1).await;
        let gone = spawn("gone");
        until(|| scheduler.waiting() == 1).await;
        gone.abort();
        let _ = gone.await;
        let last = spawn("last");
        open.send(()).unwrap();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(model.runs.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_but_makes_room_where_callers_have_gone() {
        let scheduler = Arc::new(Scheduler::start(1, 1).unwrap());
        let (model, open) = probe();
        let spawn = |name: &'static str| {
            let (scheduler, model) = (scheduler.clone(), model.clone());
            tokio::spawn(async move { scheduler.run(model, input(name)).await })
        };
        let first = spawn("wait");
        until(|| model.runs.load(SeqCst) == 1).await;
        let second = spawn("second");
        until(|| scheduler.waiting() == 1).await;
        let refused = scheduler.run(model.clone(), input("third")).await;
        assert!(matches!(refused, Err(ComputeError::Full { limit: 1 })));
        second.abort();
        let _ = second.await;
        let fourth = spawn("fourth");
        until(|| scheduler.waiting() == 1).await;
        open.send(()).unwrap();
        first.await.unwrap().unwrap();
        fourth.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_panicking_model_fails_its_caller_and_nobody_else() {
        let scheduler = Scheduler::start(1, 8).unwrap();
        let (model, _open) = probe();
        let failed = scheduler.run(model.clone(), input("panic")).await;
        assert!(matches!(failed, Err(ComputeError::Panic(text)) if text == "no such luck"));
        assert_eq!(
            scheduler.run(model, input("x")).await.unwrap().outputs,
            input("x")
        );
    }

    #[tokio::test]
    async fn stopping_answers_those_who_wait() {
        let scheduler = Scheduler::start(1, 8).unwrap();
        let (model, open) = probe();
        let run = |name| {
            let (answer, answered) = oneshot::channel();
            let (model, queued_at) = (model.clone(), Instant::now());
            scheduler
                .push(Job {
                    model,
                    inputs: input(name),
                    queued_at,
                    answer,
                })
                .unwrap();
            answered
        };
        let first = run("wait");
        until(|| model.runs.load(SeqCst) == 1).await;
        let second = run("second");
        drop(scheduler);
        assert!(second.await.is_err());
        open.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
    }
}
