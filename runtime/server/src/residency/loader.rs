//! Models that guests load from bytes, by wasi-nn's `load`.
//!
//! They share the pool of models and its budget: bytes that a version, or another request, has
//! loaded already are not loaded again. Only some load at once, so that versions which wait for
//! theirs don't wait for guests too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firebox_engine::{Device, LoadError, Precision};
use firebox_registry::{Device as DeviceChoice, Digest};
use firebox_sandbox::{LoadCause, ModelError, Target};

use super::load::{ModelFile, Source};
use super::{Loaded, Place, Residency};
use crate::problem::Failure;

/// The longest wait for room in memory; the call's deadline ends it earlier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Loads models from the bytes of one function's guests.
#[derive(Clone)]
pub struct Loader {
    residency: Residency,
    /// The device that the manifest wishes.
    wish: DeviceChoice,
}

impl Loader {
    /// For a function whose manifest wishes this device.
    pub fn new(residency: Residency, wish: DeviceChoice) -> Self {
        Self { residency, wish }
    }

    /// The model, and the name by which its guest's runs ask for it: never one of a bundle's
    /// models, which have no colon.
    pub async fn load(
        &self,
        onnx: Bytes,
        target: Target,
    ) -> Result<(Arc<str>, Arc<Loaded>), ModelError> {
        let place = Place {
            device: self.device(target)?,
            precision: Precision::F32,
        };
        let guests = &self.residency.0.guests;
        let _turn = guests.acquire().await.map_err(|_| later("shutting down"))?;
        let hashed = onnx.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&hashed)).await;
        let digest = digest.map_err(|_| later("shutting down"))?;
        // Guests can bring models without end, and no version goes idle with them.
        self.residency.forget_dropped();
        let file = ModelFile {
            key: (digest, place),
            bytes: onnx.len() as u64,
            source: Source::Bytes(onnx),
        };
        let loaded = self.residency.single(file, "a guest's model", PATIENCE);
        let loaded = loaded.await.map_err(refusal)?;
        let name = format!("{digest}@{}", place.device);
        Ok((name.into(), loaded))
    }

    fn device(&self, target: Target) -> Result<Device, ModelError> {
        match (target, self.wish) {
            (Target::Cpu, _) | (Target::Any, DeviceChoice::Cpu) => Ok(Device::Cpu),
            (_, DeviceChoice::Auto)
            | (Target::Gpu | Target::Any, DeviceChoice::Wgpu | DeviceChoice::Cuda) => {
                Ok(self.residency.device(self.wish))
            }
            (Target::Gpu, DeviceChoice::Cpu) => Err(unsupported(
                "the target is gpu, and `load_models` of [function] is \"cpu\"; \"auto\" takes the \
                 best device there is",
            )),
            (Target::Tpu, _) => Err(unsupported(
                "the target is tpu, and there is none; with `load_models = \"auto\"` the best device \
                 is taken instead",
            )),
        }
    }
}

/// Whose fault it is that a model can't be loaded.
pub(super) fn cause(error: &LoadError) -> LoadCause {
    match error {
        LoadError::NotOnnx { .. } | LoadError::NoGraph => LoadCause::NotOnnx,
        LoadError::Unsupported { .. }
        | LoadError::UnsupportedType { .. }
        | LoadError::Device { .. } => LoadCause::Unsupported,
        LoadError::Node { .. }
        | LoadError::Weights { .. }
        | LoadError::Missing { .. }
        | LoadError::Order { .. }
        | LoadError::Duplicate { .. } => LoadCause::Malformed,
        LoadError::Read { .. } | LoadError::Threads { .. } => LoadCause::Unsupported,
    }
}

fn refusal(failure: Failure) -> ModelError {
    match failure {
        Failure::BadModel { cause, reason } => ModelError::Load { cause, reason },
        Failure::OverBudget(reason) => ModelError::Load {
            cause: LoadCause::TooLarge,
            reason,
        },
        Failure::NoRoom(reason) => later(&reason),
        Failure::ShuttingDown => later("shutting down"),
        failure => ModelError::Failed {
            model: "(loaded from bytes)".into(),
            reason: failure.to_string(),
        },
    }
}

fn unsupported(reason: &str) -> ModelError {
    ModelError::Load {
        cause: LoadCause::Unsupported,
        reason: reason.into(),
    }
}

fn later(reason: &str) -> ModelError {
    ModelError::Unavailable {
        model: "(loaded from bytes)".into(),
        reason: reason.into(),
    }
}
