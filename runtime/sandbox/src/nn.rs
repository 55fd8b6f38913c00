//! The host of wasi:nn 0.2.0-rc-2024-10-28, over the embedder's [`Models`].
//!
//! Tensors live here, at the host, and count against a budget per instance;
//! graphs are names of the function's models. A tensor's constructor can't
//! fail, so what is wrong with one is kept and said by `compute`, which checks
//! all inputs against the graph before it asks for a run. `compute` awaits the
//! answer: the guest's fiber sleeps and holds no thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firebox_engine::{DType, Signature, Tensor, TensorSpec};
use wasmtime::component::Resource;

use crate::bindings::wasi::nn::{errors, graph, inference, tensor};
use crate::component::timed;
use crate::state::State;
use crate::{ModelError, Models};

/// What a tensor costs beside its bytes.
const TENSOR_OVERHEAD: usize = 256;

/// Bytes of an error's text that are kept: guests choose names that stand in it, and can hold
/// many errors.
const LONGEST_ERROR: usize = 2 << 10;

/// The wasi:nn part of an instance's state.
pub(crate) struct Nn {
    models: Option<Arc<dyn Models>>,
    /// Bytes of tensors that may still be made.
    left: usize,
    budget: usize,
    /// Wall-clock time spent on models.
    pub(crate) waited: Duration,
    /// The part of it that was spent on this thread.
    pub(crate) polled: Duration,
    /// Whether a tensor was too large for what the instance may hold.
    refused: bool,
}

impl Nn {
    pub(crate) fn new(models: Option<Arc<dyn Models>>, budget: usize) -> Self {
        let (waited, polled) = Default::default();
        Self {
            models,
            left: budget,
            budget,
            waited,
            polled,
            refused: false,
        }
    }

    /// The models of the next call, and its figures from zero. Tensors that the guest kept still
    /// count.
    pub(crate) fn renew(&mut self, models: Arc<dyn Models>) {
        self.models = Some(models);
        (self.waited, self.polled) = Default::default();
    }

    /// Between two calls it has no models: they hold what is loaded of the version.
    pub(crate) fn rest(&mut self) {
        self.models = None;
    }

    /// Whether it was refused a tensor: then its tensors may be up.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    fn models(&self) -> Result<Arc<dyn Models>, Error> {
        self.models.clone().ok_or_else(|| {
            let data = "models can't be used in `init` or `describe`; use them in `infer`".into();
            Error {
                code: errors::ErrorCode::UnsupportedOperation,
                data,
            }
        })
    }

    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        match self.left.checked_sub(bytes.saturating_add(TENSOR_OVERHEAD)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.refused = true;
                let data = format!(
                    "a tensor of {bytes} bytes is too large: the instance's tensors hold {} of {} bytes",
                    self.budget - self.left,
                    self.budget
                );
                Err(Error {
                    code: errors::ErrorCode::TooLarge,
                    data,
                })
            }
        }
    }

    fn give_back(&mut self, bytes: usize) {
        self.left = self
            .left
            .saturating_add(bytes + TENSOR_OVERHEAD)
            .min(self.budget);
    }

    /// Awaits a model and counts the time.
    async fn wait<T>(&mut self, model: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let answer = timed(model, &mut self.polled).await;
        self.waited += start.elapsed();
        answer
    }
}

/// A tensor as the guest made it, or why it could not be kept.
pub struct HostTensor {
    dimensions: Vec<u32>,
    ty: tensor::TensorType,
    data: Result<Bytes, Error>,
}

/// A model that was opened by name.
pub struct Graph {
    name: Arc<str>,
    signature: Arc<Signature>,
}

/// The same; a model holds no state between runs.
pub struct ExecutionContext {
    name: Arc<str>,
    signature: Arc<Signature>,
}

impl HostTensor {
    /// Bytes that it counts for: its sizes are the guest's choice too.
    fn bytes(dimensions: &[u32], data: usize) -> usize {
        data.saturating_add(size_of_val(dimensions))
    }
}

/// What a guest is told.
#[derive(Clone, Debug)]
pub struct Error {
    code: errors::ErrorCode,
    data: String,
}

