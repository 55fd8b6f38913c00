//! The seam to the host: the generated bindings, and the way from this crate's
//! types to theirs and back.

use std::marker::PhantomData;

use crate::function::{Function, call};
use crate::parameters::{Parameter, Parameters};
use crate::request::{Request, Response};
use crate::signature::TensorSpec;
use crate::tensor::{AnyTensor, DType};
use crate::{Error, ErrorCode, Result};

/// What `wit-bindgen` makes of the world in `wit/`.
#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "function",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_function",
        default_bindings_module: "firebox_sdk::__host::bindings",
    });
}

use bindings::firebox::function::types as wit;
use bindings::wasi::nn;

/// Makes the component's exports of a [`Function`].
pub struct Exports<F>(PhantomData<F>);

impl<F: Function> bindings::Guest for Exports<F> {
    fn init() {
        F::init();
        forget_directories();
    }

    fn describe() -> wit::Signature {
        let signature = F::signature();
        let specs = |specs: Vec<TensorSpec>| specs.into_iter().map(spec_to_wit).collect();
        wit::Signature {
            inputs: specs(signature.inputs),
            outputs: specs(signature.outputs),
        }
    }

    fn infer(request: wit::Request) -> Result<wit::Response, wit::Error> {
        match request_from_wit(request).and_then(call::<F>) {
            Ok(response) => Ok(response_to_wit(response)),
            Err(error) => Err(error_to_wit(&error)),
        }
    }
}

/// Makes libc let go of the handles of `/` that it keeps once a file was opened.
///
/// Memory outlives `init` in the snapshot, handles don't: a kept one would be
/// stale in every request. The next file that is opened asks for them anew.
fn forget_directories() {
    #[allow(unsafe_code, reason = "wasi-libc's own function for snapshots")]
    {
        unsafe extern "C" {
            fn __wasilibc_reset_preopens();
        }
        // SAFETY: it takes and gives nothing; there is one thread, and no file is open.
        unsafe { __wasilibc_reset_preopens() }
    }
}

/// A model's execution context at the host.
#[derive(Debug)]
pub struct Context {
    name: String,
    context: nn::inference::GraphExecutionContext,
}

impl Context {
    pub fn open(name: &str) -> Result<Self> {
        let graph = nn::graph::load_by_name(name).map_err(|error| model_error(name, &error))?;
        let context = graph
            .init_execution_context()
            .map_err(|error| model_error(name, &error))?;
        Ok(Self {
            name: name.into(),
            context,
        })
    }

    pub fn compute(&self, inputs: Vec<(String, AnyTensor)>) -> Result<Vec<(String, AnyTensor)>> {
        let mut given = Vec::with_capacity(inputs.len());
        for (input, tensor) in inputs {
            let tensor = tensor_to_nn(tensor).map_err(|why| {
                Error::internal(format!("model `{}`, input `{input}`: {why}", self.name))
            })?;
            given.push((input, tensor));
        }
        let outputs = self
            .context
            .compute(given)
            .map_err(|e| model_error(&self.name, &e))?;
        Ok(outputs
            .into_iter()
            .map(|(name, tensor)| (name, tensor_from_nn(&tensor)))
            .collect())
    }
}

fn model_error(name: &str, error: &nn::errors::Error) -> Error {
    let message = format!("model `{name}`: {}", error.data());
    match error.code() {
        nn::errors::ErrorCode::Timeout => Error::unavailable(message),
        _ => Error::internal(message),
    }
}

fn tensor_to_nn(tensor: AnyTensor) -> Result<nn::tensor::Tensor, String> {
    use nn::tensor::TensorType;
    let ty = match tensor.dtype {
        DType::F16 => TensorType::Fp16,
        DType::BF16 => TensorType::Bf16,
        DType::F32 => TensorType::Fp32,
        DType::F64 => TensorType::Fp64,
        DType::U8 => TensorType::U8,
        DType::I32 => TensorType::I32,
        DType::I64 => TensorType::I64,
        other => {
            return Err(format!(
                "a model can't be given {other}; it takes f16, bf16, f32, f64, u8, i32 or i64"
            ));
        }
    };
    let sizes: Result<Vec<u32>, _> = tensor.shape.iter().map(|&size| size.try_into()).collect();
    let sizes = sizes.map_err(|_| format!("shape {:?} is too large", tensor.shape))?;
    Ok(nn::tensor::Tensor::new(&sizes, ty, &tensor.data))
}

