//! What is known of jobs without asking the registry: their states, for how long they have been in
//! them, and which of them run.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firebox_registry::{FunctionName, JobId, JobProgress, JobRecord, JobState};
use tokio_util::sync::CancellationToken;

/// All jobs.
pub struct KnownJobs(Mutex<BTreeMap<JobId, Known>>);

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
    /// Which.
    pub id: JobId,
    /// Done when it is to stop.
    pub told: CancellationToken,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// How many items were finished when it began to run, and when that was.
    first: OnceLock<(u64, Instant)>,
}

impl Live {
    /// It begins, or goes on, from here.
    pub fn begin(&self, progress: &JobProgress) {
        self.succeeded.store(progress.succeeded, Relaxed);
        self.failed.store(progress.failed, Relaxed);
        let _ = self.first.set((progress.finished(), Instant::now()));
    }

    /// One more item has a result.
    pub fn count(&self, succeeded: bool) {
        match succeeded {
            true => self.succeeded.fetch_add(1, Relaxed),
            false => self.failed.fetch_add(1, Relaxed),
        };
    }

    /// Brings a record's counts to this moment; says how long the rest takes at the pace so far,
    /// where there is one.
    pub fn update(&self, record: &mut JobRecord) -> Option<Duration> {
        let (first, since) = self.first.get()?;
        record.progress.succeeded = self.succeeded.load(Relaxed);
        record.progress.failed = self.failed.load(Relaxed);
        let finished = record.progress.finished();
        let pace = finished.saturating_sub(*first) as f64 / since.elapsed().as_secs_f64();
        let rest = record.items.saturating_sub(finished) as f64;
        Duration::try_from_secs_f64(rest / pace).ok()
    }
}

