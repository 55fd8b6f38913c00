//! What can go wrong in the registry, named by what it means for the user.

use std::io;
use std::path::{Path, PathBuf};

use crate::{FunctionName, JobId, JobState, PolicyError, PolicyRecord, Revision, VersionNumber};

/// Why the registry didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another process has the directory.
    #[error("another process uses the data directory {}", .dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// No function of this name.
    #[error(
        "there is no function `{name}`{}",
        .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
    )]
    FunctionNotFound {
        /// What was asked for.
        name: FunctionName,
        /// The function that was most likely meant.
        nearest: Option<FunctionName>,
    },
    /// No version of this number.
    #[error("`{function}` has no version {number}{}", known_versions(.known))]
    VersionNotFound {
        /// The function.
        function: FunctionName,
        /// What was asked for.
        number: VersionNumber,
        /// The versions that there are.
        known: Vec<VersionNumber>,
    },
    /// A version that the policy names can't be deleted.
    #[error("version {number} of `{function}` {usage}")]
    VersionInUse {
        /// The function.
        function: FunctionName,
        /// The version.
        number: VersionNumber,
        /// How it is used: `takes 10% of the traffic and is labelled stable`.
        usage: String,
    },
    /// A policy that can't be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy was changed since the caller read it.
    #[error(
        "the policy of `{function}` is at revision {}, set by {}, and no longer at {expected}",
        .current.revision, .current.author
    )]
    StalePolicy {
        /// The function.
        function: FunctionName,
        /// The revision that the caller read.
        expected: Revision,
        /// The policy that holds.
        current: Box<PolicyRecord>,
    },
    /// No policy of this revision is kept.
    #[error("`{function}` keeps no policy {revision}; it keeps {oldest} to {newest}")]
    PolicyNotFound {
        /// The function.
        function: FunctionName,
        /// What was asked for.
        revision: Revision,
        /// The oldest that is kept.
        oldest: Revision,
        /// The one that holds.
        newest: Revision,
    },
    /// There was no other policy before the present one.
    #[error("the policy of `{function}` is its first; there is none to go back to")]
    NoEarlierPolicy {
        /// The function.
        function: FunctionName,
    },
    /// A policy can't be brought back as versions that it names were deleted.
    #[error("policy {revision} of `{function}` names deleted versions: {}", list(.missing))]
    PolicyGone {
        /// The function.
        function: FunctionName,
        /// The policy.
        revision: Revision,
        /// The versions.
        missing: Vec<VersionNumber>,
    },
    /// A function has one rollout at a time.
    #[error(
        "rollout {number} of `{function}`, to version {canary}, is under way: promote or abort it first"
    )]
    RolloutUnderWay {
        /// The function.
        function: FunctionName,
        /// The rollout.
        number: u64,
        /// Where it leads to.
        canary: VersionNumber,
    },
    /// No rollout is under way.
    #[error("no rollout of `{function}` is under way")]
    NoRollout {
        /// The function.
        function: FunctionName,
    },
    /// A rollout that leads nowhere.
    #[error("`{function}` can't be rolled out: {reason}")]
    RolloutImpossible {
        /// The function.
        function: FunctionName,
        /// Why.
        reason: String,
    },
    /// A version that an open job uses can't be deleted.
    #[error("version {number} of `{function}` is in use by job {id}, which is {} still", .state.name())]
    VersionHasJob {
        /// The function.
        function: FunctionName,
        /// The version.
        number: VersionNumber,
        /// The job.
        id: JobId,
        /// What is going on with it.
        state: JobState,
    },
    /// No job of this id.
    #[error("there is no job {id}")]
    JobNotFound {
        /// What was asked for.
        id: JobId,
    },
    /// A job is in another state.
    #[error("job {id} {reason}")]
    JobConflict {
        /// The job.
        id: JobId,
        /// Why not.
        reason: String,
    },
    /// The version's bundle isn't kept.
    #[error(
        "the bundle of version {number} of `{function}` was not kept: it is from before bundles were"
    )]
    BundleNotKept {
        /// The function.
        function: FunctionName,
        /// The version.
        number: VersionNumber,
    },
    /// Version numbers have run out.
    #[error("`{function}` has had 4294967295 versions; its numbers are used up")]
    NumbersUsedUp {
        /// The function.
        function: FunctionName,
    },
    /// A record or the record store is damaged.
    #[error("{what} is damaged: {detail}")]
    Corrupt {
        /// The record.
        what: String,
        /// How it shows.
        detail: String,
    },
    /// A record by another release.
    #[error("{what} has schema {found}; this Firebox reads schema {known}")]
    UnknownSchema {
        /// The record, or the directory.
        what: String,
        /// The schema there.
        found: u32,
        /// The schema of this build.
        known: u32,
    },
    /// A stored file isn't what its name says.
    #[error("the stored file {} is damaged: its digest is {found}", .path.display())]
    BlobDamaged {
        /// Where it lies.
        path: PathBuf,
        /// What it holds.
        found: crate::Digest,
    },
    /// A stored file is gone.
    #[error("the stored file {} is missing", .path.display())]
    BlobMissing {
        /// Where it should lie.
        path: PathBuf,
    },
    /// No room.
    #[error("the disk that holds {} is full", .dir.display())]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl RegistryError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Locked { .. } => "stop the other server, or give this one another --data",
            Self::VersionInUse { .. } => "move its traffic and labels to another version first",
            Self::VersionHasJob { .. } => "wait until the job has ended, or cancel it",
            Self::Policy(error) => error.hint(),
            Self::StalePolicy { .. } => "read the policy again, and change what it is now",
            Self::PolicyGone { .. } => "go back to another policy, or upload those versions again",
            Self::RolloutUnderWay { .. } => "a function has one rollout at a time",
            Self::NoRollout { .. } => "start one with `firebox rollout start`",
            Self::RolloutImpossible { .. } => {
                "give all traffic to one version, and roll out another"
            }
            Self::BundleNotKept { .. } => "upload the bundle again as a new version",
            Self::Corrupt { .. } => "restore the data directory from a backup",
            Self::UnknownSchema { .. } => "use the release of Firebox that wrote the directory",
            Self::BlobDamaged { .. } | Self::BlobMissing { .. } => {
                "upload the version's bundle again, or restore the data directory from a backup"
            }
            Self::DiskFull { .. } => "free some space, for instance by deleting old versions",
            Self::FunctionNotFound { .. }
            | Self::VersionNotFound { .. }
            | Self::PolicyNotFound { .. }
            | Self::NoEarlierPolicy { .. }
            | Self::NumbersUsedUp { .. }
            | Self::JobNotFound { .. }
            | Self::JobConflict { .. }
            | Self::Io { .. } => return None,
        })
    }

    /// What an I/O error about `path` means.
    pub(crate) fn io(path: &Path, source: io::Error) -> RegistryError {
        if is_disk_full(&source) {
            RegistryError::DiskFull {
                dir: path.to_owned(),
            }
        } else {
            RegistryError::Io {
                path: path.to_owned(),
                source,
            }
        }
    }

    pub(crate) fn corrupt(what: &str, detail: impl ToString) -> RegistryError {
        RegistryError::Corrupt {
            what: what.to_owned(),
            detail: detail.to_string(),
        }
    }

    /// What sled's error means; `dir` is the data directory.
    pub(crate) fn sled(dir: &Path, error: sled::Error) -> RegistryError {
        match error {
            sled::Error::Io(source) => RegistryError::io(dir, source),
            other => {
                RegistryError::corrupt(&format!("the record store in {}", dir.display()), other)
            }
        }
    }
}

/// Whether an I/O error says that there is no room.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn list(numbers: &[VersionNumber]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(", ")
}

fn known_versions(known: &[VersionNumber]) -> String {
    let numbers: Vec<String> = known
        .iter()
        .rev()
        .take(8)
        .map(ToString::to_string)
        .collect();
    match known.len() {
        0 => "; it has none".to_owned(),
        1..=8 => format!("; it has {}", numbers.join(", ")),
        _ => format!("; its latest are {}", numbers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = io::Error::from_raw_os_error(28); // ENOSPC
        assert!(matches!(
            RegistryError::io(Path::new("d"), full),
            RegistryError::DiskFull { .. }
        ));
        let full = sled::Error::Io(io::ErrorKind::StorageFull.into());
        assert!(matches!(
            RegistryError::sled(Path::new("d"), full),
            RegistryError::DiskFull { .. }
        ));
        let denied = io::ErrorKind::PermissionDenied.into();
        assert!(matches!(
            RegistryError::io(Path::new("d"), denied),
            RegistryError::Io { .. }
        ));
    }
}
