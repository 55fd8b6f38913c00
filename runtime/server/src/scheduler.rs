//! Runs models on a bounded set of threads outside tokio, several calls in one run where the
//! manifest allows it.
//!
//! ```text
//!  run ─▶ queue  a lane per model; bounded    ─▶ threads for callers: realtime, then on-demand
//!                                             ─▶ one thread of the lowest priority: batch
//!                 next run = the lane's first job and those that stack with it (batch)
//! ```
//! A caller puts a [`Job`] in the [`queue`] and sleeps until its answer comes; no tokio thread
//! ever computes. A burst is refused where the queue is full instead of piling up, and a job
//! whose caller has gone (deadline, closed connection) is dropped when its turn comes, before it
//! costs anything.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use firebox_engine::{RunError, Signature, SignatureError, Tensor};
use firebox_registry::{Batching, FunctionName, Manifest, Tier};
use firebox_sandbox::CpuMeter;
use metrics::Histogram;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::statistics::{RunTally, Runs};
use batch::{Batch, Shape};
use cpu::RunMeter;
use queue::{Next, Queue, Run};

mod batch;
mod cpu;
mod queue;
pub mod trial;

pub use batch::element;

/// Named tensors in or out of a model.
pub type Named = Vec<(String, Tensor)>;

/// What can be run with inputs. Only models outside tests.
pub trait Compute: Send + Sync + 'static {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// Computes; blocking.
    fn compute(&self, inputs: Named) -> Result<Named, RunError>;

    /// Whether that takes a graphics processor.
    fn on_gpu(&self) -> bool {
        false
    }
}

/// On what terms the models of a version are run.
pub struct Terms {
    function: FunctionName,
    tier: Tier,
    /// By the model's name.
    batching: BTreeMap<String, Arc<Batching>>,
    rows: OnceLock<Histogram>,
    /// Runs for callers.
    runs: RunTally,
    /// What all runs took: those too that failed, or that nobody waited for any more.
    pub used: Used,
}

/// Time that runs took.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// On processors.
    pub cpu: CpuMeter,
    /// On graphics processors.
    pub gpu: CpuMeter,
}

impl Terms {
    /// Those of a manifest.
    pub fn of(function: &FunctionName, manifest: &Manifest) -> Self {
        let models = manifest.models.iter();
        let batching = models.filter_map(|(name, model)| {
            let batching = model.batching.clone()?;
            Some((name.clone(), Arc::new(batching)))
        });
        Self {
            function: function.clone(),
            tier: manifest.tier,
            batching: batching.collect(),
            rows: OnceLock::new(),
            runs: RunTally::default(),
            used: Used::default(),
        }
    }

    /// The same for work that takes what callers leave.
    pub fn in_batch(&self) -> Self {
        Self {
            function: self.function.clone(),
            tier: Tier::Batch,
            batching: self.batching.clone(),
            used: self.used.clone(),
            rows: OnceLock::new(),
            runs: RunTally::default(),
        }
    }

    /// The runs on these terms.
    pub fn runs(&self) -> Runs {
        self.runs.sums()
    }
}

