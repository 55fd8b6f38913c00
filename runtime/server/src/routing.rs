//! Which version answers a request: one atomic load of an immutable table.
//!
//! The table is built from the registry and rebuilt, one function at a time,
//! when the registry's change feed names it. Versions never change, so a rebuilt
//! route keeps the versions that it had, with everything that is loaded for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use firebox_registry::{
    BasisPoints, FunctionName, Label, Policy, PolicyRecord, Registry, RegistryError, StickyKey,
    Target, Tier, VersionNumber, nearest,
};
use uuid::Uuid;

use crate::cache::ResponseCache;
use crate::metrics::Metrics;
use crate::problem::Failure;

mod key;
mod version;

pub use version::{Version, takes_raw};

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
