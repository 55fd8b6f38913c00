//! What the API shows of functions, versions and policies.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::HeaderValue;
use firebox_engine::Signature;
use firebox_registry::{
    BasisPoints, Device, Digest, FunctionName, Label, Policy, PolicyRecord, Precision, Revision,
    Tier, VersionNumber,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::residency::Warmth;
use crate::routing::{Route, Version};

/// All functions.
#[derive(Serialize, ToSchema)]
pub struct Functions<'a> {
    /// In the order of their names.
    pub functions: Vec<FunctionInfo<'a>>,
}

/// One function.
#[derive(Serialize, ToSchema)]
pub struct FunctionInfo<'a> {
    /// What callers name it by.
    #[schema(example = "file-type")]
    pub name: &'a FunctionName,
    /// What its newest version says about itself.
    #[schema(example = "What kind of file some bytes are.")]
    description: &'a str,
    /// The numbers of its versions.
    versions: Vec<VersionNumber>,
    /// The share of each version in basis points; together 10,000.
    #[schema(value_type = BTreeMap<String, BasisPoints>, example = json!({"1": 9000, "2": 1000}))]
    weights: &'a BTreeMap<VersionNumber, BasisPoints>,
    /// Names of versions.
    #[schema(value_type = BTreeMap<String, VersionNumber>, example = json!({"stable": 1}))]
    labels: &'a BTreeMap<Label, VersionNumber>,
    /// How many of the newest versions are kept; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    keep_last: Option<NonZeroU32>,
}

impl<'a> FunctionInfo<'a> {
    /// Of a route.
    pub fn new(name: &'a FunctionName, route: &'a Route) -> Self {
        // Versions describe themselves; the newest speaks for the function.
        let newest = route.versions.values().next_back();
        Self {
            name,
            description: newest.map_or("", |version| &version.record.manifest.description),
            versions: route.versions.keys().copied().collect(),
            weights: &route.policy().weights,
            labels: &route.policy().labels,
            keep_last: route.keep_last,
        }
    }
}

/// The versions of a function.
#[derive(Serialize, ToSchema)]
pub struct Versions<'a> {
    /// In the order of their numbers.
    pub versions: Vec<VersionInfo<'a>>,
}

/// One version.
#[derive(Serialize, ToSchema)]
pub struct VersionInfo<'a> {
    /// The function that it is a version of.
    #[schema(example = "file-type")]
    function: &'a FunctionName,
    /// Its number.
    version: VersionNumber,
    /// Of the bundle as it was uploaded.
    digest: Digest,
    /// The size of the bundle.
    bundle_bytes: u64,
    /// When it was accepted (RFC 3339).
    #[schema(example = "2026-07-01T12:00:00.000Z")]
    created: String,
    /// Who uploaded it.
    #[schema(example = "ann@laptop")]
    author: &'a str,
    /// `model`, where it has no code, or what its code is: `function`, `http` or `command`.
    #[schema(example = "function")]
    kind: &'static str,
    /// How it is kept.
    tier: Tier,
    /// How warm it is now.
    residency: Warmth,
    /// Its share of the traffic.
    share_bp: BasisPoints,
    /// The labels that name it.
    labels: Vec<&'a Label>,
    /// Whether it starts from the memory that its `init` left.
    snapshot: bool,
    /// How long its dry run took, in milliseconds.
    #[schema(example = 1.9)]
    reference_latency_ms: Option<f64>,
    /// Where its model alone computes with less precision than f32: for each output, how far
    /// it is off on the sample.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    deviation: &'a serde_json::Value,
    /// What it takes and gives: `inputs` and `outputs`, each with `name`, `dtype` and `shape`.
    #[schema(value_type = Object)]
    signature: &'a Signature,
    /// Its models by name.
    models: BTreeMap<&'a str, ModelInfo>,
    /// In an upload's answer alone: whether it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_now: Option<bool>,
}

/// A model of a version.
#[derive(Serialize, ToSchema)]
pub struct ModelInfo {
    /// Of its file.
    digest: Digest,
    /// The size of its file.
    bytes: u64,
    /// Where it shall run.
    device: Device,
    /// How finely it computes.
    precision: Precision,
}

impl<'a> VersionInfo<'a> {
    /// Of a version under a policy.
    pub fn new(version: &'a Version, policy: &'a Policy) -> Self {
        let record = &version.record;
        let models = record.models.iter().map(|(name, file)| {
            let section = record.manifest.models.get(name);
            let device = section.map(|section| section.device).unwrap_or_default();
            let precision = section.map(|section| section.precision).unwrap_or_default();
            (
                name.as_str(),
                ModelInfo {
                    digest: file.digest,
                    bytes: file.bytes,
                    device,
                    precision,
                },
            )
        });
        Self {
            function: &record.function,
            version: record.number,
            digest: record.digest,
            bundle_bytes: record.bundle_bytes,
            created: rfc3339(record.created_unix_ms),
            author: &record.author,
            kind: version.kind(),
            tier: record.manifest.tier,
            residency: version.slot.warmth(),
            share_bp: policy.share(record.number),
            labels: policy.labels_of(record.number).collect(),
            snapshot: record.snapshot,
            reference_latency_ms: record.reference_latency_us.map(|us| us as f64 / 1e3),
            deviation: &record.deviation,
            signature: &version.signature,
            models: models.collect(),
            created_now: None,
        }
    }
}

/// The policies of a function.
#[derive(Serialize, ToSchema)]
pub struct Policies {
    /// Newest first: the one that holds, and up to 99 before it.
    pub policies: Vec<PolicyInfo>,
}

/// A policy, with who set it, when and why.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct PolicyInfo {
    /// Counts the changes; its ETag is this in quotes.
    pub revision: Revision,
    /// When it was set (RFC 3339), by the server's clock.
    #[schema(example = "2026-07-01T12:00:00.000Z")]
    created: String,
    /// Who set it.
    #[schema(example = "ann@laptop")]
    author: String,
    /// Why; may be empty.
    #[schema(example = "v2 is slow")]
    reason: String,
    /// The revision that was brought back, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Revision>,
    /// The rollout that set it, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<u64>,
    /// The document.
    policy: Policy,
}

impl PolicyInfo {
    /// Of what the registry keeps.
    pub fn new(record: &PolicyRecord) -> Self {
        Self {
            revision: record.revision,
            created: rfc3339(record.created_unix_ms),
            author: record.author.clone(),
            reason: record.reason.clone(),
            restored: record.restored,
            rollout: record.rollout,
            policy: record.policy.clone(),
        }
    }

    /// The ETag of this policy.
    pub fn etag(&self) -> HeaderValue {
        etag(self.revision)
    }
}

/// The ETag of a policy: its revision in quotes.
pub fn etag(revision: Revision) -> HeaderValue {
    // Digits and quotes are always a header's value.
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A time of a record. One that no calendar has, as of a clock that went astray, is the last of
/// the year 9999.
pub fn rfc3339(unix_ms: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_astray_still_gives_a_time() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn an_etag_is_the_revision_in_quotes() {
        assert_eq!(etag(Revision::from(7)), "\"7\"");
    }
}
