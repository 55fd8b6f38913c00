//! Policies: read, replaced as a whole, and brought back.

use std::collections::HashSet;

use super::{Registry, Result, unix_ms};
use crate::record::UNKNOWN_AUTHOR;
use crate::store::Edit;
use crate::{
    Change, FunctionName, FunctionRecord, Kind, Policy, PolicyError, PolicyRecord, RegistryError,
    Revision, Split, VersionNumber,
};

/// How many policies of a function are kept, with the one that holds.
pub const POLICIES_KEPT: u64 = 100;

impl PolicyRecord {
    /// What a function has before its first version, or after it was deleted. `last` is the
    /// revision of a former function of the name.
    pub(super) fn none(last: Option<Revision>) -> PolicyRecord {
        PolicyRecord {
            revision: last.unwrap_or(Revision::from(0)),
            policy: Policy::default(),
            split: Split::default(),
            author: UNKNOWN_AUTHOR.to_owned(),
            reason: String::new(),
            created_unix_ms: 0,
            restored: None,
            rollout: None,
        }
    }

    /// The first policy of a function: all traffic to its first version.
    pub(super) fn first(&self, version: VersionNumber, author: &str, now: u64) -> PolicyRecord {
        let policy = Policy::all_to(version);
        PolicyRecord {
            revision: self.revision.next(),
            split: Split::of(&policy.weights),
            policy,
            author: author.to_owned(),
            reason: "first version".to_owned(),
            created_unix_ms: now,
            restored: None,
            rollout: None,
        }
    }
}

impl Registry {
    /// Where a function's traffic goes.
    pub fn policy(&self, function: &FunctionName) -> Result<PolicyRecord> {
        Ok(self.function(function)?.current)
    }

    /// The policies that are kept, newest first: the one that holds, and up to 99 before it.
    pub fn policies(&self, function: &FunctionName) -> Result<Vec<PolicyRecord>> {
        let _changing = self.changing();
        let current = self.function(function)?.current;
        let replaced = self.records.policies(function).rev();
        std::iter::once(Ok(current)).chain(replaced).collect()
    }

    /// The policy of a revision.
    ///
    /// # Errors
    /// [`RegistryError::PolicyNotFound`] where it never was, or is no longer kept.
    pub fn policy_at(&self, function: &FunctionName, revision: Revision) -> Result<PolicyRecord> {
        let _changing = self.changing();
        let record = self.function(function)?;
        self.kept_policy(&record, revision)
    }

    /// Refuses a change whose `if_match` is stale by now.
    ///
    /// # Errors
    /// [`RegistryError::StalePolicy`] where it isn't the revision of the present policy.
    pub fn check_current(&self, function: &FunctionName, if_match: Option<Revision>) -> Result<()> {
        check_revision(&self.function(function)?, if_match)
    }

    /// Replaces a function's policy: the weights add up to 10,000, and every version that it names
    /// exists. Shares of 0 are dropped. A policy that says what the present one says changes
    /// nothing. Gives the policy as it is kept.
    ///
    /// # Errors
    /// [`RegistryError::StalePolicy`] where `if_match` isn't the revision of the present policy;
    /// [`RegistryError::Policy`] and [`RegistryError::VersionNotFound`] where it can't be.
    pub fn set_policy(
        &self,
        function: &FunctionName,
        policy: Policy,
        change: Change,
        if_match: Option<Revision>,
    ) -> Result<PolicyRecord> {
        let policy = policy.checked()?;
        let _changing = self.changing();
        let record = self.function(function)?;
        check_revision(&record, if_match)?;
        if let Some(number) = self.missing(function, &policy)?.first() {
            return Err(self.no_version(function, *number)?);
        }
        if let Some(shadow) = policy.shadow {
            let (version, kind) = (shadow.version, self.version(function, shadow.version)?.kind);
            if kind == Kind::Http {
                return Err(PolicyError::ShadowKind { version, kind }.into());
            }
        }
        let split = record.current.split.moved_to(&policy.weights);
        self.replace(record, policy, split, None, change)
    }

    /// Brings back the policy of `revision`, or the one before the present, as a new revision.
    /// Callers go back to the versions that they had under it.
    ///
    /// # Errors
    /// [`RegistryError::PolicyGone`] where a version that it names was deleted, and those of
    /// [`policy_at`](Self::policy_at) and [`set_policy`](Self::set_policy).
    pub fn restore_policy(
        &self,
        function: &FunctionName,
        revision: Option<Revision>,
        change: Change,
        if_match: Option<Revision>,
    ) -> Result<PolicyRecord> {
        let _changing = self.changing();
        let record = self.function(function)?;
        check_revision(&record, if_match)?;
        let wanted = match revision {
            Some(revision) => self.kept_policy(&record, revision)?,
            None => match self.policy_before(&record)? {
                Some(before) => before,
                None => {
                    let function = function.clone();
                    return Err(RegistryError::NoEarlierPolicy { function });
                }
            },
        };
        let missing = self.missing(function, &wanted.policy)?;
        if !missing.is_empty() {
            return Err(RegistryError::PolicyGone {
                function: function.clone(),
                revision: wanted.revision,
                missing,
            });
        }
        let split = match wanted.split.fits(&wanted.policy.weights) {
            true => wanted.split,
            false => Split::of(&wanted.policy.weights),
        };
        self.replace(record, wanted.policy, split, Some(wanted.revision), change)
    }

