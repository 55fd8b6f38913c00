//! Jobs: many inputs for one version, answered on what callers leave.
//!
//! ```text
//! POST …/jobs ─▶ receive: items, one file ─▶ registry: on the disk, then 202
//!                                               │ its turn
//!                                               ▼
//!            items ─▶ answer, many at a time ─▶ results, one file ─▶ registry: checkpoint, end
//!                     (gateway::ask)
//! ```
//! Jobs run on threads of the lowest priority with an event loop of their own, and their models in
//! the batch tier, whatever that of the version. The file of results alone says which items are done
//! ([`results`]), so that after a crash each item ends with exactly one. The state of a job moves by
//! [`JobRecord::step`] in the registry; this file carries that out.

mod answer;
mod items;
mod known;
mod receive;
pub mod results;
mod run;

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderMap;
use firebox_registry::{
    FunctionName, JobId, JobMove, JobRecord, JobState, NewJob, Registry, RegistryError,
};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use answer::JobResult;
use items::Caps;
use known::KnownJobs;

use crate::config::Config;
use crate::gateway::InstanceCaps;
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::protocol::body;
use crate::residency::Residency;
use crate::routing::Routing;
use crate::scheduler::{Scheduler, yield_to_callers};
use crate::upload::blocking;

/// Submissions that are received at once.
const MAX_RECEIVING: usize = 32;

/// How long a job that is to stop may take.
const STOP: Duration = Duration::from_secs(5);

/// All jobs, and the threads that run them.
pub struct Jobs {
    inner: Arc<Inner>,
    receiving: Semaphore,
    threads: Mutex<Option<(Runtime, Vec<JoinHandle<()>>)>>,
}

struct Inner {
    registry: Registry,
    routing: Arc<Routing>,
    residency: Residency,
    scheduler: Arc<Scheduler>,
    metrics: Metrics,
    settings: Settings,
    known: KnownJobs,
    /// Held while the registry writes and until `known` agrees: of two moves, the later one is known
    /// in the end. Nobody who serves requests waits for it.
    moving: Mutex<()>,
    /// A job may have come that can run.
    changed: Notify,
    stop: CancellationToken,
}

struct Settings {
    max_bytes: u64,
    max_items: u64,
    max_body: usize,
    max_jobs: usize,
    running: usize,
    concurrency: usize,
    caps: InstanceCaps,
    retention: Duration,
}

/// How a job stands now.
pub struct Status {
    /// Its record, with the counts of this moment.
    pub record: JobRecord,
    /// How long it still takes at its pace, where that is known.
    pub left: Option<Duration>,
}

