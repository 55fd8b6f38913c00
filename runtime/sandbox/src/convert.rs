//! Between the WIT types and ours. Tensor bytes move; they are not copied
//! where they are not shared.

use firebox_engine::{DType, Dim, Signature, Tensor, TensorSpec, check_rank};

use crate::bindings::firebox::function::types as wit;
use crate::{ErrorCode, GuestError, Parameter, Request};

macro_rules! dtypes {
    ($($ours:ident = $wit:ident),*) => {
        fn dtype_to_wit(dtype: DType) -> wit::Dtype {
            match dtype {
                $(DType::$ours => wit::Dtype::$wit,)*
                DType::Narrow(_) => wit::Dtype::U8,
            }
        }

        fn dtype_from_wit(dtype: wit::Dtype) -> DType {
            match dtype { $(wit::Dtype::$wit => DType::$ours),* }
        }
    };
}

dtypes! {
    Bool = Bool, U8 = U8, U16 = U16, U32 = U32, U64 = U64, I8 = I8, I16 = I16, I32 = I32,
    I64 = I64, F16 = F16, BF16 = Bf16, F32 = F32, F64 = F64, Bytes = Bytes
}

pub(crate) fn request(request: Request) -> wit::Request {
    let tensor = |(name, tensor): (String, Tensor)| {
        let (dtype, shape, data) = tensor.into_parts();
        let shape = shape.into_iter().map(|size| size as u64).collect();
        wit::Tensor {
            name,
            dtype: dtype_to_wit(dtype),
            shape,
            data: data.into(),
        }
    };
    wit::Request {
        id: request.id,
        inputs: request.inputs.into_iter().map(tensor).collect(),
        parameters: request
            .parameters
            .into_iter()
            .map(parameter_to_wit)
            .collect(),
    }
}

fn parameter_to_wit((name, value): (String, Parameter)) -> wit::Parameter {
    let value = match value {
        Parameter::Bool(value) => wit::ParameterValue::Bool(value),
        Parameter::Int64(value) => wit::ParameterValue::Int64(value),
        Parameter::Double(value) => wit::ParameterValue::Double(value),
        Parameter::Text(value) => wit::ParameterValue::Text(value),
    };
    wit::Parameter { name, value }
}

fn parameter_from_wit(parameter: wit::Parameter) -> (String, Parameter) {
    let value = match parameter.value {
        wit::ParameterValue::Bool(value) => Parameter::Bool(value),
        wit::ParameterValue::Int64(value) => Parameter::Int64(value),
        wit::ParameterValue::Double(value) => Parameter::Double(value),
        wit::ParameterValue::Text(value) => Parameter::Text(value),
    };
    (parameter.name, value)
}

/// The interface has types only.
impl wit::Host for crate::state::State {}

type Answer = (Vec<(String, Tensor)>, Vec<(String, Parameter)>);

/// Checks the outputs on the way; a misfit is the function's fault.
pub(crate) fn response(response: wit::Response) -> Result<Answer, GuestError> {
    let fault = |message| GuestError {
        code: ErrorCode::Internal,
        message,
    };
    let mut outputs: Vec<(String, Tensor)> = Vec::with_capacity(response.outputs.len());
    for wit::Tensor {
        name,
        dtype,
        shape,
        data,
    } in response.outputs
    {
        if outputs.iter().any(|(earlier, _)| *earlier == name) {
            return Err(fault(format!(
                "the function answered with output `{name}` twice"
            )));
        }
        // A shape of any length is told only when its length is known to be one of a tensor.
        let tensor = check_rank(shape.len())
            .map_err(|error| error.to_string())
            .and_then(|()| {
                shape_from_wit(&shape).ok_or_else(|| format!("shape {shape:?} is too large"))
            })
            .and_then(|shape| {
                Tensor::new(dtype_from_wit(dtype), shape, data).map_err(|error| error.to_string())
            })
            .map_err(|problem| fault(format!("the function's output `{name}`: {problem}")))?;
        outputs.push((name, tensor));
    }
    Ok((
        outputs,
        response
            .parameters
            .into_iter()
            .map(parameter_from_wit)
            .collect(),
    ))
}

fn shape_from_wit(shape: &[u64]) -> Option<Vec<usize>> {
    shape
        .iter()
        .map(|&size| usize::try_from(size).ok())
        .collect()
}

pub(crate) fn guest_error(error: wit::Error) -> GuestError {
    let code = match error.code {
        wit::ErrorCode::InvalidInput => ErrorCode::InvalidInput,
        wit::ErrorCode::Unavailable => ErrorCode::Unavailable,
        wit::ErrorCode::Internal => ErrorCode::Internal,
    };
    GuestError {
        code,
        message: error.message,
    }
}

pub(crate) fn signature(signature: wit::Signature) -> Signature {
    let spec = |spec: wit::TensorSpec| {
        let dim = |size: Option<u64>| match size.map(usize::try_from) {
            Some(Ok(size)) => Dim::Fixed(size),
            _ => Dim::Any,
        };
        let shape = spec.shape.into_iter().map(dim).collect();
        TensorSpec {
            name: spec.name,
            dtype: dtype_from_wit(spec.dtype),
            shape: Some(shape),
        }
    };
    Signature {
        inputs: signature.inputs.into_iter().map(spec).collect(),
        outputs: signature.outputs.into_iter().map(spec).collect(),
    }
}
