//! Series that others hold, and count in.

use axum::http::StatusCode;
use firebox_registry::Tier;
use metrics::{Counter, Gauge, Histogram, Label};

use super::{Metrics, Spent};
use crate::admission::{ByTier, tier_name};

/// The series of a function's jobs.
pub struct JobMetrics {
    /// Items with an answer.
    pub succeeded: Counter,
    /// Items with an error.
    pub failed: Counter,
    /// Attempts after the first.
    pub retried: Counter,
}

/// The series of the kept answers of all versions.
pub struct CacheSeries {
    /// What they take.
    pub bytes: Gauge,
    /// How many they are.
    pub entries: Gauge,
    /// Gone because their time was over.
    pub expired: Counter,
    /// Gone because their version's took too much.
    pub over_version: Counter,
    /// Gone because all together took too much.
    pub over_memory: Counter,
    /// Gone with their version's traffic.
    pub dropped: Counter,
}

/// How the requests to one version fared with the cache.
pub struct CacheCounters {
    /// Answered by what was kept.
    pub hit: Counter,
    /// Answered by an equal request that ran at the same time.
    pub coalesced: Counter,
    /// Computed.
    pub miss: Counter,
    /// Computed, as their callers wished.
    pub bypass: Counter,
}

/// The series of a version that answered and the one that shadows it.
pub struct ShadowMetrics {
    /// Answers that agree.
    pub agreed: Counter,
    /// Answers that don't.
    pub differed: Counter,
    /// Copies that the shadow had no answer to.
    pub failed: Counter,
    /// Copies that nobody was asked.
    pub dropped: Counter,
    /// The largest absolute difference.
    pub max_abs: Gauge,
    /// The largest relative difference.
    pub max_rel: Gauge,
}

/// The series of admission.
pub struct AdmissionMetrics {
    pub(super) metrics: Metrics,
    pub(super) running: ByTier<Gauge>,
    pub(super) waiting: ByTier<Gauge>,
}

impl AdmissionMetrics {
    /// Those that have an instance.
    pub fn running(&self, tier: Tier) -> &Gauge {
        self.running.get(tier)
    }

    /// Those that wait for one.
    pub fn waiting(&self, tier: Tier) -> &Gauge {
        self.waiting.get(tier)
    }

    /// Those that were refused.
    pub fn refused(&self, tier: Tier, reason: &'static str) -> Counter {
        let labels = vec![
            Label::new("tier", tier_name(tier)),
            Label::new("reason", reason),
        ];
        self.metrics
            .counter("firebox_admission_refused_total", labels)
    }
}

/// The series of one version.
pub struct VersionMetrics {
    pub(super) ok: Counter,
    pub(super) caller: Counter,
    pub(super) server: Counter,
    pub(super) gone: Counter,
    pub(super) total: Histogram,
    pub(super) queue: Histogram,
    pub(super) cold: Histogram,
    pub(super) guest: Histogram,
    pub(super) compute: Histogram,
    pub(super) cold_starts: Counter,
}

impl VersionMetrics {
    /// Counts one request; `None` is a caller that went away.
    pub fn record(&self, status: Option<StatusCode>, spent: &Spent) {
        match status {
            None => return self.gone.increment(1),
            Some(status) if status.is_server_error() => self.server.increment(1),
            Some(status) if status.is_client_error() => self.caller.increment(1),
            Some(_) => self.ok.increment(1),
        }
        self.total.record(spent.total.as_secs_f64());
        self.queue.record(spent.queue.as_secs_f64());
        self.guest.record(spent.guest.as_secs_f64());
        self.compute.record(spent.compute.as_secs_f64());
        if !spent.cold.is_zero() {
            self.cold_starts.increment(1);
            self.cold.record(spent.cold.as_secs_f64());
        }
    }
}
