//! Instances that are made before they are asked for.

use std::time::Duration;

use firebox_engine::Tensor;
use firebox_sandbox::{
    Assets, Component, Context, CpuMeter, InvokeError, Limits, Request, Response, Sandbox,
    SandboxConfig,
};

use crate::guest;
use crate::probe::{config, context, link, request, said};

/// A sandbox that makes so many spares, and so many components with the probe.
async fn probes(spares: u32, count: usize) -> (Sandbox, Vec<Component>) {
    let config = SandboxConfig { spares, ..config() };
    let sandbox = Sandbox::new(&config).unwrap();
    let components = probes_in(&sandbox, count).await;
    (sandbox, components)
}

async fn probes_in(sandbox: &Sandbox, count: usize) -> Vec<Component> {
    let assets = Assets::none();
    let compiled = sandbox.compile(guest::probe(), &assets).await.unwrap();
    (0..count).map(|_| link(sandbox, &compiled)).collect()
}

/// Calls a component, and gives the runtime time for what is done behind the answer.
async fn ask(
    component: &Component,
    request: Request,
    context: Context,
) -> Result<Response, InvokeError> {
    let answer = component.invoke(request, context).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    answer
}

/// How many calls the instance has answered that answers this one.
async fn count(component: &Component, context: Context) -> String {
    let answer = ask(component, request("counter", &[]), context).await;
    said(&answer.unwrap()).to_owned()
}

#[tokio::test]
async fn a_spare_answers_one_call_and_has_seen_no_other() {
    let (sandbox, probes) = probes(4, 1).await;
    assert_eq!(sandbox.spares(), 0, "nobody has called");
    for _ in 0..5 {
        assert_eq!(count(&probes[0], context()).await, "1");
        assert_eq!(sandbox.spares(), 1);
    }
    // Its models are those of the call.
    let mut doubled = request("model", &[("model", "double")]);
    let x = Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap();
    doubled.inputs = vec![("x".into(), x)];
    let answer = ask(&probes[0], doubled, context()).await.unwrap();
    assert_eq!(answer.outputs[0].1.to_f32().unwrap(), [2.0, 4.0]);
    assert_eq!(sandbox.spares(), 1);
    let failed = ask(&probes[0], request("panic", &[]), context()).await;
    assert!(
        failed
            .unwrap_err()
            .to_string()
            .contains("panics on purpose")
    );
    assert_eq!(sandbox.spares(), 0, "a call that fails makes none");
}

#[tokio::test]
async fn what_making_it_took_is_on_the_account_of_its_call() {
    let (_, probes) = probes(1, 1).await;
    let spent = async || {
        let cpu = CpuMeter::default();
        let metered = Context {
            cpu: cpu.clone(),
            ..context()
        };
        count(&probes[0], metered).await;
        cpu.get()
    };
    let alone = spent().await;
    let mut with_spare = [spent().await, spent().await, spent().await];
    with_spare.sort();
    assert!(
        with_spare[1] * 10 > alone,
        "{alone:?} for making one and a call, {with_spare:?} with a spare"
    );
}

#[tokio::test]
async fn a_call_with_other_limits_gets_an_instance_of_its_own() {
    let (sandbox, probes) = probes(1, 1).await;
    count(&probes[0], context()).await;
    assert_eq!(sandbox.spares(), 1);
    let plain = context();
    let limits = Limits {
        memory: 1 << 20,
        ..plain.limits
    };
    let small = Context { limits, ..plain };
    let hungry = ask(&probes[0], request("allocate", &[]), small).await;
    let limit = 1 << 20;
    assert!(
        matches!(hungry, Err(InvokeError::Memory { limit: found }) if found == limit),
        "{hungry:?}"
    );
}

#[tokio::test]
async fn the_one_that_waits_longest_makes_room_and_all_go_with_their_component() {
    let (sandbox, mut probes) = probes(2, 3).await;
    for probe in &probes {
        assert_eq!(count(probe, context()).await, "1");
    }
    assert_eq!(sandbox.spares(), 2);
    drop(probes.pop());
    assert_eq!(sandbox.spares(), 2, "there was no room for the third's");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Its own is taken and made again; so the other's has waited longest.
    assert_eq!(count(&probes[0], context()).await, "1");
    let third = probes_in(&sandbox, 1).await;
    assert_eq!(count(&third[0], context()).await, "1");
    assert_eq!(sandbox.spares(), 2);
    drop(probes.pop());
    assert_eq!(sandbox.spares(), 2, "the second's was gone");
    probes.clear();
    assert_eq!(sandbox.spares(), 1);
    drop(third);
    assert_eq!(sandbox.spares(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_pool_has_room_for_calls_and_spares_together() {
    let config = SandboxConfig {
        instances: 4,
        spares: 2,
        idle: 0,
        ..config()
    };
    let sandbox = Sandbox::new(&config).unwrap();
    let assets = Assets::none();
    let compiled = sandbox.compile(guest::probe(), &assets).await.unwrap();
    let component = link(&sandbox, &compiled);
    let callers = (0..4).map(|_| {
        let component = component.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let answer = component.invoke(request("counter", &[]), context()).await;
                assert_eq!(said(&answer.unwrap()), "1");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!((1..=2).contains(&sandbox.spares()), "{}", sandbox.spares());
}
