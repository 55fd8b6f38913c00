//! Jobs: many inputs for one version, answered on what callers leave.
//!
//! ```text
//! POST …/jobs ─▶ receive: items, one file ─▶ registry: on the disk, then 202
//!                                               │ its turn
//!                                               ▼
//!            items ─▶ answer, many at a time ─▶ results, one file ─▶ registry: checkpoint, end
//!                     (gateway::ask)
//! ```
//! Jobs run on threads of the lowest priority with an event loop of their own, and have one item in
//! flight while callers are there. The file of results alone says which items are done
//! ([`results`]), so that after a crash each item ends with exactly one. The state of a job moves by
//! [`JobRecord::step`] in the registry; this file carries that out.

mod answer;
mod items;
mod receive;
pub mod results;
mod run;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::HeaderMap;
use firebox_registry::{
    FunctionName, JobId, JobMove, JobProgress, JobRecord, JobState, NewJob, Registry, RegistryError,
};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use items::Caps;

use crate::callers::{self, Callers};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::residency::Residency;
use crate::routing::Routing;
use crate::scheduler::Scheduler;

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
    callers: Callers,
    metrics: Metrics,
    settings: Settings,
    loading: Handle,
    known: Mutex<BTreeMap<JobId, Known>>,
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
    max_memory: usize,
    retention: Duration,
}

/// What is known of a job without asking the registry.
struct Known {
    function: FunctionName,
    state: JobState,
    age: Age,
    live: Option<Arc<Live>>,
}

/// How long a job is in its state, by a clock that doesn't jump while the server runs.
struct Age {
    before: Duration,
    since: Instant,
}

impl Age {
    fn new() -> Self {
        Self {
            before: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// Of what happened at this time, by the clock on the wall; nothing lies ahead of it.
    fn of(unix_ms: u64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            before: now.saturating_sub(Duration::from_millis(unix_ms)),
            since: Instant::now(),
        }
    }

    fn get(&self) -> Duration {
        self.before.saturating_add(self.since.elapsed())
    }
}

/// A job that is being run.
pub struct Live {
    id: JobId,
    /// Done when it is to stop.
    told: CancellationToken,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// How many items were finished when it began to run, and when that was.
    first_finished: OnceLock<(u64, Instant)>,
}

impl Live {
    fn show(&self, progress: &JobProgress) {
        self.succeeded.store(progress.succeeded, Relaxed);
        self.failed.store(progress.failed, Relaxed);
    }
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
        callers: Callers,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let known = registry.jobs()?.into_iter().map(|job| {
            let then = job.ended_unix_ms.unwrap_or(job.created_unix_ms);
            let known = Known {
                function: job.function,
                state: job.state,
                age: Age::of(then),
                live: None,
            };
            (job.id, known)
        });
        let known = Mutex::new(known.collect());
        let settings = Settings {
            max_bytes: config.max_job_bytes,
            max_items: config.max_job_items,
            max_body: config.max_body,
            max_jobs: config.max_jobs,
            running: config.max_running_jobs.max(1),
            concurrency: config.max_job_concurrency.max(1),
            max_memory: config.max_instance_memory,
            retention: config.job_retention,
        };
        let inner = Inner {
            registry,
            routing,
            residency,
            scheduler,
            callers,
            metrics,
            settings,
            loading: Handle::current(),
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
            .on_thread_start(callers::yield_to_them)
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
        let _turn = self.receiving.try_acquire().map_err(|_| {
            Failure::Busy(format!("{MAX_RECEIVING} jobs are being received already"))
        })?;
        let (kept, most) = (lock(&inner.known).len(), inner.settings.max_jobs);
        if kept >= most {
            return Err(Failure::Busy(format!(
                "{kept} jobs are kept, and this server keeps {most}: delete some that have ended"
            )));
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
            let known = Known {
                function: record.function.clone(),
                state: record.state,
                age: Age::new(),
                live: None,
            };
            lock(&submitting.known).insert(record.id, known);
            Ok(record)
        })
        .await?;
        inner.changed.notify_waiters();
        Ok(Status { record, left: None })
    }

    /// How a job stands.
    pub async fn status(&self, id: JobId) -> Result<Status, Failure> {
        let inner = self.inner.clone();
        blocking(move || inner.status(id)).await
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
            let mut ids: Vec<JobId> = {
                let known = lock(&inner.known);
                let all = known.iter().rev();
                all.filter(|(id, _)| before.is_none_or(|before| **id < before))
                    .filter(|(_, job)| function.as_ref().is_none_or(|f| job.function == *f))
                    .map(|(id, _)| *id)
                    .take(limit + 1)
                    .collect()
            };
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
        blocking(move || inner.step(id, JobMove::Cancel(by))).await?;
        let live = lock(&self.inner.known)
            .get(&id)
            .and_then(|job| job.live.clone());
        if let Some(live) = live {
            live.told.cancel();
        }
        // What it counts in the end is known when it has stopped.
        let patience = Instant::now() + STOP;
        let runs = || {
            lock(&self.inner.known)
                .get(&id)
                .is_some_and(|job| job.live.is_some())
        };
        while runs() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.status(id).await
    }