impl Jobs {
    /// Reads the jobs there are. They run from [`start`](Self::start) on. Blocking, in the runtime
    /// that loads versions.
    pub fn open(
        config: &Config,
        registry: Registry,
        routing: Arc<Routing>,
        residency: Residency,
        scheduler: Arc<Scheduler>,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let known = KnownJobs::new(registry.jobs()?);
        let settings = Settings {
            max_bytes: config.max_job_bytes,
            max_items: config.max_job_items as u64,
            max_body: config.max_body,
            max_jobs: config.max_jobs,
            running: config.max_running_jobs.max(1),
            concurrency: config.max_job_concurrency.max(1),
            caps: InstanceCaps::new(config),
            retention: config.job_retention,
        };
        let inner = Inner {
            registry,
            routing,
            residency,
            scheduler,
            metrics,
            settings,
            known,
            moving: Mutex::new(()),
            changed: Notify::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            receiving: Semaphore::new(MAX_RECEIVING),
            threads: Mutex::default(),
        })
    }

    /// Starts the threads, `threads` of them, and goes on with the jobs that are open.
    pub fn start(&self, threads: usize) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("jobs")
            .on_thread_start(yield_to_callers)
            .enable_all()
            .build()?;
        let work = |_| runtime.spawn(work(self.inner.clone()));
        let mut tasks: Vec<_> = (0..self.inner.settings.running).map(work).collect();
        tasks.push(runtime.spawn(retire(self.inner.clone())));
        *lock(&self.threads) = Some((runtime, tasks));
        Ok(())
    }

    /// Has the jobs that run stop at what they are.
    pub fn halt(&self) {
        self.inner.stop.cancel();
    }

    /// Waits until they have.
    pub async fn stopped(&self) {
        self.halt();
        let Some((runtime, tasks)) = lock(&self.threads).take() else {
            return;
        };
        let ended = tokio::time::timeout(STOP, futures::future::join_all(tasks)).await;
        if ended.is_err() {
            tracing::warn!("jobs that don't stop are given up; they go on at the next start");
        }
        runtime.shutdown_background();
    }

    /// Takes a job in: `new` without its items, which the body brings.
    pub async fn submit(
        &self,
        new: NewJob,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Status, Failure> {
        let inner = &self.inner;
        let turn = self.receiving.try_acquire();
        let (kept, most) = (inner.known.count(), inner.settings.max_jobs);
        let full = if turn.is_err() {
            Some(format!("{MAX_RECEIVING} jobs are being received already"))
        } else if kept >= most {
            Some(format!(
                "{kept} jobs are kept, and this server keeps {most}: delete some that have ended"
            ))
        } else {
            None
        };
        if let Some(full) = full {
            body::drain(body);
            return Err(Failure::Busy(full));
        }
        let folder = tempfile::TempDir::with_prefix_in("job-", inner.registry.staging())?;
        let caps = Caps {
            items: inner.settings.max_items,
            body: inner.settings.max_body,
        };
        let limit = inner.settings.max_bytes;
        let received = receive::receive(headers, body, folder.path(), caps, limit).await?;
        let new = NewJob {
            items: received.0,
            input_bytes: received.1,
            ..new
        };
        let submitting = inner.clone();
        let record = blocking(move || {
            let record = submitting.registry.submit_job(new, folder.path())?;
            submitting.known.add(&record);
            // Here, as the caller may be gone when this is done.
            submitting.changed.notify_waiters();
            Ok(record)
        })
        .await?;
        Ok(Status { record, left: None })
    }

    /// How a job stands.
    pub async fn status(&self, id: JobId) -> Result<Status, Failure> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.status(id)?)).await
    }

    /// Jobs, newest first, those of one function or of all: at most `limit`, that were submitted
    /// before the job `before`. Says whether there are more.
    pub async fn list(
        &self,
        function: Option<FunctionName>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<(Vec<Status>, bool), Failure> {
        let inner = self.inner.clone();
        blocking(move || {
            let mut ids = inner.known.page(function.as_ref(), before, limit + 1);
            let more = ids.len() > limit;
            ids.truncate(limit);
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                match inner.status(id) {
                    // Deleted meanwhile.
                    Err(RegistryError::JobNotFound { .. }) => {}
                    status => found.push(status?),
                }
            }
            Ok((found, more))
        })
        .await
    }

    /// Ends a job; `by` whom is its reason.
    pub async fn cancel(&self, id: JobId, by: String) -> Result<Status, Failure> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.step(id, JobMove::Cancel(by))?)).await?;
        // What it counts in the end is known when it has stopped.
        let patience = Instant::now() + STOP;
        while self.inner.known.live(id).is_some() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.status(id).await
    }

    /// Has the items without an answer tried again.
    pub async fn retry(&self, id: JobId) -> Result<Status, Failure> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.step(id, JobMove::Retry)?)).await?;
        self.status(id).await
    }

    /// Deletes a job that has ended.
    pub async fn delete(&self, id: JobId) -> Result<(), Failure> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.delete(id)?)).await
    }

    /// The results that a job has now, and how many bytes of whole lines they are.
    pub async fn results(&self, id: JobId) -> Result<Option<(File, u64)>, Failure> {
        let inner = self.inner.clone();
        blocking(move || {
            let job = inner.registry.job(id)?;
            Ok(results::read(&inner.registry.job_folder(job.id))?)
        })
        .await
    }

    /// Sets the gauges that are counted when somebody looks.
    pub fn observe(&self) {
        let (states, oldest) = self.inner.known.states();
        self.inner.metrics.jobs(&states, oldest);
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.halt();
        if let Some((runtime, _)) = lock(&self.threads).take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    /// Moves a job, in the registry and in what is known of it. Blocking.
    fn step(&self, id: JobId, to: JobMove) -> Result<JobRecord, RegistryError> {
        let _moving = lock(&self.moving);
        let record = self.registry.move_job(id, to)?;
        self.known.moved(&record);
        if record.state == JobState::Queued {
            self.changed.notify_waiters();
        }
        Ok(record)
    }

    fn status(&self, id: JobId) -> Result<Status, RegistryError> {
        // In this order: one that ends in between is told as ended.
        let live = self.known.live(id);
        let mut record = self.registry.job(id)?;
        let live = live.filter(|_| record.state.is_open() && !record.redo);
        let left = live.and_then(|live| live.update(&mut record));
        let left = left.filter(|_| record.state == JobState::Running);
        Ok(Status { record, left })
    }

    fn delete(&self, id: JobId) -> Result<(), RegistryError> {
        self.registry.delete_job(id)?;
        self.known.remove(id);
        Ok(())
    }
}

/// Runs one job after the other.
async fn work(inner: Arc<Inner>) {
    loop {
        let changed = inner.changed.notified();
        tokio::pin!(changed);
        // From here on nothing is missed.
        changed.as_mut().enable();
        if inner.stop.is_cancelled() {
            return;
        }
        if let Some(live) = inner.known.next(&inner.stop) {
            run::run(&inner, &live).await;
            inner.known.left(&live);
            // One that was ended and is wanted again meanwhile can run now.
            inner.changed.notify_waiters();
            continue;
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = changed => {}
        }
    }
}

/// Deletes jobs some time after their end.
async fn retire(inner: Arc<Inner>) {
    const OFTEN: Duration = Duration::from_secs(60);
    let retention = inner.settings.retention;
    let pause = (retention / 4).clamp(Duration::from_millis(100), OFTEN);
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        for id in inner.known.ended(retention) {
            match tokio::task::block_in_place(|| inner.delete(id)) {
                Ok(()) => tracing::info!(job = %id, "an old job is deleted: retention"),
                Err(error) => tracing::warn!(job = %id, %error, "an old job can't be deleted"),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