impl Error {
    /// With a text that is not too long to be kept.
    fn clipped(mut self) -> Self {
        let end = self.data.floor_char_boundary(LONGEST_ERROR);
        if end < self.data.len() {
            self.data.truncate(end);
            self.data.push('…');
            self.data.shrink_to_fit();
        }
        self
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        let code = match &error {
            ModelError::NotFound { .. } => errors::ErrorCode::NotFound,
            ModelError::Input { .. } => errors::ErrorCode::InvalidArgument,
            ModelError::Unavailable { .. } => errors::ErrorCode::Timeout,
            ModelError::Failed { .. } => errors::ErrorCode::RuntimeError,
        };
        Self {
            code,
            data: error.to_string(),
        }
    }
}

/// A WIT `result` whose error is a resource, in a call that may trap.
type Answer<T> = wasmtime::Result<Result<T, Resource<Error>>>;

impl State {
    fn answer<T: Send + 'static>(&mut self, result: Result<T, Error>) -> Answer<Resource<T>> {
        Ok(match result {
            Ok(value) => Ok(self.table.push(value)?),
            Err(error) => Err(self.table.push(error.clipped())?),
        })
    }

    /// Moves a tensor out of the guest's hands.
    fn take_tensor(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<HostTensor> {
        let tensor = self.table.delete(tensor)?;
        if let Ok(data) = &tensor.data {
            let bytes = HostTensor::bytes(&tensor.dimensions, data.len());
            self.nn.give_back(bytes);
        }
        Ok(tensor)
    }
}

impl tensor::Host for State {}

impl tensor::HostTensor for State {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: tensor::TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<HostTensor>> {
        let bytes = HostTensor::bytes(&dimensions, data.len());
        let taken = self.nn.take(bytes);
        let dimensions = match &taken {
            Ok(()) => dimensions,
            Err(_) => Vec::new(),
        };
        let data = taken.map(|()| Bytes::from(data));
        Ok(self.table.push(HostTensor {
            dimensions,
            ty,
            data,
        })?)
    }

