//! What an instance may use, and what it keeps where its function asks for reuse.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use firebox_tests::{Answer, Bundle, Server, guests, onnx};
use serde_json::json;

/// The probe with further lines of its manifest: first of `[function]`, then whole tables.
fn probe(lines: &str) -> Bundle {
    let component = guests::component_of(&guests::guest("probe"));
    Bundle::of_component(component).with_lines(lines)
}

async fn call(server: &Server, function: &str, mode: &str) -> Answer {
    let path = format!("/v1/functions/{function}/invoke?mode={mode}");
    server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await
}

/// How often the instance that answers has been called so far.
async fn count(server: &Server, model: &str) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let request = json!({"inputs": [input], "parameters": {"mode": "counter"}});
    let path = format!("/v2/models/{model}/infer");
    let answer = server.post(&path, &request).await.expect(200).json();
    answer["parameters"]["said"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn processor_time_is_limited_where_the_manifest_says_so() {
    let server = Server::start().await;
    server
        .deploy("probe", &probe("[limits]\ncpu = \"100ms\"\n"))
        .await;
    let began = std::time::Instant::now();
    let spun = call(&server, "probe", "spin").await;
    spun.refused(502, &["100ms of processor time", "[limits] cpu"]);
    assert!(began.elapsed().as_secs() < 9, "long before the deadline");
    // Asleep it uses none.
    call(&server, "probe", "sleep&ms=400").await.expect(200);
}

#[tokio::test]
async fn tensors_that_a_guest_holds_are_limited() {
    let server = Server::start().await;
    let component = guests::component_of(&guests::guest("probe"));
    let bundle = Bundle::of_component(component).with_model("double", onnx::add_one());
    server.deploy("usual", &bundle).await;
    let limited = bundle.with_lines("[limits]\ntensors = \"8MiB\"\n");
    server.deploy("limited", &limited).await;
    let refused = call(&server, "limited", "hoard").await;
    refused.refused(400, &["TooLarge", "of 8388608 bytes"]);
    let usual = call(&server, "usual", "hoard").await.expect(400);
    assert!(!usual.text().contains("TooLarge"), "{}", usual.text());
}

#[tokio::test]
async fn state_goes_from_request_to_request_where_it_is_asked_for_and_never_further() {
    let server = Server::start().await;
    server.deploy("plain", &probe("")).await;
    for _ in 0..2 {
        assert_eq!(count(&server, "plain").await, "1");
    }
    let reused = probe("reuse = true\n");
    server.deploy("reused", &reused).await;
    for calls in ["1", "2", "3"] {
        assert_eq!(count(&server, "reused").await, calls);
    }
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("firebox_instances_idle 1\n"), "{metrics}");
    // Another function, and another version, with the very same component.
    server.deploy("other", &reused).await;
    assert_eq!(count(&server, "other").await, "1");
    let second = reused.with_lines("[limits]\ndeadline = \"9s\"\n");
    server.deploy("reused", &second).await;
    assert_eq!(count(&server, "reused/versions/2").await, "1");
    assert_eq!(count(&server, "reused").await, "4");
    // An instance that was stopped never answers again.
    call(&server, "reused", "panic").await.expect(502);
    assert_eq!(count(&server, "reused").await, "1");
    // One that answers with an error does.
    call(&server, "reused", "refuse").await.expect(400);
    assert_eq!(count(&server, "reused").await, "2");
}

#[tokio::test]
async fn the_next_instance_is_made_behind_an_answer_and_goes_with_its_version() {
    let server = Server::start().await;
    let bundle = probe("[scaling]\nkeep_alive = \"1s\"\n");
    server.deploy("plain", &bundle).await;
    for _ in 0..5 {
        assert_eq!(count(&server, "plain").await, "1");
    }
    let spares = || server.metric("firebox_instances_spare", &[]);
    assert!(spares().await >= 1.0);
    let began = std::time::Instant::now();
    while spares().await > 0.0 {
        assert!(began.elapsed().as_secs() < 10, "the version stays warm");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(count(&server, "plain").await, "1");

    let without = Server::start_with(&["--spare-instances", "0"]).await;
    without.deploy("plain", &bundle).await;
    assert_eq!(count(&without, "plain").await, "1");
    assert_eq!(without.metric("firebox_instances_spare", &[]).await, 0.0);
}

#[tokio::test]
async fn no_more_instances_are_kept_than_the_server_allows() {
    let server = Server::start_with(&["--idle-instances", "0"]).await;
    server.deploy("reused", &probe("reuse = true\n")).await;
    for _ in 0..2 {
        assert_eq!(count(&server, "reused").await, "1");
    }
}

#[tokio::test]
async fn kept_instances_do_not_keep_an_idle_version_warm() {
    let server = Server::start().await;
    let lines = "reuse = true\n[scaling]\nkeep_alive = \"200ms\"\n";
    let bundle = probe(lines).with_model("double", onnx::add_one());
    server.deploy("reused", &bundle).await;
    assert_eq!(count(&server, "reused").await, "1");
    assert_eq!(count(&server, "reused").await, "2");
    let began = std::time::Instant::now();
    let path = "/v1/functions/reused/versions/1/residency";
    loop {
        let standing = server.get(path).await.expect(200).json();
        let idle = server.metric("firebox_instances_idle", &[]).await;
        if standing["residency"] == "cold" && idle == 0.0 {
            break;
        }
        let waited = began.elapsed();
        assert!(waited.as_secs() < 10, "{idle} instances, {standing}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(count(&server, "reused").await, "1");
}