/// A model run has no outputs.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Too many jobs wait already.
    #[error("{limit} model runs are waiting already")]
    Full {
        /// How many may wait: of all functions, or of this one while others wait too.
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

impl From<SignatureError> for ComputeError {
    fn from(error: SignatureError) -> Self {
        Self::Run(error.into())
    }
}

/// Outputs and what they cost.
#[derive(Debug)]
pub struct Computed {
    /// In the graph's order.
    pub outputs: Named,
    /// From the call to the start of the computation.
    pub queued: Duration,
    /// The computation, shared or not: what the caller waited for.
    pub compute: Duration,
    /// This caller's part of the processor time that it took.
    pub cpu: Duration,
    /// The same of graphics processors.
    pub gpu: Duration,
}

/// One call of a model.
struct Job {
    terms: Arc<Terms>,
    model: Arc<dyn Compute>,
    inputs: Named,
    /// How it may share a run, if it may.
    stack: Option<(Arc<Batching>, Shape)>,
    queued_at: Instant,
    answer: oneshot::Sender<Result<Computed, ComputeError>>,
}

impl Job {
    /// Whether nobody waits for it any more.
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    /// What is the same for two jobs of one model.
    fn model_id(&self) -> usize {
        Arc::as_ptr(&self.model).cast::<()>().addr()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Told of jobs of `leftover_tiers`.
    leftover: Condvar,
    leftover_tiers: &'static [Tier],
    /// Told of all others.
    callers: Condvar,
    metrics: Metrics,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where threads for `tier` wait for jobs.
    fn filled(&self, tier: Tier) -> &Condvar {
        match self.leftover_tiers.contains(&tier) {
            true => &self.leftover,
            false => &self.callers,
        }
    }
}

/// The compute threads and their queue.
pub struct Scheduler {
    shared: Arc<Shared>,
}

/// A thread's part.
struct Worker {
    shared: Arc<Shared>,
    tiers: &'static [Tier],
    meter: Arc<RunMeter>,
    /// Where the thread's runs are spread to, where that isn't the pool of the process.
    pool: Option<rayon::ThreadPool>,
}

impl Scheduler {
    /// Starts `threads` threads for callers, and one for the batch tier that takes what they
    /// leave, over a queue of at most `limit` waiting jobs.
    pub fn start(threads: usize, limit: usize, metrics: Metrics) -> std::io::Result<Self> {
        let scheduler = Self::without_threads(limit, metrics, &[Tier::Batch]);
        let meter = Arc::new(RunMeter::default());
        // The pool of the process computes with them.
        rayon::broadcast(|_| meter.add_this_thread());
        for n in 0..threads.max(1) {
            let worker = Worker {
                shared: scheduler.shared.clone(),
                tiers: &[Tier::Realtime, Tier::OnDemand],
                meter: meter.clone(),
                pool: None,
            };
            let thread = std::thread::Builder::new().name(format!("compute-{n}"));
            thread.spawn(move || worker.work())?;
        }
        scheduler.start_leftover(threads.max(1))?;
        Ok(scheduler)
    }

    /// Starts one thread of the lowest priority for all tiers.
    pub fn start_in_background(limit: usize, metrics: Metrics) -> std::io::Result<Self> {
        let all = &[Tier::Realtime, Tier::OnDemand, Tier::Batch];
        let scheduler = Self::without_threads(limit, metrics, all);
        scheduler.start_leftover(1)?;
        Ok(scheduler)
    }

    fn without_threads(limit: usize, metrics: Metrics, leftover_tiers: &'static [Tier]) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(limit)),
            leftover: Condvar::new(),
            leftover_tiers,
            callers: Condvar::new(),
            metrics,
        });
        Self { shared }
    }

    /// A thread whose runs go to `spread` threads, all of the lowest priority.
    fn start_leftover(&self, spread: usize) -> std::io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("compute-batch".into());
        let (told, heard) = std::sync::mpsc::channel();
        thread.spawn(move || {
            yield_to_callers();
            let meter = Arc::new(RunMeter::default());
            let counted = meter.clone();
            // Its threads inherit the priority.
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(spread)
                .thread_name(|n| format!("compute-batch-{n}"))
                .start_handler(move |_| counted.add_this_thread())
                .build();
            match pool {
                Ok(pool) => {
                    let _ = told.send(Ok(()));
                    let worker = Worker {
                        tiers: shared.leftover_tiers,
                        shared,
                        meter,
                        pool: Some(pool),
                    };
                    worker.work();
                }
                Err(error) => {
                    let _ = told.send(Err(std::io::Error::other(error)));
                }
            }
        })?;
        heard.recv().unwrap_or(Ok(()))
    }

    /// Runs `model`, which the version calls `name`, when it is its turn. Dropping the future
    /// withdraws the job, unless it is being computed already.
    pub async fn run(
        &self,
        terms: &Arc<Terms>,
        name: &str,
        model: Arc<dyn Compute>,
        inputs: Named,
    ) -> Result<Computed, ComputeError> {
        let stack = match terms.batching.get(name) {
            None => None,
            Some(batching) => {
                // What is wrong with it is nobody else's business.
                model.signature().check_inputs(&inputs)?;
                let shape = Shape::of(&inputs, model.signature(), batching);
                let most = batching.max_batch_size as usize;
                let shape = shape.filter(|shape| shape.rows < most);
                shape.map(|shape| (batching.clone(), shape))
            }
        };
        let (answer, answered) = oneshot::channel();
        let job = Job {
            terms: terms.clone(),
            model,
            inputs,
            stack,
            queued_at: Instant::now(),
            answer,
        };
        self.shared.lock().push(job)?;
        self.shared.filled(terms.tier).notify_one();
        answered.await.unwrap_or(Err(ComputeError::Stopped))
    }

    /// How many jobs of callers wait: those of the batch tier always do.
    pub fn waiting(&self) -> usize {
        self.shared
            .lock()
            .waiting(&[Tier::Realtime, Tier::OnDemand])
    }

    /// How many jobs of the batch tier wait.
    pub fn waiting_batch(&self) -> usize {
        self.shared.lock().waiting(&[Tier::Batch])
    }
}

