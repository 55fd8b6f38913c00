//! What functions take and give, whether they can be called, and how Triton's configuration would
//! put them. Field numbers are those of `grpc_service.proto` and `model_config.proto`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use firebox_engine::TensorSpec;
use prost::Message;

use super::{Ready, version};
use crate::problem::Failure;
use crate::protocol::v2::configuration::configuration;
use crate::protocol::v2::models::{platform, sizes};
use crate::protocol::{arrays, v2};
use crate::server::App;

/// Which function or version is asked about.
#[derive(Clone, PartialEq, Message)]
pub struct Which {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Empty for the one that a request would get.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// What a version takes and gives.
#[derive(Clone, PartialEq, Message)]
pub struct ModelMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    versions: Vec<String>,
    #[prost(string, tag = "3")]
    platform: String,
    #[prost(message, repeated, tag = "4")]
    inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<TensorMetadata>,
}

/// One input or output.
#[derive(Clone, PartialEq, Message)]
pub struct TensorMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    /// -1 where a dimension is open.
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

/// See [`config`].
#[derive(Clone, PartialEq, Message)]
pub struct ModelConfigResponse {
    #[prost(message, optional, tag = "1")]
    config: Option<ModelConfig>,
}

/// What of Triton's configuration has a meaning here.
#[derive(Clone, PartialEq, Message)]
pub struct ModelConfig {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    platform: String,
    #[prost(int32, tag = "4")]
    max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    input: Vec<ModelInput>,
    #[prost(message, repeated, tag = "6")]
    output: Vec<ModelOutput>,
    #[prost(message, optional, tag = "11")]
    dynamic_batching: Option<ModelDynamicBatching>,
    #[prost(btree_map = "string, message", tag = "14")]
    parameters: BTreeMap<String, ModelParameter>,
    #[prost(string, tag = "17")]
    backend: String,
    #[prost(message, optional, tag = "24")]
    response_cache: Option<ModelResponseCache>,
}

/// One input.
#[derive(Clone, PartialEq, Message)]
pub struct ModelInput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    dims: Vec<i64>,
}

/// One output.
#[derive(Clone, PartialEq, Message)]
pub struct ModelOutput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "3")]
    dims: Vec<i64>,
}

/// How runs are shared.
#[derive(Clone, PartialEq, Message)]
pub struct ModelDynamicBatching {
    #[prost(uint64, tag = "2")]
    max_queue_delay_microseconds: u64,
}

/// A value of the configuration's parameters.
#[derive(Clone, PartialEq, Message)]
pub struct ModelParameter {
    #[prost(string, tag = "1")]
    string_value: String,
}

/// Whether answers are kept.
#[derive(Clone, PartialEq, Message)]
pub struct ModelResponseCache {
    #[prost(bool, tag = "1")]
    enable: bool,
}

/// Data types of Triton's configuration, each at its number.
const DATA_TYPES: [&str; 15] = [
    "TYPE_INVALID",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];

fn data_type(name: &str) -> i32 {
    let number = DATA_TYPES.iter().position(|known| *known == name);
    number
        .and_then(|number| i32::try_from(number).ok())
        .unwrap_or(0)
}

/// Whether a function or version can be called; a cold one too, as it loads when it is called. What
/// there is not isn't ready.
pub fn ready(app: &App, headers: &HeaderMap, which: &Which) -> Result<Ready, Failure> {
    let version = version(&which.version);
    match v2::resolve(app, &which.name, version, headers) {
        Ok(_) => Ok(Ready { ready: true }),
        Err(failure) if failure.status() == 404 => Ok(Ready { ready: false }),
        Err(failure) => Err(failure),
    }
}

/// What a version takes and gives.
pub fn metadata(app: &App, headers: &HeaderMap, which: &Which) -> Result<ModelMetadata, Failure> {
    let version = v2::resolve(app, &which.name, version(&which.version), headers)?;
    let table = app.routing.table();
    let (_, route) = table.route(&which.name)?;
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: arrays::datatype(spec.dtype).into(),
        shape: sizes(spec),
    };
    Ok(ModelMetadata {
        name: which.name.clone(),
        versions: route.versions.keys().map(ToString::to_string).collect(),
        platform: platform(&version).into(),
        inputs: version.signature.inputs.iter().map(tensor).collect(),
        outputs: version.signature.outputs.iter().map(tensor).collect(),
    })
}

/// How a version is run, as Triton's clients ask for it to learn of batches and of shapes.
pub fn config(
    app: &App,
    headers: &HeaderMap,
    which: &Which,
) -> Result<ModelConfigResponse, Failure> {
    let version = v2::resolve(app, &which.name, version(&which.version), headers)?;
    let told = configuration(&version);
    let input = told.input.into_iter().map(|tensor| ModelInput {
        name: tensor.name,
        data_type: data_type(tensor.data_type),
        dims: tensor.dims,
    });
    let output = told.output.into_iter().map(|tensor| ModelOutput {
        name: tensor.name,
        data_type: data_type(tensor.data_type),
        dims: tensor.dims,
    });
    let parameters = told.parameters.into_iter().map(|(name, value)| {
        let string_value = value.string_value;
        (name.to_owned(), ModelParameter { string_value })
    });
    let config = ModelConfig {
        name: told.name,
        platform: told.platform.into(),
        max_batch_size: i32::try_from(told.max_batch_size).unwrap_or(i32::MAX),
        input: input.collect(),
        output: output.collect(),
        dynamic_batching: told.dynamic_batching.map(|batching| ModelDynamicBatching {
            max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
        }),
        parameters: parameters.collect(),
        backend: told.backend.into(),
        response_cache: Some(ModelResponseCache {
            enable: told.response_cache.enable,
        }),
    };
    Ok(ModelConfigResponse {
        config: Some(config),
    })
}
