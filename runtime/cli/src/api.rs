//! The parts of the server's answers that the commands show. Members that are not named here are
//! kept only by `--json`, which prints an answer as it came.

use std::collections::BTreeMap;

use firebox_registry::{Shadow, StickyKey, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/functions`.
#[derive(Clone, Debug, Deserialize)]
pub struct Functions {
    /// All functions, by name.
    pub functions: Vec<FunctionInfo>,
}

/// One function.
#[derive(Clone, Debug, Deserialize)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// The numbers of its versions.
    pub versions: Vec<u32>,
    /// Version to basis points.
    pub weights: BTreeMap<u32, u32>,
    /// Label to version.
    #[serde(default)]
    pub labels: BTreeMap<String, u32>,
}

/// `GET /v1/functions/{f}/versions`.
#[derive(Clone, Debug, Deserialize)]
pub struct Versions {
    /// All versions, by number.
    pub versions: Vec<VersionInfo>,
}

/// One version.
#[derive(Clone, Debug, Deserialize)]
pub struct VersionInfo {
    /// The function's name.
    pub function: String,
    /// The number.
    pub version: u32,
    /// `sha256:…` of the bundle.
    pub digest: String,
    /// The bundle's size.
    pub bundle_bytes: u64,
    /// RFC 3339.
    pub created: String,
    /// Who uploaded it.
    #[serde(default)]
    pub author: String,
    /// `model`, `function`, `http` or `command`.
    pub kind: String,
    /// `realtime`, `on-demand` or `batch`.
    pub tier: String,
    /// `cold`, `linked` or `resident`.
    pub residency: String,
    /// Its part of the traffic in basis points.
    pub share_bp: u32,
    /// The labels that name it.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How long the dry run took.
    pub reference_latency_ms: Option<f64>,
    /// How far each output was off from that in f32, where it was measured.
    #[serde(default)]
    pub deviation: Vec<Deviation>,
    /// In an upload's answer: whether the version is new.
    pub created_now: Option<bool>,
}

/// How far an output of a model with less precision is off on the sample; a number that isn't
/// finite is missing.
#[derive(Clone, Debug, Deserialize)]
pub struct Deviation {
    /// The output's name.
    pub output: String,
    /// The largest difference, as a part of the output's largest magnitude.
    pub max_relative: Option<f64>,
    /// Of the angle between the output and that in f32.
    pub cosine: Option<f64>,
}

/// A traffic policy: `GET` and `PUT /v1/functions/{f}/traffic`. It is read, changed and written
/// back, so a member that isn't known here is refused and never dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Version to basis points, adding up to 10000.
    pub weights: BTreeMap<u32, u32>,
    /// Label to version.
    #[serde(default)]
    pub labels: BTreeMap<String, u32>,
    /// A version that gets copies of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Where the key of a caller is found; the usual header where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// Where requests without a key go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Target>,
}

/// `GET /v1/functions/{f}/policies`.
#[derive(Clone, Debug, Deserialize)]
pub struct Policies {
    /// Newest first.
    pub policies: Vec<PolicyInfo>,
}

/// A policy, and who set it.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyInfo {
    /// Counts the changes.
    pub revision: u64,
    /// RFC 3339.
    pub created: String,
    /// Who set it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// The revision that was brought back, where it is one.
    pub restored: Option<u64>,
    /// The document.
    pub policy: Traffic,
}

/// `GET /v1/functions/{f}/versions/{n}/diff/{m}`.
#[derive(Clone, Debug, Deserialize)]
pub struct Difference {
    /// By key.
    pub changes: Vec<Changed>,
}

/// A key of the manifest, or a file, that differs.
#[derive(Clone, Debug, Deserialize)]
pub struct Changed {
    /// Which.
    pub key: String,
    /// What it was.
    pub from: Option<Value>,
    /// What it is.
    pub to: Option<Value>,
}

/// `PUT /v1/functions/{f}/retention`.
#[derive(Clone, Debug, Deserialize)]
pub struct Retired {
    /// The versions that were deleted.
    pub deleted: Vec<u32>,
}

/// `GET /v1/residency`.
#[derive(Clone, Debug, Deserialize)]
pub struct ServerResidency {
    /// Of weights.
    pub model_memory: Budget,
    /// Of mapped code.
    pub code_memory: Budget,
    /// The versions of which something is loaded.
    pub versions: Vec<Residency>,
}

/// How much there may be, and how much there is.
#[derive(Clone, Debug, Deserialize)]
pub struct Budget {
    /// At most.
    pub limit_bytes: u64,
    /// Now.
    pub held_bytes: u64,
}

/// `GET /v1/functions/{f}/versions/{n}/residency`.
#[derive(Clone, Debug, Deserialize)]
pub struct Residency {
    /// The function's name.
    pub function: String,
    /// The number.
    pub version: u32,
    /// `realtime`, `on-demand` or `batch`.
    pub tier: String,
    /// `cold`, `linked` or `resident`.
    pub residency: String,
    /// Whether it is being loaded.
    pub loading: bool,
    /// Whether requests use it.
    pub in_use: bool,
    /// Whether it is never dropped.
    pub pinned: bool,
    /// Of weights.
    pub model_bytes: u64,
    /// Of code.
    pub code_bytes: u64,
    /// RFC 3339.
    pub since: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Newest first.
    pub moves: Vec<ResidencyMove>,
}

/// A move of a version.
#[derive(Clone, Debug, Deserialize)]
pub struct ResidencyMove {
    /// RFC 3339.
    pub time: String,
    /// Where it was.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// `GET /v1/functions/{f}/rollouts`.
#[derive(Clone, Debug, Deserialize)]
pub struct Rollouts {
    /// Those that are kept, newest first.
    pub rollouts: Vec<Rollout>,
}

/// `GET /v1/functions/{f}/rollout`.
#[derive(Clone, Debug, Deserialize)]
pub struct Rollout {
    /// The function's name.
    pub function: String,
    /// Its number.
    pub rollout: u64,
    /// The version that traffic moves away from.
    pub from: u32,
    /// The version that it moves to.
    pub to: u32,
    /// `running`, `paused`, `succeeded`, `rolled_back` or `aborted`.
    pub state: String,
    /// The present step, from 1.
    pub step: usize,
    /// All steps.
    pub steps: Vec<RolloutStep>,
    /// The new version's share, in basis points.
    pub share_bp: u32,
    /// Time spent in the step.
    pub spent_ms: u64,
    /// Who started it.
    pub author: String,
    /// RFC 3339.
    pub started: String,
    /// The revision of the policy before.
    pub policy_before: u64,
    /// What it waits for.
    pub waits: Option<String>,
    /// The latest verdicts.
    pub verdicts: Vec<Verdict>,
    /// How it ended.
    pub end: Option<RolloutEnd>,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
pub struct RolloutStep {
    /// The shortest time in it.
    pub hold_ms: u64,
}

/// A guard's verdict.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    /// The guard.
    pub guard: String,
    /// `pass`, `fail` or `not_enough_data`.
    pub verdict: String,
    /// Why, with the numbers.
    pub reason: String,
}

/// How a rollout ended.
#[derive(Clone, Debug, Deserialize)]
pub struct RolloutEnd {
    /// RFC 3339.
    pub time: String,
    /// Who ended it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// `GET /v1/jobs`.
#[derive(Clone, Debug, Deserialize)]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// Where there are more, what to ask for.
    pub next: Option<String>,
}

/// `GET /v1/jobs/{id}`.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// Its id.
    pub job: String,
    /// The function's name.
    pub function: String,
    /// The version that answers.
    pub version: u32,
    /// `queued`, `running`, `paused`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it is paused or has failed, or who cancelled it.
    pub reason: Option<String>,
    /// How many items it has.
    pub items: u64,
    /// Those with an answer.
    pub succeeded: u64,
    /// Those with an error.
    pub failed: u64,
    /// The share of items with a result, from 0 to 1.
    pub progress: f64,
    /// How long it still takes, where that is known.
    pub eta_ms: Option<u64>,
    /// Who submitted it.
    pub author: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub ended: Option<String>,
}

impl Job {
    /// Whether there is still work to do.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "queued" | "running" | "paused")
    }
}

/// `GET /v1/functions/{f}/shadow`.
#[derive(Clone, Debug, Deserialize)]
pub struct Shadows {
    /// What the policy says.
    pub shadow: Option<Shadow>,
    /// What was found.
    pub pairs: Vec<Pair>,
}

/// How two versions compare.
#[derive(Clone, Debug, Deserialize)]
pub struct Pair {
    /// Who answered.
    pub version: u32,
    /// Who was asked as well.
    pub shadow: u32,
    /// Answers that were compared.
    pub compared: u64,
    /// The share of them that agreed, from 0 to 1.
    pub agreement: Option<f64>,
    /// Requests that the shadow had no answer to.
    pub failed: u64,
    /// Requests that were not copied for want of room.
    pub dropped: u64,
    /// Of two numbers side by side.
    pub max_abs_difference: Option<f64>,
    /// By the larger of the two.
    pub max_rel_difference: Option<f64>,
    /// The answering version's.
    pub latency_ms: Percentiles,
    /// The shadow's.
    pub shadow_latency_ms: Percentiles,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Percentiles {
    /// 95 of 100 calls take no longer.
    pub p95: Option<f64>,
}

/// RFC 9457, and the `error` of the V2 protocol.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem {
    /// The class of the problem.
    pub title: Option<String>,
    /// This one.
    pub detail: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// V2's text.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_read_with_its_policy() {
        let text = r#"{"name": "f", "description": "", "versions": [1, 2],
                       "weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}, "more": true}"#;
        let info: FunctionInfo = serde_json::from_str(text).unwrap();
        assert_eq!(info.weights, BTreeMap::from([(1, 9000), (2, 1000)]));
        assert_eq!(info.labels, BTreeMap::from([("stable".into(), 1)]));
    }

    #[test]
    fn a_policy_is_written_as_the_server_reads_it() {
        let policy = Traffic {
            weights: BTreeMap::from([(2, 10000)]),
            ..Traffic::default()
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(text, r#"{"weights":{"2":10000},"labels":{}}"#);
    }
}
