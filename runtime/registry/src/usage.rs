//! What versions have used: kept for as long as they are there.

use serde::{Deserialize, Serialize};

use crate::{FunctionName, VersionNumber};

/// What a version has used since it is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The function.
    pub function: FunctionName,
    /// Its version.
    pub version: VersionNumber,
    /// Since when it is counted, in milliseconds since 1970 (UTC).
    pub since_unix_ms: u64,
    /// Requests that were let in, whatever became of them.
    pub requests: u64,
    /// Those that got a good answer.
    pub predictions: u64,
    /// Processor time in instances, in nanoseconds.
    pub guest_cpu_ns: u64,
    /// Processor time of models, in nanoseconds.
    pub compute_cpu_ns: u64,
    /// Time of models on a graphics processor, in nanoseconds.
    pub gpu_ns: u64,
    /// Bytes of code and weights times the seconds that they were in memory.
    pub byte_seconds: f64,
}
