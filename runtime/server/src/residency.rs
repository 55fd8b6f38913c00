//! How warm a version is, and its way there and back.
//!
//! ```text
//!          first request             weights loaded
//!   cold ───────────────▶ loading ──────────────────▶ resident
//!     ▲                                                  │
//!     └──────────── idle for `keep_alive` ───────────────┘
//! ```
//!
//! While loading, a version whose code is mapped already shows as `linked`. A
//! load is a task of its own: callers that come meanwhile wait for the same one,
//! each until its own deadline, and none of them can break it off by leaving.
//! Models are shared by all versions that hold the same file on the same device, with the same
//! precision.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use firebox_engine::{Device, Model, Options, Precision, Signature};
use firebox_registry::{
    Device as DeviceChoice, Digest, ModelSection, Precision as PrecisionChoice, Registry,
};
use firebox_sandbox::{Assets, Component, LinkError, Network, Sandbox};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, try_join, try_join_all};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::routing::Version;
use crate::scheduler::panic_text;

/// How warm a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Warmth {
    /// On disk only.
    Cold,
    /// Code mapped, weights on their way.
    Linked,
    /// Ready to answer.
    Resident,
}

/// A load that many can wait for.
type Flight<T> = Shared<BoxFuture<'static, Result<T, Failure>>>;

/// Starts a load that goes on whether or not somebody waits, and survives a panic.
fn fly<T: Clone + Send + Sync + 'static>(
    load: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Flight<T> {
    let task = tokio::spawn(AssertUnwindSafe(load).catch_unwind());
    let landed = async move {
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Failure::Internal(panic_text(panic.as_ref()))),
            Err(_) => Err(Failure::ShuttingDown),
        }
    };
    landed.boxed().shared()
}

/// Everything in memory that a version needs to answer.
pub struct Warm {
    /// The function's code; none in a model-only version.
    pub code: Option<Code>,
    /// The models by the names that the guest uses.
    pub models: BTreeMap<String, Arc<Loaded>>,
}

/// A component and what its instances are given.
pub struct Code {
    /// The linked component.
    pub component: Component,
    /// Its read-only files.
    pub assets: Assets,
    /// Hosts that it may call.
    pub network: Network,
    /// Where the assets are laid out, if nobody else keeps them.
    _directory: Option<TempDir>,
}

impl Code {
    /// Code whose assets lie somewhere that outlives it.
    pub fn new(component: Component, assets: Assets, network: Network) -> Self {
        Self {
            component,
            assets,
            network,
            _directory: None,
        }
    }
}

/// A model with its weights on a device.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    bytes: f64,
    metrics: Metrics,
}

impl Loaded {
    fn new(model: Model, metrics: Metrics) -> Self {
        let bytes = model.weight_bytes() as f64;
        metrics.weight_bytes.increment(bytes);
        metrics.model_loads.increment(1);
        let signature = Arc::new(model.signature().clone());
        Self {
            model: Arc::new(model),
            signature,
            bytes,
            metrics,
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.metrics.weight_bytes.decrement(self.bytes);
    }
}

enum State {
    Cold,
    Loading(Flight<Arc<Warm>>),
    Resident(Arc<Warm>),
}

/// What a version holds in memory.
pub struct Held {
    /// Whether its code is mapped.
    pub code: bool,
    /// The bytes of its models; the same model has the same key in all versions that share it.
    pub models: BTreeMap<usize, usize>,
}

/// The residency of one version; it lives as long as the version's route.
pub struct Slot {
    state: Mutex<State>,
    linked: AtomicBool,
    /// Milliseconds of [`now`] when it was last in use.
    used: AtomicU64,
}

impl Slot {
    /// A cold version.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State::Cold),
            linked: AtomicBool::new(false),
            used: AtomicU64::new(0),
        }
    }

    /// How warm it is now.
    pub fn warmth(&self) -> Warmth {
        match &*self.lock() {
            State::Resident(_) => Warmth::Resident,
            State::Loading(_) if self.linked.load(Relaxed) => Warmth::Linked,
            _ => Warmth::Cold,
        }
    }

    /// Bytes of the models that are held now, by what tells them apart, and whether the code is;
    /// `None` where nothing is.
    pub fn held(&self) -> Option<Held> {
        match &*self.lock() {
            State::Resident(warm) => {
                let models = warm.models.values().map(|loaded| {
                    let address = Arc::as_ptr(loaded).addr();
                    (address, loaded.model.weight_bytes())
                });
                Some(Held {
                    code: warm.code.is_some(),
                    models: models.collect(),
                })
            }
            State::Loading(_) if self.linked.load(Relaxed) => Some(Held {
                code: true,
                models: BTreeMap::new(),
            }),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.used.store(now(), Relaxed);
    }

    /// Gives up what is loaded, if nobody has used it for `keep_alive`.
    fn cool(&self, keep_alive: Duration) -> Option<Arc<Warm>> {
        let idle = Duration::from_millis(now().saturating_sub(self.used.load(Relaxed)));
        if idle < keep_alive {
            return None;
        }
        let mut state = self.lock();
        match &*state {
            // New holds are only made under this lock, so a count of one stays.
            State::Resident(warm) if Arc::strong_count(warm) == 1 => {}
            _ => return None,
        }
        self.linked.store(false, Relaxed);
        match std::mem::replace(&mut *state, State::Cold) {
            State::Resident(warm) => Some(warm),
            _ => None,
        }
    }
}