    /// Has the items without an answer tried again.
    pub async fn retry(&self, id: JobId) -> Result<Status, Failure> {
        let inner = self.inner.clone();
        blocking(move || inner.step(id, JobMove::Retry)).await?;
        self.inner.changed.notify_waiters();
        self.status(id).await
    }

    /// Deletes a job that has ended.
    pub async fn delete(&self, id: JobId) -> Result<(), Failure> {
        let inner = self.inner.clone();
        blocking(move || inner.delete(id)).await
    }

    /// The results that a job has now, and how many bytes of whole lines they are.
    pub async fn results(&self, id: JobId) -> Result<Option<(File, u64)>, Failure> {
        let inner = self.inner.clone();
        let folder = blocking(move || {
            let job = inner.registry.job(id)?;
            Ok(inner.registry.job_folder(job.id))
        })
        .await?;
        let read = move || results::read(Path::new(&folder));
        let read = tokio::task::spawn_blocking(read).await;
        Ok(read.map_err(|error| Failure::Internal(error.to_string()))??)
    }

    /// Sets the gauges that are counted when somebody looks.
    pub fn observe(&self) {
        let mut states = BTreeMap::new();
        let mut oldest = Duration::ZERO;
        for job in lock(&self.inner.known).values() {
            *states.entry(job.state).or_insert(0) += 1;
            if job.state == JobState::Queued {
                oldest = oldest.max(job.age.get());
            }
        }
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
        if let Some(job) = lock(&self.known).get_mut(&id)
            && job.state != record.state
        {
            job.state = record.state;
            job.age = Age::new();
        }
        Ok(record)
    }

    fn status(&self, id: JobId) -> Result<Status, RegistryError> {
        let mut record = self.registry.job(id)?;
        let live = lock(&self.known).get(&id).and_then(|job| job.live.clone());
        let mut left = None;
        if let Some(live) = live.filter(|_| record.state.is_open() && !record.redo)
            && let Some((first, since)) = live.first_finished.get()
        {
            record.progress.succeeded = live.succeeded.load(Relaxed);
            record.progress.failed = live.failed.load(Relaxed);
            let finished = record.progress.finished();
            let pace = finished.saturating_sub(*first) as f64 / since.elapsed().as_secs_f64();
            let rest = record.items.saturating_sub(finished) as f64;
            if record.state == JobState::Running {
                // None where it has not got anywhere yet.
                left = Duration::try_from_secs_f64(rest / pace).ok();
            }
        }
        Ok(Status { record, left })
    }

    fn delete(&self, id: JobId) -> Result<(), RegistryError> {
        let _moving = lock(&self.moving);
        self.registry.delete_job(id)?;
        lock(&self.known).remove(&id);
        Ok(())
    }

    /// The next job to run: the oldest of a function that none runs of, else the oldest.
    fn next(&self) -> Option<Arc<Live>> {
        let mut known = lock(&self.known);
        let busy: HashSet<FunctionName> = known
            .values()
            .filter(|job| job.live.is_some())
            .map(|job| job.function.clone())
            .collect();
        let waits = |job: &Known| job.state.is_open() && job.live.is_none();
        let waiting = || known.iter().filter(|(_, job)| waits(job));
        let idle = waiting().find(|(_, job)| !busy.contains(&job.function));
        let id = *idle.or_else(|| waiting().next())?.0;
        let live = Arc::new(Live {
            id,
            told: self.stop.child_token(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_finished: OnceLock::new(),
        });
        known.get_mut(&id)?.live = Some(live.clone());
        Some(live)
    }

    fn done(&self, live: &Live) {
        if let Some(job) = lock(&self.known).get_mut(&live.id) {
            job.live = None;
        }
        // One that was ended and is wanted again meanwhile can run now.
        self.changed.notify_waiters();
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
        if let Some(live) = inner.next() {
            run::run(&inner, &live).await;
            inner.done(&live);
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
        let old: Vec<JobId> = {
            let known = lock(&inner.known);
            let old = |job: &Known| !job.state.is_open() && job.age.get() >= retention;
            let all = known.iter().filter(|(_, job)| old(job));
            all.map(|(id, _)| *id).collect()
        };
        for id in old {
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

/// The registry, off the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::Internal(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_astray_ages_nothing() {
        let ahead = Age::of(u64::MAX);
        assert!(ahead.get() < Duration::from_secs(1));
        let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        let behind = Age::of(then.as_millis() as u64);
        assert!(behind.get() >= Duration::from_secs(60));
    }
}
