//! Other engines in Rust, in this process: tract and rten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firebox::bench::{Engine, timed};
use firebox::failure::{Context, Failure, Result};
use firebox_engine::{DType, Tensor, Tensors};
use rten::{NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{AsView, Layout};
use tract_onnx::prelude::{
    self as tract, Framework, InferenceFact, InferenceModelExt, IntoRunnable, TValue, TVec, tvec,
};

fn refused(by: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{by} refuses: {why}"))
}

/// tract, its model made for the shapes of these inputs; it runs on one thread.
pub struct Tract {
    plan: Arc<tract::TypedRunnableModel>,
    inputs: TVec<TValue>,
    outputs: Vec<String>,
}

impl Tract {
    pub fn open(path: &Path, inputs: &Tensors) -> Result<Self> {
        let wrong = |error: tract::TractError| refused("tract", format!("{error:#}"));
        let mut model = tract_onnx::onnx().model_for_path(path).map_err(wrong)?;
        let names = |outlets: &[tract::OutletId]| -> Vec<String> {
            let each = outlets.iter().map(|outlet| model.outlet_label(*outlet));
            let each = outlets.iter().zip(each).map(|(outlet, label)| {
                label.map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned)
            });
            each.collect()
        };
        let outputs = names(model.output_outlets().map_err(wrong)?);
        let expected = names(model.input_outlets().map_err(wrong)?);
        let mut given = tvec![];
        for (at, name) in expected.iter().enumerate() {
            let tensor = inputs.iter().find(|(given, _)| given == name);
            let (_, tensor) = tensor.ok_or_else(|| refused("tract", format!("input {name}")))?;
            let shape = tensor.shape();
            let made = match tensor.dtype() {
                DType::F32 => tract::Tensor::from_shape(shape, &tensor.to_f32().unwrap()),
                DType::I64 => tract::Tensor::from_shape(shape, &tensor.to_i64().unwrap()),
                DType::I32 => tract::Tensor::from_shape(shape, &tensor.to_i32().unwrap()),
                other => return Err(refused("tract", other)),
            };
            let made = made.map_err(wrong)?;
            let fact = InferenceFact::dt_shape(made.datum_type(), made.shape());
            model.set_input_fact(at, fact).map_err(wrong)?;
            given.push(made.into());
        }
        let model = model.into_optimized().map_err(wrong)?;
        Ok(Self {
            plan: model.into_runnable().map_err(wrong)?,
            inputs: given,
            outputs,
        })
    }

    fn once(&self) -> Result<TVec<TValue>> {
        let ran = self.plan.run(self.inputs.clone());
        ran.map_err(|error| refused("tract", format!("{error:#}")))
    }
}

impl Engine for Tract {
    fn name(&self) -> String {
        "tract".into()
    }

    fn answer(&mut self) -> Result<Tensors> {
        let made = self.once()?;
        let each = self.outputs.iter().zip(made).map(|(name, tensor)| {
            let values = tensor.as_plain_ram();
            let values = values
                .as_ref()
                .and_then(|values| values.as_slice::<f32>().ok());
            let values = values.ok_or_else(|| refused("tract", "an output that is not f32"))?;
            f32s(name, tensor.shape(), values)
        });
        each.collect()
    }

    fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)> {
        timed(count, || self.once().map(drop))
    }
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> Result<(String, Tensor)> {
    let made = Tensor::from_f32(shape.to_vec(), values);
    Ok((name.to_owned(), made.context(|| name.to_owned())?))
}

/// rten.
pub struct Rten {
    model: rten::Model,
    inputs: Vec<(NodeId, Value)>,
    outputs: Vec<(NodeId, String)>,
    threads: Arc<ThreadPool>,
}

impl Rten {
    pub fn open(path: &Path, inputs: &Tensors, threads: usize) -> Result<Self> {
        let mut options = rten::ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(path);
        let model = model.map_err(|error| refused("rten", error))?;
        let mut given = Vec::new();
        for (name, tensor) in inputs {
            let id = model
                .node_id(name)
                .map_err(|error| refused("rten", error))?;
            let shape = tensor.shape();
            let whole =
                |values: Vec<i64>| -> Vec<i32> { values.into_iter().map(|x| x as i32).collect() };
            let value = match tensor.dtype() {
                DType::F32 => Value::from_shape(shape, tensor.to_f32().unwrap()).ok(),
                DType::I64 => Value::from_shape(shape, whole(tensor.to_i64().unwrap())).ok(),
                DType::I32 => Value::from_shape(shape, tensor.to_i32().unwrap()).ok(),
                _ => None,
            };
            given.push((
                id,
                value.ok_or_else(|| refused("rten", format!("input {name}")))?,
            ));
        }
        let named = |&id: &NodeId| {
            let info = model.node_info(id);
            let name = info.and_then(|info| info.name().map(str::to_owned));
            (id, name.unwrap_or_default())
        };
        Ok(Self {
            outputs: model.output_ids().iter().map(named).collect(),
            inputs: given,
            threads: Arc::new(ThreadPool::with_num_threads(threads)),
            model,
        })
    }

    fn once(&self) -> Result<Vec<Value>> {
        let each = self.inputs.iter();
        let inputs = each.map(|(id, value)| (*id, ValueOrView::from(value)));
        let outputs: Vec<_> = self.outputs.iter().map(|(id, _)| *id).collect();
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.threads.clone());
        let ran = self.model.run(inputs.collect(), &outputs, Some(options));
        ran.map_err(|error| refused("rten", error))
    }
}

impl Engine for Rten {
    fn name(&self) -> String {
        "rten".into()
    }

    fn answer(&mut self) -> Result<Tensors> {
        let made = self.once()?;
        let each = self.outputs.iter().zip(made).map(|((_, name), value)| {
            let Value::FloatTensor(tensor) = value else {
                return Err(refused("rten", "an output that is not f32"));
            };
            f32s(name, tensor.shape(), &tensor.to_vec())
        });
        each.collect()
    }

    fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)> {
        timed(count, || self.once().map(drop))
    }
}
