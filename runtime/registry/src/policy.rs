//! Where a function's traffic goes: one document a function, replaced as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BasisPoints, Kind, Label, Split, StickyKey, VersionNumber, nearest};

/// The most labels of a function.
pub const MAX_LABELS: usize = 256;

/// The longest author, in characters.
const LONGEST_AUTHOR: usize = 128;

/// The longest reason, in characters.
const LONGEST_REASON: usize = 1024;

/// Where a function's traffic goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The share of each version; together 10,000.
    #[schema(value_type = BTreeMap<String, BasisPoints>, example = json!({"1": 9000, "2": 1000}))]
    pub weights: BTreeMap<VersionNumber, BasisPoints>,
    /// Names of versions.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, VersionNumber>, example = json!({"stable": 1, "canary": 2}))]
    pub labels: BTreeMap<Label, VersionNumber>,
    /// A version that gets copies of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Where the key of a caller is found.
    #[serde(default, skip_serializing_if = "StickyKey::is_usual")]
    pub sticky: StickyKey,
    /// Where a request goes that carries no key: to this version, or, where none is named, by
    /// chance as the weights say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Target>,
}

/// A version that gets copies of requests, whose answers nobody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Which one.
    pub version: VersionNumber,
    /// The share of the requests that are copied.
    pub share_bp: BasisPoints,
}

/// A version, by its number or by a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected the number of a version or a label")]
pub enum Target {
    /// This version.
    Version(VersionNumber),
    /// The version that this label names.
    Label(Label),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Version(number) => number.fmt(f),
            Target::Label(label) => label.fmt(f),
        }
    }
}

/// Counts the changes of a function's policy: 1 for the first; never used twice within a function.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64, example = 7)]
pub struct Revision(u64);

impl Revision {
    /// That of a function's first policy.
    pub const FIRST: Revision = Revision(1);

    /// The revision as an integer.
    pub fn get(self) -> u64 {
        self.0
    }

    /// That of the next change.
    pub(crate) fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl From<u64> for Revision {
    fn from(revision: u64) -> Revision {
        Revision(revision)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Revision, ParseIntError> {
        text.parse().map(Revision)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A policy as it is kept: with who set it, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// How many changes led to it.
    pub revision: Revision,
    /// The document.
    pub policy: Policy,
    /// Which callers belong to which version.
    #[serde(default)]
    pub split: Split,
    /// Who set it.
    pub author: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// When it was set, in milliseconds since 1970 (UTC), by the server's clock. A clock can jump:
    /// the order of policies is that of their revisions.
    pub created_unix_ms: u64,
    /// The revision that was brought back, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Revision>,
    /// The number of the rollout that set it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
}

/// Who changes a policy, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A person or a part of the server. Control characters are dropped, and what is over 128
    /// characters.
    pub author: String,
    /// May be empty. Control characters are dropped, and what is over 1,024 characters.
    pub reason: String,
}

impl Change {
    /// A change by `author` for `reason`.
    pub fn new(author: impl Into<String>, reason: impl Into<String>) -> Change {
        Change {
            author: author.into(),
            reason: reason.into(),
        }
    }

    /// Fit to be kept and to be shown in a terminal.
    pub fn tidied(self) -> Change {
        Change {
            author: plain(&self.author, LONGEST_AUTHOR),
            reason: plain(&self.reason, LONGEST_REASON),
        }
    }
}

/// Text without control characters, cut.
pub(crate) fn plain(text: &str, longest: usize) -> String {
    let kept = text.trim().chars().filter(|c| !c.is_control());
    kept.take(longest).collect()
}

/// The uploader's name, fit to be kept.
pub(crate) fn plain_author(text: &str) -> String {
    plain(text, LONGEST_AUTHOR)
}

/// A policy that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The weights don't add up.
    #[error(
        "the weights add up to {total} basis points, not 10000 (100%){}",
        if *.total == 100 { "; were percentages meant?" } else { "" }
    )]
    Sum {
        /// What they add up to.
        total: u64,
    },
    /// The default is a label that the policy doesn't have.
    #[error(
        "the default is the label `{label}`, which the policy doesn't have{}",
        .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
    )]
    DefaultLabel {
        /// The default.
        label: Label,
        /// The label that was most likely meant.
        nearest: Option<String>,
    },
    /// More labels than a function can have.
    #[error("the policy has {found} labels; a function has at most {MAX_LABELS}")]
    TooManyLabels {
        /// How many.
        found: usize,
    },
    /// The shadow answers HTTP itself: copies are questions, which it can't be asked.
    #[error("the shadow is version {version}, which is of the kind `{kind}` and can't be compared")]
    ShadowKind {
        /// The shadow.
        version: VersionNumber,
        /// What its code is.
        kind: Kind,
    },
}

