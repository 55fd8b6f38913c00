//! A loaded model: what callers hold.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::Mmap;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::deviation::{Deviation, deviations};
use crate::device::{self, Device};
use crate::error::{LoadError, RunError};
use crate::graph::Program;
use crate::kernels::spare;
use crate::onnx::proto::ModelProto;
use crate::place::Machine;
use crate::plan::{self, Plan, StepTime};
use crate::precision::Precision;
use crate::signature::{Signature, TensorSpec};
use crate::tensor::Tensor;
use crate::{exec, fold, fuse, layout, lower, onnx};

/// Plans that are kept; the one unused for longest goes first.
const PLANS: usize = 32;

/// Tensors by name.
pub type Tensors = Vec<(String, Tensor)>;

/// How a model is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where it computes.
    pub device: Device,
    /// Threads of its own that compute, on the CPU. Left out, all models share one pool with
    /// a thread for each core, and small work stays on the calling thread.
    pub threads: Option<usize>,
    /// How finely it computes, on the CPU.
    pub precision: Precision,
}

/// A model with its weights on a device.
///
/// Shared freely between threads: runs do not wait for each other. Its memory goes back when
/// it is dropped.
pub struct Model {
    program: Program,
    signature: Signature,
    /// Inputs whose values choose a branch, so that a plan holds for one value only.
    selecting: Vec<bool>,
    plans: Mutex<Vec<(Key, Arc<Plan>)>>,
    device: Device,
    machine: Machine,
    threads: Option<ThreadPool>,
    weight_bytes: usize,
}

/// What a plan is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    shapes: Vec<Vec<usize>>,
    selected: Vec<Bytes>,
}

impl Model {
    /// Loads a model from the bytes of an ONNX file.
    ///
    /// Decodes it, checks every operator and its attributes, moves the weights to the device
    /// and computes what does not depend on inputs.
    ///
    /// Weights must lie in these bytes: for those in files beside the model, see
    /// [`Model::open`].
    pub fn load(onnx: Bytes, options: &Options) -> Result<Self, LoadError> {
        Self::prepare(onnx::decode(onnx)?, options, &|| ())
    }

    /// `copied` is called each time that much was copied out of the file.
    fn prepare(proto: ModelProto, options: &Options, copied: &dyn Fn()) -> Result<Self, LoadError> {
        let machine = Machine::new(device::open(options.device)?);
        let threads = options.threads.map(pool).transpose()?;
        let (mut program, signature) = lower::lower(proto, copied)?;
        fold::fold(&mut program);
        fuse::fuse(&mut program);
        if machine.is_host() {
            layout::lay_out(&mut program, options.precision);
        }
        let settled = exec::caught(|| machine.settle(&mut program));
        settled.map_err(|error| LoadError::Device {
            device: options.device,
            reason: error.to_string(),
        })?;
        let selecting = fold::selecting_inputs(&program, &signature);
        let weight_bytes = program.weight_bytes();
        let plans = Mutex::default();
        Ok(Self {
            program,
            signature,
            selecting,
            plans,
            device: options.device,
            machine,
            threads,
            weight_bytes,
        })
    }

    /// Loads a model from an ONNX file, which is mapped while it is read, as are the files in
    /// its folder, or below, in which it keeps weights.
    pub fn open(path: &Path, options: &Options) -> Result<Self, LoadError> {
        let (mut proto, mapped) = decode_file(path)?;
        onnx::external::attach(&mut proto, path.parent().unwrap_or(Path::new("")))?;
        Self::prepare(proto, options, &|| mapped.give_back())
    }

