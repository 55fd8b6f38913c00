//! Which version answers a request: one atomic load of an immutable table.
//!
//! The table is built from the registry and rebuilt, one function at a time,
//! when the registry's change feed names it. Versions never change, so a rebuilt
//! route keeps the versions that it had, with everything that is loaded for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::http::HeaderMap;
use firebox_engine::Signature;
use firebox_registry::{
    BasisPoints, Batching, FunctionName, Kind, Label, Policy, PolicyRecord, Registry,
    RegistryError, StickyKey, StoredFile, Target, Tier, UsageRecord, VersionNumber, VersionRecord,
    nearest,
};
use uuid::Uuid;

use crate::cache::{ResponseCache, VersionCache};
use crate::cost::Account;
use crate::metrics::{Metrics, VersionMetrics};
use crate::problem::Failure;
use crate::residency::Slot;
use crate::rollout::window::{Outcome, Window};
use crate::scheduler::{Named, Terms};
use crate::shadow::Comparisons;
use crate::statistics::Statistics;

mod key;

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

/// One function: its versions and who gets its traffic.
pub struct Route {
    /// By number.
    pub versions: BTreeMap<VersionNumber, Arc<Version>>,
    /// Who gets its traffic.
    pub current: PolicyRecord,
    /// How many of the newest versions are kept.
    pub keep_last: Option<NonZeroU32>,
    /// The slices of 0..10,000: where each ends, and whose it is.
    split: Vec<(u16, Arc<Version>)>,
}

impl Route {
    /// Lays the split out for lookups, and pins the realtime versions that the policy names.
    pub fn new(
        versions: BTreeMap<VersionNumber, Arc<Version>>,
        current: PolicyRecord,
        keep_last: Option<NonZeroU32>,
    ) -> Self {
        let named: HashSet<VersionNumber> = current.policy.versions().collect();
        for (number, version) in &versions {
            version
                .slot
                .pin(version.is_realtime() && named.contains(number));
        }
        let slices = current.split.slices().iter();
        let split = slices.filter_map(|(end, number)| Some((*end, versions.get(number)?.clone())));
        Self {
            split: split.collect(),
            versions,
            current,
            keep_last,
        }
    }

    /// Weights, labels and the rest of the policy.
    pub fn policy(&self) -> &Policy {
        &self.current.policy
    }

    /// Whether the body must be there to say which version answers.
    pub fn reads_body(&self, selector: &Selector) -> bool {
        *selector == Selector::Split && matches!(self.policy().sticky, StickyKey::Body(_))
    }

    /// The most urgent tier of its versions.
    pub fn most_urgent_tier(&self) -> Tier {
        let tiers = self.versions.values().map(|v| v.record.manifest.tier);
        tiers.min().unwrap_or_default()
    }

    /// The version that is to be asked as well, after `answers`: for the share of the requests that
    /// the policy says, by chance.
    pub fn shadow(&self, id: Uuid, answers: &Version) -> Option<Arc<Version>> {
        let shadow = self.policy().shadow?;
        // Other chances than those that split the traffic.
        let id = Uuid::from_u128(!id.as_u128());
        let chosen = point(id) < shadow.share_bp.get() && shadow.version != answers.record.number;
        let version = self.versions.get(&shadow.version);
        version.filter(|_| chosen).cloned()
    }

    fn pick(&self, point: u16) -> Option<&Arc<Version>> {
        let slice = self.split.partition_point(|(end, _)| *end <= point);
        self.split.get(slice).map(|(_, version)| version)
    }
}

/// How a request names the version that it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// By the traffic policy.
    #[default]
    Split,
    /// This one.
    Pin(VersionNumber),
    /// The one that this label names.
    Label(Label),
}

/// Who makes a request, as far as it matters for which version answers.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The prediction id: what chance goes by.
    pub id: Uuid,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Its body, where [`Route::reads_body`] says that it is needed.
    pub body: Option<&'a [u8]>,
}

