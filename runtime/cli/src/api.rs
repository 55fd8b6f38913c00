//! The parts of the server's answers that the commands show. Members that are not named here are
//! kept only by `--json`, which prints an answer as it came.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// `model` or `component`.
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

/// A traffic policy: `GET` and `PUT /v1/functions/{f}/traffic`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Traffic {
    /// Version to basis points, adding up to 10000.
    pub weights: BTreeMap<u32, u32>,
    /// Label to version.
    #[serde(default)]
    pub labels: BTreeMap<String, u32>,
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
            labels: BTreeMap::new(),
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(text, r#"{"weights":{"2":10000},"labels":{}}"#);
    }
}