    /// Writes the next policy, and the present one among those that were replaced. A rollout that is
    /// under way ends where this moves traffic: who does so by hand has the last word. The caller
    /// holds the lock.
    fn replace(
        &self,
        mut record: FunctionRecord,
        policy: Policy,
        split: Split,
        restored: Option<Revision>,
        change: Change,
    ) -> Result<PolicyRecord> {
        self.check_room()?;
        let rollout = self.rollout_beside(&record, &policy, &change)?;
        let Some(replaced) = record.succeed(policy, split, restored, change) else {
            return Ok(record.current);
        };
        let mut edits = replaced.edits();
        if let Some(rollout) = &rollout {
            let goes_on = rollout.state.is_active();
            record.current.rollout = goes_on.then_some(rollout.number);
            edits.push(Edit::PutRollout(rollout));
        }
        self.records.write(&record, &edits)?;
        self.tell(&record.name);
        Ok(record.current)
    }

    /// The policy that a rollback goes to: the one before the present, or, where a rollout set the
    /// present one, the one before that rollout.
    pub(super) fn policy_before(&self, record: &FunctionRecord) -> Result<Option<PolicyRecord>> {
        let rollout = record.current.rollout;
        let other = |policy: &Result<PolicyRecord>| match policy {
            Ok(policy) => rollout.is_none() || policy.rollout != rollout,
            Err(_) => true,
        };
        let mut replaced = self.records.policies(&record.name).rev();
        replaced.find(other).transpose()
    }

    fn kept_policy(&self, record: &FunctionRecord, revision: Revision) -> Result<PolicyRecord> {
        let newest = record.current.revision;
        if revision == newest {
            return Ok(record.current.clone());
        }
        if let Some(kept) = self.records.policy(&record.name, revision)? {
            return Ok(kept);
        }
        let oldest = self.records.policies(&record.name).next().transpose()?;
        Err(RegistryError::PolicyNotFound {
            function: record.name.clone(),
            revision,
            oldest: oldest.map_or(newest, |policy| policy.revision),
            newest,
        })
    }

    /// The versions that a policy names and that don't exist, in order.
    fn missing(&self, function: &FunctionName, policy: &Policy) -> Result<Vec<VersionNumber>> {
        let known: HashSet<VersionNumber> = self.records.numbers(function)?.into_iter().collect();
        let mut missing: Vec<_> = policy.versions().filter(|v| !known.contains(v)).collect();
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }
}

/// A policy that another has replaced.
pub(super) struct Replaced(PolicyRecord);

impl Replaced {
    /// Keeps it, and lets go of the one that is too old then: revisions follow one another.
    pub(super) fn edits(&self) -> Vec<Edit<'_>> {
        let mut edits = vec![Edit::PutPolicy(&self.0)];
        let next = self.0.revision.get().saturating_add(1);
        let too_old = next.checked_sub(POLICIES_KEPT);
        edits.extend(too_old.map(|revision| Edit::RemovePolicy(revision.into())));
        edits
    }
}

impl FunctionRecord {
    /// Puts the next policy in the place of the present one, which is given back. Nothing changes
    /// where both say the same.
    pub(super) fn succeed(
        &mut self,
        policy: Policy,
        split: Split,
        restored: Option<Revision>,
        change: Change,
    ) -> Option<Replaced> {
        if self.current.policy == policy {
            return None;
        }
        let Change { author, reason } = change.tidied();
        let next = PolicyRecord {
            revision: self.current.revision.next(),
            policy,
            split,
            author: match author.is_empty() {
                true => UNKNOWN_AUTHOR.to_owned(),
                false => author,
            },
            reason,
            created_unix_ms: unix_ms(),
            restored,
            rollout: None,
        };
        let replaced = std::mem::replace(&mut self.current, next);
        Some(Replaced(replaced))
    }
}

fn check_revision(record: &FunctionRecord, if_match: Option<Revision>) -> Result<()> {
    match if_match {
        Some(expected) if expected != record.current.revision => Err(RegistryError::StalePolicy {
            function: record.name.clone(),
            expected,
            current: Box::new(record.current.clone()),
        }),
        _ => Ok(()),
    }
}