/// All functions at one moment.
#[derive(Default)]
pub struct RoutingTable {
    /// By name.
    pub functions: HashMap<FunctionName, Arc<Route>>,
}

impl RoutingTable {
    /// The route of a function.
    pub fn route(&self, name: &str) -> Result<(&FunctionName, &Arc<Route>), Failure> {
        let known = name
            .parse()
            .ok()
            .and_then(|name| self.functions.get_key_value::<FunctionName>(&name));
        known.ok_or_else(|| {
            let names = self.functions.keys().map(FunctionName::as_str);
            // Looking is a walk through all names, for each byte of this one: nobody is let in yet.
            let near = (name.len() <= FunctionName::LONGEST).then(|| nearest(name, names));
            Failure::UnknownFunction {
                name: name.chars().take(80).collect(),
                nearest: near.flatten().map(str::to_owned),
            }
        })
    }

    /// The version of a function that answers: see [`resolve`].
    pub fn resolve(
        &self,
        name: &str,
        selector: &Selector,
        caller: &Caller<'_>,
    ) -> Result<Arc<Version>, Failure> {
        let (name, route) = self.route(name)?;
        resolve(name, route, selector, caller)
    }

    /// One version of a function.
    pub fn version(&self, name: &str, number: VersionNumber) -> Result<Arc<Version>, Failure> {
        let (name, route) = self.route(name)?;
        pinned(name, route, number).cloned()
    }

    /// All versions of all functions.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.functions
            .values()
            .flat_map(|route| route.versions.values())
    }
}

/// The version that answers: pin, then label, then split by the caller's key, or by chance where it
/// has none and the policy no default.
pub fn resolve(
    name: &FunctionName,
    route: &Route,
    selector: &Selector,
    caller: &Caller<'_>,
) -> Result<Arc<Version>, Failure> {
    let version = match selector {
        Selector::Pin(number) => pinned(name, route, *number)?,
        Selector::Label(label) => labelled(name, route, label)?,
        Selector::Split => return split(name, route, caller),
    };
    Ok(version.clone())
}

fn pinned<'a>(
    name: &FunctionName,
    route: &'a Route,
    number: VersionNumber,
) -> Result<&'a Arc<Version>, Failure> {
    let version = route.versions.get(&number);
    version.ok_or_else(|| unknown_version(name, route, number))
}

fn labelled<'a>(
    name: &FunctionName,
    route: &'a Route,
    label: &Label,
) -> Result<&'a Arc<Version>, Failure> {
    let labels = &route.policy().labels;
    let version = labels
        .get(label)
        .and_then(|number| route.versions.get(number));
    version.ok_or_else(|| Failure::UnknownLabel {
        function: name.to_string(),
        label: label.to_string(),
        nearest: nearest(label.as_str(), labels.keys().map(Label::as_str)).map(str::to_owned),
    })
}

fn split(name: &FunctionName, route: &Route, caller: &Caller<'_>) -> Result<Arc<Version>, Failure> {
    let policy = route.policy();
    let point = match (key::find(&policy.sticky, caller), &policy.default) {
        (Some(key), _) => key::point(name.as_str(), &key),
        (None, Some(Target::Version(number))) => return pinned(name, route, *number).cloned(),
        (None, Some(Target::Label(label))) => return labelled(name, route, label).cloned(),
        (None, None) => point(caller.id),
    };
    route.pick(point).cloned().ok_or_else(|| {
        Failure::Conflict(format!(
            "no version of `{name}` takes traffic; give weights to some: \
             PUT /v1/functions/{name}/traffic"
        ))
    })
}

fn unknown_version(name: &FunctionName, route: &Route, number: VersionNumber) -> Failure {
    Failure::UnknownVersion {
        function: name.to_string(),
        version: number.to_string(),
        known: route
            .versions
            .keys()
            .rev()
            .take(5)
            .map(|number| number.get())
            .collect(),
    }
}

/// A point in 0..10,000 that is uniform over prediction ids, whose own bits are
/// not: most of a UUIDv7 is a clock.
fn point(id: Uuid) -> u16 {
    let (high, low) = id.as_u64_pair();
    let mut hash = high ^ low.rotate_left(32);
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    ((u128::from(hash) * 10_000) >> 64) as u16
}

