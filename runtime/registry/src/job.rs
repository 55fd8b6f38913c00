//! Jobs as they are kept: many inputs for one version of a function, answered when there is room.
//!
//! The record says how far a job is; its inputs and results are files beside the record store. What
//! may become of a job is decided here, by one function; *when*, by the server that runs it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{FunctionName, VersionNumber};

/// Names a job: a UUIDv7, so that ids are in the order of submission.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "0198c0de-0000-7000-8000-000000000001")]
pub struct JobId(Uuid);

/// A text that names no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no job's id: expected one like 0198c0de-0000-7000-8000-000000000001, as the \
     submission answered"
)]
pub struct InvalidJobId {
    found: String,
}

impl JobId {
    /// A new one.
    pub fn now() -> JobId {
        JobId(Uuid::now_v7())
    }

    pub(crate) fn key(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<JobId, InvalidJobId> {
        // Hyphenated and in lower case alone: an id is also the name of a folder.
        let read = Uuid::try_parse(text).ok().map(JobId);
        read.filter(|id| id.to_string() == text)
            .ok_or_else(|| InvalidJobId {
                found: text.chars().take(80).collect(),
            })
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<JobId, InvalidJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.to_string()
    }
}

/// In which protocol a job's items are written, and answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobProtocol {
    /// Bodies of an invoke.
    #[default]
    Invoke,
    /// Requests of the Open Inference Protocol, version 2.
    V2,
}

/// What is going on with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// Its items are being answered.
    Running,
    /// It can't go on for now, and does when what stands in its way is gone.
    Paused,
    /// Every item has its result, an answer or an error.
    Done,
    /// Somebody ended it.
    Cancelled,
    /// It can't go on at all.
    Failed,
}

impl JobState {
    /// All states, for metrics.
    pub const ALL: [JobState; 6] = [
        JobState::Queued,
        JobState::Running,
        JobState::Paused,
        JobState::Done,
        JobState::Cancelled,
        JobState::Failed,
    ];

    /// Whether there is still work to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Paused)
    }

    /// As the API and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name.
    pub id: JobId,
    /// The function that answers.
    pub function: FunctionName,
    /// The version that answers, chosen when the job was submitted.
    pub version: VersionNumber,
    /// How its items are written.
    pub protocol: JobProtocol,
    /// Named values that go with each item.
    pub parameters: Vec<(String, String)>,
    /// How many items it has.
    pub items: u64,
    /// The size of the file of its items.
    pub input_bytes: u64,
    /// How often an item is tried before it counts as failed.
    pub max_attempts: u32,
    /// Who submitted it.
    pub author: String,
    /// When, in milliseconds since 1970 (UTC), by the server's clock.
    pub created_unix_ms: u64,
    /// When it began to run.
    pub started_unix_ms: Option<u64>,
    /// When it ended.
    pub ended_unix_ms: Option<u64>,
    /// What is going on.
    pub state: JobState,
    /// Why it is paused or has failed, or who cancelled it.
    pub reason: Option<String>,
    /// How far it is: what is on the disk for sure.
    pub progress: JobProgress,
    /// Whether the results of failed items are to be dropped before it goes on.
    pub redo: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Items with an answer.
    pub succeeded: u64,
    /// Items with an error.
    pub failed: u64,
    /// Bytes of the file of results that are on the disk; whole lines.
    pub results_bytes: u64,
    /// Time spent running, in milliseconds, by a clock that doesn't jump.
    pub spent_ms: u64,
}

impl JobProgress {
    /// Items with a result.
    pub fn finished(&self) -> u64 {
        self.succeeded.saturating_add(self.failed)
    }
}

/// A job to submit. Its items lie in a folder of staging that becomes the job's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// See [`JobRecord::function`].
    pub function: FunctionName,
    /// See [`JobRecord::version`].
    pub version: VersionNumber,
    /// See [`JobRecord::protocol`].
    pub protocol: JobProtocol,
    /// See [`JobRecord::parameters`].
    pub parameters: Vec<(String, String)>,
    /// See [`JobRecord::items`].
    pub items: u64,
    /// See [`JobRecord::input_bytes`].
    pub input_bytes: u64,
    /// See [`JobRecord::max_attempts`].
    pub max_attempts: u32,
    /// See [`JobRecord::author`].
    pub author: String,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobMove {
    /// Its turn has come, or it goes on.
    Run,
    /// It is so far.
    Progress(JobProgress),
    /// The results of failed items are dropped; it is so far without them.
    Dropped(JobProgress),
    /// It can't go on for now, for this reason.
    Pause(String),
    /// Every item has a result.
    Finish(JobProgress),
    /// It can't go on at all, for this reason.
    Fail(String),
    /// Somebody ends it.
    Cancel(String),
    /// Somebody wants the items without an answer to be tried again.
    Retry,
}

impl JobRecord {
    /// A job that waits for its turn.
    pub fn queued(new: NewJob, id: JobId, created_unix_ms: u64) -> Self {
        Self {
            id,
            function: new.function,
            version: new.version,
            protocol: new.protocol,
            parameters: new.parameters,
            items: new.items,
            input_bytes: new.input_bytes,
            max_attempts: new.max_attempts,
            author: new.author,
            created_unix_ms,
            started_unix_ms: None,
            ended_unix_ms: None,
            state: JobState::Queued,
            reason: None,
            progress: JobProgress::default(),
            redo: false,
        }
    }

    /// Items without an answer.
    pub fn unanswered(&self) -> u64 {
        self.items.saturating_sub(self.progress.succeeded)
    }

