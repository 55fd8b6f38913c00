//! What functions take and give, whether they can be called, and how Triton's configuration would
//! put them. Field numbers are those of `grpc_service.proto` and `model_config.proto`.

use axum::http::HeaderMap;
use firebox_engine::{DType, Dim, TensorSpec};
use prost::{Enumeration, Message};

use super::{Ready, version};
use crate::problem::Failure;
use crate::protocol::{arrays, v2};
use crate::routing::Version;
use crate::server::App;

/// Which function or version is asked about.
#[derive(Clone, PartialEq, Message)]
pub struct Asked {
    #[prost(string, tag = "1")]
    name: String,
    /// Empty for the one that a request would get.
    #[prost(string, tag = "2")]
    version: String,
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
    /// 0: inputs have their whole shape in `dims`.
    #[prost(int32, tag = "4")]
    max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    input: Vec<ModelInput>,
    #[prost(message, repeated, tag = "6")]
    output: Vec<ModelOutput>,
    #[prost(string, tag = "17")]
    backend: String,
}

/// One input.
#[derive(Clone, PartialEq, Message)]
pub struct ModelInput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(enumeration = "DataType", tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    dims: Vec<i64>,
}

/// One output.
#[derive(Clone, PartialEq, Message)]
pub struct ModelOutput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(enumeration = "DataType", tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "3")]
    dims: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum DataType {
    Invalid = 0,
    Bool = 1,
    Uint8 = 2,
    Uint16 = 3,
    Uint32 = 4,
    Uint64 = 5,
    Int8 = 6,
    Int16 = 7,
    Int32 = 8,
    Int64 = 9,
    Fp16 = 10,
    Fp32 = 11,
    Fp64 = 12,
    String = 13,
    Bf16 = 14,
}

impl From<DType> for DataType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::Bool => Self::Bool,
            DType::U8 | DType::Narrow(_) => Self::Uint8,
            DType::U16 => Self::Uint16,
            DType::U32 => Self::Uint32,
            DType::U64 => Self::Uint64,
            DType::I8 => Self::Int8,
            DType::I16 => Self::Int16,
            DType::I32 => Self::Int32,
            DType::I64 => Self::Int64,
            DType::F16 => Self::Fp16,
            DType::BF16 => Self::Bf16,
            DType::F32 => Self::Fp32,
            DType::F64 => Self::Fp64,
            DType::Bytes => Self::String,
        }
    }
}

/// Whether a function or version can be called; a cold one too, as it loads when it is called. What
/// there is not isn't ready.
pub fn ready(app: &App, headers: &HeaderMap, asked: &Asked) -> Result<Ready, Failure> {
    let version = version(&asked.version);
    match v2::resolve(app, &asked.name, version, headers) {
        Ok(_) => Ok(Ready { ready: true }),
        Err(failure) if failure.status() == 404 => Ok(Ready { ready: false }),
        Err(failure) => Err(failure),
    }
}

/// What a version takes and gives.
pub fn metadata(app: &App, headers: &HeaderMap, asked: &Asked) -> Result<ModelMetadata, Failure> {
    let version = v2::resolve(app, &asked.name, version(&asked.version), headers)?;
    let table = app.routing.table();
    let (_, route) = table.route(&asked.name)?;
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: arrays::datatype(spec.dtype).into(),
        shape: shape(spec),
    };
    Ok(ModelMetadata {
        name: asked.name.clone(),
        versions: route.versions.keys().map(ToString::to_string).collect(),
        platform: platform(&version).into(),
        inputs: version.signature.inputs.iter().map(tensor).collect(),
        outputs: version.signature.outputs.iter().map(tensor).collect(),
    })
}

/// A version as Triton's configuration would put it, which its clients ask for to learn of batches
/// and of shapes.
pub fn config(
    app: &App,
    headers: &HeaderMap,
    asked: &Asked,
) -> Result<ModelConfigResponse, Failure> {
    let version = v2::resolve(app, &asked.name, version(&asked.version), headers)?;
    let (inputs, outputs) = (&version.signature.inputs, &version.signature.outputs);
    let input = inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: DataType::from(spec.dtype) as i32,
        dims: shape(spec),
    });
    let output = outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: DataType::from(spec.dtype) as i32,
        dims: shape(spec),
    });
    Ok(ModelConfigResponse {
        config: Some(ModelConfig {
            name: asked.name.clone(),
            platform: platform(&version).into(),
            max_batch_size: 0,
            input: input.collect(),
            output: output.collect(),
            backend: "firebox".into(),
        }),
    })
}

fn platform(version: &Version) -> &'static str {
    match version.is_model() {
        true => "firebox_onnx",
        false => "firebox_wasm",
    }
}

/// -1 where a dimension, or all of them, are open.
fn shape(spec: &TensorSpec) -> Vec<i64> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
        Dim::Named(_) | Dim::Any => -1,
    };
    let dims = spec.shape.as_ref();
    dims.map_or(vec![-1], |dims| dims.iter().map(size).collect())
}
