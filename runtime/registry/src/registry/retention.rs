//! Retention: the newest versions of a function are kept, and all that are in use.

use std::collections::HashSet;
use std::num::NonZeroU32;

use super::{Registry, Result};
use crate::store::Edit;
use crate::{FunctionName, FunctionRecord, VersionNumber};

impl Registry {
    /// Keeps only the `keep_last` newest versions of a function, now and with every version that
    /// comes; `None` keeps all. Versions that the present policy names, or the one before it, to
    /// which a rollback goes, or an open job, are kept whatever their age. Gives the versions that were deleted.
    pub fn set_retention(
        &self,
        function: &FunctionName,
        keep_last: Option<NonZeroU32>,
    ) -> Result<Vec<VersionNumber>> {
        let retired = {
            let _changing = self.changing();
            self.check_room()?;
            let mut record = self.function(function)?;
            record.keep_last = keep_last;
            let retired = self.retired(&record, None)?;
            let edits: Vec<Edit<'_>> = retired.iter().copied().map(Edit::RemoveVersion).collect();
            self.records.write(&record, &edits)?;
            retired
        };
        self.tell(function);
        self.sweep_retired(function, &retired);
        Ok(retired)
    }

    /// The versions that are too old to stay, once there is `new` beside those that are stored.
    /// The caller holds the lock.
    pub(super) fn retired(
        &self,
        record: &FunctionRecord,
        new: Option<VersionNumber>,
    ) -> Result<Vec<VersionNumber>> {
        let Some(keep_last) = record.keep_last else {
            return Ok(Vec::new());
        };
        let mut numbers = self.records.numbers(&record.name)?;
        numbers.extend(new);
        let too_many = numbers.len().saturating_sub(keep_last.get() as usize);
        numbers.truncate(too_many);
        if numbers.is_empty() {
            return Ok(numbers);
        }
        let before = self.policy_before(record)?;
        let mut used: HashSet<VersionNumber> = record.current.policy.versions().collect();
        used.extend(before.iter().flat_map(|before| before.policy.versions()));
        if let Some(rollout) = self.active_rollout(&record.name)? {
            used.extend(rollout.before.policy.versions());
            used.insert(rollout.canary);
        }
        for job in self.open_jobs(&record.name) {
            used.insert(job?.version);
        }
        numbers.retain(|number| !used.contains(number));
        Ok(numbers)
    }

    /// Removes the files of versions that were retired. They are of no use to anybody, so that
    /// what fails here is left to the sweep at the next start.
    pub(super) fn sweep_retired(&self, function: &FunctionName, retired: &[VersionNumber]) {
        if retired.is_empty() {
            return;
        }
        let numbers: Vec<u32> = retired.iter().map(|number| number.get()).collect();
        tracing::info!(%function, versions = ?numbers, "old versions are deleted: retention");
        if let Err(error) = self.sweep() {
            tracing::warn!(%function, %error, "files of deleted versions are left for the next start");
        }
    }
}