    /// What the job is after a move; the clock says `now_unix_ms`.
    ///
    /// # Errors
    /// Why it can't be moved so, as a sentence that goes on after `job …`.
    pub fn step(&self, to: JobMove, now_unix_ms: u64) -> Result<JobRecord, String> {
        let mut next = self.clone();
        let open = self.state.is_open();
        match to {
            // What was done before the end is true after it.
            JobMove::Progress(progress) if !self.redo => next.progress = progress,
            JobMove::Run if open => {
                next.state = JobState::Running;
                next.reason = None;
                next.started_unix_ms = self.started_unix_ms.or(Some(now_unix_ms));
            }
            JobMove::Dropped(progress) if open && self.redo => {
                next.redo = false;
                next.progress = progress;
            }
            JobMove::Pause(reason) if open => {
                next.state = JobState::Paused;
                next.reason = Some(reason);
            }
            JobMove::Finish(progress) if open && !self.redo => {
                next.progress = progress;
                next.end(JobState::Done, None, now_unix_ms);
            }
            JobMove::Fail(reason) if open => {
                next.end(JobState::Failed, Some(reason), now_unix_ms);
            }
            JobMove::Cancel(reason) if open => {
                next.end(JobState::Cancelled, Some(reason), now_unix_ms);
            }
            JobMove::Retry if open => {
                return Err(format!("is {} still", self.state.name()));
            }
            JobMove::Retry if self.unanswered() == 0 => {
                return Err("has an answer to every item: nothing is left to retry".to_owned());
            }
            JobMove::Retry => {
                next.state = JobState::Queued;
                next.reason = None;
                next.ended_unix_ms = None;
                next.redo = true;
            }
            _ => return Err(format!("is {} already", self.state.name())),
        }
        Ok(next)
    }

    fn end(&mut self, state: JobState, reason: Option<String>, now_unix_ms: u64) {
        self.state = state;
        self.reason = reason;
        self.ended_unix_ms = Some(now_unix_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job() -> JobRecord {
        let new = NewJob {
            function: "adder".parse().unwrap(),
            version: VersionNumber::FIRST,
            protocol: JobProtocol::Invoke,
            parameters: vec![],
            items: 10,
            input_bytes: 100,
            max_attempts: 2,
            author: "ann".to_owned(),
        };
        JobRecord::queued(new, JobId::now(), 1)
    }

    fn progress(succeeded: u64, failed: u64) -> JobProgress {
        JobProgress {
            succeeded,
            failed,
            ..JobProgress::default()
        }
    }

    fn moves() -> impl Strategy<Value = JobMove> {
        let some = (0..=5_u64, 0..=5_u64).prop_map(|(s, f)| progress(s, f));
        prop_oneof![
            Just(JobMove::Run),
            some.clone().prop_map(JobMove::Progress),
            some.clone().prop_map(JobMove::Dropped),
            Just(JobMove::Pause("full".to_owned())),
            some.prop_map(JobMove::Finish),
            Just(JobMove::Fail("damaged".to_owned())),
            Just(JobMove::Cancel("enough".to_owned())),
            Just(JobMove::Retry),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_job_is_open_or_has_an_end(all in prop::collection::vec(moves(), 0..40)) {
            let mut job = job();
            for (now, to) in all.into_iter().enumerate() {
                let (before, to_be) = (job.clone(), to.clone());
                let Ok(after) = job.step(to, now as u64) else { continue };
                prop_assert_eq!(after.state.is_open(), after.ended_unix_ms.is_none());
                let reopened = after.state.is_open() && !before.state.is_open();
                prop_assert!(!reopened || to_be == JobMove::Retry);
                prop_assert_eq!(&after.id, &before.id);
                prop_assert_eq!(after.version, before.version);
                job = after;
            }
        }
    }

    #[test]
    fn a_job_that_has_ended_is_retried_only_for_what_has_no_answer() {
        let done = job().step(JobMove::Finish(progress(10, 0)), 5).unwrap();
        let refusal = done.step(JobMove::Retry, 6).unwrap_err();
        assert!(refusal.contains("nothing is left to retry"), "{refusal}");
        let partly = job().step(JobMove::Finish(progress(8, 2)), 5).unwrap();
        let again = partly.step(JobMove::Retry, 6).unwrap();
        assert_eq!((again.state, again.redo), (JobState::Queued, true));
        // Nothing else happens before the failed results are gone.
        assert!(again.step(JobMove::Progress(progress(9, 1)), 7).is_err());
        assert!(again.step(JobMove::Finish(progress(10, 0)), 7).is_err());
        let dropped = again.step(JobMove::Dropped(progress(8, 0)), 7).unwrap();
        assert!(dropped.step(JobMove::Finish(progress(10, 0)), 8).is_ok());
    }

    #[test]
    fn what_has_ended_is_not_ended_again() {
        let cancelled = job().step(JobMove::Cancel("ann".into()), 5).unwrap();
        let refusal = cancelled.step(JobMove::Cancel("bob".into()), 6);
        assert_eq!(refusal.unwrap_err(), "is cancelled already");
        assert!(cancelled.step(JobMove::Finish(progress(10, 0)), 6).is_err());
        let counted = cancelled
            .step(JobMove::Progress(progress(3, 0)), 6)
            .unwrap();
        assert_eq!(counted.state, JobState::Cancelled);
    }

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_way() {
        let id = JobId::now();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "..",
            "7",
            &id.to_string().to_uppercase(),
            &id.to_string().replace('-', ""),
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
