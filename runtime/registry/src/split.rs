//! Which points of 0..10,000 belong to which version.
//!
//! A caller's key stands for one point. A split that only depended on the weights would push
//! callers about: where one slice grows, all behind it shift. So a split is made of the one before
//! it: every version keeps as many of its points as its new weight allows, and only what shrinking
//! versions give up goes to those that grow. A point never moves between two versions whose weights
//! stayed as they were, and growing a canary at the expense of `stable` moves callers from the one
//! to the other alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BasisPoints, VersionNumber};

/// Slices from 0 to 10,000: the point at which each ends, and whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Split(Vec<(u16, VersionNumber)>);

type Weights = BTreeMap<VersionNumber, BasisPoints>;

impl Split {
    /// One slice a version, in the order of their numbers.
    pub fn of(weights: &Weights) -> Split {
        Split::default().moved_to(weights)
    }

    /// The split for other weights that moves the fewest points.
    pub fn moved_to(&self, weights: &Weights) -> Split {
        let mut wanted: BTreeMap<VersionNumber, u16> = weights
            .iter()
            .map(|(v, points)| (*v, points.get()))
            .collect();
        let mut kept: Vec<(u16, Option<VersionNumber>)> = Vec::new();
        let mut start = 0;
        for &(end, version) in &self.0 {
            let points = end.saturating_sub(start);
            let left = wanted.entry(version).or_insert(0);
            let keeps = points.min(*left);
            *left -= keeps;
            kept.push((keeps, Some(version)));
            kept.push((points - keeps, None));
            start = end;
        }
        // Nothing where the old split is whole; all of it where there is none.
        kept.push((BasisPoints::ALL.get().saturating_sub(start), None));

        let mut growing = wanted
            .into_iter()
            .filter(|(_, points)| *points > 0)
            .peekable();
        let mut split = Split::default();
        for (points, owner) in kept {
            if let Some(owner) = owner {
                split.push(points, owner);
                continue;
            }
            let mut free = points;
            while free > 0
                && let Some((version, left)) = growing.peek_mut()
            {
                let takes = free.min(*left);
                split.push(takes, *version);
                free -= takes;
                *left -= takes;
                if *left == 0 {
                    growing.next();
                }
            }
        }
        split
    }

    fn push(&mut self, points: u16, version: VersionNumber) {
        let end = self.end().saturating_add(points);
        match self.0.last_mut() {
            _ if points == 0 => {}
            Some((last, owner)) if *owner == version => *last = end,
            _ => self.0.push((end, version)),
        }
    }

    fn end(&self) -> u16 {
        self.0.last().map_or(0, |(end, _)| *end)
    }

    /// Each slice's end, and the version whose it is, in order.
    pub fn slices(&self) -> &[(u16, VersionNumber)] {
        &self.0
    }

    /// Whose a point of 0..10,000 is.
    pub fn at(&self, point: u16) -> Option<VersionNumber> {
        let slice = self.0.partition_point(|(end, _)| *end <= point);
        self.0.get(slice).map(|(_, version)| *version)
    }

    /// Whether every version has as many points as its weight says.
    pub(crate) fn fits(&self, weights: &Weights) -> bool {
        let mut points: BTreeMap<VersionNumber, u32> = BTreeMap::new();
        let mut start = 0;
        for &(end, version) in &self.0 {
            if end <= start {
                return false;
            }
            *points.entry(version).or_default() += u32::from(end - start);
            start = end;
        }
        let weighty = weights.iter().filter(|(_, weight)| weight.get() > 0);
        points
            .into_iter()
            .eq(weighty.map(|(v, weight)| (*v, u32::from(weight.get()))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(shares: &[u16]) -> Weights {
        let numbered = (1..).zip(shares).filter(|(_, share)| **share > 0);
        numbered
            .map(|(v, share)| {
                (
                    VersionNumber::try_from(v).unwrap(),
                    BasisPoints::try_from(*share).unwrap(),
                )
            })
            .collect()
    }

    /// Weights of up to six versions: the gaps between cuts of 0..10,000.
    fn any_weights() -> impl Strategy<Value = Weights> {
        prop::collection::vec(0u16..=10_000, 0..6).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts.push(10_000);
            let mut start = 0;
            let shares: Vec<u16> = cuts
                .into_iter()
                .map(|cut| cut - std::mem::replace(&mut start, cut))
                .collect();
            weights(&shares)
        })
    }

    fn points(weights: &Weights, version: VersionNumber) -> u16 {
        weights.get(&version).map_or(0, |share| share.get())
    }

    proptest! {
        #[test]
        fn a_split_follows_its_weights_through_any_history(history in prop::collection::vec(any_weights(), 1..8)) {
            let mut split = Split::default();
            for weights in &history {
                split = split.moved_to(weights);
                prop_assert!(split.fits(weights), "{:?} for {:?}", split, weights);
                prop_assert_eq!(split.at(10_000), None);
            }
        }

        #[test]
        fn a_point_only_moves_from_a_version_that_shrank_to_one_that_grew(
            history in prop::collection::vec(any_weights(), 2..6),
        ) {
            let mut before = Split::of(&history[0]);
            for pair in history.windows(2) {
                let after = before.moved_to(&pair[1]);
                for point in 0..10_000 {
                    let (from, to) = (before.at(point).unwrap(), after.at(point).unwrap());
                    if from != to {
                        prop_assert!(points(&pair[0], from) > points(&pair[1], from), "{} gave to {}", from, to);
                        prop_assert!(points(&pair[0], to) < points(&pair[1], to), "{} gave to {}", from, to);
                    }
                }
                before = after;
            }
        }

        #[test]
        fn growing_a_canary_only_moves_callers_of_stable_to_it(
            others in prop::collection::vec(0u16..1000, 0..4),
            mut canary in prop::collection::vec(0u16..=6000, 2..8),
        ) {
            canary.sort_unstable();
            let shares = |canary: u16| {
                let mut shares = vec![10_000 - canary - others.iter().sum::<u16>(), canary];
                shares.extend(&others);
                weights(&shares)
            };
            let (stable, new) = (VersionNumber::FIRST, VersionNumber::try_from(2).unwrap());
            let mut before = Split::of(&shares(canary[0]));
            for &share in &canary[1..] {
                let after = before.moved_to(&shares(share));
                for point in 0..10_000 {
                    let (from, to) = (before.at(point), after.at(point));
                    prop_assert!(from == to || (from == Some(stable) && to == Some(new)));
                }
                before = after;
            }
        }

        #[test]
        fn a_split_survives_json(history in prop::collection::vec(any_weights(), 1..4)) {
            let split = history.iter().fold(Split::default(), |split, weights| split.moved_to(weights));
            let json = serde_json::to_string(&split).unwrap();
            prop_assert_eq!(serde_json::from_str::<Split>(&json).unwrap(), split);
        }
    }

    #[test]
    fn a_split_that_lies_about_its_weights_is_noticed() {
        let half = weights(&[5000, 5000]);
        assert!(Split::of(&half).fits(&half));
        assert!(!Split::of(&half).fits(&weights(&[4000, 6000])));
        assert!(!Split::default().fits(&half));
        let (one, two) = (VersionNumber::FIRST, VersionNumber::try_from(2).unwrap());
        assert!(!Split(vec![(6000, one), (5000, two), (10_000, one)]).fits(&half));
    }
}