/// Milliseconds since the first call.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

/// A hold on a loaded version; while one exists, it is not swept.
pub struct Lease {
    version: Arc<Version>,
    /// What is loaded.
    pub warm: Arc<Warm>,
}

impl Lease {
    fn new(version: Arc<Version>, warm: Arc<Warm>) -> Self {
        version.slot.touch();
        Self { version, warm }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.version.slot.touch();
    }
}

/// Where a model computes, and how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// Always f32 where the device knows nothing else.
    pub precision: Precision,
}

enum Pooled {
    Loading(Flight<Arc<Loaded>>),
    Loaded(Weak<Loaded>),
}

/// Loads versions and lets idle ones go. Cloning gives another handle.
#[derive(Clone)]
pub struct Residency(Arc<Inner>);

struct Inner {
    registry: Registry,
    sandbox: Sandbox,
    metrics: Metrics,
    /// Assets of warm versions, laid out.
    scratch: TempDir,
    /// The first CUDA device, if there is one.
    gpu: Option<Device>,
    pool: Mutex<HashMap<(Digest, Place), Pooled>>,
    loads: Semaphore,
}

impl Residency {
    /// At most `max_loads` files are read at once.
    pub fn new(
        registry: Registry,
        sandbox: Sandbox,
        metrics: Metrics,
        max_loads: usize,
    ) -> std::io::Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("assets-")
            .tempdir_in(registry.staging())?;
        let devices = firebox_engine::devices()
            .into_iter()
            .filter(|found| found.available);
        let gpu = devices
            .map(|found| found.device)
            .find(|d| matches!(d, Device::Cuda(_)));
        let (pool, loads) = (Mutex::default(), Semaphore::new(max_loads.max(1)));
        let inner = Inner {
            registry,
            sandbox,
            metrics,
            scratch,
            gpu,
            pool,
            loads,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The version, if it is resident already.
    pub fn resident(&self, version: &Arc<Version>) -> Option<Lease> {
        match &*version.slot.lock() {
            State::Resident(warm) => Some(Lease::new(version.clone(), warm.clone())),
            _ => None,
        }
    }

    /// Loads the version, or waits for the load that is under way.
    pub async fn warm(&self, version: &Arc<Version>) -> Result<Lease, Failure> {
        let flight = {
            let mut state = version.slot.lock();
            match &*state {
                State::Resident(warm) => return Ok(Lease::new(version.clone(), warm.clone())),
                State::Loading(flight) => flight.clone(),
                State::Cold => {
                    let (residency, version) = (self.clone(), version.clone());
                    let flight = fly(async move { residency.load_into_slot(version).await });
                    *state = State::Loading(flight.clone());
                    flight
                }
            }
        };
        Ok(Lease::new(version.clone(), flight.await?))
    }

    async fn load_into_slot(self, version: Arc<Version>) -> Result<Arc<Warm>, Failure> {
        let result = AssertUnwindSafe(self.load(&version)).catch_unwind().await;
        let result = result.unwrap_or_else(|p| Err(Failure::Internal(panic_text(p.as_ref()))));
        version.slot.touch();
        *version.slot.lock() = match &result {
            Ok(warm) => State::Resident(warm.clone()),
            Err(failure) => {
                version.slot.linked.store(false, Relaxed);
                self.0.metrics.load_failures.increment(1);
                tracing::error!(function = %version.record.function,
                    version = version.record.number.get(), %failure, "version can't be loaded");
                State::Cold
            }
        };
        result
    }

    async fn load(&self, version: &Arc<Version>) -> Result<Arc<Warm>, Failure> {
        let started = Instant::now();
        let code = async {
            let code = self.code(version).await?;
            version.slot.linked.store(true, Relaxed);
            Ok(code)
        };
        let (code, models) = try_join(code, self.models(version)).await?;
        tracing::info!(function = %version.record.function, version = version.record.number.get(),
            ms = started.elapsed().as_millis() as u64, "version loaded");
        Ok(Arc::new(Warm { code, models }))
    }

    async fn models(
        &self,
        version: &Arc<Version>,
    ) -> Result<BTreeMap<String, Arc<Loaded>>, Failure> {
        let loads = version.record.models.iter().map(|(name, file)| async move {
            let place = self.place(version.record.manifest.models.get(name));
            let registry = self.0.registry.clone();
            let digest = file.digest;
            let path = move || registry.blob(&digest).map_err(Failure::from);
            Ok::<_, Failure>((name.clone(), self.model(digest, place, path).await?))
        });
        Ok(try_join_all(loads).await?.into_iter().collect())
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
    fn device(&self, wanted: DeviceChoice) -> Device {
        match wanted {
            DeviceChoice::Auto => self.0.gpu.unwrap_or(Device::Cpu),
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Wgpu => Device::Wgpu(0),
            DeviceChoice::Cuda => Device::Cuda(0),
        }
    }

    /// The model with this digest at this place; whoever comes first has it
    /// opened from `path`.
    pub async fn model(
        &self,
        digest: Digest,
        place: Place,
        path: impl FnOnce() -> Result<PathBuf, Failure> + Send + 'static,
    ) -> Result<Arc<Loaded>, Failure> {
        let key = (digest, place);
        let flight = {
            let mut pool = self.pool();
            match pool.get(&key) {
                Some(Pooled::Loading(flight)) => flight.clone(),
                Some(Pooled::Loaded(model)) if let Some(model) = model.upgrade() => {
                    return Ok(model);
                }
                _ => {
                    let residency = self.clone();
                    let flight = fly(async move { residency.load_into_pool(key, path).await });
                    pool.insert(key, Pooled::Loading(flight.clone()));
                    flight
                }
            }
        };
        flight.await
    }

    async fn load_into_pool(
        self,
        key: (Digest, Place),
        path: impl FnOnce() -> Result<PathBuf, Failure> + Send + 'static,
    ) -> Result<Arc<Loaded>, Failure> {
        let metrics = self.0.metrics.clone();
        let opened = self.blocking(move || {
            let options = Options {
                device: key.1.device,
                precision: key.1.precision,
                ..Options::default()
            };
            let model = Model::open(&path()?, &options);
            let model = model.map_err(|error| Failure::Load(error.to_string()))?;
            Ok(Arc::new(Loaded::new(model, metrics)))
        });
        let opened = opened.await;
        let mut pool = self.pool();
        match &opened {
            Ok(model) => pool.insert(key, Pooled::Loaded(Arc::downgrade(model))),
            Err(_) => pool.remove(&key),
        };
        opened
    }

    fn pool(&self) -> MutexGuard<'_, HashMap<(Digest, Place), Pooled>> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version's code, mapped; compiled again first, where it was compiled
    /// by another build or for another processor.
    async fn code(&self, version: &Arc<Version>) -> Result<Option<Code>, Failure> {
        let record = &version.record;
        let (Some(wasm), Some(compiled)) = (record.component, version.compiled()) else {
            return Ok(None);
        };
        let (residency, of) = (self.clone(), version.clone());
        let (directory, assets) = self.blocking(move || residency.lay_out(&of)).await?;
        let (registry, sandbox) = (self.0.registry.clone(), self.0.sandbox.clone());
        let linked = self.blocking(move || {
            Ok(sandbox.link(&registry.blob(&compiled.file.digest)?, compiled.snapshot))
        });
        let linked = match linked.await? {
            Err(LinkError::Stale { reason, .. }) => {
                tracing::warn!(function = %record.function, version = record.number.get(), reason,
                    "compiled code is stale; compiling again");
                self.compile_again(version, wasm.digest, &assets).await?
            }
            linked => linked,
        };
        let component = linked.map_err(|error| Failure::Load(error.to_string()))?;
        let network = Network::new(record.manifest.network.hosts.iter().cloned());
        Ok(Some(Code {
            component,
            assets,
            network,
            _directory: directory,
        }))
    }

    async fn compile_again(
        &self,
        version: &Arc<Version>,
        wasm: Digest,
        assets: &Assets,
    ) -> Result<Result<Component, LinkError>, Failure> {
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
                .map(|stored| registry.blob(&stored.digest))
                .transpose()?;
            Ok(sandbox.link(stored.as_deref().unwrap_or(file.path()), record.snapshot))
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
            .map(|(guest, file)| Ok((guest.clone(), self.0.registry.blob(&file.digest)?)));
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

    /// Takes from every idle version what is loaded for it; [`free`](Self::free) the result.
    pub fn cool<'a>(&self, versions: impl Iterator<Item = &'a Arc<Version>>) -> Vec<Arc<Warm>> {
        let idle = |v: &Arc<Version>| v.slot.cool(v.record.manifest.scaling.keep_alive);
        versions.filter_map(idle).collect()
    }

    /// Drops weights and code, and gives all freed memory back to the system. Blocking.
    pub fn free(&self, idle: Vec<Arc<Warm>>) {
        if !idle.is_empty() {
            tracing::info!(versions = idle.len(), "idle versions dropped");
        }
        drop(idle);
        self.pool().retain(|_, pooled| match pooled {
            Pooled::Loading(_) => true,
            Pooled::Loaded(model) => model.strong_count() > 0,
        });
        firebox_engine::release_memory();
        trim();
    }
}

/// Returns freed memory to the system, which glibc would keep for later.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "a call into libc")]
    // SAFETY: takes no pointers, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
