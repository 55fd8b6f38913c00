//! An idle version gives its memory back and comes again at the next call, and a server with a
//! thousand idle versions is as quick and as small as one with none.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::{Bundle, Server, guests, onnx};
use serde_json::json;

const MIB: u64 = 1 << 20;

async fn residency(server: &Server, function: &str) -> String {
    let path = format!("/v1/functions/{function}/versions/1");
    let info = server.get(&path).await.expect(200).json();
    info["residency"].as_str().unwrap().to_owned()
}

async fn wait_for(server: &Server, function: &str, wanted: &str) {
    let began = Instant::now();
    while residency(server, function).await != wanted {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{function} is never {wanted}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_idle_version_goes_cold_and_a_call_brings_it_back() {
    let server = Server::start().await;
    let bundle = Bundle::of_model(onnx::add_one()).with_lines("[scaling]\nkeep_alive = \"1s\"");
    server.deploy("adder", &bundle).await;
    for _ in 0..2 {
        let answer = server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
        assert_eq!(answer.json(), json!({"y": [2.0]}));
        assert_eq!(residency(&server, "adder").await, "resident");
        wait_for(&server, "adder", "cold").await;
    }
}

#[tokio::test]
async fn a_call_that_meets_a_cold_version_waits_and_is_told_the_wait() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let server = server.stop().await.again().await;
    assert_eq!(
        residency(&server, "adder").await,
        "cold",
        "nothing is loaded before it is called"
    );
    let calls = (0..16).map(|_| server.invoke("adder", r#"{"x": [1]}"#));
    for answer in futures::future::join_all(calls).await {
        let answer = answer.expect(200);
        assert_eq!(answer.json(), json!({"y": [2.0]}));
        assert!(
            answer.header("server-timing").contains("cold"),
            "{:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn unloading_a_model_gives_its_memory_back() {
    let model = guests::model("minilm", "minilm.onnx");
    let weights = model.len() as u64;
    let server = Server::start().await;
    let bundle = Bundle::of_model(model).with_lines("[scaling]\nkeep_alive = \"1s\"");
    server.deploy("encoder", &bundle).await;
    let tokens = json!([[101, 2023, 2003, 1037, 7099, 102]]);
    let body = json!({
        "input_ids": tokens,
        "attention_mask": [[1, 1, 1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0, 0, 0]],
    });
    let path = "/v1/functions/encoder/invoke";
    let mut idle = Vec::new();
    for _ in 0..4 {
        server.post(path, &body).await.expect(200);
        let busy = server.resident_bytes();
        wait_for(&server, "encoder", "cold").await;
        // The version is cold at once; its memory follows on a thread of its own.
        let began = Instant::now();
        let mut cold = server.resident_bytes();
        let mut before = u64::MAX;
        // Until it is less, and is getting no less any more.
        while (cold + weights / 2 >= busy || cold < before)
            && began.elapsed() < Duration::from_secs(5)
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (before, cold) = (cold, server.resident_bytes());
        }
        idle.push(cold);
        assert!(
            cold + weights / 2 < busy,
            "{} MiB loaded, {} MiB cold",
            busy / MIB,
            cold / MIB
        );
    }
    let grown = idle[3].saturating_sub(idle[0]);
    assert!(
        grown < 16 * MIB,
        "idle memory grows with each load: {idle:?}"
    );
}

#[tokio::test]
async fn a_thousand_idle_versions_are_ready_in_two_seconds_and_150_megabytes() {
    let component = guests::small();
    let server = Server::start().await;
    for function in 0..100 {
        for version in 1..=10 {
            let name = format!("small-{function}");
            let lines = format!("[limits]\nmemory = \"{}MiB\"", 16 + version);
            let bundle = Bundle::of_component(component.clone()).with_lines(&lines);
            assert_eq!(server.deploy(&name, &bundle).await, version);
        }
    }
    let server = server.stop().await.again().await;
    let (started, resident) = (server.started_in(), server.resident_bytes());
    println!(
        "1,000 versions: ready in {started:?}, {} MiB",
        resident / MIB
    );
    assert!(resident <= 150 * MIB, "{} MiB", resident / MIB);
    assert!(started <= Duration::from_secs(2), "{started:?}");
    let path = "/v1/functions/small-99/versions/10/invoke";
    assert_eq!(
        server.invoke_at(path, "{}").await.expect(200).json(),
        json!({})
    );
}
