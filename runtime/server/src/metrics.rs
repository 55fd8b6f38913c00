//! Counters, gauges and histograms for `GET /metrics`.
//!
//! Each server has a recorder of its own, so that two in one process do not mix.
//! A version's series are made at its first request and kept beside it, so a
//! request touches atomics only, and a version that is never called costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use firebox_registry::{JobState, RolloutRecord, RolloutState};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::admission::{ByTier, tier_name};
use crate::rollout::verdict::{Outcome, Verdict};

mod descriptions;
mod series;

use descriptions::DESCRIPTIONS;
pub use series::*;

const METADATA: Metadata<'static> = Metadata::new("firebox", Level::INFO, Some("firebox"));

/// Upper bounds in seconds, from a tiny function's hop to a long cold start.
const BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// Rows in runs of models that may share them.
const BATCH_ROWS: &str = "firebox_batch_rows";

/// Upper bounds of [`BATCH_ROWS`].
const ROW_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Calls of models that wait for a thread.
#[derive(Clone)]
pub struct ComputeQueue {
    /// Those of the tiers that answer callers.
    pub callers: Gauge,
    /// Those of the batch tier.
    pub batch: Gauge,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Waiting for an instance or a compute thread.
    pub queue: Duration,
    /// Waiting for code and weights to be loaded.
    pub cold: Duration,
    /// Computing in the instance.
    pub guest: Duration,
    /// Computing models.
    pub compute: Duration,
    /// From the request's head to its answer.
    pub total: Duration,
}

/// The server's own series, and the maker of each version's.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// Requests between head and answer.
    pub in_flight: Gauge,
    /// Instances that are kept between requests.
    pub instances_idle: Gauge,
    /// Instances that are made before a request asks for them.
    pub instances_spare: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that were one too many.
    pub connections_refused: Counter,
    /// Open streams of gRPC.
    pub grpc_streams: Gauge,
    /// Bodies that came too slowly.
    pub bodies_stalled: Counter,
    /// Answers that were taken too slowly.
    pub answers_stalled: Counter,
    /// Answers that were cut because their function failed after it had begun them.
    pub answers_cut: Counter,
    /// Versions with linked code and no weights.
    pub linked: Gauge,
    /// Versions that are fully loaded.
    pub resident: Gauge,
    /// Versions there are.
    pub versions: Gauge,
    /// Bytes of weights in memory.
    pub weight_bytes: Gauge,
    /// Calls of models that wait for a thread.
    pub compute_queue: ComputeQueue,
    /// Runs of models, each for one call or several.
    pub model_runs: Counter,
    /// Shared runs that failed, after which each call had one of its own.
    pub batches_retried: Counter,
    /// Uploads that became a version or were one already.
    pub uploads_accepted: Counter,
    /// Uploads that were refused or broke off.
    pub uploads_refused: Counter,
    /// Policies that were set.
    pub policies_set: Counter,
    /// Earlier policies that were brought back.
    pub policies_restored: Counter,
    /// Changes of policies that came on top of another than their caller had read.
    pub policies_stale: Counter,
    /// Changes of policies that were refused for another reason.
    pub policies_refused: Counter,
    /// Loads of code and weights that failed.
    pub load_failures: Counter,
    /// Models that were read from disk.
    pub model_loads: Counter,
    /// Versions that had to go for others.
    pub evictions: Counter,
    /// Loads that wait for room in memory.
    pub waiting_for_room: Gauge,
    /// Bytes that models may take, and that they do.
    pub model_budget: Gauge,
    /// See [`model_budget`](Self::model_budget).
    pub model_held: Gauge,
    /// Bytes of code that may be mapped, and that are.
    pub code_budget: Gauge,
    /// See [`code_budget`](Self::code_budget).
    pub code_held: Gauge,
}

