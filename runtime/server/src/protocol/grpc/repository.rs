//! The model repository extension, and the statistics one: what REST says of the same. Field numbers
//! are those of `grpc_service.proto`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use prost::Message;

use super::models::Which;
use super::{Nothing, version};
use crate::problem::Failure;
use crate::protocol::v2;
use crate::protocol::v2::repository::{entries, load_all, unload_all};
use crate::protocol::v2::statistics::{BatchStatistics, StatisticDuration, VersionStatistics};
use crate::server::App;

/// Which versions to list.
#[derive(Clone, PartialEq, Message)]
pub struct RepositoryIndexRequest {
    /// Whether those alone that are in memory.
    #[prost(bool, tag = "2")]
    ready: bool,
}

/// What there is.
#[derive(Clone, PartialEq, Message)]
pub struct RepositoryIndexResponse {
    #[prost(message, repeated, tag = "1")]
    models: Vec<ModelIndex>,
}

/// One version.
#[derive(Clone, PartialEq, Message)]
pub struct ModelIndex {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(string, tag = "4")]
    reason: String,
}

/// A load or unload.
#[derive(Clone, PartialEq, Message)]
pub struct RepositoryChange {
    #[prost(string, tag = "2")]
    model_name: String,
    /// Only their names count.
    #[prost(btree_map = "string, message", tag = "3")]
    parameters: BTreeMap<String, Nothing>,
}

/// What there is, and what of it is in memory.
pub fn index(app: &App, asked: &RepositoryIndexRequest) -> RepositoryIndexResponse {
    let entries = entries(app, asked.ready).into_iter();
    let models = entries.map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.into(),
        reason: entry.reason,
    });
    RepositoryIndexResponse {
        models: models.collect(),
    }
}

/// Loads the versions of a function that take traffic.
pub async fn load(app: &App, asked: RepositoryChange) -> Result<Nothing, Failure> {
    load_all(app, &asked.model_name, asked.parameters.keys()).await?;
    Ok(Nothing {})
}

/// Drops a function from memory.
pub async fn unload(app: &App, asked: RepositoryChange) -> Result<Nothing, Failure> {
    unload_all(app, &asked.model_name).await?;
    Ok(Nothing {})
}

/// What versions have answered since the server started.
#[derive(Clone, PartialEq, Message)]
pub struct ModelStatisticsResponse {
    #[prost(message, repeated, tag = "1")]
    model_stats: Vec<ModelStatistics>,
}

/// What one version has answered.
#[derive(Clone, PartialEq, Message)]
pub struct ModelStatistics {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    /// In milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    last_inference: u64,
    #[prost(uint64, tag = "4")]
    inference_count: u64,
    #[prost(uint64, tag = "5")]
    execution_count: u64,
    #[prost(message, optional, tag = "6")]
    inference_stats: Option<InferStatistics>,
    #[prost(message, repeated, tag = "7")]
    batch_stats: Vec<InferBatchStatistics>,
    #[prost(message, repeated, tag = "8")]
    memory_usage: Vec<MemoryUsage>,
}

/// Requests, and where their time went.
#[derive(Clone, PartialEq, Message)]
pub struct InferStatistics {
    #[prost(message, optional, tag = "1")]
    success: Option<Sum>,
    #[prost(message, optional, tag = "2")]
    fail: Option<Sum>,
    #[prost(message, optional, tag = "3")]
    queue: Option<Sum>,
    #[prost(message, optional, tag = "4")]
    compute_input: Option<Sum>,
    #[prost(message, optional, tag = "5")]
    compute_infer: Option<Sum>,
    #[prost(message, optional, tag = "6")]
    compute_output: Option<Sum>,
    #[prost(message, optional, tag = "7")]
    cache_hit: Option<Sum>,
    #[prost(message, optional, tag = "8")]
    cache_miss: Option<Sum>,
}

/// Runs with so many rows.
#[derive(Clone, PartialEq, Message)]
pub struct InferBatchStatistics {
    #[prost(uint64, tag = "1")]
    batch_size: u64,
    #[prost(message, optional, tag = "2")]
    compute_input: Option<Sum>,
    #[prost(message, optional, tag = "3")]
    compute_infer: Option<Sum>,
    #[prost(message, optional, tag = "4")]
    compute_output: Option<Sum>,
}

/// `StatisticDuration`: how often, and how long in all.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, tag = "2")]
    ns: u64,
}

/// Memory of one kind.
#[derive(Clone, PartialEq, Message)]
pub struct MemoryUsage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(uint64, tag = "3")]
    byte_size: u64,
}

/// What all versions, those of a function, or one has answered.
pub fn statistics(
    app: &App,
    headers: &HeaderMap,
    which: &Which,
) -> Result<ModelStatisticsResponse, Failure> {
    let told = match (which.name.as_str(), which.version.as_str()) {
        ("", "") => VersionStatistics::of_all(app),
        (function, "") => VersionStatistics::of_function(app, function)?,
        (function, named) => {
            let version = v2::resolve(app, function, version(named), headers)?;
            vec![VersionStatistics::of(&version)]
        }
    };
    Ok(ModelStatisticsResponse {
        model_stats: told.into_iter().map(ModelStatistics::from).collect(),
    })
}

impl From<VersionStatistics> for ModelStatistics {
    fn from(told: VersionStatistics) -> Self {
        let stats = told.inference_stats;
        let inference_stats = InferStatistics {
            success: sum(&stats.success),
            fail: sum(&stats.fail),
            queue: sum(&stats.queue),
            compute_input: sum(&stats.compute_input),
            compute_infer: sum(&stats.compute_infer),
            compute_output: sum(&stats.compute_output),
            cache_hit: sum(&stats.cache_hit),
            cache_miss: sum(&stats.cache_miss),
        };
        let memory = told.memory_usage.into_iter().map(|usage| MemoryUsage {
            kind: usage.kind.into(),
            id: i64::try_from(usage.id).unwrap_or(i64::MAX),
            byte_size: usage.byte_size,
        });
        Self {
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(inference_stats),
            batch_stats: told.batch_stats.into_iter().map(batch).collect(),
            memory_usage: memory.collect(),
        }
    }
}

fn batch(told: BatchStatistics) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: told.batch_size,
        compute_input: sum(&told.compute_input),
        compute_infer: sum(&told.compute_infer),
        compute_output: sum(&told.compute_output),
    }
}

fn sum(told: &StatisticDuration) -> Option<Sum> {
    Some(Sum {
        count: told.count,
        ns: told.ns,
    })
}