fn tensor_from_nn(tensor: &nn::tensor::Tensor) -> AnyTensor {
    use nn::tensor::TensorType;
    let dtype = match tensor.ty() {
        TensorType::Fp16 => DType::F16,
        TensorType::Bf16 => DType::BF16,
        TensorType::Fp32 => DType::F32,
        TensorType::Fp64 => DType::F64,
        TensorType::U8 => DType::U8,
        TensorType::I32 => DType::I32,
        TensorType::I64 => DType::I64,
    };
    let shape = tensor
        .dimensions()
        .into_iter()
        .map(|size| size as usize)
        .collect();
    AnyTensor {
        dtype,
        shape,
        data: tensor.data(),
    }
}

fn request_from_wit(request: wit::Request) -> Result<Request> {
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for tensor in request.inputs {
        let shape: Result<Vec<usize>, _> =
            tensor.shape.iter().map(|&size| size.try_into()).collect();
        let shape = shape.map_err(|_| {
            Error::invalid_input(format!("input `{}` is too large for wasm32", tensor.name))
        })?;
        let dtype = dtype_from_wit(tensor.dtype);
        inputs.push((
            tensor.name,
            AnyTensor {
                dtype,
                shape,
                data: tensor.data,
            },
        ));
    }
    let mut parameters = Parameters::default();
    for parameter in request.parameters {
        parameters.push(
            parameter.name,
            match parameter.value {
                wit::ParameterValue::Bool(value) => Parameter::Bool(value),
                wit::ParameterValue::Int64(value) => Parameter::Int64(value),
                wit::ParameterValue::Double(value) => Parameter::Double(value),
                wit::ParameterValue::Text(value) => Parameter::Text(value),
            },
        );
    }
    Ok(Request {
        id: request.id,
        inputs,
        parameters,
    })
}

fn response_to_wit(response: Response) -> wit::Response {
    let outputs = crate::outputs::Tensors::into_pairs(response.outputs)
        .into_iter()
        .map(|(name, tensor)| wit::Tensor {
            name,
            dtype: dtype_to_wit(tensor.dtype),
            shape: tensor.shape.iter().map(|&size| size as u64).collect(),
            data: tensor.data,
        })
        .collect();
    let parameters = response
        .parameters
        .into_pairs()
        .into_iter()
        .map(|(name, value)| wit::Parameter {
            name,
            value: match value {
                Parameter::Bool(value) => wit::ParameterValue::Bool(value),
                Parameter::Int64(value) => wit::ParameterValue::Int64(value),
                Parameter::Double(value) => wit::ParameterValue::Double(value),
                Parameter::Text(value) => wit::ParameterValue::Text(value),
            },
        })
        .collect();
    wit::Response {
        outputs,
        parameters,
    }
}

fn error_to_wit(error: &Error) -> wit::Error {
    let code = match error.code() {
        ErrorCode::InvalidInput => wit::ErrorCode::InvalidInput,
        ErrorCode::Unavailable => wit::ErrorCode::Unavailable,
        ErrorCode::Internal => wit::ErrorCode::Internal,
    };
    wit::Error {
        code,
        message: error.message().into(),
    }
}

fn spec_to_wit(spec: TensorSpec) -> wit::TensorSpec {
    wit::TensorSpec {
        name: spec.name,
        dtype: dtype_to_wit(spec.dtype),
        shape: spec
            .shape
            .iter()
            .map(|size| size.map(|size| size as u64))
            .collect(),
    }
}

macro_rules! dtypes {
    ($($ours:ident $theirs:ident),*) => {
        fn dtype_to_wit(dtype: DType) -> wit::Dtype {
            match dtype { $(DType::$ours => wit::Dtype::$theirs),* }
        }
        fn dtype_from_wit(dtype: wit::Dtype) -> DType {
            match dtype { $(wit::Dtype::$theirs => DType::$ours),* }
        }
    };
}
dtypes! {
    Bool Bool, U8 U8, U16 U16, U32 U32, U64 U64, I8 I8, I16 I16, I32 I32, I64 I64,
    F16 F16, BF16 Bf16, F32 F32, F64 F64, Bytes Bytes
}
