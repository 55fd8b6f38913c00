//! How warm a version is, and its way there and back.
//!
//! ```text
//!         code mapped              weights loaded
//!   cold ─────────────▶ linked ─────────────────▶ resident
//!     ▲  ▲                ▲                          │  │
//!     │  └ room for code ─┘◀──── room for weights ───┘  │
//!     └────────────── idle for `keep_alive` ────────────┘
//! ```
//!
//! A load is a task of its own: callers that come meanwhile wait for the same one, each until its
//! own deadline, and none of them can break it off by leaving. [`state`] is where a version stands
//! and why, [`load`] reads code and weights, and models are shared by all versions that hold the
//! same file on the same device, with the same precision. What is loaded is reserved in a
//! [`budget`] first; [`room`] evicts for it and waits. A pinned version is never evicted: see
//! `realtime`.

mod budget;
mod load;
pub mod memory;
mod room;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use firebox_engine::{Device, Model, RunError, Signature};
use firebox_registry::{FunctionName, Registry, Tier, VersionNumber};
use firebox_sandbox::{Assets, Component, Network, Sandbox};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

pub use budget::Amount;
use budget::{Budget, Reservation, charge};
pub use load::{Locate, Place};
use load::{ModelKey, Pooled, READ_AT_ONCE_KIB, fly};
pub use room::size;
pub use state::{Cause, Dropped, Move, Slot, Warmth};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::routing::Version;
use crate::scheduler::{Compute, Named};

/// Everything in memory that a version needs to answer.
pub struct Warm {
    /// The function's code; none in a model-only version.
    pub code: Option<Arc<Code>>,
    /// The models by the names that the guest uses.
    pub models: BTreeMap<String, Arc<Loaded>>,
    /// Set when it was run once, so that plans are made.
    pub tried: OnceCell<()>,
}

impl Warm {
    /// Of code and models that are loaded.
    pub fn new(code: Option<Arc<Code>>, models: BTreeMap<String, Arc<Loaded>>) -> Self {
        Self {
            code,
            models,
            tried: OnceCell::new(),
        }
    }

    /// Bytes of its models as the budget counts them, each model once.
    pub fn model_bytes(&self) -> u64 {
        let models: HashMap<_, _> = self.models.values().map(|m| (m.key, m.bytes())).collect();
        models.values().sum()
    }
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
    #[allow(dead_code, reason = "held, never read")]
    directory: Option<TempDir>,
    room: Option<Reservation>,
}

impl Code {
    /// Code whose assets lie somewhere that outlives it, and that is gone soon.
    pub fn new(component: Component, assets: Assets, network: Network) -> Self {
        Self {
            component,
            assets,
            network,
            directory: None,
            room: None,
        }
    }

    /// Bytes that are mapped.
    fn bytes(&self) -> u64 {
        self.room.as_ref().map_or(0, |room| room.amount().code)
    }
}

/// A model with its weights on a device.
pub struct Loaded {
    key: ModelKey,
    model: Model,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    weights: f64,
    room: Reservation,
    metrics: Metrics,
}

impl Loaded {
    fn new(key: ModelKey, model: Model, room: Reservation, metrics: Metrics) -> Self {
        let weights = model.weight_bytes() as f64;
        metrics.weight_bytes.increment(weights);
        metrics.model_loads.increment(1);
        let signature = Arc::new(model.signature().clone());
        Self {
            key,
            model,
            signature,
            weights,
            room,
            metrics,
        }
    }

    /// Bytes as the budget counts them.
    fn bytes(&self) -> u64 {
        self.room.amount().models
    }
}

/// Whoever computes holds the room in memory too.
impl Compute for Loaded {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn compute(&self, inputs: Named) -> Result<Named, RunError> {
        self.model.run(inputs)
    }

