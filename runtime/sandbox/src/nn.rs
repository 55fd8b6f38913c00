//! The host of wasi-nn, over the embedder's [`Models`]: what both of its ABIs share.
//!
//! 1. `open` and `load` give an [`OpenModel`], a name and a signature; what was loaded from bytes
//!    is let go when the guest holds nothing of it any more.
//! 2. Tensors live here, at the host, and count against a budget per instance, as do models that
//!    were loaded from bytes.
//! 3. `compute` awaits the answer: the guest's fiber sleeps and holds no thread.
//!
//! `component.rs` speaks to components, `classic.rs` to core modules; `tensors.rs` is between their
//! tensors and the engine's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firebox_engine::{Signature, Tensor};

use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::component::timed;
use crate::{LoadCause, ModelError, Models, Target};

pub(crate) mod classic;
pub(crate) mod component;
mod tensors;

pub use tensors::HostTensor;
use tensors::{speakable, to_guest, to_model};

/// What a tensor costs beside its bytes.
const TENSOR_OVERHEAD: usize = 256;

/// Bytes of an error's text that are kept: guests choose names that stand in it, and can hold
/// many errors.
const LONGEST_ERROR: usize = 2 << 10;

/// Times that one request can load a model from bytes: each costs the host more than it does the
/// guest.
const LOADS: usize = 16;

/// The wasi-nn part of an instance's state.
pub(crate) struct Nn {
    models: Option<Arc<dyn Models>>,
    /// Bytes of tensors and of loaded models that may still be held.
    left: usize,
    budget: usize,
    /// Models that were loaded from bytes, by the names that the embedder gave them.
    loaded: HashMap<Arc<str>, Held>,
    /// Counts calls: names come again, and what an earlier call has loaded went with it.
    generation: u64,
    /// Loads from bytes that the request may still ask for.
    loads: usize,
    /// Wall-clock time spent on models.
    pub(crate) waited: Duration,
    /// The part of it that was spent on this thread.
    pub(crate) polled: Duration,
    /// Whether something was too large for what the instance may hold.
    refused: bool,
}

/// A model that was loaded from bytes, as long as the guest has handles of it.
struct Held {
    bytes: usize,
    handles: usize,
}

/// A model that a guest can run.
#[derive(Clone)]
pub struct OpenModel {
    name: Arc<str>,
    signature: Arc<Signature>,
    /// The call that loaded it, where it came from bytes.
    loaded: Option<u64>,
}

/// How a guest says that its bytes are written.
pub(crate) enum Encoding {
    /// As ONNX, or it leaves that to us.
    Onnx,
    /// In a way that this host doesn't read.
    Other(&'static str),
}

impl Nn {
    pub(crate) fn new(models: Option<Arc<dyn Models>>, budget: usize) -> Self {
        let (waited, polled) = Default::default();
        Self {
            models,
            left: budget,
            budget,
            loaded: HashMap::new(),
            generation: 0,
            loads: LOADS,
            waited,
            polled,
            refused: false,
        }
    }

    /// The models of the next call, and its figures from zero. Tensors that the guest kept still
    /// count; models that it loaded from bytes went with the call before.
    pub(crate) fn renew(&mut self, models: Arc<dyn Models>) {
        self.models = Some(models);
        self.generation += 1;
        (self.waited, self.polled) = Default::default();
        self.loads = LOADS;
        for (_, held) in std::mem::take(&mut self.loaded) {
            self.give_back(held.bytes);
        }
    }

    /// Between two calls it has no models: they hold what is loaded of the version.
    pub(crate) fn rest(&mut self) {
        self.models = None;
    }

    /// Whether it was refused a tensor: then its tensors may be up.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// Opens a model of the bundle.
    async fn open(&mut self, name: &str) -> Result<OpenModel, Error> {
        let models = self.models()?;
        let signature = self.wait(models.open(name)).await?;
        speakable(name, &signature)?;
        Ok(OpenModel {
            name: name.into(),
            signature,
            loaded: None,
        })
    }

    /// Loads a model from bytes.
    async fn load(
        &mut self,
        onnx: Bytes,
        encoding: Encoding,
        target: Target,
    ) -> Result<OpenModel, Error> {
        let models = self.models()?;
        if let Encoding::Other(found) = encoding {
            let data = format!("expected a graph encoded as onnx (or autodetect), found {found}");
            return Err(Error::new(ErrorCode::InvalidEncoding, data));
        }
        self.loads = self.loads.checked_sub(1).ok_or_else(|| {
            let data = format!(
                "one request can load {LOADS} models from bytes; keep their graphs, or list the models in firebox.toml and use load-by-name"
            );
            Error::new(ErrorCode::TooLarge, data)
        })?;
        let size = onnx.len();
        self.take(size, "model file")?;
        let loaded = self.wait(models.load(onnx, target)).await;
        self.give_back(size);
        let loaded = loaded?;
        if !self.loaded.contains_key(&loaded.name) {
            let fits = speakable("(loaded from bytes)", &loaded.signature);
            if let Err(error) = fits.and_then(|()| self.take(loaded.bytes, "model")) {
                models.unload(&loaded.name);
                return Err(error);
            }
        }
        let held = self.loaded.entry(loaded.name.clone()).or_insert(Held {
            bytes: loaded.bytes,
            handles: 0,
        });
        held.handles += 1;
        Ok(OpenModel {
            name: loaded.name,
            signature: loaded.signature,
            loaded: Some(self.generation),
        })
    }

