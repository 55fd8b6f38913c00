//! Rollouts as they are kept: where traffic moves step by step, how far it is, and how it ended.
//!
//! The registry moves a rollout together with the policy that the move makes, in one transaction.
//! *When* it moves is decided by the server, which watches what the versions answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BasisPoints, FunctionName, Policy, PolicyRecord, VersionNumber};

/// One step: how much traffic the new version takes, and for how long at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStep {
    /// The new version's share.
    pub share: BasisPoints,
    /// The shortest time in the step, in milliseconds; 0 where its guards alone decide.
    pub hold_ms: u64,
}

/// What is going on with a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// It moves on when its guards pass, and back when one fails.
    Running,
    /// It stays where it is, but moves back when a guard fails.
    Paused,
    /// The new version has all the traffic.
    Succeeded,
    /// A guard failed; the policy before is back.
    RolledBack,
    /// Somebody ended it.
    Aborted,
}

impl RolloutState {
    /// All states, for metrics.
    pub const ALL: [RolloutState; 5] = [
        RolloutState::Running,
        RolloutState::Paused,
        RolloutState::Succeeded,
        RolloutState::RolledBack,
        RolloutState::Aborted,
    ];

    /// Whether it can still move.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// As the API and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
        }
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutEnd {
    /// When, in milliseconds since 1970 (UTC), by the server's clock.
    pub unix_ms: u64,
    /// Who ended it: a person, or the rollout itself.
    pub author: String,
    /// Why.
    pub reason: String,
    /// The verdicts that there were at the end, with their numbers.
    pub verdicts: serde_json::Value,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Whose traffic moves.
    pub function: FunctionName,
    /// Counts the rollouts of a function, from 1.
    pub number: u64,
    /// The version that traffic moves to.
    pub canary: VersionNumber,
    /// The version that it moves away from.
    pub stable: VersionNumber,
    /// The steps; the last is 100%.
    pub steps: Vec<RolloutStep>,
    /// What must hold, as it was written.
    pub guards: Vec<String>,
    /// The fewest calls of a version by which it may be judged.
    pub min_sample: u64,
    /// How far back guards look, in milliseconds.
    pub window_ms: u64,
    /// Who started it.
    pub author: String,
    /// When, in milliseconds since 1970 (UTC), by the server's clock. For people alone: a clock can
    /// jump, so no decision hangs on it.
    pub started_unix_ms: u64,
    /// What is going on.
    pub state: RolloutState,
    /// The present step, from 0.
    pub step: usize,
    /// Time spent in the step, in milliseconds, counted by a clock that doesn't jump.
    pub spent_ms: u64,
    /// The policy that there was before.
    pub before: PolicyRecord,
    /// How it ended, where it has.
    pub end: Option<RolloutEnd>,
}

impl RolloutRecord {
    /// The present step.
    pub fn present(&self) -> Option<&RolloutStep> {
        self.steps.get(self.step)
    }

    /// Whether the present step is the last.
    pub fn is_last(&self) -> bool {
        self.step + 1 >= self.steps.len()
    }

    /// The policy that gives the new version `share` and leaves the rest with the stable one.
    /// Labels, shadow and the rest stay as they were before.
    pub(crate) fn policy(&self, share: BasisPoints) -> Policy {
        let rest = BasisPoints::ALL.get().saturating_sub(share.get());
        let rest = BasisPoints::try_from(rest).unwrap_or(BasisPoints::NONE);
        let mut weights = BTreeMap::from([(self.canary, share)]);
        if rest != BasisPoints::NONE {
            weights.insert(self.stable, rest);
        }
        Policy {
            weights,
            ..self.before.policy.clone()
        }
    }

    /// How it holds on to `version`, for people.
    pub(crate) fn use_of(&self, version: VersionNumber) -> Option<String> {
        let number = self.number;
        if !self.state.is_active() {
            None
        } else if version == self.canary {
            Some(format!("is what rollout {number} leads to"))
        } else if self.before.policy.use_of(version).is_some() {
            Some(format!("may be brought back by rollout {number}"))
        } else {
            None
        }
    }
}

/// A rollout to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRollout {
    /// See [`RolloutRecord::canary`].
    pub canary: VersionNumber,
    /// See [`RolloutRecord::steps`].
    pub steps: Vec<RolloutStep>,
    /// See [`RolloutRecord::guards`].
    pub guards: Vec<String>,
    /// See [`RolloutRecord::min_sample`].
    pub min_sample: u64,
    /// See [`RolloutRecord::window_ms`].
    pub window_ms: u64,
}

/// What becomes of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum RolloutMove {
    /// So many milliseconds of the present step are spent.
    Spend(u64),
    /// It stays where it is.
    Pause,
    /// It goes on.
    Resume,
    /// It goes to this step, and on from there.
    Step(usize),
    /// The new version takes all the traffic.
    Succeed,
    /// The policy before comes back, as a guard failed.
    RollBack,
    /// The policy before comes back, as somebody wants.
    Abort,
}
