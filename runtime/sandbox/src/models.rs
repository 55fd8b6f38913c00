//! The seam between an instance's wasi:nn calls and whatever runs models.

use std::sync::Arc;

use firebox_engine::{Signature, SignatureError, Tensor};
use futures::future::BoxFuture;

/// Serves the models of one function.
pub trait Models: Send + Sync {
    /// Makes the model of this name ready, loading it if need be, and tells
    /// what it takes and gives. Called for each `load-by-name` of a guest.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>>;

    /// Runs a model on inputs that fit its signature; outputs in the graph's
    /// order. The instance sleeps meanwhile. Dropping the future gives up.
    fn run<'a>(
        &'a self,
        name: &'a str,
        inputs: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>>;
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

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
