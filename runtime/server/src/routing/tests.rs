//! Which version a request gets.

use firebox_registry::{Kind, Split, StoredFile, VersionRecord};
use proptest::prelude::*;

use super::*;

fn number(number: u32) -> VersionNumber {
    VersionNumber::try_from(number).unwrap()
}

fn version(function: &FunctionName, n: u32) -> Arc<Version> {
    let file = StoredFile {
        digest: firebox_registry::Digest::of(&n.to_le_bytes()),
        bytes: 4,
        checksum: None,
    };
    let record = VersionRecord {
        kind: Kind::default(),
        function: function.clone(),
        number: number(n),
        digest: file.digest,
        bundle_bytes: 4,
        author: "ann".into(),
        bundle: None,
        created_unix_ms: 0,
        manifest: firebox_registry::Manifest::of_model(function.clone(), "m.onnx"),
        component: None,
        compiled: None,
        models: BTreeMap::from([("model".into(), file)]),
        assets: BTreeMap::new(),
        sample: None,
        signature: serde_json::json!({"inputs": [], "outputs": []}),
        reference_latency_us: None,
        deviation: serde_json::Value::Null,
        snapshot: false,
    };
    Arc::new(Version::new(record, None))
}

fn caller(headers: &HeaderMap) -> Caller<'_> {
    Caller {
        id: Uuid::now_v7(),
        headers,
        body: None,
    }
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
        ..Policy::default()
    };
    route_of(versions, policy)
}

fn route_of(versions: BTreeMap<VersionNumber, Arc<Version>>, policy: Policy) -> RoutingTable {
    let current = PolicyRecord {
        revision: 1.into(),
        split: Split::of(&policy.weights),
        policy,
        author: "ann".into(),
        reason: String::new(),
        created_unix_ms: 0,
        restored: None,
        rollout: None,
    };
    let name: FunctionName = "file-type".parse().unwrap();
    let route = Arc::new(Route::new(versions, current, None));
    RoutingTable {
        functions: HashMap::from([(name, route)]),
    }
}

#[test]
fn a_name_that_is_too_long_for_any_function_is_compared_with_none() {
    let table = table(&[(1, 10_000)]);
    let nearest = |name: &str| match table.route(name) {
        Err(Failure::UnknownFunction { nearest, .. }) => nearest,
        _ => panic!("`{name}` is known"),
    };
    let longest = format!("{:x<63}", "file-type");
    assert_eq!(nearest(&longest).as_deref(), Some("file-type"));
    assert_eq!(nearest(&(longest + "x")), None);
    let began = std::time::Instant::now();
    assert_eq!(nearest(&"file-type".repeat(1 << 20)), None);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

/// Counts which versions 100,000 callers get, and compares with the weights: the chi-squared of
/// three degrees of freedom is over 30.7 once in a million runs.
fn chi_squared(
    table: &RoutingTable,
    shares: &[f64; 4],
    ask: impl Fn(u32) -> (Uuid, HeaderMap),
) -> f64 {
    const CALLS: u32 = 100_000;
    let mut counts = [0f64; 4];
    for at in 0..CALLS {
        let (id, headers) = ask(at);
        let caller = Caller {
            id,
            headers: &headers,
            body: None,
        };
        let version = table
            .resolve("file-type", &Selector::Split, &caller)
            .unwrap();
        counts[version.record.number.get() as usize - 1] += 1.0;
    }
    let expected = shares.map(|share| share * f64::from(CALLS));
    counts
        .iter()
        .zip(expected)
        .map(|(found, expected)| (found - expected).powi(2) / expected)
        .sum()
}

const WEIGHTS: [(u32, u16); 4] = [(1, 9000), (2, 700), (3, 250), (4, 50)];
const SHARES: [f64; 4] = [0.9, 0.07, 0.025, 0.005];
const LIMIT: f64 = 30.7;

#[test]
fn requests_without_a_key_meet_the_stated_shares() {
    let statistic = chi_squared(&table(&WEIGHTS), &SHARES, |_| {
        (Uuid::now_v7(), HeaderMap::new())
    });
    assert!(statistic < LIMIT, "chi-squared is {statistic}");
}

#[test]
fn callers_with_keys_meet_the_stated_shares() {
    // The keys are always the same, so that this can't fail by chance once it has passed.
    let statistic = chi_squared(&table(&WEIGHTS), &SHARES, |at| {
        (Uuid::nil(), keyed(&format!("user-{at}")))
    });
    assert!(statistic < LIMIT, "chi-squared is {statistic}");
}

#[test]
fn shares_that_are_not_met_are_noticed() {
    let other = table(&[(1, 8900), (2, 800), (3, 250), (4, 50)]);
    let statistic = chi_squared(&other, &SHARES, |_| (Uuid::now_v7(), HeaderMap::new()));
    assert!(statistic > LIMIT, "chi-squared is {statistic}");
}

fn keyed(key: &str) -> HeaderMap {
    HeaderMap::from_iter([("x-firebox-key".parse().unwrap(), key.parse().unwrap())])
}

#[test]
fn a_key_always_gets_the_same_version_and_each_function_has_its_own_draw() {
    let table = table(&[(1, 5000), (2, 5000)]);
    let mut moved = 0;
    for at in 0..500 {
        let key = format!("user-{at}");
        let headers = keyed(&key);
        let resolve = || {
            table
                .resolve("file-type", &Selector::Split, &caller(&headers))
                .unwrap()
                .record
                .number
        };
        let first = resolve();
        assert!((0..4).all(|_| resolve() == first));
        let here = key::point("file-type", key.as_bytes());
        moved += u32::from((here < 5000) != (key::point("adder", key.as_bytes()) < 5000));
    }
    assert!(
        (150..350).contains(&moved),
        "{moved} of 500 are in the other half elsewhere"
    );
}

#[test]
fn a_request_without_a_key_goes_to_the_default() {
    let name: FunctionName = "file-type".parse().unwrap();
    let versions = || (1..3).map(|n| (number(n), version(&name, n))).collect();
    let policy = |default| Policy {
        labels: BTreeMap::from([("old".parse().unwrap(), number(1))]),
        default: Some(default),
        ..Policy::all_to(number(2))
    };
    let (none, key) = (HeaderMap::new(), keyed("ann"));
    for default in [
        Target::Version(number(1)),
        Target::Label("old".parse().unwrap()),
    ] {
        let table = route_of(versions(), policy(default));
        let resolve = |headers| {
            table
                .resolve("file-type", &Selector::Split, &caller(headers))
                .unwrap()
                .record
                .number
        };
        assert_eq!((resolve(&none), resolve(&key)), (number(1), number(2)));
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
    let none = HeaderMap::new();
    let resolve = |selector| table.resolve("file-type", &selector, &caller(&none));
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
    let none = HeaderMap::new();
    let refused =
        |name, selector: &Selector| table.resolve(name, selector, &caller(&none)).err().unwrap();
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
