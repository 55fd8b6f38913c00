//! One job from where it is to its end: items are read, answered many at a time, and their results
//! written, with a checkpoint every second.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use firebox_registry::{JobId, JobMove, JobRecord, JobState, RegistryError};
use tokio::task::{JoinSet, block_in_place};

use super::Inner;
use super::answer::{Answered, Answerer};
use super::items::Reader;
use super::known::Live;
use super::results::{self, Results, ResultsError};

/// How often results are put on the disk. A crash has those since the last time done again, or less.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// How long a job that has no room waits before it looks again.
const PAUSE: Duration = Duration::from_secs(1);

/// The most bytes of items in flight; one item may be more.
const MAX_IN_FLIGHT: usize = 64 << 20;

/// Why a job doesn't go on.
enum Stop {
    /// The server stops, or somebody ended the job.
    Told,
    /// There is no room, or no way to the disk: it goes on when there is.
    Hindered(String),
    /// It can't go on at all.
    Broken(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Its files are not what they were when it was submitted.
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
                Self::Broken(format!("the job's files can't be read: {error}"))
            }
            _ => Self::Hindered(format!("the job's files can't be written: {error}")),
        }
    }
}

impl From<ResultsError> for Stop {
    fn from(error: ResultsError) -> Self {
        match error {
            ResultsError::Io(error) => error.into(),
            damaged @ ResultsError::Damaged { .. } => Self::Broken(damaged.to_string()),
        }
    }
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        match error {
            // It was ended meanwhile.
            RegistryError::JobConflict { .. } | RegistryError::JobNotFound { .. } => Self::Told,
            error => Self::Hindered(error.to_string()),
        }
    }
}

/// Runs a job until it has ended or the server stops, however often it is hindered.
pub(super) async fn run(inner: &Arc<Inner>, live: &Arc<Live>) {
    loop {
        let reason = match attempt(inner, live).await {
            Ok(()) | Err(Stop::Told) => return,
            Err(Stop::Broken(reason)) => {
                tracing::error!(job = %live.id, reason, "a job has failed");
                return inner.note(live.id, JobMove::Fail(reason));
            }
            Err(Stop::Hindered(reason)) => reason,
        };
        tracing::warn!(job = %live.id, reason, "a job is paused");
        inner.note(live.id, JobMove::Pause(reason));
        tokio::select! {
            () = live.told.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What a job has in hand while it runs.
struct Run<'a> {
    inner: &'a Inner,
    live: &'a Live,
    results: Results,
    began: Instant,
    spent_before: u64,
    /// Whether there are results that are not on the disk for sure.
    dirty: bool,
}

async fn attempt(inner: &Arc<Inner>, live: &Arc<Live>) -> Result<(), Stop> {
    let job = block_in_place(|| inner.registry.job(live.id))?;
    let (mut run, mut items, job) = block_in_place(|| open(inner, live, job))?;
    let table = inner
        .routing
        .table()
        .version(job.function.as_str(), job.version);
    let version = table.map_err(|failure| Stop::Broken(failure.to_string()))?;
    let metrics = inner.metrics.job_items(job.function.as_str());
    let terms = Arc::new(version.terms.in_batch());
    let answerer = Arc::new(Answerer {
        version,
        job,
        residency: inner.residency.clone(),
        scheduler: inner.scheduler.clone(),
        terms,
        held: OnceLock::new(),
        caps: inner.settings.caps,
        metrics,
    });
    let mut in_flight: JoinSet<Answered> = JoinSet::new();
    let mut bytes = 0;
    let mut checkpoints = tokio::time::interval(CHECKPOINT);
    checkpoints.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut more = true;
    loop {
        while more && in_flight.len() < inner.settings.concurrency && bytes < MAX_IN_FLIGHT {
            // Items that are in flight are none of those that come: they are read in order. Reads
            // are short, and nobody waits for this thread.
            match items.next(|number| run.results.is_done(number))? {
                Some(item) => {
                    bytes += item.body.len();
                    in_flight.spawn(answerer.clone().answer(item));
                }
                None => more = false,
            }
        }
        tokio::select! {
            biased;
            () = live.told.cancelled() => {
                // What is in flight is dropped, and done again if the job goes on.
                in_flight.abort_all();
                let _ = block_in_place(|| run.checkpoint());
                return Err(Stop::Told);
            }
            _ = checkpoints.tick() => block_in_place(|| run.checkpoint())?,
            answered = in_flight.join_next() => match answered {
                Some(Ok(answered)) => {
                    bytes -= answered.bytes;
                    run.take(answered)?;
                }
                Some(Err(error)) => return Err(Stop::Hindered(error.to_string())),
                None => return block_in_place(|| run.finish()),
            },
        }
    }
}

/// Opens a job's files, after what a retry wants is done.
fn open<'a>(
    inner: &'a Inner,
    live: &'a Live,
    mut job: JobRecord,
) -> Result<(Run<'a>, Reader, JobRecord), Stop> {
    inner.registry.check_room()?;
    let folder = inner.registry.job_folder(job.id);
    let synced = match job.redo {
        true => {
            results::drop_failures(&folder)?;
            0
        }
        false => job.progress.results_bytes,
    };
    let results = Results::open(&folder, job.items, synced)?;
    let progress = results.progress(job.progress.spent_ms);
    if job.redo {
        job = inner.step(job.id, JobMove::Dropped(progress))?;
    }
    let items = Reader::open(&folder, job.items)?;
    live.begin(&progress);
    // A job that was hindered goes on as a running one when it has got somewhere.
    if job.state != JobState::Paused {
        job = inner.step(job.id, JobMove::Run)?;
    }
    let run = Run {
        inner,
        live,
        results,
        began: Instant::now(),
        spent_before: job.progress.spent_ms,
        dirty: false,
    };
    Ok((run, items, job))
}

impl Run<'_> {
    fn spent_ms(&self) -> u64 {
        let spent = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.spent_before.saturating_add(spent)
    }

    fn take(&mut self, answered: Answered) -> Result<(), Stop> {
        let Some((line, succeeded)) = answered.result else {
            return Err(Stop::Told);
        };
        self.results.push(answered.number, succeeded, &line)?;
        self.dirty = true;
        self.live.count(succeeded);
        Ok(())
    }

    /// Results first, and then the record that counts on them.
    fn checkpoint(&mut self) -> Result<(), Stop> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        self.results.sync()?;
        let progress = self.results.progress(self.spent_ms());
        let job = self.inner.step(self.live.id, JobMove::Progress(progress))?;
        if job.state == JobState::Paused {
            self.inner.step(self.live.id, JobMove::Run)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Stop> {
        self.results.sync()?;
        let progress = self.results.progress(self.spent_ms());
        self.inner.step(self.live.id, JobMove::Finish(progress))?;
        Ok(())
    }
}

impl Inner {
    /// Moves a job where nobody can be told if that fails: the next start sees to it.
    fn note(&self, id: JobId, to: JobMove) {
        if let Err(error) = block_in_place(|| self.step(id, to)) {
            tracing::warn!(job = %id, %error, "a job's state can't be noted");
        }
    }
}
