//! Ten thousand deployed functions that nobody calls: how long until a server is ready, how much
//! memory it takes, and how long the first call of any of them takes.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use firebox_benches::{Series, millis};
use firebox_registry::{FunctionName, NewVersion, Registry, VersionNumber, VersionRecord};
use firebox_tests::{Bundle, Server, guests};

const FUNCTIONS: usize = 10_000;
/// Calls, each of another function.
const CALLS: usize = 500;
const READY: Duration = Duration::from_secs(1);
const RESIDENT: u64 = 100_000_000;
const FIRST_CALL: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> ExitCode {
    let server = Server::start().await;
    let small = Bundle::of_component(guests::small());
    server.deploy(&name(0), &small).await;
    let stopped = server.stop().await;
    let data = stopped.data().to_owned();
    let began = Instant::now();
    tokio::task::spawn_blocking(move || multiply(&Registry::open(&data).unwrap()))
        .await
        .unwrap();
    println!("{FUNCTIONS} functions, written in {:?}", began.elapsed());

    let server = stopped.again().await;
    let (ready, resident) = (server.started_in(), server.resident_bytes());
    let mut calls = Vec::new();
    for call in 0..CALLS {
        let began = Instant::now();
        let answer = server.invoke(&name(call * 7919 % FUNCTIONS), "{}").await;
        calls.push(began.elapsed());
        answer.expect(200);
    }
    let calls = Series::new(calls);
    println!(
        "  ready after      {} (target {})",
        millis(ready),
        millis(READY)
    );
    println!(
        "  resident         {:.1} MB (target 100)",
        resident as f64 / 1e6
    );
    println!(
        "  the first call   {calls} (target {} at p99)",
        millis(FIRST_CALL)
    );
    let reached = ready <= READY && resident <= RESIDENT && calls.quantile(0.99) <= FIRST_CALL;
    match reached {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Makes functions of the version that there is, by the registry itself: uploads would take minutes.
fn multiply(registry: &Registry) {
    let one = registry
        .version(&name(0).parse().unwrap(), VersionNumber::FIRST)
        .unwrap();
    for at in 1..FUNCTIONS {
        let function: FunctionName = name(at).parse().unwrap();
        registry.commit(&function, copy(registry, &one)).unwrap();
    }
}

fn copy(registry: &Registry, one: &VersionRecord) -> NewVersion {
    let path = |file: &Option<_>| {
        file.map(|file: firebox_registry::StoredFile| registry.blob(&file).unwrap())
    };
    NewVersion {
        kind: one.kind,
        digest: one.digest,
        bundle_bytes: one.bundle_bytes,
        author: one.author.clone(),
        bundle: path(&one.bundle),
        manifest: one.manifest.clone(),
        component: path(&one.component),
        compiled: path(&one.compiled),
        models: Default::default(),
        assets: Default::default(),
        sample: None,
        signature: one.signature.clone(),
        reference_latency_us: one.reference_latency_us,
        deviation: one.deviation.clone(),
        snapshot: one.snapshot,
    }
}

fn name(at: usize) -> String {
    format!("function-{at}")
}
