//! A deployed version: what it is, and what the server holds for it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use firebox_engine::Signature;
use firebox_registry::{Batching, Kind, StoredFile, Tier, UsageRecord, VersionRecord};

use crate::cache::VersionCache;
use crate::cost::Account;
use crate::metrics::{Metrics, VersionMetrics};
use crate::problem::Failure;
use crate::residency::Slot;
use crate::rollout::window::{Outcome, Window};
use crate::scheduler::{Named, Terms};
use crate::shadow::Comparisons;
use crate::statistics::Statistics;

/// A version's machine code.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// What it is.
    pub kind: Kind,
    /// The file.
    pub file: StoredFile,
    /// Whether it starts from the memory that `init` left.
    pub snapshot: bool,
}

impl Compiled {
    /// As a record has it.
    fn of(record: &VersionRecord) -> Option<Self> {
        record.compiled.map(|file| Self {
            kind: record.kind,
            file,
            snapshot: record.snapshot,
        })
    }
}

/// A deployed version and what is loaded for it.
pub struct Version {
    /// What the registry keeps about it, but for the signature.
    pub record: VersionRecord,
    /// What it takes and gives.
    pub signature: Signature,
    /// How warm it is.
    pub slot: Slot,
    /// What it has used.
    pub account: Account,
    /// What it asks of the response cache; none where it keeps no answers.
    pub cache: Option<VersionCache>,
    /// How its models are run.
    pub terms: Arc<Terms>,
    /// See [`Compiled`]; replaced where an update of Firebox made it of no use.
    compiled: Mutex<Option<Compiled>>,
    metrics: OnceLock<VersionMetrics>,
    statistics: OnceLock<Box<Statistics>>,
    /// Where its calls are noted while a rollout is under way.
    window: ArcSwapOption<Window>,
    /// How it compares with the versions that it shadows.
    pub comparisons: Comparisons,
}

impl Version {
    /// A cold version, and what it has used so far.
    pub fn new(mut record: VersionRecord, used: Option<UsageRecord>) -> Self {
        // Kept once: ten thousand idle versions are to be small.
        let signature = serde_json::from_value(record.signature.take()).unwrap_or_else(|error| {
            tracing::error!(function = %record.function, version = record.number.get(), %error,
                "the stored signature can't be read");
            Signature::default()
        });
        let compiled = Mutex::new(Compiled::of(&record));
        let cache = VersionCache::of(&record);
        let terms = Arc::new(Terms::of(&record.function, &record.manifest));
        let account = Account::new(terms.used.clone(), used);
        Self {
            record,
            signature,
            slot: Slot::default(),
            account,
            cache,
            terms,
            compiled,
            metrics: OnceLock::new(),
            statistics: OnceLock::new(),
            window: ArcSwapOption::empty(),
            comparisons: Comparisons::default(),
        }
    }

    /// As people name it: `echo version 3`.
    pub fn title(&self) -> String {
        format!("{} version {}", self.record.function, self.record.number)
    }

    /// Whether it is of the realtime tier.
    pub fn is_realtime(&self) -> bool {
        self.record.manifest.tier == Tier::Realtime
    }

    /// Whether it has no code of its own.
    pub fn is_model(&self) -> bool {
        self.record.component.is_none()
    }

    /// What it is, as the API names it: `model` where it has no code, else the kind of its code.
    pub fn kind(&self) -> &'static str {
        match self.is_model() {
            true => "model",
            false => self.record.kind.name(),
        }
    }

    /// Whether it can be asked in tensors, or a body that stands for some.
    pub fn takes_tensors(&self) -> Result<(), Failure> {
        match self.record.kind {
            Kind::Function | Kind::Command => Ok(()),
            Kind::Http => Err(Failure::Conflict(format!(
                "{} answers HTTP requests of its own; send them to /f/{}/",
                self.title(),
                self.record.function
            ))),
        }
    }

    /// Whether it answers HTTP requests itself.
    pub fn takes_requests(&self) -> Result<(), Failure> {
        match (self.is_model(), self.record.kind) {
            (false, Kind::Http) => Ok(()),
            _ => Err(Failure::Conflict(format!(
                "{} is of the kind `{}` and answers no HTTP requests of its own; call it by POST \
                 /v1/functions/{}/invoke",
                self.title(),
                self.kind(),
                self.record.function
            ))),
        }
    }

    /// Checks that it can be asked this; the inputs only of a model alone, as a component checks
    /// its own.
    pub fn check(&self, inputs: &Named) -> Result<(), Failure> {
        self.takes_tensors()?;
        let fits = match self.is_model() {
            true => self.signature.check_inputs(inputs),
            false => Ok(()),
        };
        fits.map_err(|error| Failure::WrongTensor(error.to_string()))
    }

    /// Whether an invoke's body goes to it as it is, not as JSON by input name.
    pub fn takes_raw(&self) -> bool {
        !self.is_model() && takes_raw(&self.signature)
    }

    /// Its machine code.
    pub fn compiled(&self) -> Option<Compiled> {
        *self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the machine code that was made anew, as `record` has it.
    pub fn set_compiled(&self, record: &VersionRecord) {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        *compiled = Compiled::of(record);
    }

    /// Notes its calls in `window` from now on.
    pub fn watch(&self, window: Arc<Window>) {
        self.window.store(Some(window));
    }

    /// Notes them no longer, if it was `window` where they were noted.
    pub fn unwatch(&self, window: &Arc<Window>) {
        let watching = self.window.load();
        if watching.as_ref().is_some_and(|w| Arc::ptr_eq(w, window)) {
            self.window.store(None);
        }
    }

    /// Notes a call that ended at `now`, if somebody watches.
    pub fn observe(&self, now: Instant, outcome: Outcome, latency: Duration) {
        if let Some(window) = &*self.window.load() {
            window.record(now, outcome, latency);
        }
    }

    /// What it has answered since the server started.
    pub fn statistics(&self) -> &Statistics {
        self.statistics.get_or_init(Box::default)
    }

    /// Whether it was called since the server started.
    pub fn was_called(&self) -> bool {
        let told = self.statistics.get();
        told.is_some_and(|told| told.success.sum().count + told.fail.sum().count > 0)
    }

    /// How calls share runs, where it is a model alone and they do.
    pub fn batching(&self) -> Option<&Batching> {
        let model = self.record.manifest.models.values().next();
        model
            .and_then(|model| model.batching.as_ref())
            .filter(|_| self.is_model())
    }

    /// How many inferences these inputs are.
    pub fn rows(&self, inputs: &Named) -> u64 {
        let first = inputs
            .first()
            .and_then(|(_, tensor)| tensor.shape().first());
        match (self.batching(), first) {
            (Some(_), Some(&rows)) => rows as u64,
            _ => 1,
        }
    }

    /// Its series, made at the first request.
    pub fn metrics(&self, metrics: &Metrics) -> &VersionMetrics {
        let (function, number) = (self.record.function.as_str(), self.record.number.get());
        self.metrics
            .get_or_init(|| metrics.version(function, number))
    }
}

/// Whether a component of this signature takes a raw body: it has an input of
/// that name, or declares no inputs and takes whatever comes.
pub fn takes_raw(signature: &Signature) -> bool {
    signature.inputs.is_empty() || signature.inputs.iter().any(|spec| spec.name == "body")
}
