//! The statistics extension: what versions have answered since the server started.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{resolve, version_or_label};
use crate::problem::{Failure, V2Problem};
use crate::protocol::Path;
use crate::routing::Version;
use crate::server::App;
use crate::statistics::{Runs, Sum, Tally};

/// What versions have answered.
#[derive(Serialize, ToSchema)]
pub struct Statistics {
    model_stats: Vec<VersionStatistics>,
}

/// What one version has answered since the server started.
#[derive(Serialize, ToSchema)]
pub struct VersionStatistics {
    /// The function.
    #[schema(example = "file-type")]
    pub(crate) name: String,
    /// The version's number.
    #[schema(example = "1")]
    pub(crate) version: String,
    /// When it answered last, in milliseconds since 1970; 0 where it never did.
    pub(crate) last_inference: u64,
    /// Inferences that it answered: rows, where requests may share runs of its model.
    pub(crate) inference_count: u64,
    /// Runs: of its model, or of its component.
    pub(crate) execution_count: u64,
    pub(crate) inference_stats: InferenceStatistics,
    /// Always empty: no answer comes in several responses.
    #[schema(value_type = Object)]
    pub(crate) response_stats: serde_json::Map<String, serde_json::Value>,
    /// Runs of its models by their rows.
    pub(crate) batch_stats: Vec<BatchStatistics>,
    /// Its weights in memory.
    pub(crate) memory_usage: Vec<MemoryUsage>,
}

/// Requests, and where their time went.
#[derive(Serialize, ToSchema)]
pub struct InferenceStatistics {
    /// Answered, from head to answer.
    pub(crate) success: StatisticDuration,
    /// Refused or failed.
    pub(crate) fail: StatisticDuration,
    /// Waiting: to be let in, for a cold start, for an instance, for a compute thread.
    pub(crate) queue: StatisticDuration,
    /// Receiving and decoding.
    pub(crate) compute_input: StatisticDuration,
    /// Computing, in the component and its models.
    pub(crate) compute_infer: StatisticDuration,
    /// Encoding.
    pub(crate) compute_output: StatisticDuration,
    /// Answered by the cache.
    pub(crate) cache_hit: StatisticDuration,
    /// Looked up in the cache in vain; the time of that is not measured.
    pub(crate) cache_miss: StatisticDuration,
}

/// How often, and how long in all.
#[derive(Serialize, ToSchema)]
pub struct StatisticDuration {
    pub(crate) count: u64,
    /// Nanoseconds.
    pub(crate) ns: u64,
}

/// Runs with so many rows.
#[derive(Serialize, ToSchema)]
pub struct BatchStatistics {
    pub(crate) batch_size: u64,
    /// Putting rows together.
    pub(crate) compute_input: StatisticDuration,
    /// Computing.
    pub(crate) compute_infer: StatisticDuration,
    /// Taking rows apart.
    pub(crate) compute_output: StatisticDuration,
}

/// Memory of one kind.
#[derive(Serialize, ToSchema)]
pub struct MemoryUsage {
    /// `CPU`, or `GPU` where the manifest asks for one.
    #[serde(rename = "type")]
    #[schema(example = "CPU")]
    pub(crate) kind: &'static str,
    pub(crate) id: u64,
    pub(crate) byte_size: u64,
}

impl StatisticDuration {
    fn of(sum: Sum) -> Self {
        Self {
            count: sum.count,
            ns: sum.ns,
        }
    }

    fn told(tally: &Tally) -> Self {
        Self::of(tally.sum())
    }
}

impl VersionStatistics {
    /// Those of all versions that were called since the server started, by name and number.
    pub fn of_all(app: &App) -> Vec<Self> {
        let table = app.routing.table();
        let called = table.versions().filter(|version| version.was_called());
        let mut versions: Vec<_> = called.collect();
        versions.sort_by_key(|version| (&version.record.function, version.record.number));
        versions.into_iter().map(|v| Self::of(v)).collect()
    }

    /// Those of each version of a function.
    pub fn of_function(app: &App, function: &str) -> Result<Vec<Self>, Failure> {
        let table = app.routing.table();
        let (_, route) = table.route(function)?;
        Ok(route.versions.values().map(|v| Self::of(v)).collect())
    }

    /// Those of one version.
    pub fn of(version: &Version) -> Self {
        let told = version.statistics();
        let runs: Runs = version.terms.runs();
        let infer = told.infer.sum();
        let executions = match version.is_model() {
            true => runs.count(),
            false => infer.count,
        };
        let batches = runs.by_rows.iter().map(|(rows, run)| BatchStatistics {
            batch_size: *rows as u64,
            compute_input: StatisticDuration::of(run.stack),
            compute_infer: StatisticDuration::of(run.infer),
            compute_output: StatisticDuration::of(run.split),
        });
        Self {
            name: version.record.function.to_string(),
            version: version.record.number.to_string(),
            last_inference: told.last_unix_ms(),
            inference_count: told.inferences(),
            execution_count: executions,
            inference_stats: InferenceStatistics {
                success: StatisticDuration::told(&told.success),
                fail: StatisticDuration::told(&told.fail),
                queue: StatisticDuration::told(&told.queue),
                compute_input: StatisticDuration::told(&told.input),
                compute_infer: StatisticDuration::of(infer),
                compute_output: StatisticDuration::told(&told.output),
                cache_hit: StatisticDuration::told(&told.hit),
                cache_miss: StatisticDuration::told(&told.miss),
            },
            response_stats: serde_json::Map::new(),
            batch_stats: batches.collect(),
            memory_usage: memory(version),
        }
    }
}

fn memory(version: &Version) -> Vec<MemoryUsage> {
    let byte_size = version.slot.standing().model_bytes;
    let usage = MemoryUsage {
        kind: "CPU",
        id: 0,
        byte_size,
    };
    Some(usage).filter(|_| byte_size > 0).into_iter().collect()
}

/// What all versions have answered
#[utoipa::path(
    get, path = "/v2/models/stats", tag = "v2", operation_id = "statistics",
    responses(
        (status = 200, body = Statistics, description = "Those that were called since the server started, by name and number"),
        V2Problem,
    ),
)]
pub async fn all(State(app): State<Arc<App>>) -> Response {
    Json(Statistics {
        model_stats: VersionStatistics::of_all(&app),
    })
    .into_response()
}

/// What the versions of a function have answered
#[utoipa::path(
    get, path = "/v2/models/{f}/stats", tag = "v2", operation_id = "model_statistics",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Statistics, description = "Each of its versions"),
        V2Problem,
    ),
)]
pub async fn model(State(app): State<Arc<App>>, Path(function): Path<String>) -> Response {
    match VersionStatistics::of_function(&app, &function) {
        Ok(model_stats) => Json(Statistics { model_stats }).into_response(),
        Err(failure) => failure.into_v2(),
    }
}

/// What a version has answered
#[utoipa::path(
    get, path = "/v2/models/{f}/versions/{n}/stats", tag = "v2", operation_id = "model_version_statistics",
    params(("f" = String, Path, description = "The function"), ("n" = String, Path, description = "The version, or a label")),
    responses(
        (status = 200, body = Statistics, description = "One version"),
        V2Problem,
    ),
)]
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match resolve(&app, &function, version_or_label(&version), &headers) {
        Ok(version) => Json(Statistics {
            model_stats: vec![VersionStatistics::of(&version)],
        })
        .into_response(),
        Err(failure) => Failure::into_v2(failure),
    }
}