    fn on_gpu(&self) -> bool {
        self.model.device() != Device::Cpu
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.metrics.weight_bytes.decrement(self.weights);
    }
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

/// Loads versions and lets idle ones go. Cloning gives another handle.
#[derive(Clone)]
pub struct Residency(Arc<Inner>);

struct Inner {
    /// Where versions are loaded, whoever asks: a caller may wait for what work of a lower priority
    /// began.
    runtime: Handle,
    registry: Registry,
    sandbox: Sandbox,
    metrics: Metrics,
    budget: Budget,
    /// Assets of warm versions, laid out.
    scratch: TempDir,
    /// The first CUDA device, if there is one.
    gpu: Option<Device>,
    pool: Mutex<HashMap<ModelKey, Pooled>>,
    /// The versions of which something is or was loaded, by their addresses.
    warm: Mutex<HashMap<usize, Weak<Version>>>,
    /// Whose turn it is to take room: those who wait get it in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    loads: Semaphore,
    /// KiB of model files that may be read.
    reading: Semaphore,
}

impl Residency {
    /// With nothing loaded. In the runtime that is to load versions.
    pub fn new(
        config: &Config,
        registry: Registry,
        sandbox: Sandbox,
        metrics: Metrics,
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
        let limit = Amount {
            models: config.model_memory,
            code: config.code_memory,
        };
        metrics.model_budget.set(limit.models as f64);
        metrics.code_budget.set(limit.code as f64);
        let inner = Inner {
            runtime: Handle::current(),
            registry,
            sandbox,
            metrics,
            budget: Budget::new(limit),
            scratch,
            gpu,
            pool: Mutex::default(),
            warm: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            loads: Semaphore::new(config.max_loads.max(1)),
            reading: Semaphore::new(READ_AT_ONCE_KIB as usize),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// How much may be held, and how much is.
    pub fn budget(&self) -> (Amount, Amount) {
        (self.0.budget.limit(), self.0.budget.held())
    }

    /// The version, if it is resident already.
    pub fn resident(&self, version: &Arc<Version>) -> Option<Lease> {
        let warm = version.slot.lock().warm.clone()?;
        Some(Lease::new(version.clone(), warm))
    }

    /// Loads the version for a request, or waits for the load that is under way: for room in
    /// memory as long as its requests may take.
    pub async fn warm(&self, version: &Arc<Version>) -> Result<Lease, Failure> {
        let patience = version.record.manifest.limits.deadline;
        self.warm_within(version, patience, Cause::Request).await
    }

    /// The same for another reason, and with another time that room in memory is waited for; the
    /// load itself takes what it takes.
    pub async fn warm_within(
        &self,
        version: &Arc<Version>,
        patience: Duration,
        cause: Cause,
    ) -> Result<Lease, Failure> {
        let _wanted = version.slot.want();
        let flight = {
            let mut inner = version.slot.lock();
            match (&inner.warm, &inner.flight) {
                (Some(warm), _) => return Ok(Lease::new(version.clone(), warm.clone())),
                (None, Some(flight)) => flight.clone(),
                (None, None) => {
                    let load = self.clone().load_into_slot(version.clone(), cause);
                    let flight = fly(&self.0.runtime, load);
                    inner.flight = Some(flight.clone());
                    flight
                }
            }
        };
        // Its load is under way, so that it isn't forgotten again.
        self.remember(version);
        let mut flight = pin!(flight);
        let landed = match tokio::time::timeout(patience, flight.as_mut()).await {
            Ok(landed) => landed,
            Err(_) if version.slot.waits_for_room() => {
                return Err(self.no_room(&version.title(), &self.needs(version)));
            }
            Err(_) => flight.await,
        };
        Ok(Lease::new(version.clone(), landed?))
    }

    fn remember(&self, version: &Arc<Version>) {
        let address = Arc::as_ptr(version).addr();
        self.warm_versions()
            .insert(address, Arc::downgrade(version));
    }

    fn pool(&self) -> MutexGuard<'_, HashMap<ModelKey, Pooled>> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warm_versions(&self) -> MutexGuard<'_, HashMap<usize, Weak<Version>>> {
        self.0.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from every version that was idle for its `keep_alive` what is loaded for it;
    /// [`free`](Self::free) the result. Versions of the batch tier go as soon as they are idle.
    pub fn cool(&self) -> Vec<Dropped> {
        let idle = self.loaded().into_iter().filter_map(|version| {
            let manifest = &version.record.manifest;
            let (keep_alive, cause) = match manifest.tier {
                Tier::Batch => (Duration::ZERO, Cause::Done),
                Tier::Realtime | Tier::OnDemand => {
                    let time = manifest.scaling.keep_alive;
                    (time, Cause::Idle(time))
                }
            };
            version.slot.cool(keep_alive, &cause, &self.0.metrics)
        });
        let idle = idle.collect();
        // Versions that are cold need no looking after, nor do those that were deleted.
        self.warm_versions().retain(|_, version| {
            let version = version.upgrade();
            version.is_some_and(|version| !version.slot.is_at_rest())
        });
        idle
    }

    /// Drops weights and code, and gives all freed memory back to the system. Blocking.
    pub fn free(&self, idle: Vec<Dropped>) {
        if !idle.is_empty() {
            tracing::info!(versions = idle.len(), "versions dropped");
        }
        drop(idle);
        self.pool().retain(|_, pooled| match pooled {
            Pooled::Loading(_) => true,
            Pooled::Loaded(model) => model.strong_count() > 0,
        });
        firebox_engine::release_memory();
        trim();
    }

    /// Gives freed memory back to the system, on a thread of its own: after work that leaves much
    /// of it behind.
    pub fn tidy(&self) {
        let residency = self.clone();
        tokio::task::spawn_blocking(move || residency.free(Vec::new()));
    }

    /// Sets the gauges of the budgets.
    pub fn observe(&self) {
        let held = self.0.budget.held();
        self.0.metrics.model_held.set(held.models as f64);
        self.0.metrics.code_held.set(held.code as f64);
    }

    /// What all these versions need together for their models, and `new` that is no version yet,
    /// each model once.
    pub fn need<'a>(
        &self,
        versions: impl Iterator<Item = &'a Arc<Version>>,
        new: Option<&Warm>,
    ) -> u64 {
        let files = versions.flat_map(|version| self.model_files(version));
        let files = files.map(|file| (file.key, charge(file.bytes)));
        let new = new.iter().flat_map(|warm| warm.models.values());
        let models: HashMap<_, _> = files.chain(new.map(|m| (m.key, m.bytes()))).collect();
        models.values().sum()
    }

    /// The versions of which something is loaded, by name and number.
    pub fn versions(&self) -> Vec<Arc<Version>> {
        let mut versions = self.loaded();
        versions.retain(|version| !version.slot.is_at_rest());
        fn key(version: &Version) -> (&FunctionName, VersionNumber) {
            (&version.record.function, version.record.number)
        }
        versions.sort_by(|a, b| key(a).cmp(&key(b)));
        versions
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
