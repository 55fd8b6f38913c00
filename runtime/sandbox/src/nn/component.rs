//! The component ABI, `wasi:nn@0.2.0-rc-2024-10-28`: what `bindgen!` makes of it, over [`Nn`].
//!
//! Tensors, graphs, contexts and errors are resources in the instance's table. A tensor's
//! constructor can't fail, so what is wrong with one is kept and said by `compute`, which checks
//! all inputs against the graph before it asks for a run.
//!
//! [`Nn`]: super::Nn

use bytes::Bytes;
use wasmtime::component::Resource;

use super::{Encoding, Error, HostTensor, OpenModel};
use crate::Target;
use crate::bindings::wasi::nn::{errors, graph, inference, tensor};
use crate::state::State;

/// A graph that the guest holds.
pub struct Graph(OpenModel);

/// A graph's model again; it holds no state between runs.
pub struct ExecutionContext(OpenModel);

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
        self.nn.drop_tensor(&tensor);
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
        let mut tensor = HostTensor {
            dimensions,
            ty,
            data: Ok(Bytes::from(data)),
        };
        if let Err(error) = self.nn.take(tensor.size(), "tensor") {
            (tensor.dimensions, tensor.data) = (Vec::new(), Err(error));
        }
        Ok(self.table.push(tensor)?)
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
    async fn load(
        &mut self,
        builder: Vec<Vec<u8>>,
        encoding: graph::GraphEncoding,
        target: graph::ExecutionTarget,
    ) -> Answer<Resource<Graph>> {
        let encoding = match encoding {
            graph::GraphEncoding::Onnx | graph::GraphEncoding::Autodetect => Encoding::Onnx,
            graph::GraphEncoding::Openvino => Encoding::Other("openvino"),
            graph::GraphEncoding::Tensorflow => Encoding::Other("tensorflow"),
            graph::GraphEncoding::Pytorch => Encoding::Other("pytorch"),
            graph::GraphEncoding::Tensorflowlite => Encoding::Other("tensorflowlite"),
            graph::GraphEncoding::Ggml => Encoding::Other("ggml"),
        };
        let target = match target {
            graph::ExecutionTarget::Cpu => Target::Cpu,
            graph::ExecutionTarget::Gpu => Target::Gpu,
            graph::ExecutionTarget::Tpu => Target::Tpu,
        };
        let count = builder.len();
        let loaded = match <[Vec<u8>; 1]>::try_from(builder) {
            Ok([onnx]) => self.nn.load(Bytes::from(onnx), encoding, target).await,
            Err(_) => Err(Error::not_one_file(count)),
        };
        self.answer(loaded.map(Graph))
    }

    async fn load_by_name(&mut self, name: String) -> Answer<Resource<Graph>> {
        let opened = self.nn.open(&name).await;
        self.answer(opened.map(Graph))
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> Answer<Resource<ExecutionContext>> {
        let Graph(model) = self.table.get(&graph)?;
        let context = ExecutionContext(self.nn.again(model));
        self.answer(Ok(context))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        let Graph(model) = self.table.delete(graph)?;
        self.nn.close(&model);
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
        let ExecutionContext(model) = self.table.get(&context)?;
        let model = model.clone();
        let mut given = Vec::with_capacity(inputs.len());
        for (input, tensor) in inputs {
            given.push((input, self.take_tensor(tensor)?));
        }
        match self.nn.compute(&model, given).await {
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
        let ExecutionContext(model) = self.table.delete(context)?;
        self.nn.close(&model);
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
