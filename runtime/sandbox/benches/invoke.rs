//! What one call costs beside the function's own work: an instance, the call,
//! and the instance's end; with little and with much that `init` has built, from
//! a snapshot and without one.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use firebox_engine::{Signature, Tensor};
use firebox_sandbox::{
    Assets, Component, Context, CpuMeter, Limits, ModelError, Models, Network, Parameter, Request,
    Sandbox, SandboxConfig,
};
use futures::future::BoxFuture;
use tokio::runtime::Runtime;

#[path = "../tests/sandbox/guest.rs"]
mod guest;

/// A function without models.
struct NoModels;

impl Models for NoModels {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        Box::pin(async move {
            Err(ModelError::NotFound {
                name: name.into(),
                known: vec![],
            })
        })
    }

    fn run<'a>(
        &'a self,
        name: &'a str,
        _: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>> {
        Box::pin(async move {
            Err(ModelError::NotFound {
                name: name.into(),
                known: vec![],
            })
        })
    }
}

/// The probe, its `init` told what to do.
fn probe(runtime: &Runtime, init: &str, snapshot: bool) -> (Component, Context) {
    let dir = tempfile::tempdir().unwrap().keep();
    std::fs::write(dir.join("init"), init).unwrap();
    let assets = Assets::directory(&dir);
    let sandbox = Sandbox::new(&SandboxConfig {
        snapshot,
        ..Default::default()
    })
    .unwrap();
    let compiled = runtime
        .block_on(sandbox.compile(guest::probe(), &assets))
        .unwrap();
    assert_eq!(compiled.snapshot, snapshot);
    let code = dir.join("probe.cwasm");
    std::fs::write(&code, &compiled.code).unwrap();
    let component = sandbox.link(&code, snapshot).unwrap();
    // Calls that read no files need no directory.
    let assets = if snapshot { Assets::none() } else { assets };
    let (limits, network) = (Limits::default(), Network::default());
    (
        component,
        Context {
            limits,
            models: Arc::new(NoModels),
            assets,
            network,
            reuse: false,
            cpu: CpuMeter::default(),
        },
    )
}

fn request(mode: &str) -> Request {
    let tensor = Tensor::from_f32(vec![1, 2], &[1.0, 2.0]).unwrap();
    Request {
        id: "bench".into(),
        inputs: vec![("x".into(), tensor)],
        parameters: vec![("mode".into(), Parameter::Text(mode.into()))],
    }
}

fn invoke(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for (name, init, snapshot, mode) in [
        ("echo", "empty", true, "echo"),
        ("30,000 words, snapshot", "", true, "words"),
        ("30,000 words, init in each call", "", false, "words"),
    ] {
        let (component, context) = probe(&runtime, init, snapshot);
        criterion.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let response = component.invoke(request(mode), context.clone()).await;
                black_box(response.unwrap())
            });
        });
    }
}

criterion_group!(benches, invoke);
criterion_main!(benches);
