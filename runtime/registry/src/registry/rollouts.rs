//! Rollouts: begun, moved and ended, each time together with the policy that this makes.

use super::{Registry, Result, unix_ms};
use crate::store::Edit;
use crate::{
    BasisPoints, Change, FunctionName, FunctionRecord, NewRollout, Policy, PolicyRecord,
    RegistryError, RolloutEnd, RolloutMove, RolloutRecord, RolloutState, RolloutStep,
    VersionNumber,
};

/// How many rollouts of a function are kept, with the one that is under way.
pub const ROLLOUTS_KEPT: u64 = 20;

impl Registry {
    /// The latest rollout of a function.
    pub fn rollout(&self, function: &FunctionName) -> Result<Option<RolloutRecord>> {
        self.function(function)?;
        self.records.rollouts(function).next_back().transpose()
    }

    /// The functions that have had a rollout, in order of their names.
    pub fn functions_with_rollouts(&self) -> Result<Vec<FunctionName>> {
        self.records.with_rollouts()
    }

    /// The rollouts that are kept, newest first.
    pub fn rollouts(&self, function: &FunctionName) -> Result<Vec<RolloutRecord>> {
        self.function(function)?;
        self.records.rollouts(function).rev().collect()
    }

    /// The rollout of a function that is under way.
    pub(super) fn active_rollout(&self, function: &FunctionName) -> Result<Option<RolloutRecord>> {
        let latest = self.records.rollouts(function).next_back().transpose()?;
        Ok(latest.filter(|rollout| rollout.state.is_active()))
    }

    /// Begins a rollout, and makes the policy of its first step.
    ///
    /// # Errors
    /// [`RegistryError::RolloutUnderWay`] where one is; [`RegistryError::VersionNotFound`];
    /// [`RegistryError::RolloutImpossible`] where the version takes all the traffic already, or
    /// others than one take the rest.
    pub fn start_rollout(
        &self,
        function: &FunctionName,
        new: NewRollout,
        change: Change,
    ) -> Result<RolloutRecord> {
        let _changing = self.changing();
        let record = self.function(function)?;
        let latest = self.records.rollouts(function).next_back().transpose()?;
        if let Some(active) = latest.as_ref().filter(|latest| latest.state.is_active()) {
            return Err(RegistryError::RolloutUnderWay {
                function: function.clone(),
                number: active.number,
                canary: active.canary,
            });
        }
        if self.records.version(function, new.canary)?.is_none() {
            return Err(self.no_version(function, new.canary)?);
        }
        let weights = &record.current.policy.weights;
        let mut others = weights.keys().filter(|version| **version != new.canary);
        let impossible = |reason: String| RegistryError::RolloutImpossible {
            function: function.clone(),
            reason,
        };
        let stable = match (others.next(), others.next()) {
            (Some(stable), None) => *stable,
            (None, _) => {
                let canary = new.canary;
                return Err(impossible(format!(
                    "version {canary} takes all the traffic already"
                )));
            }
            (Some(first), Some(second)) => {
                return Err(impossible(format!(
                    "a rollout leads from one version to another, but versions {first} and \
                     {second} share the traffic: give all of it to one of them first"
                )));
            }
        };
        let Some(RolloutStep { share, .. }) = new.steps.first().copied() else {
            return Err(impossible("it has no steps".to_owned()));
        };
        self.check_room()?;
        let Change { author, reason } = change.tidied();
        let rollout = RolloutRecord {
            function: function.clone(),
            number: latest.map_or(1, |latest| latest.number + 1),
            canary: new.canary,
            stable,
            steps: new.steps,
            guards: new.guards,
            min_sample: new.min_sample,
            window_ms: new.window_ms,
            author: author.clone(),
            started_unix_ms: unix_ms(),
            state: RolloutState::Running,
            step: 0,
            spent_ms: 0,
            before: record.current.clone(),
            end: None,
        };
        let why = match reason.is_empty() {
            true => String::new(),
            false => format!(": {reason}"),
        };
        let reason = format!(
            "rollout {} to version {} begins at {share}{why}",
            rollout.number, rollout.canary
        );
        self.write_rollout(record, &rollout, Some(share), Change { author, reason })?;
        Ok(rollout)
    }

