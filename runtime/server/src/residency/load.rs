//! Reading code and weights, each a flight that many can wait for.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use firebox_engine::{Device, Model, Options, Precision};
use firebox_registry::{
    Device as DeviceChoice, Digest, ModelSection, Precision as PrecisionChoice, StoredFile,
};
use firebox_sandbox::{Assets, LinkError};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, try_join, try_join_all};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::budget::{Amount, Reservation, charge};
use super::loader::cause;
use super::room::{Claim, Needs, Patience};
use super::state::Cause;
use super::{Code, Inner, Loaded, Program, Residency, Warm};
use crate::problem::Failure;
use crate::routing::Version;
use crate::scheduler::panic_text;

/// KiB of model files that are read at once: a load takes up to twice its file beside the weights
/// that stay, so large ones come one after another.
pub(super) const READ_AT_ONCE_KIB: u32 = 64 << 10;

/// A load that many can wait for.
pub type Flight<T> = Shared<BoxFuture<'static, Result<T, Failure>>>;

/// Starts a load on `runtime` that goes on whether or not somebody waits, and survives a panic.
pub(super) fn fly<T: Clone + Send + Sync + 'static>(
    runtime: &Handle,
    load: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Flight<T> {
    let task = runtime.spawn(AssertUnwindSafe(load).catch_unwind());
    let landed = async move {
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Failure::Internal(panic_text(panic.as_ref()))),
            Err(_) => Err(Failure::ShuttingDown),
        }
    };
    landed.boxed().shared()
}

/// Who asks for room where a bundle is checked.
const UPLOAD: &str = "the upload";

/// Where a model computes, and how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// Always f32 where the device knows nothing else.
    pub precision: Precision,
}

/// A file at a place: versions that have the same share the model.
pub(super) type ModelKey = (Digest, Place);

/// Finds a file.
pub type Locate = Arc<dyn Fn() -> Result<PathBuf, Failure> + Send + Sync>;

/// Where a model's ONNX comes from.
#[derive(Clone)]
pub(super) enum Source {
    File(Locate),
    Bytes(Bytes),
}

/// A model to be loaded.
#[derive(Clone)]
pub(super) struct ModelFile {
    pub(super) key: ModelKey,
    /// What it will take, as far as that is known.
    pub(super) bytes: u64,
    pub(super) source: Source,
}

impl ModelFile {
    fn of((file, place, path): (StoredFile, Place, Locate)) -> Self {
        Self {
            key: (file.digest, place),
            bytes: file.bytes,
            source: Source::File(path),
        }
    }
}

/// A model that somebody has or loads.
pub(super) enum Pooled {
    Loading(Flight<Arc<Loaded>>),
    Loaded(Weak<Loaded>),
}

/// A model that a load has got hold of.
#[derive(Clone)]
pub enum Taken {
    /// It is in memory.
    Here(Arc<Loaded>),
    /// It is on its way there.
    Coming(Flight<Arc<Loaded>>),
}

impl Taken {
    /// The model, when it is there.
    pub async fn landed(&self) -> Result<Arc<Loaded>, Failure> {
        match self {
            Self::Here(model) => Ok(model.clone()),
            Self::Coming(flight) => flight.clone().await,
        }
    }
}

/// Room was taken, and then nothing was found in it.
pub(super) fn forgotten() -> Failure {
    Failure::Internal("a model was forgotten".into())
}

impl Residency {
    /// Loads a version; only the slot's flight does so.
    pub(super) async fn load_into_slot(
        self,
        version: Arc<Version>,
        cause: Cause,
    ) -> Result<Arc<Warm>, Failure> {
        let loading = AssertUnwindSafe(self.load(&version, &cause)).catch_unwind();
        let result = loading.await;
        let result = result.unwrap_or_else(|p| Err(Failure::Internal(panic_text(p.as_ref()))));
        let (function, number) = (&version.record.function, version.record.number.get());
        match &result {
            Ok(_) => {}
            // Nothing is wrong with it: it stays as warm as it was.
            Err(Failure::NoRoom(reason)) => {
                version.slot.gave_up();
                tracing::info!(%function, version = number, reason, "no room for the version");
            }
            Err(failure) => {
                drop(version.slot.failed(&failure.to_string(), &self.0.metrics));
                self.0.metrics.load_failures.increment(1);
                tracing::error!(%function, version = number, %failure, "version can't be loaded");
            }
        }
        result
    }

