//! Instances that answer one call after another, and the processor time that a call may have.

use std::time::Duration;

use firebox_sandbox::{Assets, Component, Context, InvokeError, Limits, Sandbox, SandboxConfig};

use crate::guest;
use crate::probe::{config, context, link, request, said};

/// The probe in a sandbox of its own, which keeps so many instances.
async fn probe(idle: u32) -> Component {
    let sandbox = Sandbox::new(&SandboxConfig { idle, ..config() }).unwrap();
    let assets = Assets::none();
    let compiled = sandbox.compile(guest::probe(), &assets).await.unwrap();
    link(&sandbox, &compiled)
}

async fn count(component: &Component, reuse: bool) -> String {
    let context = Context { reuse, ..context() };
    let response = component.invoke(request("counter", &[]), context);
    said(&response.await.unwrap()).to_owned()
}

#[tokio::test]
async fn state_survives_where_reuse_is_asked_for_and_only_there() {
    let component = probe(1).await;
    for calls in ["1", "2", "3"] {
        assert_eq!(count(&component, true).await, calls);
        assert_eq!(count(&component, false).await, "1");
    }
    let other = probe(1).await;
    assert_eq!(count(&other, true).await, "1");
    let none = probe(0).await;
    for _ in 0..2 {
        assert_eq!(count(&none, true).await, "1", "no room, so nothing is kept");
    }
}

#[tokio::test]
async fn an_instance_that_was_stopped_or_ran_out_never_answers_again() {
    let component = probe(1).await;
    for mode in ["panic", "exit", "recurse", "allocate"] {
        assert_eq!(count(&component, true).await, "1", "before {mode}");
        assert_eq!(count(&component, true).await, "2", "before {mode}");
        let context = Context {
            reuse: true,
            ..context()
        };
        component
            .invoke(request(mode, &[]), context)
            .await
            .unwrap_err();
        assert_eq!(count(&component, true).await, "1", "after {mode}");
        // It is gone with this one.
        let context = Context {
            reuse: true,
            ..context_of(Duration::from_millis(50))
        };
        let late = component.invoke(request("spin", &[]), context).await;
        assert!(
            matches!(late, Err(InvokeError::Deadline { .. })),
            "{late:?}"
        );
    }
}

fn context_of(deadline: Duration) -> Context {
    let plain = context();
    Context {
        limits: Limits {
            deadline,
            ..plain.limits
        },
        ..plain
    }
}

#[tokio::test]
async fn an_error_that_the_function_returns_leaves_its_instance_whole() {
    let component = probe(1).await;
    assert_eq!(count(&component, true).await, "1");
    let context = Context {
        reuse: true,
        ..context()
    };
    let refused = component.invoke(request("refuse", &[]), context).await;
    assert!(matches!(refused, Err(InvokeError::Guest(_))), "{refused:?}");
    assert_eq!(count(&component, true).await, "2");
}

#[tokio::test]
async fn calls_at_once_never_share_an_instance() {
    let component = probe(2).await;
    assert_eq!(count(&component, true).await, "1");
    let context = Context {
        reuse: true,
        ..context()
    };
    let asleep = component.invoke(request("sleep", &[("ms", "200")]), context);
    let (asleep, counted) = tokio::join!(asleep, count(&component, true));
    asleep.unwrap();
    assert_eq!(counted, "1", "the kept instance was taken");
}

#[tokio::test]
async fn a_call_that_uses_its_processor_time_up_is_stopped_and_one_that_waits_is_not() {
    let component = probe(0).await;
    let limit = Duration::from_millis(50);
    let plain = context();
    let context = || Context {
        limits: Limits {
            cpu: Some(limit),
            ..plain.limits
        },
        ..plain.clone()
    };
    let waited = component.invoke(request("sleep", &[("ms", "300")]), context());
    waited.await.unwrap();
    let began = std::time::Instant::now();
    let error = component.invoke(request("spin", &[]), context()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, InvokeError::Cpu { .. }), "{error:?}");
    assert!(
        error.to_string().contains("50ms of processor time"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}