impl KnownJobs {
    /// Those that the registry has.
    pub fn new(records: Vec<JobRecord>) -> Self {
        let known = records.into_iter().map(|job| {
            let then = job.ended_unix_ms.unwrap_or(job.created_unix_ms);
            let known = Known {
                function: job.function,
                state: job.state,
                age: Age::of(then),
                live: None,
            };
            (job.id, known)
        });
        Self(Mutex::new(known.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// A new one.
    pub fn add(&self, job: &JobRecord) {
        let known = Known {
            function: job.function.clone(),
            state: job.state,
            age: Age::new(),
            live: None,
        };
        self.lock().insert(job.id, known);
    }

    /// One that has moved.
    pub fn moved(&self, job: &JobRecord) {
        if let Some(known) = self.lock().get_mut(&job.id)
            && known.state != job.state
        {
            known.state = job.state;
            known.age = Age::new();
            // Who runs it leaves it.
            if let Some(live) = known.live.as_ref().filter(|_| !job.state.is_open()) {
                live.told.cancel();
            }
        }
    }

    /// One that is gone.
    pub fn remove(&self, id: JobId) {
        self.lock().remove(&id);
    }

    /// One that runs.
    pub fn live(&self, id: JobId) -> Option<Arc<Live>> {
        self.lock().get(&id)?.live.clone()
    }

    /// The next one to run, until `stop`: the oldest of a function that none runs of, else the
    /// oldest.
    pub fn next(&self, stop: &CancellationToken) -> Option<Arc<Live>> {
        let mut known = self.lock();
        let running = known.values().filter(|job| job.live.is_some());
        let busy: HashSet<_> = running.map(|job| &job.function).collect();
        let waits = |job: &Known| job.state.is_open() && job.live.is_none();
        let waiting = || known.iter().filter(|(_, job)| waits(job));
        let idle = waiting().find(|(_, job)| !busy.contains(&job.function));
        let id = *idle.or_else(|| waiting().next())?.0;
        let live = Arc::new(Live {
            id,
            told: stop.child_token(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first: OnceLock::new(),
        });
        known.get_mut(&id)?.live = Some(live.clone());
        Some(live)
    }

    /// One that runs no longer.
    pub fn left(&self, live: &Live) {
        if let Some(job) = self.lock().get_mut(&live.id) {
            job.live = None;
        }
    }

    /// At most `limit` of a function's, or of all, newest first, from before one on.
    pub fn page(
        &self,
        function: Option<&FunctionName>,
        before: Option<JobId>,
        limit: usize,
    ) -> Vec<JobId> {
        let known = self.lock();
        let all = known.iter().rev();
        all.filter(|(id, _)| before.is_none_or(|before| **id < before))
            .filter(|(_, job)| function.is_none_or(|function| job.function == *function))
            .map(|(id, _)| *id)
            .take(limit)
            .collect()
    }

    /// Those that ended so long ago, or longer.
    pub fn ended(&self, ago: Duration) -> Vec<JobId> {
        let known = self.lock();
        let old = |job: &Known| !job.state.is_open() && job.age.get() >= ago;
        let all = known.iter().filter(|(_, job)| old(job));
        all.map(|(id, _)| *id).collect()
    }

    /// How many are in each state, and how long the oldest that is queued has waited.
    pub fn states(&self) -> (BTreeMap<JobState, u64>, Duration) {
        let (mut states, mut oldest) = (BTreeMap::new(), Duration::ZERO);
        for job in self.lock().values() {
            *states.entry(job.state).or_insert(0) += 1;
            if job.state == JobState::Queued {
                oldest = oldest.max(job.age.get());
            }
        }
        (states, oldest)
    }
}

#[cfg(test)]
mod tests {
    use firebox_registry::{JobMove, JobProtocol, NewJob, VersionNumber};

    use super::*;

    fn job(function: &str) -> JobRecord {
        let new = NewJob {
            function: function.parse().unwrap(),
            version: VersionNumber::FIRST,
            protocol: JobProtocol::Invoke,
            parameters: vec![],
            items: 10,
            input_bytes: 1,
            max_attempts: 1,
            author: String::new(),
        };
        JobRecord::queued(new, JobId::now(), 1)
    }

    #[test]
    fn a_clock_that_goes_astray_ages_nothing() {
        let ahead = Age::of(u64::MAX);
        assert!(ahead.get() < Duration::from_secs(1));
        let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        let behind = Age::of(then.as_millis() as u64);
        assert!(behind.get() >= Duration::from_secs(60));
    }

    #[test]
    fn functions_take_turns_and_the_oldest_job_goes_first() {
        let mut jobs: Vec<_> = ["a", "a", "b"].map(job).into();
        jobs.sort_by_key(|job| job.id);
        let (known, stop) = (KnownJobs::new(jobs.clone()), CancellationToken::new());
        let order: Vec<JobId> = std::iter::from_fn(|| Some(known.next(&stop)?.id)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        assert_eq!(order, [ids[0], ids[2], ids[1]]);
        let live = known.live(ids[0]).unwrap();
        known.left(&live);
        let done = jobs[0]
            .step(JobMove::Finish(JobProgress::default()), 5)
            .unwrap();
        known.moved(&done);
        assert!(known.next(&stop).is_none(), "what has ended is not run");
        assert_eq!(known.ended(Duration::ZERO), [ids[0]]);
        let a = jobs[0].function.clone();
        assert_eq!(known.page(Some(&a), None, 9), [ids[1], ids[0]]);
        assert_eq!(known.page(None, Some(ids[2]), 1), [ids[1]]);
    }

    #[test]
    fn the_rest_is_reckoned_by_the_pace_since_the_job_began() {
        let mut job = job("a");
        let known = KnownJobs::new(vec![job.clone()]);
        let live = known.next(&CancellationToken::new()).unwrap();
        assert_eq!(live.update(&mut job), None);
        live.begin(&JobProgress {
            succeeded: 4,
            ..JobProgress::default()
        });
        assert_eq!(live.update(&mut job), None, "there is no pace yet");
        std::thread::sleep(Duration::from_millis(20));
        live.count(true);
        live.count(false);
        let left = live.update(&mut job).unwrap();
        assert_eq!((job.progress.succeeded, job.progress.failed), (5, 1));
        // Two of six in so long, four are left.
        assert!(left >= Duration::from_millis(40), "{left:?}");
    }
}
