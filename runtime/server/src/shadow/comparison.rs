//! What was found of each pair of versions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use firebox_registry::VersionNumber;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Copied, Found};
use crate::metrics::{Metrics, ShadowMetrics};
use crate::rollout::Latencies;
use crate::routing::Version;

/// What was found of one pair of versions since the server started.
#[derive(Default)]
pub struct Comparison {
    metrics: Option<ShadowMetrics>,
    agreed: u64,
    differed: u64,
    failed: u64,
    dropped: u64,
    max_abs: Option<f64>,
    max_rel: Option<f64>,
    primary: Latencies,
    shadow: Latencies,
}

/// Comparisons of a shadow version, by the version that answered.
pub type Comparisons = Mutex<BTreeMap<VersionNumber, Comparison>>;

/// How a version that answers and one that shadows it compare, since the server started.
#[derive(Serialize, ToSchema)]
pub struct ComparisonInfo {
    /// Who answers.
    version: VersionNumber,
    /// Who gets copies.
    shadow: VersionNumber,
    /// Answers that were compared.
    compared: u64,
    /// Those of them that agreed.
    agreed: u64,
    /// The share of them that agreed, from 0 to 1.
    agreement: Option<f64>,
    /// Copies that the shadow had no answer to.
    failed: u64,
    /// Copies that were dropped, for want of room or because callers needed the machine.
    dropped: u64,
    /// The largest absolute difference of two numbers that stand side by side.
    max_abs_difference: Option<f64>,
    /// The largest relative difference: absolute, by the larger magnitude.
    max_rel_difference: Option<f64>,
    /// What callers waited for the answers that were compared.
    latency_ms: Latency,
    /// What the shadow took for its answers.
    shadow_latency_ms: Latency,
}

/// Latencies in milliseconds, to 1/32.
#[derive(Serialize, ToSchema)]
struct Latency {
    /// Half the calls take no longer.
    p50: Option<f64>,
    /// 95 of 100 calls take no longer.
    p95: Option<f64>,
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        let ms = |quantile| {
            let time = latencies.quantile(quantile);
            time.map(|time| time.as_secs_f64() * 1e3)
        };
        Self {
            p50: ms(0.5),
            p95: ms(0.95),
        }
    }
}

/// All comparisons of a version as a shadow.
pub fn comparisons(shadow: &Version) -> Vec<ComparisonInfo> {
    let found = lock(&shadow.comparisons);
    let infos = found.iter().map(|(version, found)| {
        let compared = found.agreed + found.differed;
        ComparisonInfo {
            version: *version,
            shadow: shadow.record.number,
            compared,
            agreed: found.agreed,
            agreement: (compared > 0).then(|| found.agreed as f64 / compared as f64),
            failed: found.failed,
            dropped: found.dropped,
            max_abs_difference: found.max_abs,
            max_rel_difference: found.max_rel,
            latency_ms: Latency::of(&found.primary),
            shadow_latency_ms: Latency::of(&found.shadow),
        }
    });
    infos.collect()
}

fn lock(comparisons: &Comparisons) -> MutexGuard<'_, BTreeMap<VersionNumber, Comparison>> {
    comparisons.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what became of a copy.
pub fn count(metrics: &Metrics, copied: &Copied, found: &Found) {
    let (primary, shadow) = (&copied.primary.record, &copied.shadow.record);
    let mut comparisons = lock(&copied.shadow.comparisons);
    let comparison = comparisons.entry(primary.number).or_default();
    let series = comparison.metrics.get_or_insert_with(|| {
        let (version, shadow) = (primary.number.get(), shadow.number.get());
        metrics.shadow(primary.function.as_str(), version, shadow)
    });
    match found {
        Found::Compared(difference, took) => {
            let (counter, count) = match difference.agrees {
                true => (&series.agreed, &mut comparison.agreed),
                false => (&series.differed, &mut comparison.differed),
            };
            counter.increment(1);
            *count += 1;
            let wider = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
            comparison.max_abs = wider(comparison.max_abs, difference.max_abs);
            comparison.max_rel = wider(comparison.max_rel, difference.max_rel);
            series.max_abs.set(comparison.max_abs.unwrap_or(0.0));
            series.max_rel.set(comparison.max_rel.unwrap_or(0.0));
            comparison.primary.record(copied.took);
            comparison.shadow.record(*took);
        }
        Found::Failed(failure) => {
            series.failed.increment(1);
            comparison.failed += 1;
            tracing::debug!(function = %primary.function, shadow = shadow.number.get(), %failure,
                "the shadow failed where the version answered");
        }
        Found::Dropped => {
            series.dropped.increment(1);
            comparison.dropped += 1;
        }
    }
}
