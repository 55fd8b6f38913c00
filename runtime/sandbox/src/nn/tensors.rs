//! Tensors between guests and the engine: bytes are checked, and not copied.

use bytes::Bytes;
use firebox_engine::{DType, Signature, Tensor, TensorSpec};

use super::Error;
use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::tensor::TensorType;

/// A tensor as the guest made it, or why it could not be kept.
pub struct HostTensor {
    pub(super) dimensions: Vec<u32>,
    pub(super) ty: TensorType,
    pub(super) data: Result<Bytes, Error>,
}

impl HostTensor {
    /// Bytes that it counts for: its sizes are the guest's choice too.
    pub(super) fn size(&self) -> usize {
        let data = self.data.as_ref().map_or(0, Bytes::len);
        data.saturating_add(size_of_val(self.dimensions.as_slice()))
    }
}

/// The input of this name, or at this index where a name that is none is a decimal number: guests
/// that were written for indexes call inputs so.
pub(super) fn spec<'a>(signature: &'a Signature, input: &str) -> Option<&'a TensorSpec> {
    let named = signature.inputs.iter().find(|spec| spec.name == input);
    named.or_else(|| signature.inputs.get(input.parse::<usize>().ok()?))
}

/// Checks the bytes of an input; a u8 tensor of zeros and ones serves a bool input.
pub(super) fn to_model(
    model: &str,
    input: &str,
    tensor: HostTensor,
    spec: Option<&TensorSpec>,
) -> Result<Tensor, Error> {
    let data = tensor.data?;
    let mut dtype = dtype_of(tensor.ty);
    if dtype == DType::U8
        && spec.is_some_and(|spec| spec.dtype == DType::Bool)
        && data.iter().all(|&byte| byte <= 1)
    {
        dtype = DType::Bool;
    }
    let shape = tensor
        .dimensions
        .iter()
        .map(|&size| size as usize)
        .collect();
    Tensor::new(dtype, shape, data).map_err(|error| {
        let problem = format!("input `{input}`: expected whole tensor: {error}");
        Error::misfit(model, &problem)
    })
}

pub(super) fn to_guest(model: &str, output: &str, tensor: Tensor) -> Result<HostTensor, Error> {
    let (dtype, shape, data) = tensor.into_parts();
    let ty = type_of(dtype).ok_or_else(|| unspeakable(model, "output", output, dtype))?;
    let dimensions = shape
        .iter()
        .map(|&size| u32::try_from(size))
        .collect::<Result<_, _>>();
    let dimensions = dimensions.map_err(|_| {
        let data = format!("model `{model}`: output `{output}` of shape {shape:?} is too large");
        Error::new(ErrorCode::TooLarge, data)
    })?;
    Ok(HostTensor {
        dimensions,
        ty,
        data: Ok(data),
    })
}

/// Whether wasi:nn has a tensor type for all that a model takes and gives.
pub(super) fn speakable(model: &str, signature: &Signature) -> Result<(), Error> {
    let inputs = signature.inputs.iter().map(|spec| ("input", spec));
    let outputs = signature.outputs.iter().map(|spec| ("output", spec));
    match inputs
        .chain(outputs)
        .find(|(_, spec)| type_of(spec.dtype).is_none())
    {
        None => Ok(()),
        Some((kind, spec)) => Err(unspeakable(model, kind, &spec.name, spec.dtype)),
    }
}

fn unspeakable(model: &str, kind: &str, name: &str, dtype: DType) -> Error {
    let data = format!(
        "model `{model}`: {kind} `{name}` is {dtype}, and wasi:nn tensors are f16, bf16, f32, f64, u8 (bool too), i32 or i64; add a Cast to the model"
    );
    Error::new(ErrorCode::UnsupportedOperation, data)
}

fn dtype_of(ty: TensorType) -> DType {
    match ty {
        TensorType::Fp16 => DType::F16,
        TensorType::Fp32 => DType::F32,
        TensorType::Fp64 => DType::F64,
        TensorType::Bf16 => DType::BF16,
        TensorType::U8 => DType::U8,
        TensorType::I32 => DType::I32,
        TensorType::I64 => DType::I64,
    }
}

/// The wasi:nn type that holds all values of a dtype in the same bytes.
fn type_of(dtype: DType) -> Option<TensorType> {
    Some(match dtype {
        DType::F16 => TensorType::Fp16,
        DType::F32 => TensorType::Fp32,
        DType::F64 => TensorType::Fp64,
        DType::BF16 => TensorType::Bf16,
        DType::U8 | DType::Bool | DType::Narrow(_) => TensorType::U8,
        DType::I32 => TensorType::I32,
        DType::I64 => TensorType::I64,
        DType::U16 | DType::U32 | DType::U64 | DType::I8 | DType::I16 | DType::Bytes => {
            return None;
        }
    })
}
