//! The JSON of an inference, described for `/openapi.json`: it is read and written by hand.
#![allow(dead_code, reason = "described, never made")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// An inference.
#[derive(ToSchema)]
pub struct InferenceRequest {
    /// Comes back with the answer.
    id: Option<String>,
    /// `binary_data_output`: whether outputs come as bytes. All others are for the function.
    #[schema(value_type = Object, required = false)]
    parameters: Option<BTreeMap<String, Value>>,
    inputs: Vec<InferenceInput>,
    /// Those alone, in this order.
    outputs: Option<Vec<InferenceOutput>>,
}

/// A tensor that is given.
#[derive(ToSchema)]
pub struct InferenceInput {
    #[schema(example = "x")]
    name: String,
    #[schema(example = json!([1, 3]))]
    shape: Vec<usize>,
    datatype: Datatype,
    /// `binary_data_size`: how many of the bytes behind the JSON are this tensor.
    #[schema(value_type = Object, required = false)]
    parameters: Option<BTreeMap<String, Value>>,
    /// The elements, row by row, flat or nested like the shape.
    #[schema(value_type = Vec<Value>, required = false)]
    data: Option<Value>,
}

/// An output that is asked for.
#[derive(ToSchema)]
pub struct InferenceOutput {
    #[schema(example = "y")]
    name: String,
    /// `binary_data`: whether it comes as bytes.
    #[schema(value_type = Object, required = false)]
    parameters: Option<BTreeMap<String, Value>>,
}

/// An answer.
#[derive(ToSchema)]
pub struct InferenceResponse {
    /// The function.
    model_name: String,
    /// The number of the version that answered.
    model_version: String,
    /// That of the request, or the prediction id.
    id: String,
    /// What the function says beside its tensors.
    #[schema(value_type = Object, required = false)]
    parameters: Option<BTreeMap<String, Value>>,
    outputs: Vec<InferenceTensor>,
}

/// A tensor in an answer.
#[derive(ToSchema)]
pub struct InferenceTensor {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    /// `binary_data_size`: how many of the bytes behind the JSON are this tensor.
    #[schema(value_type = Object, required = false)]
    parameters: Option<BTreeMap<String, Value>>,
    /// The elements, row by row, flat.
    #[schema(value_type = Vec<Value>, required = false)]
    data: Option<Value>,
}

/// The type of elements.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}