impl PolicyError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Sum { .. } => "give weights that add up to 10000, as {\"1\": 9000, \"2\": 1000}",
            Self::DefaultLabel { .. } => "name a version, or a label of this policy, or no default",
            Self::TooManyLabels { .. } => "remove labels that nobody asks for",
            Self::ShadowKind { .. } => {
                "name a version of the kind `function` or `command`, or no shadow"
            }
        }
    }
}

impl Policy {
    /// All traffic to one version.
    pub fn all_to(version: VersionNumber) -> Policy {
        Policy {
            weights: BTreeMap::from([(version, BasisPoints::ALL)]),
            ..Policy::default()
        }
    }

    /// Checks what can be checked without knowing the versions, and drops what has a share of 0.
    pub(crate) fn checked(mut self) -> Result<Policy, PolicyError> {
        let points = self.weights.values().map(|points| u64::from(points.get()));
        let total = points.sum();
        if total != u64::from(BasisPoints::ALL.get()) {
            return Err(PolicyError::Sum { total });
        }
        if self.labels.len() > MAX_LABELS {
            let found = self.labels.len();
            return Err(PolicyError::TooManyLabels { found });
        }
        if let Some(Target::Label(label)) = &self.default
            && !self.labels.contains_key(label)
        {
            let known = self.labels.keys().map(Label::as_str);
            return Err(PolicyError::DefaultLabel {
                label: label.clone(),
                nearest: nearest(label.as_str(), known).map(str::to_owned),
            });
        }
        self.weights
            .retain(|_, points| *points != BasisPoints::NONE);
        self.shadow = self
            .shadow
            .filter(|shadow| shadow.share_bp != BasisPoints::NONE);
        Ok(self)
    }

    /// The share of `version`.
    pub fn share(&self, version: VersionNumber) -> BasisPoints {
        self.weights
            .get(&version)
            .copied()
            .unwrap_or(BasisPoints::NONE)
    }

    /// The labels of `version`.
    pub fn labels_of(&self, version: VersionNumber) -> impl Iterator<Item = &Label> {
        self.labels
            .iter()
            .filter(move |(_, v)| **v == version)
            .map(|(label, _)| label)
    }

    /// Every version that the policy names, some more than once.
    pub fn versions(&self) -> impl Iterator<Item = VersionNumber> {
        let default = match &self.default {
            Some(Target::Version(number)) => Some(*number),
            Some(Target::Label(_)) | None => None,
        };
        let shadow = self.shadow.map(|shadow| shadow.version);
        let shared = self.weights.keys().chain(self.labels.values()).copied();
        shared.chain(shadow).chain(default)
    }

