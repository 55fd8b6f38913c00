//! wasi:nn: models by name, host-owned tensors, errors that say what was wrong.

use std::time::{Duration, Instant};

use firebox_engine::{DType, Tensor};
use firebox_sandbox::{InvokeError, Response};

use crate::probe::{call, context, request, shared};

async fn model(
    name: &str,
    input: &str,
    tensor: Tensor,
    times: &str,
) -> Result<Response, InvokeError> {
    let mut request = request("model", &[("model", name), ("times", times)]);
    request.inputs.push((input.into(), tensor));
    shared().await.1.invoke(request, context()).await
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_f32(vec![values.len()], values).unwrap()
}

async fn refused(name: &str, input: &str, tensor: Tensor) -> String {
    match model(name, input, tensor, "1").await {
        Err(InvokeError::Guest(error)) => error.message,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test]
async fn a_model_computes_again_on_what_it_gave() {
    let response = model("double", "x", floats(&[1.0, -2.5]), "3")
        .await
        .unwrap();
    assert_eq!(response.outputs, [("x".to_string(), floats(&[8.0, -20.0]))]);
}

#[tokio::test]
async fn a_bool_model_takes_and_gives_u8() {
    let bytes = |data: Vec<u8>| Tensor::new(DType::U8, vec![3], data).unwrap();
    let response = model("invert", "x", bytes(vec![0, 1, 1]), "1")
        .await
        .unwrap();
    assert_eq!(response.outputs, [("x".to_string(), bytes(vec![1, 0, 0]))]);
    let said = refused("invert", "x", bytes(vec![0, 1, 2])).await;
    assert!(said.contains("expected dtype bool, found u8"), "{said}");
}

#[tokio::test]
async fn a_misfit_names_input_expected_and_given() {
    let said = refused("double", "short", floats(&[1.0, 2.0])).await;
    assert!(said.starts_with("ErrorCode::InvalidArgument"), "{said}");
    assert!(
        said.contains("`short`") && said.contains("needs 8 bytes, got 7"),
        "{said}"
    );

    let said = refused("double", "y", floats(&[1.0])).await;
    assert!(
        said.contains("there is no input `y`; expected `x`"),
        "{said}"
    );

    let ints = Tensor::from_i64(vec![1], &[1]).unwrap();
    let said = refused("double", "x", ints).await;
    assert!(
        said.contains("input `x`: expected dtype f32, found i64"),
        "{said}"
    );

    let matrix = Tensor::from_f32(vec![1, 1], &[1.0]).unwrap();
    let said = refused("double", "x", matrix).await;
    assert!(
        said.contains("input `x`: expected shape [?], found [1, 1]"),
        "{said}"
    );
}

#[tokio::test]
async fn an_unknown_model_is_answered_with_the_known_ones() {
    let said = refused("doubel", "x", floats(&[1.0])).await;
    assert!(said.starts_with("ErrorCode::NotFound"), "{said}");
    assert!(
        said.contains("`doubel`") && said.contains("`double`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_failing_model_is_a_runtime_error_with_its_reason() {
    let said = refused("broken", "x", floats(&[1.0])).await;
    assert!(said.starts_with("ErrorCode::RuntimeError"), "{said}");
    assert!(said.contains("division by zero in node 7"), "{said}");
}

#[tokio::test]
async fn a_model_with_a_type_that_wasi_nn_lacks_is_refused_when_opened() {
    let said = refused("narrow", "x", floats(&[1.0])).await;
    assert!(
        said.starts_with("ErrorCode::UnsupportedOperation"),
        "{said}"
    );
    assert!(said.contains("output `x` is i8"), "{said}");
}

#[tokio::test]
async fn loading_bytes_is_a_security_error() {
    let error = call("load", &[]).await.unwrap_err().to_string();
    assert!(error.contains("ErrorCode::Security"), "{error}");
    assert!(error.contains("load-by-name"), "{error}");
}

#[tokio::test]
async fn hoarded_tensors_meet_the_budget() {
    let error = call("hoard", &[]).await.unwrap_err().to_string();
    assert!(error.contains("ErrorCode::TooLarge"), "{error}");
    assert!(error.contains("of 8388608 bytes"), "{error}");
}

/// One thread, 16 instances asleep in a model of 300 ms each.
#[tokio::test]
async fn waiting_instances_hold_no_thread() {
    shared().await;
    let start = Instant::now();
    let calls = (0..16).map(|_| model("slow", "x", floats(&[1.0]), "1"));
    for response in futures::future::join_all(calls).await {
        let usage = response.unwrap().usage;
        assert!(usage.compute >= Duration::from_millis(300), "{usage:?}");
        assert!(usage.guest < Duration::from_millis(300), "{usage:?}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn waiting_for_a_model_counts_against_the_deadline() {
    let mut request = request("model", &[("model", "slow"), ("times", "1000")]);
    request.inputs.push(("x".into(), floats(&[1.0])));
    let mut context = context();
    context.limits.deadline = Duration::from_millis(150);
    let error = shared().await.1.invoke(request, context).await.unwrap_err();
    assert!(matches!(error, InvokeError::Deadline { .. }), "{error:?}");
}
