//! `[models.NAME.batching]`: whether calls of different instances share one run of the model.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ManifestError, value};
use crate::sizes;

/// How runs of a model that wait at the same time become one.
///
/// All inputs and outputs of such a model have a first dimension of any size, and what it makes
/// of a row depends on that row alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batching {
    /// The most rows of one run: the sum of the first dimensions of those that share it.
    pub max_batch_size: u32,
    /// How long a run waits for others while a thread is free; 0 takes only those that wait
    /// already.
    #[serde(with = "sizes::time", default)]
    pub max_queue_delay: Duration,
    /// Inputs whose further open dimensions may be filled up to those of the longest, and with
    /// what. Inputs that aren't named here share a run only where they have the same shape.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pad: BTreeMap<String, i64>,
}

impl Batching {
    /// The most rows that a run may be made of.
    pub const MAX_ROWS: u32 = 4096;
    /// The longest that a run may wait for others.
    pub const MAX_DELAY: Duration = Duration::from_secs(1);

    pub(super) const KEYS: &[&str] = &["max_batch_size", "max_queue_delay", "pad"];

    pub(super) fn check(&self, model: &str) -> Result<(), ManifestError> {
        let key = |name: &str| format!("models.{model}.batching.{name}");
        let (size, most) = (self.max_batch_size, Self::MAX_ROWS);
        if !(2..=most).contains(&size) {
            let problem = format!(
                "is {size}: it must be from 2 to {most}; leave [models.{model}.batching] out for \
                 runs of their own"
            );
            return Err(value(key("max_batch_size"), problem));
        }
        if self.max_queue_delay > Self::MAX_DELAY {
            let delay = humantime::format_duration(self.max_queue_delay);
            let problem = format!("is {delay}: it must be from 0s to 1s");
            return Err(value(key("max_queue_delay"), problem));
        }
        Ok(())
    }
}