    /// How the policy names `version`, for people: `takes 10% of the traffic and is labelled stable`.
    pub fn use_of(&self, version: VersionNumber) -> Option<String> {
        let mut uses = Vec::new();
        let share = self.share(version);
        if share != BasisPoints::NONE {
            uses.push(format!("takes {share} of the traffic"));
        }
        let labels: Vec<&str> = self.labels_of(version).map(Label::as_str).collect();
        if !labels.is_empty() {
            uses.push(format!("is labelled {}", labels.join(", ")));
        }
        if let Some(shadow) = self.shadow.filter(|shadow| shadow.version == version) {
            uses.push(format!("shadows {} of the traffic", shadow.share_bp));
        }
        if self.default == Some(Target::Version(version)) {
            uses.push("is the default".to_owned());
        }
        match uses.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            [firsts @ .., last] => Some(format!("{} and {last}", firsts.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(number: u32) -> VersionNumber {
        VersionNumber::try_from(number).unwrap()
    }

    fn share(points: u16) -> BasisPoints {
        BasisPoints::try_from(points).unwrap()
    }

    fn any_target() -> impl Strategy<Value = Target> {
        let number = (1u32..9).prop_map(|v| Target::Version(version(v)));
        let label = "[a-z]{1,5}".prop_map(|label| Target::Label(label.parse().unwrap()));
        prop_oneof![number, label]
    }

    proptest! {
        #[test]
        fn policies_survive_json(
            weights in prop::collection::btree_map(1u32..9, 0u16..=10_000, 0..5),
            labels in prop::collection::btree_map("[a-z]{1,5}", 1u32..9, 0..3),
            shadow in prop::option::of((1u32..9, 0u16..=10_000)),
            sticky in prop_oneof!["[a-z-]{1,9}".prop_map(StickyKey::Header), "/[a-z/]{0,9}".prop_map(StickyKey::Body)],
            default in prop::option::of(any_target()),
        ) {
            let policy = Policy {
                weights: weights.into_iter().map(|(v, w)| (version(v), share(w))).collect(),
                labels: labels.into_iter().map(|(l, v)| (l.parse().unwrap(), version(v))).collect(),
                shadow: shadow.map(|(v, w)| Shadow { version: version(v), share_bp: share(w) }),
                sticky,
                default,
            };
            let json = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        }
    }

    #[test]
    fn a_policy_reads_as_the_api_writes_it() {
        let json = r#"{"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1},
                       "shadow": {"version": 3, "share_bp": 500},
                       "sticky": {"cookie": "session"}, "default": "stable"}"#;
        let policy: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(policy.share(version(2)).to_string(), "10%");
        let used = policy.use_of(version(1)).unwrap();
        assert_eq!(used, "takes 90% of the traffic and is labelled stable");
        let used = policy.use_of(version(3)).unwrap();
        assert_eq!(used, "shadows 5% of the traffic");
        assert_eq!(policy.use_of(version(4)), None);
        assert_eq!(
            policy.checked().unwrap().default.unwrap().to_string(),
            "stable"
        );
    }

    #[test]
    fn a_policy_of_weights_alone_has_the_usual_key_and_no_default() {
        let policy: Policy = serde_json::from_str(r#"{"weights": {"1": 10000}}"#).unwrap();
        assert_eq!(policy, Policy::all_to(version(1)));
        assert_eq!(policy.sticky, StickyKey::Header("x-firebox-key".into()));
    }

    #[test]
    fn weights_must_be_the_whole() {
        let half = Policy {
            weights: BTreeMap::from([(version(1), share(100))]),
            ..Policy::default()
        };
        let error = half.checked().unwrap_err();
        assert_eq!(error, PolicyError::Sum { total: 100 });
        assert!(error.to_string().contains("percentages"), "{error}");
    }

    #[test]
    fn a_default_is_a_label_of_the_policy() {
        let policy = Policy {
            labels: BTreeMap::from([("stable".parse().unwrap(), version(1))]),
            default: Some(Target::Label("stabel".parse().unwrap())),
            ..Policy::all_to(version(1))
        };
        let error = policy.checked().unwrap_err().to_string();
        assert!(error.contains("did you mean `stable`?"), "{error}");
    }

    #[test]
    fn labels_are_bounded() {
        let labels = (0..=MAX_LABELS).map(|n| (format!("l{n}").parse().unwrap(), version(1)));
        let policy = Policy {
            labels: labels.collect(),
            ..Policy::all_to(version(1))
        };
        assert_eq!(
            policy.checked(),
            Err(PolicyError::TooManyLabels { found: 257 })
        );
    }

    #[test]
    fn an_author_and_a_reason_are_fit_for_a_terminal() {
        let change = Change::new(" ann\x1b[31m\n", "x".repeat(2000)).tidied();
        assert_eq!(change.author, "ann[31m");
        assert_eq!(change.reason.len(), 1024);
    }
}