    fn dimensions(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<tensor::TensorType> {
        Ok(self.table.get(&tensor)?.ty)
    }

    fn data(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<Vec<u8>> {
        match &self.table.get(&tensor)?.data {
            Ok(data) => Ok(data.to_vec()),
            Err(error) => Err(wasmtime::Error::msg(error.data.clone())),
        }
    }

    fn drop(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<()> {
        self.take_tensor(tensor).map(drop)
    }
}

impl graph::Host for State {
    fn load(
        &mut self,
        _builder: Vec<Vec<u8>>,
        _encoding: graph::GraphEncoding,
        _target: graph::ExecutionTarget,
    ) -> Answer<Resource<Graph>> {
        let data = "models can't be loaded from bytes here; list the model in firebox.toml and use load-by-name";
        self.answer(Err(Error {
            code: errors::ErrorCode::Security,
            data: data.into(),
        }))
    }

    async fn load_by_name(&mut self, name: String) -> Answer<Resource<Graph>> {
        let opened = match self.nn.models() {
            Err(error) => Err(error),
            Ok(models) => match self.nn.wait(models.open(&name)).await {
                Err(error) => Err(error.into()),
                Ok(signature) => speakable(&name, &signature).map(|()| Graph {
                    name: name.as_str().into(),
                    signature,
                }),
            },
        };
        self.answer(opened)
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> Answer<Resource<ExecutionContext>> {
        let Graph { name, signature } = self.table.get(&graph)?;
        let context = ExecutionContext {
            name: name.clone(),
            signature: signature.clone(),
        };
        self.answer(Ok(context))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for State {}

impl inference::HostGraphExecutionContext for State {
    async fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<(String, Resource<HostTensor>)>,
    ) -> Answer<Vec<(String, Resource<HostTensor>)>> {
        let ExecutionContext { name, signature } = self.table.get(&context)?;
        let (name, signature) = (name.clone(), signature.clone());
        let mut given = Vec::with_capacity(inputs.len());
        for (input, tensor) in inputs {
            given.push((input, self.take_tensor(tensor)?));
        }
        match self.run(&name, &signature, given).await {
            Err(error) => Ok(Err(self.table.push(error.clipped())?)),
            Ok(outputs) => {
                let mut answer = Vec::with_capacity(outputs.len());
                for (output, tensor) in outputs {
                    answer.push((output, self.table.push(tensor)?));
                }
                Ok(Ok(answer))
            }
        }
    }

    fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, error: Resource<Error>) -> wasmtime::Result<errors::ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<Error>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.data.clone())
    }

    fn drop(&mut self, error: Resource<Error>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl State {
    async fn run(
        &mut self,
        name: &str,
        signature: &Signature,
        given: Vec<(String, HostTensor)>,
    ) -> Result<Vec<(String, HostTensor)>, Error> {
        let mut inputs = Vec::with_capacity(given.len());
        for (input, tensor) in given {
            let spec = signature.inputs.iter().find(|spec| spec.name == input);
            let tensor = to_model(name, &input, tensor, spec)?;
            inputs.push((input, tensor));
        }
        signature
            .check_inputs(&inputs)
            .map_err(|error| misfit(name, error.to_string()))?;
        let models = self.nn.models()?;
        let outputs = self.nn.wait(models.run(name, inputs)).await?;

        let mut answer = Vec::with_capacity(outputs.len());
        for (output, tensor) in outputs {
            let sizes = tensor.shape().len().saturating_mul(size_of::<u32>());
            self.nn.take(tensor.data().len().saturating_add(sizes))?;
            let tensor = to_guest(name, &output, tensor)?;
            answer.push((output, tensor));
        }
        Ok(answer)
    }
}

fn misfit(model: &str, problem: String) -> Error {
    let data = format!("model `{model}`: {problem}");
    Error {
        code: errors::ErrorCode::InvalidArgument,
        data,
    }
}

/// Checks the bytes of an input; a u8 tensor of zeros and ones serves a bool input.
fn to_model(
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
        misfit(
            model,
            format!("input `{input}`: expected whole tensor: {error}"),
        )
    })
}

fn to_guest(model: &str, output: &str, tensor: Tensor) -> Result<HostTensor, Error> {
    let (dtype, shape, data) = tensor.into_parts();
    let ty = type_of(dtype).ok_or_else(|| unspeakable(model, "output", output, dtype))?;
    let dimensions = shape
        .iter()
        .map(|&size| u32::try_from(size))
        .collect::<Result<_, _>>();
    let dimensions = dimensions.map_err(|_| {
        let data = format!("model `{model}`: output `{output}` of shape {shape:?} is too large");
        Error {
            code: errors::ErrorCode::TooLarge,
            data,
        }
    })?;
    Ok(HostTensor {
        dimensions,
        ty,
        data: Ok(data),
    })
}

/// Whether wasi:nn has a tensor type for all that a model takes and gives.
fn speakable(model: &str, signature: &Signature) -> Result<(), Error> {
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
    Error {
        code: errors::ErrorCode::UnsupportedOperation,
        data,
    }
}

fn dtype_of(ty: tensor::TensorType) -> DType {
    match ty {
        tensor::TensorType::Fp16 => DType::F16,
        tensor::TensorType::Fp32 => DType::F32,
        tensor::TensorType::Fp64 => DType::F64,
        tensor::TensorType::Bf16 => DType::BF16,
        tensor::TensorType::U8 => DType::U8,
        tensor::TensorType::I32 => DType::I32,
        tensor::TensorType::I64 => DType::I64,
    }
}

/// The wasi:nn type that holds all values of a dtype in the same bytes.
fn type_of(dtype: DType) -> Option<tensor::TensorType> {
    Some(match dtype {
        DType::F16 => tensor::TensorType::Fp16,
        DType::F32 => tensor::TensorType::Fp32,
        DType::F64 => tensor::TensorType::Fp64,
        DType::BF16 => tensor::TensorType::Bf16,
        DType::U8 | DType::Bool | DType::Narrow(_) => tensor::TensorType::U8,
        DType::I32 => tensor::TensorType::I32,
        DType::I64 => tensor::TensorType::I64,
        DType::U16 | DType::U32 | DType::U64 | DType::I8 | DType::I16 | DType::Bytes => {
            return None;
        }
    })
}
