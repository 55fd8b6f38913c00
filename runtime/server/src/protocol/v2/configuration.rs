//! The model configuration extension: what Triton's tools ask of a model before they call it, such
//! as whether its first dimension is a batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use firebox_engine::{DType, TensorSpec};
use firebox_registry::Batching;
use serde::Serialize;
use utoipa::ToSchema;

use super::models::{platform, sizes};
use super::{resolve, version_or_label};
use crate::problem::{Failure, V2Problem};
use crate::protocol::Path;
use crate::routing::{Selector, Version};
use crate::server::App;

/// How a version is run, in the words of Triton's `ModelConfig`.
#[derive(Serialize, ToSchema)]
pub struct ModelConfiguration {
    /// The function.
    #[schema(example = "file-type")]
    pub(crate) name: String,
    /// `firebox_onnx` or `firebox_wasm`.
    pub(crate) platform: &'static str,
    pub(crate) backend: &'static str,
    /// The most rows of a run that requests share; 0 where none do.
    pub(crate) max_batch_size: u32,
    pub(crate) input: Vec<TensorConfiguration>,
    pub(crate) output: Vec<TensorConfiguration>,
    /// Where requests share runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic_batching: Option<DynamicBatching>,
    /// `tier`, and what else the manifest says that Triton has no member for.
    pub(crate) parameters: BTreeMap<&'static str, ConfigurationText>,
    pub(crate) response_cache: ResponseCaching,
}

/// One input or output.
#[derive(Serialize, ToSchema)]
pub struct TensorConfiguration {
    pub(crate) name: String,
    #[schema(example = "TYPE_FP32")]
    pub(crate) data_type: &'static str,
    /// Without the first dimension, where that is a batch; -1 where a dimension is open.
    #[schema(example = json!([2048]))]
    pub(crate) dims: Vec<i64>,
}

/// How runs are shared.
#[derive(Serialize, ToSchema)]
pub struct DynamicBatching {
    /// The longest that a request waits for others.
    pub(crate) max_queue_delay_microseconds: u64,
}

/// A value of the configuration's parameters.
#[derive(Serialize, ToSchema)]
pub struct ConfigurationText {
    pub(crate) string_value: String,
}

/// Whether answers are kept.
#[derive(Serialize, ToSchema)]
pub struct ResponseCaching {
    pub(crate) enable: bool,
}

/// How a function is run
#[utoipa::path(
    get, path = "/v2/models/{f}/config", tag = "v2", operation_id = "model_configuration",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = ModelConfiguration, description = "As Triton's clients read it"),
        V2Problem,
    ),
)]
pub async fn model(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
) -> Response {
    told(resolve(&app, &function, Ok(Selector::Split), &headers))
}

/// How a version is run
#[utoipa::path(
    get, path = "/v2/models/{f}/versions/{n}/config", tag = "v2", operation_id = "model_version_configuration",
    params(("f" = String, Path, description = "The function"), ("n" = String, Path, description = "The version, or a label")),
    responses(
        (status = 200, body = ModelConfiguration, description = "As Triton's clients read it"),
        V2Problem,
    ),
)]
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    told(resolve(
        &app,
        &function,
        version_or_label(&version),
        &headers,
    ))
}

fn told(version: Result<Arc<Version>, Failure>) -> Response {
    match version {
        Ok(version) => Json(configuration(&version)).into_response(),
        Err(failure) => failure.into_v2(),
    }
}

/// How a version is run.
pub fn configuration(version: &Version) -> ModelConfiguration {
    let batching = version.batching();
    let tensor = |spec: &TensorSpec| {
        let mut dims = sizes(spec);
        // Triton doesn't count the batch among the dimensions.
        if batching.is_some() && !dims.is_empty() {
            dims.remove(0);
        }
        TensorConfiguration {
            name: spec.name.clone(),
            data_type: data_type(spec.dtype),
            dims,
        }
    };
    let delay = |batching: &Batching| DynamicBatching {
        max_queue_delay_microseconds: u64::try_from(batching.max_queue_delay.as_micros())
            .unwrap_or(u64::MAX),
    };
    let manifest = &version.record.manifest;
    let tier = ConfigurationText {
        string_value: crate::admission::tier_name(manifest.tier).to_owned(),
    };
    ModelConfiguration {
        name: version.record.function.to_string(),
        platform: platform(version),
        backend: "firebox",
        max_batch_size: batching.map_or(0, |batching| batching.max_batch_size),
        input: version.signature.inputs.iter().map(tensor).collect(),
        output: version.signature.outputs.iter().map(tensor).collect(),
        dynamic_batching: batching.map(delay),
        parameters: BTreeMap::from([("tier", tier)]),
        response_cache: ResponseCaching {
            enable: version.cache.is_some(),
        },
    }
}

/// As Triton's configuration calls it.
fn data_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "TYPE_BOOL",
        DType::U8 | DType::Narrow(_) => "TYPE_UINT8",
        DType::U16 => "TYPE_UINT16",
        DType::U32 => "TYPE_UINT32",
        DType::U64 => "TYPE_UINT64",
        DType::I8 => "TYPE_INT8",
        DType::I16 => "TYPE_INT16",
        DType::I32 => "TYPE_INT32",
        DType::I64 => "TYPE_INT64",
        DType::F16 => "TYPE_FP16",
        DType::BF16 => "TYPE_BF16",
        DType::F32 => "TYPE_FP32",
        DType::F64 => "TYPE_FP64",
        DType::Bytes => "TYPE_STRING",
    }
}