    /// Moves the rollout that is under way. `seen` is the number and the step that the caller
    /// decided by, if it must be these still. Where a rollout ends, `change` tells who ended it and
    /// why, and `verdicts` is kept with it.
    ///
    /// A rollout that moves back needs no free disk beyond what is set aside.
    ///
    /// # Errors
    /// [`RegistryError::NoRollout`] where none is under way, or not the one that was seen.
    pub fn move_rollout(
        &self,
        function: &FunctionName,
        seen: Option<(u64, usize)>,
        to: RolloutMove,
        change: Change,
        verdicts: serde_json::Value,
    ) -> Result<RolloutRecord> {
        let _changing = self.changing();
        let record = self.function(function)?;
        let active = self.active_rollout(function)?;
        let unchanged =
            |rollout: &RolloutRecord| seen.is_none_or(|s| s == (rollout.number, rollout.step));
        let Some(mut rollout) = active.filter(unchanged) else {
            return Err(RegistryError::NoRollout {
                function: function.clone(),
            });
        };
        let change = change.tidied();
        let mut share = None;
        match to {
            RolloutMove::Spend(ms) => rollout.spent_ms = ms,
            RolloutMove::Pause => rollout.state = RolloutState::Paused,
            RolloutMove::Resume => rollout.state = RolloutState::Running,
            RolloutMove::Step(step) => {
                let last = rollout.steps.len().saturating_sub(1);
                rollout.step = step.min(last);
                rollout.spent_ms = 0;
                rollout.state = RolloutState::Running;
                share = rollout.present().map(|step| step.share);
            }
            RolloutMove::Succeed => {
                rollout.step = rollout.steps.len().saturating_sub(1);
                share = Some(BasisPoints::ALL);
                rollout.finish(RolloutState::Succeeded, &change, verdicts);
            }
            RolloutMove::RollBack => rollout.finish(RolloutState::RolledBack, &change, verdicts),
            RolloutMove::Abort => rollout.finish(RolloutState::Aborted, &change, verdicts),
        }
        self.write_rollout(record, &rollout, share, change)?;
        Ok(rollout)
    }

    /// Writes a rollout with the policy that it makes: its new version at `share`, or, where it
    /// moved back, the policy before.
    fn write_rollout(
        &self,
        mut record: FunctionRecord,
        rollout: &RolloutRecord,
        share: Option<BasisPoints>,
        change: Change,
    ) -> Result<()> {
        let current = &record.current;
        let back = matches!(
            rollout.state,
            RolloutState::RolledBack | RolloutState::Aborted
        );
        let (policy, split, restored) = match share {
            Some(share) => {
                let policy = rollout.policy(share);
                let split = current.split.moved_to(&policy.weights);
                (policy, split, None)
            }
            None if back => {
                let PolicyRecord {
                    policy,
                    split,
                    revision,
                    ..
                } = rollout.before.clone();
                // Labels and the rest may have been changed by hand since.
                let kept = self.records.policy(&record.name, revision)?;
                let same = kept.is_some_and(|kept| kept.policy == policy);
                (policy, split, same.then_some(revision))
            }
            None => (current.policy.clone(), current.split.clone(), None),
        };
        let replaced = record.succeed(policy, split, restored, change);
        let mut edits = Vec::new();
        if let Some(replaced) = &replaced {
            record.current.rollout = Some(rollout.number);
            edits = replaced.edits();
        }
        edits.push(Edit::PutRollout(rollout));
        let too_old = rollout.number.checked_sub(ROLLOUTS_KEPT);
        edits.extend(too_old.map(Edit::RemoveRollout));
        self.records.write(&record, &edits)?;
        self.tell(&record.name);
        Ok(())
    }

    /// What becomes of the rollout under way where somebody sets a policy by hand: it ends where
    /// that moves traffic; else it goes on, and what was changed stays where it moves on or back.
    pub(super) fn rollout_beside(
        &self,
        record: &FunctionRecord,
        policy: &Policy,
        change: &Change,
    ) -> Result<Option<RolloutRecord>> {
        if record.current.policy == *policy {
            return Ok(None);
        }
        let Some(mut rollout) = self.active_rollout(&record.name)? else {
            return Ok(None);
        };
        if record.current.policy.weights == policy.weights {
            let weights = std::mem::take(&mut rollout.before.policy.weights);
            rollout.before.policy = Policy {
                weights,
                ..policy.clone()
            };
            return Ok(Some(rollout));
        }
        let Change { author, reason } = change.clone().tidied();
        let why = match reason.is_empty() {
            true => String::new(),
            false => format!(": {reason}"),
        };
        let reason = format!("the traffic was moved by hand{why}");
        let change = Change { author, reason };
        rollout.finish(RolloutState::Aborted, &change, serde_json::Value::Null);
        Ok(Some(rollout))
    }

    /// How the rollout that is under way holds on to a version, for people.
    pub(super) fn rollout_use(
        &self,
        function: &FunctionName,
        version: VersionNumber,
    ) -> Result<Option<String>> {
        let active = self.active_rollout(function)?;
        Ok(active.and_then(|rollout| rollout.use_of(version)))
    }
}

impl RolloutRecord {
    /// Ends it.
    pub(super) fn finish(
        &mut self,
        state: RolloutState,
        change: &Change,
        verdicts: serde_json::Value,
    ) {
        self.state = state;
        self.end = Some(RolloutEnd {
            unix_ms: unix_ms(),
            author: change.author.clone(),
            reason: change.reason.clone(),
            verdicts,
        });
    }
}
