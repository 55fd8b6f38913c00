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
