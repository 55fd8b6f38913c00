//! How long it takes to say which version a request gets, among 200 functions of three versions:
//! by chance, by the caller's key, by a pin and by a label.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;

use firebox_benches::{Spread, in_turns};
use firebox_registry::{
    Change, Commit, FunctionName, NewVersion, Policy, Registry, UnpackLimits, bundle,
};
use firebox_server::Resolver;
use http::HeaderMap;
use uuid::Uuid;

const FUNCTIONS: usize = 200;
const ROUNDS: usize = 9;
/// One measurement is of so many resolves: a clock is too coarse for one.
const CALLS: u32 = 20_000;
const TARGET_NS: f64 = 1000.0;

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    let names: Vec<String> = (0..FUNCTIONS).map(|n| format!("function-{n}")).collect();
    for name in &names {
        deploy(&registry, &name.parse().unwrap());
    }
    let resolver = Resolver::open(registry).unwrap();
    let ids: Vec<Uuid> = (0..CALLS).map(|_| Uuid::now_v7()).collect();
    let keys: Vec<HeaderMap> = (0..CALLS)
        .map(|_| headers("x-firebox-key", &Uuid::now_v7().to_string()))
        .collect();
    let none = [HeaderMap::new()];
    let pin = [headers("x-firebox-version", "2")];
    let label = [headers("x-firebox-label", "canary")];

    let all = |headers: &[HeaderMap]| {
        for (at, id) in ids.iter().enumerate() {
            let name = &names[at * 7 % FUNCTIONS];
            black_box(resolver.resolve(name, &headers[at % headers.len()], *id)).unwrap();
        }
    };
    let found = in_turns(
        ROUNDS,
        [3; 4],
        [
            &mut || all(&none),
            &mut || all(&keys),
            &mut || all(&pin),
            &mut || all(&label),
        ],
    );
    println!("{FUNCTIONS} functions; nanoseconds of one resolve:");
    let mut slowest: f64 = 0.0;
    for (what, rounds) in ["chance", "key", "pin", "label"].iter().zip(&found) {
        let nanoseconds =
            |series: &firebox_benches::Series| series.p50().as_secs_f64() * 1e9 / f64::from(CALLS);
        let spread = Spread::of(rounds.iter().map(nanoseconds));
        println!(
            "  {what:7} {:.0} ({:.0} to {:.0})",
            spread.median, spread.range.0, spread.range.1
        );
        slowest = slowest.max(spread.median);
    }
    if slowest > TARGET_NS {
        println!("a resolve takes more than {TARGET_NS} ns");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
}

/// Three versions that share the traffic. Nothing of them is loaded, so any bytes do as a model.
fn deploy(registry: &Registry, name: &FunctionName) {
    let mut numbers = Vec::new();
    for n in 0..3_u8 {
        let staged = tempfile::tempdir_in(registry.staging()).unwrap();
        let limits = UnpackLimits::default();
        let model = [b'g', n];
        let unpacked = bundle::unpack(&model[..], &limits, staged.path(), name).unwrap();
        let Commit::Created(version) = registry.commit(name, NewVersion::from(unpacked)).unwrap()
        else {
            continue;
        };
        numbers.push(version.number);
    }
    let shares = [8000_u16, 1500, 500].map(|points| points.try_into().unwrap());
    let policy = Policy {
        weights: numbers.iter().copied().zip(shares).collect(),
        labels: BTreeMap::from([("canary".parse().unwrap(), numbers[1])]),
        ..Policy::default()
    };
    registry
        .set_policy(name, policy, Change::new("the benchmark", ""), None)
        .unwrap();
}
