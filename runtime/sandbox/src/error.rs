//! What can go wrong, by the step at which it does.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// No sandbox could be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system refused the pool's address space, or the settings contradict each other.
    #[error("the sandbox can't be set up: {reason}")]
    Engine {
        /// What wasmtime said.
        reason: String,
    },
    /// The thread that counts epochs was refused.
    #[error("the sandbox's clock thread can't be started")]
    Clock(#[source] std::io::Error),
}

/// A component is refused.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are not WebAssembly.
    #[error(
        "not a WebAssembly file: expected it to begin with `\\0asm`, found {found}; build it with `firebox build`"
    )]
    NotWasm {
        /// The first bytes.
        found: String,
    },
    /// WebAssembly text or binary of the wrong kind.
    #[error(
        "this is a core WebAssembly module that exports no `_start`; a function is a component (`firebox build` makes one, for `wasm32-wasip2`), or a program of WASI 0.1, built for `wasm32-wasip1`, whose module exports `_start`"
    )]
    CoreModule,
    /// Not valid, or beyond what this sandbox allows.
    #[error("not a valid component: {reason}")]
    Invalid {
        /// What is wrong, and where.
        reason: String,
    },
    /// A handler of WASI 0.3.
    #[error(
        "the component exports wasi:http/handler of WASI 0.3, and this host serves wasi:http/incoming-handler of WASI 0.2; build it for that"
    )]
    NewerHandler,
    /// An export of the `firebox:function` world is missing.
    #[error(
        "the component doesn't export `{name}`; a function exports `init`, `describe` and `infer` of firebox:function@0.1.0, or wasi:http/incoming-handler or wasi:cli/run of WASI 0.2 (found: {found})"
    )]
    MissingExport {
        /// What is missing.
        name: &'static str,
        /// What there is.
        found: String,
    },
    /// An export has another type than in the `firebox:function` world.
    #[error(
        "the component's exports don't fit firebox:function@0.1.0: {reason}; build it against this version's SDK"
    )]
    WrongExport {
        /// Which, and how.
        reason: String,
    },
    /// The handler has another type than in wasi:http.
    #[error(
        "the component's wasi:http/incoming-handler doesn't fit that of WASI 0.2: {reason}; build it with newer tools"
    )]
    WrongHandler {
        /// How.
        reason: String,
    },
    /// It imports something that the host does not give.
    #[error(
        "the component imports `{name}`, which this host doesn't give: {reason}; functions can import WASI 0.2, wasi:http and wasi:nn@0.2.0-rc-2024-10-28"
    )]
    UnknownImport {
        /// The import.
        name: String,
        /// Missing, or of another type.
        reason: String,
    },
    /// A command imports something that the host does not give.
    #[error(
        "the command imports `{name}`, which this host doesn't give: {reason}; commands can import wasi_snapshot_preview1, and {given} of wasi_ephemeral_nn"
    )]
    UnknownCommandImport {
        /// The import, `module::name`.
        name: String,
        /// Missing, or of another type.
        reason: String,
        /// What there is of wasi-nn.
        given: String,
    },
    /// A command without what the host calls.
    #[error(
        "a command exports {missing}, as WASI 0.1 has it (found: {found}); build a program, not a library, for `wasm32-wasip1`"
    )]
    NotCommand {
        /// What it lacks.
        missing: &'static str,
        /// What it exports.
        found: String,
    },
    /// `init`, `describe` or the making of an instance failed.
    #[error("the component's `{function}` failed: {error}")]
    Start {
        /// `init`, `describe` or `start`.
        function: &'static str,
        /// How.
        error: InvokeError,
    },
    /// The host is at fault.
    #[error("the component can't be compiled: {0}")]
    Host(String),
}

/// Compiled code can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The file can't be read.
    #[error("compiled code {path} can't be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Made by another version, for other settings, or for another processor:
    /// compile the component again.
    #[error("compiled code {path} is stale and must be compiled again: {reason}")]
    Stale {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Its imports or exports do not fit this host.
    #[error("compiled code {path} doesn't fit this host: {reason}")]
    Imports {
        /// The file.
        path: PathBuf,
        /// Which.
        reason: String,
    },
}

/// A call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The function says so.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The instance was stopped by a trap: a panic, a bad access, a stack overflow.
    #[error("the function stopped: {message}{}", tail(stderr))]
    Trap {
        /// The kind of trap.
        message: String,
        /// What it wrote to standard error last: a panic's message, as a rule.
        stderr: String,
        /// The wasm frames, innermost first. For the function's owner.
        backtrace: String,
    },
    /// It was given an HTTP request and gave no whole response to it.
    #[error("the function gave no response: {reason}")]
    NoResponse {
        /// What it did instead.
        reason: String,
    },
    /// It took too long, computing or waiting.
    #[error("the function did not answer within {limit:?}")]
    Deadline {
        /// The time it had.
        limit: Duration,
    },
    /// It used its processor time up.
    #[error("the function needs more than its {limit:?} of processor time")]
    Cpu {
        /// The time it had.
        limit: Duration,
    },
    /// It asked for more memory than it is allowed, and did not get over it.
    #[error("the function needs more than its {} MiB of memory", limit >> 20)]
    Memory {
        /// The bytes it had.
        limit: usize,
    },
    /// All instances are in use.
    #[error("all {instances} instances are in use")]
    Busy {
        /// How many there are.
        instances: u32,
    },
    /// The host is at fault.
    #[error("the host failed to run the function: {0}")]
    Host(String),
}

fn tail(stderr: &str) -> String {
    let stderr = stderr.trim();
    if stderr.is_empty() {
        String::new()
    } else {
        format!("\n{stderr}")
    }
}

/// The error that a function answered with. The message is for its caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct GuestError {
    /// Who is at fault.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
}

/// Who is at fault for a function's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The caller.
    InvalidInput,
    /// Something that the function needs is missing for now.
    Unavailable,
    /// The function.
    Internal,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidInput => "invalid input",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal error",
        })
    }
}
