//! Every way in which a request can fail.

use std::io::ErrorKind;
use std::time::Duration;

use firebox_sandbox::LoadCause;

use crate::protocol::info::PolicyInfo;

/// Why a request has no answer of its own.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// A body that is not what the protocol says.
    #[error("{0}")]
    BadBody(String),
    /// A body that is compressed in a way that is not known here.
    #[error("{0}")]
    Coding(String),
    /// A path, query or header that can't be read.
    #[error("{0}")]
    BadRequest(String),
    /// Tensors that do not fit the function's signature.
    #[error("{0}")]
    WrongTensor(String),
    /// The function refused its input.
    #[error("{0}")]
    GuestInvalidInput(String),
    /// No such function.
    #[error("there is no function `{name}`")]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// The most similar name that exists.
        nearest: Option<String>,
    },
    /// No such version of a function.
    #[error("function `{function}` has no version {version}")]
    UnknownVersion {
        /// The function.
        function: String,
        /// The version asked for.
        version: String,
        /// The newest versions there are.
        known: Vec<u32>,
    },
    /// No such label of a function.
    #[error("function `{function}` has no label `{label}`")]
    UnknownLabel {
        /// The function.
        function: String,
        /// The label asked for.
        label: String,
        /// The most similar label that exists.
        nearest: Option<String>,
    },
    /// No policy of this revision is kept.
    #[error("{0}")]
    UnknownPolicy(String),
    /// A function that had no rollout.
    #[error("function `{function}` has had no rollout")]
    NoRollout {
        /// The function.
        function: String,
    },
    /// No such job.
    #[error("there is no job {id}")]
    UnknownJob {
        /// The id asked for.
        id: String,
    },
    /// A guard or steps that can't be read.
    #[error("{0}")]
    Misread(String),
    /// No such path.
    #[error("there is nothing at {0}")]
    UnknownPath(String),
    /// A path that does not take this method.
    #[error("{0}")]
    Method(String),
    /// The answer can't be written in the protocol that was asked.
    #[error("{0}")]
    NotAcceptable(String),
    /// Refused because of the present state.
    #[error("{0}")]
    Conflict(String),
    /// A policy that was changed since the caller read it.
    #[error("{detail}")]
    Stale {
        /// What was expected and found.
        detail: String,
        /// The policy that holds.
        current: Box<PolicyInfo>,
    },
    /// A body over its limit.
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A bundle, component, model or policy that is refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What is refused.
        what: String,
        /// Why.
        reason: String,
        /// What to do next, where more can be said than to correct it.
        hint: Option<&'static str>,
    },
    /// Too much is going on.
    #[error("{0}")]
    Busy(String),
    /// The function has its share of what there is.
    #[error("{reason}")]
    Throttled {
        /// Of what.
        reason: String,
        /// When another try may be worth it.
        retry_after: Duration,
    },
    /// The server has more to do than it can.
    #[error("{reason}")]
    Overloaded {
        /// What there is too much of.
        reason: String,
        /// When another try may be worth it.
        retry_after: Duration,
    },
    /// A body that comes too slowly, or not at all.
    #[error("{0}")]
    Stalled(String),
    /// The function failed.
    #[error("{0}")]
    GuestInternal(String),
    /// A model's graph failed.
    #[error("{0}")]
    Model(String),
    /// The function's instance trapped.
    #[error("{0}")]
    Trap(String),
    /// The function was given a request and gave no response.
    #[error("{0}")]
    NoResponse(String),
    /// The function hit its memory cap.
    #[error("the function needs more than its limit of {} MiB of memory", limit >> 20)]
    Memory {
        /// The cap in bytes.
        limit: usize,
    },
    /// The function used its processor time up.
    #[error("the function needs more than its limit of {} of processor time", humantime::format_duration(*limit))]
    Cpu {
        /// The processor time that it had.
        limit: Duration,
    },
    /// The function says that it can't answer now.
    #[error("{0}")]
    GuestUnavailable(String),
    /// A version that can't be loaded.
    #[error("{0}")]
    Load(String),
    /// A model that can't be loaded.
    #[error("{reason}")]
    BadModel {
        /// Whose fault it is.
        cause: LoadCause,
        /// What is wrong with it.
        reason: String,
    },
    /// A version that needs more memory than the server may ever take for such.
    #[error("{0}")]
    OverBudget(String),
    /// Versions in use leave no room in memory for another.
    #[error("{0}")]
    NoRoom(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No answer in time.
    #[error("no answer within {}", humantime::format_duration(*limit))]
    Deadline {
        /// The time that there was.
        limit: Duration,
    },
    /// No room on the disk.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The server is at fault.
    #[error("{0}")]
    Internal(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull(error.to_string())
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}