impl Drop for Scheduler {
    /// Answers waiting jobs with `Stopped`. The threads end with what they
    /// compute; nobody waits for that, so a stop can't hang on a long run.
    fn drop(&mut self) {
        self.shared.lock().stop();
        self.shared.callers.notify_all();
        self.shared.leftover.notify_all();
    }
}

impl Worker {
    fn work(self) {
        self.meter.add_this_thread();
        while let Some(Run { jobs, batch }) = self.next() {
            let Some(terms) = jobs.first().map(|job| job.terms.clone()) else {
                continue;
            };
            let started = Instant::now();
            match batch {
                Some(batch) => self.together(&terms, &batch, jobs, started),
                None => jobs
                    .into_iter()
                    .for_each(|job| self.alone(job, Default::default())),
            }
            let mut queue = self.shared.lock();
            queue.done(&terms.function, terms.tier, started.elapsed());
        }
    }

    /// The next run that somebody still waits for; `None` once stopped.
    fn next(&self) -> Option<Run> {
        let mut queue = self.shared.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let now = Instant::now();
            let tier = self.tiers.first().copied().unwrap_or_default();
            let filled = self.shared.filled(tier);
            queue = match queue.next(self.tiers, now) {
                Next::Run(run) => return Some(run),
                Next::At(then) => {
                    let waited = filled.wait_timeout(queue, then.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Idle => filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Runs one job and answers it; `before` is what it was charged in vain.
    fn alone(&self, job: Job, before: (Duration, Duration)) {
        let Job {
            terms,
            model,
            inputs,
            stack,
            queued_at,
            answer,
        } = job;
        if answer.is_closed() {
            return;
        }
        let rows = stack.map_or(1, |(_, shape)| shape.rows);
        let (done, spent) = self.compute(&terms, &model, inputs, rows);
        let (cpu, gpu) = spent.charge(&terms, 1.0);
        if done.is_ok() {
            let none = Duration::ZERO;
            terms.runs.add(rows, none, spent.took, none);
        }
        let answered = done.map(|outputs| Computed {
            outputs,
            queued: spent.started - queued_at,
            compute: spent.took,
            cpu: cpu + before.0,
            gpu: gpu + before.1,
        });
        // The model may be the last hold on its weights: let go before the caller can notice
        // that the run is over.
        drop(model);
        let _ = answer.send(answered);
    }

    /// Runs jobs as one; each alone, where that fails.
    fn together(&self, terms: &Terms, batch: &Batch, jobs: Vec<Job>, asked: Instant) {
        let Some((model, pad)) = jobs.first().and_then(|job| {
            let (batching, _) = job.stack.as_ref()?;
            Some((job.model.clone(), batching.clone()))
        }) else {
            return;
        };
        let members: Vec<&Named> = jobs.iter().map(|job| &job.inputs).collect();
        let shapes = jobs.iter().filter_map(|job| Some(&job.stack.as_ref()?.1));
        let shapes: Vec<&Shape> = shapes.collect();
        let stacking = Instant::now();
        let stacked = batch.stack(&members, model.signature(), &pad);
        let stack = stacking.elapsed();
        let done = stacked.map(|inputs| {
            let (outputs, spent) = self.compute(terms, &model, inputs, batch.rows());
            let parts = outputs.map_err(|error| error.to_string());
            let splitting = Instant::now();
            let parts = parts.and_then(|all| batch.split(&all, &shapes, model.signature()));
            if parts.is_ok() {
                let split = splitting.elapsed();
                terms.runs.add(batch.rows(), stack, spent.took, split);
            }
            (parts, spent)
        });
        let failed = match done {
            Some((Ok(parts), spent)) => {
                drop(model);
                for (job, outputs) in jobs.into_iter().zip(parts) {
                    let Job {
                        terms,
                        model,
                        stack,
                        queued_at,
                        answer,
                        ..
                    } = job;
                    let rows = stack.map_or(1, |(_, shape)| shape.rows);
                    drop(model);
                    let part = rows as f64 / batch.rows().max(1) as f64;
                    let (cpu, gpu) = spent.charge(&terms, part);
                    let _ = answer.send(Ok(Computed {
                        outputs,
                        queued: asked - queued_at,
                        compute: spent.took,
                        cpu,
                        gpu,
                    }));
                }
                return;
            }
            Some((Err(reason), spent)) => {
                tracing::debug!(function = %terms.function, reason, jobs = jobs.len(),
                    "a shared run failed; each job is run alone");
                Some(spent)
            }
            None => None,
        };
        self.shared.metrics.batches_retried.increment(1);
        drop(model);
        let part = 1.0 / jobs.len().max(1) as f64;
        for job in jobs {
            let charge = |spent: &Spent| spent.charge(&job.terms, part);
            let before = failed.as_ref().map(charge).unwrap_or_default();
            self.alone(job, before);
        }
    }

    fn compute(
        &self,
        terms: &Terms,
        model: &Arc<dyn Compute>,
        inputs: Named,
        rows: usize,
    ) -> (Result<Named, ComputeError>, Spent) {
        let metrics = &self.shared.metrics;
        metrics.model_runs.increment(1);
        if !terms.batching.is_empty() {
            let series = || metrics.batch_rows(terms.function.as_str());
            terms.rows.get_or_init(series).record(rows as f64);
        }
        let started = Instant::now();
        let measured = self.meter.start();
        let run = || catch_unwind(AssertUnwindSafe(|| model.compute(inputs)));
        let outcome = match &self.pool {
            Some(pool) => pool.install(run),
            None => run(),
        };
        let spent = Spent {
            started,
            took: started.elapsed(),
            cpu: measured.stop(),
            on_gpu: model.on_gpu(),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(ComputeError::Run),
            Err(panic) => Err(ComputeError::Panic(panic_text(panic.as_ref()))),
        };
        (outcome, spent)
    }
}

/// What a run took.
struct Spent {
    started: Instant,
    took: Duration,
    cpu: Duration,
    on_gpu: bool,
}

impl Spent {
    /// Charges a part of it, from 0 to 1; gives that in times on processors and on graphics
    /// processors.
    fn charge(&self, terms: &Terms, part: f64) -> (Duration, Duration) {
        let gpu = match self.on_gpu {
            true => self.took.mul_f64(part),
            false => Duration::ZERO,
        };
        let cpu = self.cpu.mul_f64(part);
        terms.used.cpu.add(cpu);
        terms.used.gpu.add(gpu);
        (cpu, gpu)
    }
}

/// Gives this thread the lowest priority, and those that it starts.
pub fn yield_to_callers() {
    #[cfg(target_os = "linux")]
    if let Err(error) = run_when_idle() {
        tracing::warn!(%error, "a thread that should yield to callers keeps its priority");
    }
}

/// Linux's `SCHED_IDLE`: what wakes up beside such a thread runs at once, where a thread of a high
/// nice value would first use up its slice, some 3 ms (sched(7)). Here it is a thread's and not its
/// process's.
#[cfg(target_os = "linux")]
fn run_when_idle() -> std::io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    // SAFETY: zeros are a priority, the only one that there is here, and the call only reads it.
    #[allow(unsafe_code, reason = "rustix has no such call")]
    let outcome = unsafe {
        let priority: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(THIS_THREAD, libc::SCHED_IDLE, &raw const priority)
    };
    match outcome {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The message of a caught panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests;