impl Metrics {
    /// A recorder with the build's own series in it.
    pub fn new() -> Self {
        // Only an empty list of buckets is refused.
        let builder = PrometheusBuilder::new();
        let rows = Matcher::Full(BATCH_ROWS.into());
        let builder = builder
            .set_buckets(&BUCKETS)
            .and_then(|builder| builder.set_buckets_for_metric(rows, &ROW_BUCKETS))
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = Arc::new(builder.build_recorder());
        for (name, unit, text) in DESCRIPTIONS {
            match *name {
                name if name.ends_with("_total") => {
                    recorder.describe_counter(name.into(), *unit, (*text).into());
                }
                name if name.ends_with("_seconds") || name == BATCH_ROWS => {
                    recorder.describe_histogram(name.into(), *unit, (*text).into());
                }
                name => recorder.describe_gauge(name.into(), *unit, (*text).into()),
            }
        }
        let gauge = |name: &'static str, labels: Vec<Label>| {
            recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
        };
        let counter = |name: &'static str, labels: Vec<Label>| {
            recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
        };
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        gauge("firebox_build_info", vec![version]).set(1.0);
        let state = |state| {
            gauge(
                "firebox_versions_loaded",
                vec![Label::new("residency", state)],
            )
        };
        let queue = |of| gauge("firebox_compute_queue_length", vec![Label::new("of", of)]);
        let uploads = |result| counter("firebox_uploads_total", vec![Label::new("result", result)]);
        let stalled = |what| {
            let labels = vec![Label::new("waited_for", what)];
            counter("firebox_connections_timed_out_total", labels)
        };
        let policies = |result| {
            let labels = vec![Label::new("result", result)];
            counter("firebox_policy_changes_total", labels)
        };
        let budget = |name, of| gauge(name, vec![Label::new("of", of)]);
        let (limit, held) = ("firebox_memory_budget_bytes", "firebox_memory_held_bytes");
        Self {
            handle: recorder.handle(),
            in_flight: gauge("firebox_requests_in_flight", vec![]),
            instances_idle: gauge("firebox_instances_idle", vec![]),
            instances_spare: gauge("firebox_instances_spare", vec![]),
            connections: gauge("firebox_connections", vec![]),
            connections_refused: counter("firebox_connections_refused_total", vec![]),
            grpc_streams: gauge("firebox_grpc_streams", vec![]),
            bodies_stalled: stalled("body"),
            answers_stalled: stalled("answer"),
            answers_cut: counter("firebox_answers_cut_total", vec![]),
            linked: state("linked"),
            resident: state("resident"),
            versions: gauge("firebox_versions", vec![]),
            weight_bytes: gauge("firebox_weight_bytes", vec![]),
            compute_queue: ComputeQueue {
                callers: queue("callers"),
                batch: queue("batch"),
            },
            model_runs: counter("firebox_model_runs_total", vec![]),
            batches_retried: counter("firebox_batches_retried_total", vec![]),
            uploads_accepted: uploads("accepted"),
            uploads_refused: uploads("refused"),
            policies_set: policies("set"),
            policies_restored: policies("restored"),
            policies_stale: policies("stale"),
            policies_refused: policies("refused"),
            load_failures: counter("firebox_load_failures_total", vec![]),
            model_loads: counter("firebox_model_loads_total", vec![]),
            evictions: counter("firebox_evictions_total", vec![]),
            waiting_for_room: gauge("firebox_loads_waiting_for_room", vec![]),
            model_budget: budget(limit, "models"),
            model_held: budget(held, "models"),
            code_budget: budget(limit, "code"),
            code_held: budget(held, "code"),
            recorder,
        }
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into their histograms; without it they pile up
    /// between two scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The series of one version.
    pub fn version(&self, function: &str, version: u32) -> VersionMetrics {
        let labels = || {
            vec![
                Label::new("function", function.to_owned()),
                Label::new("version", version.to_string()),
            ]
        };
        let requests = |class: &'static str| {
            let mut labels = labels();
            labels.push(Label::new("status", class));
            self.counter("firebox_requests_total", labels)
        };
        let seconds = |name: &'static str| {
            self.recorder
                .register_histogram(&Key::from_parts(name, labels()), &METADATA)
        };
        VersionMetrics {
            ok: requests("2xx"),
            caller: requests("4xx"),
            server: requests("5xx"),
            gone: requests("cancelled"),
            total: seconds("firebox_request_seconds"),
            queue: seconds("firebox_request_queue_seconds"),
            cold: seconds("firebox_request_cold_seconds"),
            guest: seconds("firebox_request_guest_seconds"),
            compute: seconds("firebox_request_compute_seconds"),
            cold_starts: self.counter("firebox_cold_starts_total", labels()),
        }
    }

    /// The series of the kept answers of all versions.
    pub fn cache(&self) -> CacheSeries {
        let evicted = |reason| {
            let labels = vec![Label::new("reason", reason)];
            self.counter("firebox_cache_evictions_total", labels)
        };
        CacheSeries {
            bytes: self.gauge("firebox_cache_bytes", vec![]),
            entries: self.gauge("firebox_cache_entries", vec![]),
            expired: evicted("ttl"),
            over_version: evicted("max_bytes"),
            over_memory: evicted("cache_memory"),
            dropped: evicted("dropped"),
        }
    }

    /// How the requests to one version fared with the cache.
    pub fn cached(&self, function: &str, version: u32) -> CacheCounters {
        let requests = |result: &'static str| {
            let labels = vec![
                Label::new("function", function.to_owned()),
                Label::new("version", version.to_string()),
                Label::new("result", result),
            ];
            self.counter("firebox_cache_requests_total", labels)
        };
        CacheCounters {
            hit: requests("hit"),
            coalesced: requests("coalesced"),
            miss: requests("miss"),
            bypass: requests("bypass"),
        }
    }

    /// The rows of a function's runs, where they may be shared.
    pub fn batch_rows(&self, function: &str) -> Histogram {
        let labels = vec![Label::new("function", function.to_owned())];
        let key = Key::from_parts(BATCH_ROWS, labels);
        self.recorder.register_histogram(&key, &METADATA)
    }

    /// The series of admission.
    pub fn admission(&self) -> AdmissionMetrics {
        let of = |name: &'static str| {
            ByTier::of(|tier| self.gauge(name, vec![Label::new("tier", tier_name(tier))]))
        };
        AdmissionMetrics {
            metrics: self.clone(),
            running: of("firebox_admission_running"),
            waiting: of("firebox_admission_waiting"),
        }
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        let key = Key::from_parts(name, labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        let key = Key::from_parts(name, labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// Counts a move of a version; `reason` is one of few.
    pub fn residency_moved(&self, from: &'static str, to: &'static str, reason: &'static str) {
        let labels = vec![
            Label::new("from", from),
            Label::new("to", to),
            Label::new("reason", reason),
        ];
        self.counter("firebox_residency_moves_total", labels)
            .increment(1);
    }

    /// Shows how a function's latest rollout stands.
    pub fn rollout(&self, rollout: &RolloutRecord) {
        let function = || Label::new("function", rollout.function.to_string());
        for state in RolloutState::ALL {
            let labels = vec![function(), Label::new("state", state.name())];
            let is = if state == rollout.state { 1.0 } else { 0.0 };
            self.gauge("firebox_rollout_state", labels).set(is);
        }
        let step = rollout.step as f64 + 1.0;
        self.gauge("firebox_rollout_step", vec![function()])
            .set(step);
    }

    /// Counts a rollout that has ended.
    pub fn rollout_ended(&self, rollout: &RolloutRecord) {
        let labels = vec![
            Label::new("function", rollout.function.to_string()),
            Label::new("outcome", rollout.state.name()),
        ];
        self.counter("firebox_rollouts_total", labels).increment(1);
    }

    /// Shows the latest verdicts of a function's rollout.
    pub fn verdicts(&self, function: &str, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let labels = vec![
                Label::new("function", function.to_owned()),
                Label::new("guard", verdict.guard.clone()),
            ];
            let value = match verdict.verdict {
                Outcome::Pass => 1.0,
                Outcome::NotEnoughData => 0.0,
                Outcome::Fail => -1.0,
            };
            self.gauge("firebox_rollout_verdict", labels).set(value);
        }
    }

    /// Shows how many jobs are in each state, and how long the oldest queued one has waited.
    pub fn jobs(&self, states: &BTreeMap<JobState, u64>, oldest_queued: Duration) {
        for state in JobState::ALL {
            let labels = vec![Label::new("state", state.name())];
            let jobs = states.get(&state).copied().unwrap_or(0);
            self.gauge("firebox_jobs", labels).set(jobs as f64);
        }
        self.gauge("firebox_job_oldest_queued_seconds", vec![])
            .set(oldest_queued.as_secs_f64());
    }

    /// The series of a function's jobs.
    pub fn job_items(&self, function: &str) -> JobMetrics {
        let items = |outcome: &'static str| {
            let labels = vec![
                Label::new("function", function.to_owned()),
                Label::new("outcome", outcome),
            ];
            self.counter("firebox_job_items_total", labels)
        };
        JobMetrics {
            succeeded: items("succeeded"),
            failed: items("failed"),
            retried: items("retried"),
        }
    }

    /// The series of a version that answered and the one that shadows it.
    pub fn shadow(&self, function: &str, version: u32, shadow: u32) -> ShadowMetrics {
        let labels = || {
            vec![
                Label::new("function", function.to_owned()),
                Label::new("version", version.to_string()),
                Label::new("shadow", shadow.to_string()),
            ]
        };
        let requests = |result: &'static str| {
            let mut labels = labels();
            labels.push(Label::new("result", result));
            self.counter("firebox_shadow_requests_total", labels)
        };
        ShadowMetrics {
            agreed: requests("agreed"),
            differed: requests("differed"),
            failed: requests("failed"),
            dropped: requests("dropped"),
            max_abs: self.gauge("firebox_shadow_max_abs_difference", labels()),
            max_rel: self.gauge("firebox_shadow_max_rel_difference", labels()),
        }
    }
}

/// Time added up by those who work for one request.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Adds `time`.
    pub fn add(&self, time: Duration) {
        self.0
            .fetch_add(time.as_nanos().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    /// The sum so far; what comes is counted from zero.
    pub fn take(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_request_is_counted_under_its_version_and_class() {
        let metrics = Metrics::new();
        let version = metrics.version("echo", 2);
        let spent = Spent {
            total: Duration::from_millis(3),
            ..Spent::default()
        };
        version.record(Some(StatusCode::OK), &spent);
        version.record(Some(StatusCode::NOT_FOUND), &spent);
        version.record(None, &spent);
        let text = metrics.render();
        for line in [
            r#"firebox_requests_total{function="echo",version="2",status="2xx"} 1"#,
            r#"firebox_requests_total{function="echo",version="2",status="4xx"} 1"#,
            r#"firebox_requests_total{function="echo",version="2",status="cancelled"} 1"#,
            r#"firebox_request_seconds_bucket{function="echo",version="2",le="0.005"} 2"#,
            r#"firebox_build_info{version="0.1.0"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
