//! Which version answers a request: one atomic load of an immutable table.
//!
//! The table is built from the registry and rebuilt, one function at a time,
//! when the registry's change feed names it. Versions never change, so a rebuilt
//! route keeps the versions that it had, with everything that is loaded for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use firebox_engine::Signature;
use firebox_registry::{
    FunctionName, Label, Policy, Registry, RegistryError, StoredFile, VersionNumber, VersionRecord,
    nearest,
};
use uuid::Uuid;

use crate::metrics::{Metrics, VersionMetrics};
use crate::problem::Failure;
use crate::residency::Slot;

/// A version's machine code.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// The file.
    pub file: StoredFile,
    /// Whether it starts from the memory that `init` left.
    pub snapshot: bool,
}

impl Compiled {
    /// As a record has it.
    fn of(record: &VersionRecord) -> Option<Self> {
        record.compiled.map(|file| Self {
            file,
            snapshot: record.snapshot,
        })
    }
}

/// A deployed version and what is loaded for it.
pub struct Version {
    /// What the registry keeps about it.
    pub record: VersionRecord,
    /// What it takes and gives.
    pub signature: Signature,
    /// How warm it is.
    pub slot: Slot,
    /// See [`Compiled`]; replaced where an update of Firebox made it of no use.
    compiled: Mutex<Option<Compiled>>,
    metrics: OnceLock<VersionMetrics>,
}

impl Version {
    /// A cold version.
    pub fn new(record: VersionRecord) -> Self {
        let signature = serde_json::from_value(record.signature.clone()).unwrap_or_else(|error| {
            tracing::error!(function = %record.function, version = record.number.get(), %error,
                "the stored signature can't be read");
            Signature::default()
        });
        let compiled = Mutex::new(Compiled::of(&record));
        Self {
            record,
            signature,
            slot: Slot::new(),
            compiled,
            metrics: OnceLock::new(),
        }
    }

    /// Whether it has no code of its own.
    pub fn is_model(&self) -> bool {
        self.record.component.is_none()
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
    /// Weights and labels.
    pub policy: Policy,
    /// Versions with a weight, each with the sum of the weights up to it.
    split: Vec<(u32, Arc<Version>)>,
}

impl Route {
    /// Lays the weights out from 0 to 10,000, in the order of the versions.
    pub fn new(versions: BTreeMap<VersionNumber, Arc<Version>>, policy: Policy) -> Self {
        let mut upto = 0;
        let mut split = Vec::new();
        for (number, weight) in &policy.weights {
            if let Some(version) = versions.get(number)
                && weight.get() > 0
            {
                upto += u32::from(weight.get());
                split.push((upto, version.clone()));
            }
        }
        Self {
            versions,
            policy,
            split,
        }
    }

    fn pick(&self, point: u32) -> Option<&Arc<Version>> {
        self.split
            .iter()
            .find(|(upto, _)| point < *upto)
            .map(|(_, version)| version)
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
        known.ok_or_else(|| Failure::UnknownFunction {
            name: name.chars().take(80).collect(),
            nearest: nearest(name, self.functions.keys().map(FunctionName::as_str))
                .map(str::to_owned),
        })
    }

    /// The version that answers: pin, then label, then split by `id`.
    pub fn resolve(
        &self,
        name: &str,
        selector: &Selector,
        id: Uuid,
    ) -> Result<Arc<Version>, Failure> {
        let (name, route) = self.route(name)?;
        let version = match selector {
            Selector::Pin(number) => route
                .versions
                .get(number)
                .ok_or_else(|| unknown_version(name, route, *number)),
            Selector::Label(label) => {
                let named = route.policy.labels.get(label);
                let version = named.and_then(|number| route.versions.get(number));
                version.ok_or_else(|| Failure::UnknownLabel {
                    function: name.to_string(),
                    label: label.to_string(),
                    nearest: nearest(
                        label.as_str(),
                        route.policy.labels.keys().map(Label::as_str),
                    )
                    .map(str::to_owned),
                })
            }
            Selector::Split => route.pick(point(id)).ok_or_else(|| {
                Failure::Conflict(format!(
                    "no version of `{name}` takes traffic; give weights to some: \
                     PUT /v1/functions/{name}/traffic"
                ))
            }),
        };
        version.cloned()
    }

    /// One version of a function.
    pub fn version(&self, name: &str, number: VersionNumber) -> Result<Arc<Version>, Failure> {
        self.resolve(name, &Selector::Pin(number), Uuid::nil())
    }