    async fn load(&self, version: &Arc<Version>, cause: &Cause) -> Result<Arc<Warm>, Failure> {
        let needs = self.needs(version);
        let claim = Claim {
            name: version.title(),
            urgent: *cause == Cause::Realtime,
            patience: Patience::Slot(&version.slot),
        };
        let granted = self.room(&needs, &claim).await?;
        let models = needs.models.iter().map(|file| granted.model(file));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let started = Instant::now();
        let code = async {
            let kept = version.slot.lock().code.clone();
            let code = match kept {
                Some(code) => Some(code),
                None => self.code(version, granted.code).await?.map(Arc::new),
            };
            if let Some(code) = &code {
                version.slot.linked(code, cause, &self.0.metrics);
            }
            Ok(code)
        };
        let names = version.record.models.keys().zip(&models);
        let models = names.map(|(name, taken)| async move {
            Ok::<_, Failure>((name.clone(), taken.landed().await?))
        });
        let (code, models) = try_join(code, try_join_all(models)).await?;
        let warm = Arc::new(Warm::new(code, models.into_iter().collect()));
        let took = started.elapsed();
        version.slot.loaded(&warm, took, cause, &self.0.metrics);
        tracing::info!(function = %version.record.function, version = version.record.number.get(),
            %cause, ms = took.as_millis() as u64, "version loaded");
        Ok(warm)
    }

    /// What a version lacks: its code, where that isn't mapped, and its models.
    pub(super) fn needs(&self, version: &Version) -> Needs {
        let linked = version.slot.lock().code.is_some();
        let compiled = version.compiled().filter(|_| !linked);
        Needs {
            models: self.model_files(version),
            code: compiled.map_or(0, |compiled| compiled.file.bytes),
        }
    }

    /// The models of a version, with what they took last or, before that is known, the sizes of
    /// their files.
    pub(super) fn model_files(&self, version: &Version) -> Vec<ModelFile> {
        let inner = version.slot.lock();
        let models = version.record.models.iter().enumerate();
        let files = models.map(|(at, (name, file))| {
            let place = self.place(version.record.manifest.models.get(name));
            let (registry, file) = (self.0.registry.clone(), *file);
            ModelFile {
                key: (file.digest, place),
                bytes: inner.measured.get(at).copied().unwrap_or(file.bytes),
                source: Source::File(Arc::new(move || Ok(registry.blob(&file)?))),
            }
        });
        files.collect()
    }

    /// Where a model of a manifest runs; one that it does not name runs as is usual.
    pub fn place(&self, section: Option<&ModelSection>) -> Place {
        let device = self.device(section.map(|section| section.device).unwrap_or_default());
        let wanted = section.map(|section| section.precision).unwrap_or_default();
        let precision = match (device, wanted) {
            (Device::Cpu, PrecisionChoice::Int8) => Precision::Int8,
            _ => Precision::F32,
        };
        Place { device, precision }
    }

    /// The device for a manifest's wish. `auto` takes a CUDA device where there
    /// is one; never wgpu, which may be a slow emulation.
    pub(super) fn device(&self, wanted: DeviceChoice) -> Device {
        match wanted {
            DeviceChoice::Auto => self.0.gpu.unwrap_or(Device::Cpu),
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Wgpu => Device::Wgpu(0),
            DeviceChoice::Cuda => Device::Cuda(0),
        }
    }

    /// Models of files that are no version's yet, or shared with versions that have them already,
    /// in the order of the files. Waits for room in memory for all of them no longer than
    /// `patience`.
    pub async fn models(
        &self,
        files: Vec<(StoredFile, Place, Locate)>,
        patience: Duration,
    ) -> Result<Vec<Taken>, Failure> {
        let models = files.into_iter().map(ModelFile::of).collect();
        self.taken(models, UPLOAD, patience).await
    }

    /// One of these, loaded.
    pub async fn model(
        &self,
        file: (StoredFile, Place, Locate),
        patience: Duration,
    ) -> Result<Arc<Loaded>, Failure> {
        self.single(ModelFile::of(file), UPLOAD, patience).await
    }

    /// The same of any models, for whoever `name` is.
    pub(super) async fn taken(
        &self,
        models: Vec<ModelFile>,
        name: &str,
        patience: Duration,
    ) -> Result<Vec<Taken>, Failure> {
        let needs = Needs { models, code: 0 };
        let claim = Claim {
            name: name.into(),
            urgent: false,
            patience: Patience::lasting(patience),
        };
        let granted = self.room(&needs, &claim).await?;
        let models = needs.models.iter();
        models.map(|file| granted.model(file)).collect()
    }

    /// The same of one.
    pub(super) async fn single(
        &self,
        model: ModelFile,
        name: &str,
        patience: Duration,
    ) -> Result<Arc<Loaded>, Failure> {
        let mut taken = self.taken(vec![model], name, patience).await?;
        let taken = taken.pop().ok_or_else(forgotten)?;
        taken.landed().await
    }

    /// Begins to load a model into the room that was taken for it. The caller puts the flight into
    /// the pool, whose lock it holds.
    pub(super) fn open(&self, file: ModelFile, room: Reservation) -> Flight<Arc<Loaded>> {
        let (residency, key) = (self.clone(), file.key);
        fly(&self.0.runtime, async move {
            let opening = AssertUnwindSafe(residency.read(file, room)).catch_unwind();
            let opened = opening.await;
            let opened = opened.unwrap_or_else(|p| Err(Failure::Internal(panic_text(p.as_ref()))));
            let mut pool = residency.pool();
            match &opened {
                Ok(model) => pool.insert(key, Pooled::Loaded(Arc::downgrade(model))),
                Err(_) => pool.remove(&key),
            };
            opened
        })
    }

