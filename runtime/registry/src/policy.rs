//! Which versions take a function's traffic: weights in basis points, and labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Label, VersionNumber};

/// A share of the traffic in hundredths of a percent: 10,000 is all of it. Shown as `2.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct BasisPoints(u16);

/// Something that isn't a share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} isn't a share: expected a percentage from 0 to 100 with at most two decimals")]
pub struct InvalidShare {
    found: String,
}

impl BasisPoints {
    /// None of the traffic.
    pub const NONE: BasisPoints = BasisPoints(0);
    /// All of the traffic.
    pub const ALL: BasisPoints = BasisPoints(10_000);

    /// From 0 to 10,000.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for BasisPoints {
    type Error = InvalidShare;

    fn try_from(points: u16) -> Result<BasisPoints, InvalidShare> {
        if points <= Self::ALL.0 {
            Ok(BasisPoints(points))
        } else {
            Err(InvalidShare {
                found: format!("{points} basis points"),
            })
        }
    }
}

impl From<BasisPoints> for u16 {
    fn from(points: BasisPoints) -> u16 {
        points.0
    }
}

impl FromStr for BasisPoints {
    type Err = InvalidShare;

    /// Reads a percentage: `90`, `2.5`, `0.01%`.
    fn from_str(text: &str) -> Result<BasisPoints, InvalidShare> {
        percentage(text).ok_or_else(|| InvalidShare {
            found: text.chars().take(32).collect(),
        })
    }
}

fn percentage(text: &str) -> Option<BasisPoints> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let hundredths: u16 = format!("{decimals:0<2}").parse().ok()?;
    let points = whole
        .parse::<u16>()
        .ok()?
        .checked_mul(100)?
        .checked_add(hundredths)?;
    BasisPoints::try_from(points).ok()
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}%"),
            n if n % 10 == 0 => write!(f, "{whole}.{}%", n / 10),
            n => write!(f, "{whole}.{n:02}%"),
        }
    }
}

/// Where a function's traffic goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The share of each version; together 10,000.
    pub weights: BTreeMap<VersionNumber, BasisPoints>,
    /// Names of versions.
    #[serde(default)]
    pub labels: BTreeMap<Label, VersionNumber>,
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
}

impl Policy {
    /// All traffic to one version.
    pub fn all_to(version: VersionNumber) -> Policy {
        Policy {
            weights: BTreeMap::from([(version, BasisPoints::ALL)]),
            labels: BTreeMap::new(),
        }
    }

    /// Checks that the weights are the whole, and drops versions without weight.
    pub(crate) fn checked(mut self) -> Result<Policy, PolicyError> {
        let total = self
            .weights
            .values()
            .map(|points| u64::from(points.0))
            .sum();
        if total != u64::from(BasisPoints::ALL.0) {
            return Err(PolicyError::Sum { total });
        }
        self.weights
            .retain(|_, points| *points != BasisPoints::NONE);
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
    pub(crate) fn versions(&self) -> impl Iterator<Item = VersionNumber> {
        self.weights.keys().chain(self.labels.values()).copied()
    }

    /// How the policy names `version`, for people: `takes 10% of the traffic and is labelled stable`.
    pub(crate) fn use_of(&self, version: VersionNumber) -> Option<String> {
        let share = self.share(version);
        let labels: Vec<&str> = self.labels_of(version).map(Label::as_str).collect();
        let weight = (share != BasisPoints::NONE).then(|| format!("takes {share} of the traffic"));
        let named = (!labels.is_empty()).then(|| format!("is labelled {}", labels.join(", ")));
        match (weight, named) {
            (Some(weight), Some(named)) => Some(format!("{weight} and {named}")),
            (weight, named) => weight.or(named),
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

    proptest! {
        #[test]
        fn shares_survive_text(points in 0u16..=10_000) {
            let share = BasisPoints(points);
            prop_assert_eq!(share.to_string().parse::<BasisPoints>().unwrap(), share);
        }

        #[test]
        fn policies_survive_json(
            weights in prop::collection::btree_map(1u32..9, 0u16..=10_000, 0..5),
            labels in prop::collection::btree_map("[a-z]{1,5}", 1u32..9, 0..3),
        ) {
            let policy = Policy {
                weights: weights.into_iter().map(|(v, w)| (version(v), BasisPoints(w))).collect(),
                labels: labels.into_iter().map(|(l, v)| (l.parse().unwrap(), version(v))).collect(),
            };
            let json = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        }
    }

    #[test]
    fn a_policy_reads_as_the_api_writes_it() {
        let json = r#"{"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}}"#;
        let policy: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(policy.share(version(2)).to_string(), "10%");
        let used = policy.use_of(version(1)).unwrap();
        assert_eq!(used, "takes 90% of the traffic and is labelled stable");
        assert_eq!(policy.use_of(version(3)), None);
    }

    #[test]
    fn weights_must_be_the_whole() {
        let half = Policy {
            weights: BTreeMap::from([(version(1), BasisPoints(100))]),
            ..Policy::default()
        };
        let error = half.checked().unwrap_err();
        assert_eq!(error, PolicyError::Sum { total: 100 });
        assert!(error.to_string().contains("percentages"), "{error}");
    }

    #[test]
    fn percentages_have_at_most_two_decimals_and_end_at_a_hundred() {
        for text in ["", "101", "100.01", "1.005", "-1", "a", "1.", ".5", "70000"] {
            assert!(text.parse::<BasisPoints>().is_err(), "{text}");
        }
        assert_eq!("2.5".parse::<BasisPoints>().unwrap().get(), 250);
        assert_eq!("0.01%".parse::<BasisPoints>().unwrap().get(), 1);
    }
}
