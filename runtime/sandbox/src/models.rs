//! The seam between an instance's wasi:nn calls and whatever runs models.

use std::sync::Arc;

use bytes::Bytes;
use firebox_engine::{Signature, SignatureError, Tensor};
use futures::future::BoxFuture;

/// Serves the models of one function.
pub trait Models: Send + Sync {
    /// Makes the model of this name ready, loading it if need be, and tells
    /// what it takes and gives. Called for each `load-by-name` of a guest.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>>;

    /// Loads a model from the bytes of an ONNX file: a guest's `load`. It is there under the name
    /// that this gives it until it is [unloaded](Self::unload), at most as long as the call. Refused
    /// unless an embedder allows it.
    fn load<'a>(
        &'a self,
        _onnx: Bytes,
        _target: Target,
    ) -> BoxFuture<'a, Result<LoadedModel, ModelError>> {
        let refused = ModelError::Load {
            cause: LoadCause::Forbidden,
            reason: "this function may not; open a model of the bundle by load-by-name".into(),
        };
        Box::pin(std::future::ready(Err(refused)))
    }

    /// Lets go of a model that was loaded from bytes: the guest has no handle of it any more.
    fn unload(&self, _name: &str) {}

    /// Runs a model on inputs that fit its signature; outputs in the graph's
    /// order. The instance sleeps meanwhile. Dropping the future gives up.
    fn run<'a>(
        &'a self,
        name: &'a str,
        inputs: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>>;
}

/// Where a guest wants a model that it loads from bytes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On the processor.
    Cpu,
    /// On a graphics processor.
    Gpu,
    /// On a tensor processor.
    Tpu,
    /// Wherever it runs best.
    Any,
}

/// A model that was loaded from bytes.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// What it is called in [`Models::run`]; the same for the same bytes on the same device, and
    /// never the name of a model of the bundle.
    pub name: Arc<str>,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// Bytes of memory that it counts for.
    pub bytes: usize,
}

/// A model did not answer. Guests see it as a wasi:nn error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The bundle has no such model (wasi:nn: `not-found`).
    #[error("there is no model `{name}`; the function's models: {}", list(known))]
    NotFound {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The inputs do not fit the graph (wasi:nn: `invalid-argument`).
    #[error("model `{model}`: {error}")]
    Input {
        /// The model.
        model: String,
        /// Which input, what was expected, what was given.
        error: SignatureError,
    },
    /// A guest's bytes are not loaded.
    #[error("a model can't be loaded from bytes: {reason}")]
    Load {
        /// Whose fault it is.
        cause: LoadCause,
        /// What was expected, and what was found.
        reason: String,
    },
    /// Not now: a full queue, a device that went away, a shutdown (wasi:nn: `timeout`).
    #[error("model `{model}` is unavailable: {reason}")]
    Unavailable {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// It could not be loaded or its graph failed (wasi:nn: `runtime-error`).
    #[error("model `{model}` failed: {reason}")]
    Failed {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
}

/// Why a model is not loaded from bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadCause {
    /// The function may not do so (wasi:nn: `security`).
    Forbidden,
    /// It isn't ONNX (wasi:nn: `invalid-encoding`).
    NotOnnx,
    /// It is ONNX, and wrong (wasi:nn: `invalid-argument`).
    Malformed,
    /// An operator or a device that isn't there (wasi:nn: `unsupported-operation`).
    Unsupported,
    /// It needs more memory than there is (wasi:nn: `too-large`).
    TooLarge,
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