    /// What is held of a model that this call has loaded from bytes.
    fn held(&mut self, model: &OpenModel) -> Option<&mut Held> {
        let here = model.loaded == Some(self.generation);
        self.loaded.get_mut(&model.name).filter(|_| here)
    }

    /// Another handle of a model.
    fn again(&mut self, model: &OpenModel) -> OpenModel {
        if let Some(held) = self.held(model) {
            held.handles += 1;
        }
        model.clone()
    }

    /// A handle of a model is gone.
    fn close(&mut self, model: &OpenModel) {
        let Some(held) = self.held(model) else {
            return;
        };
        held.handles = held.handles.saturating_sub(1);
        if held.handles > 0 {
            return;
        }
        if let Some(held) = self.loaded.remove(&model.name) {
            self.give_back(held.bytes);
            if let Some(models) = &self.models {
                models.unload(&model.name);
            }
        }
    }

    /// Runs a model; outputs in the graph's order.
    async fn compute(
        &mut self,
        model: &OpenModel,
        given: Vec<(String, HostTensor)>,
    ) -> Result<Vec<(String, HostTensor)>, Error> {
        let OpenModel {
            name, signature, ..
        } = model;
        let mut inputs = Vec::with_capacity(given.len());
        for (input, tensor) in given {
            let spec = tensors::spec(signature, &input);
            let input = spec.map_or(input, |spec| spec.name.clone());
            inputs.push((input.clone(), to_model(name, &input, tensor, spec)?));
        }
        self.run(model, inputs).await
    }

    /// The same with tensors that were made ready.
    async fn run(
        &mut self,
        model: &OpenModel,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, HostTensor)>, Error> {
        let OpenModel {
            name, signature, ..
        } = model;
        if model.loaded.is_some() && self.held(model).is_none() {
            let data = "the model was loaded from bytes in an earlier request and went with it; load it again";
            return Err(Error::new(ErrorCode::InvalidArgument, data));
        }
        signature
            .check_inputs(&inputs)
            .map_err(|error| Error::misfit(name, &error))?;
        let models = self.models()?;
        let outputs = self.wait(models.run(name, inputs)).await?;

        let mut answer = Vec::with_capacity(outputs.len());
        for (output, tensor) in outputs {
            let given = to_guest(name, &output, tensor);
            let given = given.and_then(|given| self.take(given.size(), "tensor").map(|()| given));
            match given {
                Ok(tensor) => answer.push((output, tensor)),
                Err(error) => {
                    answer.iter().for_each(|(_, kept)| self.drop_tensor(kept));
                    return Err(error);
                }
            }
        }
        Ok(answer)
    }

    /// A tensor that counted is gone.
    fn drop_tensor(&mut self, tensor: &HostTensor) {
        if tensor.data.is_ok() {
            self.give_back(tensor.size());
        }
    }

    fn models(&self) -> Result<Arc<dyn Models>, Error> {
        self.models.clone().ok_or_else(|| {
            let data = "models can't be used in `init` or `describe`; use them in `infer`";
            Error::new(ErrorCode::UnsupportedOperation, data)
        })
    }

    fn take(&mut self, bytes: usize, what: &str) -> Result<(), Error> {
        match self.left.checked_sub(bytes.saturating_add(TENSOR_OVERHEAD)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.refused = true;
                let data = format!(
                    "a {what} of {bytes} bytes is too large: the instance's tensors hold {} of {} bytes",
                    self.budget - self.left,
                    self.budget
                );
                Err(Error::new(ErrorCode::TooLarge, data))
            }
        }
    }

    /// Whether so many bytes could be taken.
    fn fits(&mut self, bytes: usize, what: &str) -> Result<(), Error> {
        self.take(bytes, what)?;
        self.give_back(bytes);
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.left = self
            .left
            .saturating_add(bytes.saturating_add(TENSOR_OVERHEAD))
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

/// What a guest is told.
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    data: String,
}

impl Error {
    fn new(code: ErrorCode, data: impl Into<String>) -> Self {
        Self {
            code,
            data: data.into(),
        }
    }

    fn misfit(model: &str, problem: &impl std::fmt::Display) -> Self {
        let data = format!("model `{model}`: {problem}");
        Self::new(ErrorCode::InvalidArgument, data)
    }

    fn not_one_file(found: usize) -> Self {
        let data = format!("an ONNX model is one file: expected 1 builder, found {found}");
        Self::new(ErrorCode::InvalidArgument, data)
    }

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
            ModelError::NotFound { .. } => ErrorCode::NotFound,
            ModelError::Input { .. } => ErrorCode::InvalidArgument,
            ModelError::Unavailable { .. } => ErrorCode::Timeout,
            ModelError::Failed { .. } => ErrorCode::RuntimeError,
            ModelError::Load { cause, .. } => match cause {
                LoadCause::Forbidden => ErrorCode::Security,
                LoadCause::NotOnnx => ErrorCode::InvalidEncoding,
                LoadCause::Malformed => ErrorCode::InvalidArgument,
                LoadCause::Unsupported => ErrorCode::UnsupportedOperation,
                LoadCause::TooLarge => ErrorCode::TooLarge,
            },
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests;
