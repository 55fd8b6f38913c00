//! What versions have used.

use std::collections::HashMap;

use super::{Registry, Result};
use crate::{FunctionName, UsageRecord, VersionNumber};

impl Registry {
    /// What a version has used, as it was [saved](Self::save_usage) last; `None` where it never
    /// was.
    pub fn usage(
        &self,
        function: &FunctionName,
        number: VersionNumber,
    ) -> Result<Option<UsageRecord>> {
        self.records.usage(function, number)
    }

    /// The same of all versions, in one pass.
    pub fn all_usage(&self) -> Result<HashMap<(FunctionName, VersionNumber), UsageRecord>> {
        let by_version = |usage: UsageRecord| ((usage.function.clone(), usage.version), usage);
        let all = self.records.all_usage();
        all.map(|usage| usage.map(by_version)).collect()
    }

    /// Saves what versions have used, all or nothing; versions that are gone are passed over.
    ///
    /// # Errors
    /// [`RegistryError::DiskFull`](crate::RegistryError::DiskFull), among others; nothing is
    /// written then.
    pub fn save_usage(&self, usage: &[UsageRecord]) -> Result<()> {
        let _changing = self.changing();
        self.check_room()?;
        self.records.write_usage(usage)
    }
}