    /// All versions of all functions.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.functions
            .values()
            .flat_map(|route| route.versions.values())
    }
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
fn point(id: Uuid) -> u32 {
    let (high, low) = id.as_u64_pair();
    let mut hash = high ^ low.rotate_left(32);
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    ((u128::from(hash) * 10_000) >> 64) as u32
}

/// The current table, and its upkeep.
pub struct Routing {
    table: ArcSwap<RoutingTable>,
    registry: Registry,
    metrics: Metrics,
    /// Held from reading the registry to storing the table, so that an older
    /// reading never replaces a newer one.
    writing: Mutex<()>,
}

impl Routing {
    /// Builds the whole table; loads nothing but records.
    pub fn open(registry: Registry, metrics: Metrics) -> Result<Self, RegistryError> {
        let mut table = RoutingTable::default();
        for function in registry.functions()? {
            if let Some(route) = read(&registry, &function.name, None)? {
                table.functions.insert(function.name, Arc::new(route));
            }
        }
        metrics.versions.set(table.versions().count() as f64);
        let table = ArcSwap::from_pointee(table);
        Ok(Self {
            table,
            registry,
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
        match read(&self.registry, function, kept)? {
            Some(route) => functions.insert(function.clone(), Arc::new(route)),
            None => functions.remove(function),
        };
        let table = RoutingTable { functions };
        self.metrics.versions.set(table.versions().count() as f64);
        self.table.store(Arc::new(table));
        Ok(())
    }
}

/// Reads a function as the registry has it; `None` where it is gone.
fn read(
    registry: &Registry,
    function: &FunctionName,
    kept: Option<&Route>,
) -> Result<Option<Route>, RegistryError> {
    let policy = match registry.policy(function) {
        Ok(policy) => policy,
        Err(RegistryError::FunctionNotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut versions = BTreeMap::new();
    for number in registry.version_numbers(function)? {
        let version = match kept.and_then(|route| route.versions.get(&number)) {
            // Numbers are never used twice, and versions never change.
            Some(version) => version.clone(),
            None => Arc::new(Version::new(registry.version(function, number)?)),
        };
        versions.insert(number, version);
    }
    Ok(Some(Route::new(versions, policy)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(number: u32) -> VersionNumber {
        VersionNumber::try_from(number).unwrap()
    }

    fn version(function: &FunctionName, n: u32) -> Arc<Version> {
        let file = StoredFile {
            digest: firebox_registry::Digest::of(&n.to_le_bytes()),
            bytes: 4,
        };
        Arc::new(Version::new(VersionRecord {
            function: function.clone(),
            number: number(n),
            digest: file.digest,
            bundle_bytes: 4,
            created_unix_ms: 0,
            manifest: firebox_registry::Manifest::of_model(function.clone(), "m.onnx"),
            component: None,
            compiled: None,
            models: BTreeMap::from([("model".into(), file)]),
            assets: BTreeMap::new(),
            signature: serde_json::json!({"inputs": [], "outputs": []}),
            reference_latency_us: None,
            deviation: serde_json::Value::Null,
            snapshot: false,
        }))
    }

    fn table(weights: &[(u32, u16)]) -> RoutingTable {
        let name: FunctionName = "file-type".parse().unwrap();
        let versions = weights
            .iter()
            .map(|(n, _)| (number(*n), version(&name, *n)))
            .collect();
        let policy = Policy {
            weights: weights
                .iter()
                .map(|(n, w)| (number(*n), (*w).try_into().unwrap()))
                .collect(),
            labels: BTreeMap::from([("stable".parse().unwrap(), number(weights[0].0))]),
        };
        let route = Arc::new(Route::new(versions, policy));
        RoutingTable {
            functions: HashMap::from([(name, route)]),
        }
    }

    #[test]
    fn the_split_follows_the_weights() {
        let table = table(&[(1, 9_000), (2, 990), (3, 10)]);
        let mut counts = [0f64; 4];
        let total = 200_000;
        for _ in 0..total {
            let version = table
                .resolve("file-type", &Selector::Split, Uuid::now_v7())
                .unwrap();
            counts[version.record.number.get() as usize] += 1.0;
        }
        for (n, share) in [(1, 0.9), (2, 0.099), (3, 0.001)] {
            let expected = share * f64::from(total);
            // Five standard deviations of a binomial: fails once in millions of runs.
            let slack = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!(
                (counts[n] - expected).abs() < slack,
                "version {n}: {} of {total}",
                counts[n]
            );
        }
    }

    proptest! {
        #[test]
        fn every_point_has_a_version_and_each_has_its_weight(cut in 1u16..10_000) {
            let table = table(&[(1, cut), (2, 10_000 - cut)]);
            let (_, route) = table.route("file-type").unwrap();
            let first = (0..10_000)
                .filter(|point| route.pick(*point).unwrap().record.number == number(1))
                .count();
            prop_assert_eq!(first, usize::from(cut));
        }
    }

    #[test]
    fn pins_and_labels_go_around_the_split() {
        let table = table(&[(1, 0), (2, 10_000)]);
        let resolve = |selector| table.resolve("file-type", &selector, Uuid::now_v7());
        assert_eq!(
            resolve(Selector::Pin(number(1))).unwrap().record.number,
            number(1)
        );
        let stable = Selector::Label("stable".parse().unwrap());
        assert_eq!(resolve(stable).unwrap().record.number, number(1));
        assert_eq!(resolve(Selector::Split).unwrap().record.number, number(2));
    }

    #[test]
    fn what_is_unknown_is_told_with_what_is_near() {
        let table = table(&[(1, 10_000)]);
        let refused =
            |name, selector: &Selector| table.resolve(name, selector, Uuid::nil()).err().unwrap();
        let failure = refused("fil-type", &Selector::Split);
        assert!(
            matches!(failure, Failure::UnknownFunction { nearest: Some(n), .. } if n == "file-type")
        );
        let failure = refused("../etc", &Selector::Split);
        assert!(matches!(
            failure,
            Failure::UnknownFunction { nearest: None, .. }
        ));
        let failure = refused("file-type", &Selector::Pin(number(7)));
        assert!(matches!(failure, Failure::UnknownVersion { known, .. } if known == [1]));
        let label = Selector::Label("stabel".parse().unwrap());
        let failure = refused("file-type", &label);
        assert!(matches!(failure, Failure::UnknownLabel { nearest: Some(n), .. } if n == "stable"));
    }
}