    async fn read(&self, file: ModelFile, mut room: Reservation) -> Result<Arc<Loaded>, Failure> {
        let metrics = self.0.metrics.clone();
        let kib = u32::try_from(file.bytes >> 10).unwrap_or(u32::MAX);
        let part = self.0.reading.acquire_many(kib.clamp(1, READ_AT_ONCE_KIB));
        let _part = part.await.map_err(|_| Failure::ShuttingDown)?;
        self.blocking(move || {
            let place = file.key.1;
            let options = Options {
                device: place.device,
                precision: place.precision,
                ..Options::default()
            };
            let model = match file.source {
                Source::File(path) => Model::open(&path()?, &options),
                Source::Bytes(onnx) => Model::load(onnx, &options),
            };
            let model = model.map_err(|error| Failure::BadModel {
                cause: cause(&error),
                reason: error.to_string(),
            })?;
            room.correct(Amount {
                models: charge(model.weight_bytes() as u64),
                code: 0,
            });
            Ok(Arc::new(Loaded::new(file.key, model, room, metrics)))
        })
        .await
    }

    /// The version's code, mapped; compiled again first, where it was compiled
    /// by another build or for another processor.
    async fn code(
        &self,
        version: &Arc<Version>,
        mut room: Reservation,
    ) -> Result<Option<Code>, Failure> {
        let record = &version.record;
        let (Some(wasm), Some(compiled)) = (record.component, version.compiled()) else {
            return Ok(None);
        };
        let (residency, of) = (self.clone(), version.clone());
        let (directory, assets) = self.blocking(move || residency.lay_out(&of)).await?;
        let (registry, sandbox) = (self.0.registry.clone(), self.0.sandbox.clone());
        let linked = self.blocking(move || {
            let file = registry.blob(&compiled.file)?;
            Ok(Program::link(
                &sandbox,
                compiled.kind,
                &file,
                compiled.snapshot,
            ))
        });
        let linked = match linked.await? {
            Err(LinkError::Stale { reason, .. }) => {
                tracing::warn!(function = %record.function, version = record.number.get(), reason,
                    "compiled code is stale; compiling again");
                self.compile_again(version, wasm, &assets).await?
            }
            linked => linked,
        };
        let program = linked.map_err(|error| Failure::Load(error.to_string()))?;
        room.correct(Amount {
            models: 0,
            code: version.compiled().map_or(0, |compiled| compiled.file.bytes),
        });
        Ok(Some(Code {
            directory,
            room: Some(room),
            ..Code::new(self, &record.manifest, program, assets)
        }))
    }

    async fn compile_again(
        &self,
        version: &Arc<Version>,
        wasm: StoredFile,
        assets: &Assets,
    ) -> Result<Result<Program, LinkError>, Failure> {
        let registry = self.0.registry.clone();
        let wasm = self
            .blocking(move || Ok(std::fs::read(registry.blob(&wasm)?)?))
            .await?;
        let compiled = self.0.sandbox.compile(&wasm, assets).await;
        let compiled = compiled.map_err(|error| Failure::Load(error.to_string()))?;
        let (residency, version) = (self.clone(), version.clone());
        self.blocking(move || {
            let Inner {
                registry, sandbox, ..
            } = &*residency.0;
            let mut file = tempfile::NamedTempFile::new_in(registry.staging())?;
            file.write_all(&compiled.code)?;
            let (function, number) = (&version.record.function, version.record.number);
            let record = registry.set_compiled(function, number, file.path(), compiled.snapshot)?;
            version.set_compiled(&record);
            let stored = record
                .compiled
                .map(|stored| registry.blob(&stored))
                .transpose()?;
            let file = stored.as_deref().unwrap_or(file.path());
            Ok(Program::link(sandbox, record.kind, file, record.snapshot))
        })
        .await
    }

    /// Lays the version's assets out as a directory.
    fn lay_out(&self, version: &Version) -> Result<(Option<TempDir>, Assets), Failure> {
        if version.record.assets.is_empty() {
            return Ok((None, Assets::none()));
        }
        let files = version
            .record
            .assets
            .iter()
            .map(|(guest, file)| Ok((guest.clone(), self.0.registry.blob(file)?)));
        let files = files.collect::<Result<BTreeMap<_, _>, Failure>>()?;
        let directory = TempDir::new_in(self.0.scratch.path())?;
        let assets = Assets::link(&files, &directory.path().join("files"))?;
        Ok((Some(directory), assets))
    }

    /// Runs `work` on a thread that may block, with at most so many others.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _turn = self
            .0
            .loads
            .acquire()
            .await
            .map_err(|_| Failure::ShuttingDown)?;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(match error.try_into_panic() {
                Ok(panic) => Failure::Internal(panic_text(panic.as_ref())),
                Err(_) => Failure::ShuttingDown,
            }),
        }
    }
}