/// The current table, and its upkeep.
pub struct Routing {
    table: ArcSwap<RoutingTable>,
    registry: Registry,
    cache: ResponseCache,
    metrics: Metrics,
    /// Held from reading the registry to storing the table, so that an older
    /// reading never replaces a newer one.
    writing: Mutex<()>,
}

impl Routing {
    /// Builds the whole table; loads nothing but records.
    pub fn open(
        registry: Registry,
        cache: ResponseCache,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let mut table = RoutingTable::default();
        let mut used = registry.all_usage()?;
        for entry in registry.everything() {
            let (function, versions) = entry?;
            let versions = versions.into_iter().map(|record| {
                let number = record.number;
                let used = used.remove(&(function.name.clone(), number));
                (number, Arc::new(Version::new(record, used)))
            });
            let route = Route::new(versions.collect(), function.current, function.keep_last);
            table.functions.insert(function.name, Arc::new(route));
        }
        metrics.versions.set(table.versions().count() as f64);
        let table = ArcSwap::from_pointee(table);
        Ok(Self {
            table,
            registry,
            cache,
            metrics,
            writing: Mutex::new(()),
        })
    }

    /// The table as it is now.
    pub fn table(&self) -> arc_swap::Guard<Arc<RoutingTable>> {
        self.table.load()
    }

    /// Reads one function again. Blocking.
    pub fn refresh(&self, function: &FunctionName) -> Result<(), RegistryError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load();
        let kept = old.functions.get(function).map(Arc::as_ref);
        let mut functions = old.functions.clone();
        let new = read(&self.registry, function, kept)?.map(Arc::new);
        match &new {
            Some(route) => functions.insert(function.clone(), route.clone()),
            None => functions.remove(function),
        };
        let table = RoutingTable { functions };
        self.metrics.versions.set(table.versions().count() as f64);
        self.table.store(Arc::new(table));
        if let Some(old) = kept {
            let gone = left_behind(old, new.as_deref());
            self.cache.drop_versions(gone.map(Arc::as_ref));
        }
        Ok(())
    }
}

/// The versions of a route whose kept answers go when `new` takes its place: those that are deleted,
/// and those that lost traffic to a rollback, or all that they had.
fn left_behind<'a>(
    old: &'a Route,
    new: Option<&'a Route>,
) -> impl Iterator<Item = &'a Arc<Version>> {
    let lost = move |version: &&Arc<Version>| {
        let number = version.record.number;
        let Some(new) = new.filter(|new| new.versions.contains_key(&number)) else {
            return true;
        };
        let revision = |route: &Route| route.current.revision;
        let rolled_back = new.current.restored.is_some() && revision(new) != revision(old);
        let share = |route: &Route| route.policy().share(number);
        let names = |route: &Route| route.policy().labels_of(number).count();
        let none_left = share(new) == BasisPoints::NONE;
        share(new) < share(old) && (rolled_back || none_left)
            || rolled_back && names(new) < names(old)
    };
    old.versions.values().filter(lost)
}

/// Reads a function as the registry has it; `None` where it is gone.
fn read(
    registry: &Registry,
    function: &FunctionName,
    kept: Option<&Route>,
) -> Result<Option<Route>, RegistryError> {
    let record = match registry.function(function) {
        Ok(record) => record,
        Err(RegistryError::FunctionNotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut versions = BTreeMap::new();
    for number in registry.version_numbers(function)? {
        let version = match kept.and_then(|route| route.versions.get(&number)) {
            // Numbers are never used twice, and versions never change.
            Some(version) => version.clone(),
            None => {
                let used = registry.usage(function, number)?;
                Arc::new(Version::new(registry.version(function, number)?, used))
            }
        };
        versions.insert(number, version);
    }
    Ok(Some(Route::new(versions, record.current, record.keep_last)))
}

#[cfg(test)]
mod tests;