    /// Whether a file is an ONNX model at all: [`LoadError::NotOnnx`] or [`LoadError::NoGraph`] where it
    /// is none. Whether this engine can run it is not asked, and no weights are read.
    pub fn check(path: &Path) -> Result<(), LoadError> {
        decode_file(path).map(drop)
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Bytes of weights that are held; plans and what a run needs come on top.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// How many steps fall back to the processor in the plans that are kept, as the model's
    /// device lacks an operator or an element type; nodes of bodies that run without a plan
    /// count once they ran. None do on the processor.
    pub fn fallbacks(&self) -> usize {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let of_plans = plans.iter().map(|(_, plan)| plan.fallbacks());
        of_plans.sum::<usize>() + self.machine.fallbacks()
    }

    /// Runs the model, on the calling thread or on its own threads, until it is done.
    ///
    /// Takes exactly the inputs of the signature, in any order; gives the outputs in the
    /// model's order. The first run with new input shapes also makes a plan for them.
    ///
    /// # Errors
    ///
    /// [`RunError::Input`] where the inputs do not fit the signature, else which node failed
    /// and why.
    pub fn run(&self, inputs: Tensors) -> Result<Tensors, RunError> {
        self.watched(inputs, None)
    }

    /// Runs the model as [`run`](Self::run) does, and says how long each step took. The run
    /// that makes the plan has no times.
    pub fn profile(&self, inputs: Tensors) -> Result<(Tensors, Vec<StepTime>), RunError> {
        let mut times = Vec::new();
        let outputs = self.watched(inputs, Some(&mut times))?;
        Ok((outputs, times))
    }

    /// How far this model's outputs are from those of another with the same signature, on the
    /// same inputs: what [`Precision::Int8`] costs, where the other one computes in f32.
    pub fn deviation(&self, reference: &Self, inputs: Tensors) -> Result<Vec<Deviation>, RunError> {
        let expected = reference.run(inputs.clone())?;
        Ok(deviations(&self.run(inputs)?, &expected))
    }

    fn watched(
        &self,
        inputs: Tensors,
        times: Option<&mut Vec<StepTime>>,
    ) -> Result<Tensors, RunError> {
        self.signature.check_inputs(&inputs)?;
        match &self.threads {
            Some(pool) => pool.install(|| self.compute(inputs, times)),
            None => self.compute(inputs, times),
        }
    }

    fn compute(
        &self,
        mut inputs: Tensors,
        times: Option<&mut Vec<StepTime>>,
    ) -> Result<Tensors, RunError> {
        let _scope = spare::Scope;
        let mut ordered = Vec::with_capacity(inputs.len());
        for spec in &self.signature.inputs {
            let found = inputs.iter().position(|(name, _)| *name == spec.name);
            let Some((_, tensor)) = found.map(|at| inputs.swap_remove(at)) else {
                continue;
            };
            ordered.push(as_declared(tensor, spec));
        }
        let key = Key {
            shapes: ordered
                .iter()
                .map(|tensor| tensor.shape().to_vec())
                .collect(),
            selected: self
                .selecting
                .iter()
                .zip(&ordered)
                .filter(|(selects, _)| **selects)
                .map(|(_, tensor)| tensor.data().clone())
                .collect(),
        };
        let at_edge = |node: &str, source| RunError::Operator {
            operator: "the tensor".into(),
            node: node.to_owned(),
            source,
        };
        let values = ordered
            .into_iter()
            .zip(&self.signature.inputs)
            .map(|(tensor, spec)| {
                let value = exec::caught(|| self.machine.upload(tensor));
                value.map_err(|error| at_edge(&spec.name, error))
            })
            .collect::<Result<Vec<_>, _>>()?;

        let outputs = match self.planned(&key) {
            Some(plan) => plan.run(&self.program, values, &self.machine, times)?,
            None => {
                let (outputs, plan) =
                    plan::trace(&self.program, values, &self.selecting, &self.machine)?;
                self.keep(key, plan);
                outputs
            }
        };
        self.signature
            .outputs
            .iter()
            .zip(outputs)
            .map(|(spec, value)| {
                let tensor = exec::caught(|| value.download());
                let tensor = tensor.map_err(|error| at_edge(&spec.name, error))?;
                Ok((spec.name.clone(), tensor))
            })
            .collect()
    }

    fn planned(&self, key: &Key) -> Option<Arc<Plan>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let at = plans.iter().position(|(known, _)| known == key)?;
        // The most recently used stands last.
        let found = plans.remove(at);
        let plan = found.1.clone();
        plans.push(found);
        Some(plan)
    }

    fn keep(&self, key: Key, plan: Plan) {
        tracing::debug!(steps = plan.len(), shapes = ?key.shapes, "planned");
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.iter().any(|(known, _)| *known == key) {
            return;
        }
        if plans.len() >= PLANS {
            plans.remove(0);
        }
        plans.push((key, Arc::new(plan)));
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plans: Vec<_> = plans
            .iter()
            .map(|(key, plan)| (&key.shapes, plan.len()))
            .collect();
        f.debug_struct("Model")
            .field("signature", &self.signature)
            .field("steps by input shapes", &plans)
            .field("device", &self.machine.device)
            .field("weight_bytes", &self.weight_bytes)
            .finish_non_exhaustive()
    }
}

/// The message in a file, and the mapping that its stored tensors are slices of.
fn decode_file(path: &Path) -> Result<(ModelProto, Mapped), LoadError> {
    let unread = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unread)?;
    #[allow(unsafe_code, reason = "mapping a file")]
    // SAFETY: the mapping lives until the model is loaded. Model files are written once and
    // never changed in place; a file that is cut short meanwhile would end the process,
    // as with any mapped file.
    let bytes = unsafe { Mmap::map(&file) }.map_err(unread)?;
    let mapped = Mapped(Arc::new(bytes));
    let proto = onnx::decode(Bytes::from_owner(mapped.clone()))?;
    Ok((proto, mapped))
}

/// A file that is mapped while a model is loaded.
#[derive(Clone)]
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Gives the pages that were read back to the system; they are read again where they are
    /// needed again.
    #[allow(unsafe_code, reason = "advice on a mapping")]
    fn give_back(&self) {
        // It is advice: where it is not taken, only memory is lost.
        #[cfg(unix)]
        // SAFETY: the mapping is of a file and never written to, so that dropped pages come
        // back with the same bytes.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// A pool of a model's own.
fn pool(threads: usize) -> Result<ThreadPool, LoadError> {
    let started = ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|number| format!("model-{number}"))
        .build();
    started.map_err(|error| LoadError::Threads {
        threads,
        reason: error.to_string(),
    })
}

/// A scalar and a single element stand for each other at the edge, and so do codes and what
/// they mean; inside, ranks and types matter.
fn as_declared(tensor: Tensor, spec: &TensorSpec) -> Tensor {
    let declared = spec.shape.as_ref().map(Vec::len);
    let shape = match (declared, tensor.shape()) {
        (Some(0), [1]) => vec![],
        (Some(1), []) => vec![1],
        _ if tensor.dtype() == spec.dtype => return tensor,
        (_, shape) => shape.to_vec(),
    };
    Tensor::new(spec.dtype, shape, tensor.data().clone()).unwrap_or(tensor)
}
