//! What versions use is counted, of calls that fail as well, and kept over restarts.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::{Bundle, Server, binary, guests, onnx};
use reqwest::Method;
use serde_json::{Value, json};

/// What a version has used.
async fn usage(server: &Server, function: &str, version: u32) -> Value {
    let path = format!("/v1/functions/{function}/versions/{version}/cost");
    server.get(&path).await.expect(200).json()["usage"].clone()
}

async fn used(server: &Server, function: &str, what: &str) -> f64 {
    usage(server, function, 1).await[what].as_f64().unwrap()
}

async fn deploy_probe(server: &Server) {
    let component = guests::component_of(&guests::guest("probe"));
    server
        .deploy("probe", &Bundle::of_component(component))
        .await;
}

/// `y = x · weights`, a megabyte of weights.
fn product(keep_alive: &str) -> Bundle {
    let scaling = format!("[scaling]\nkeep_alive = \"{keep_alive}\"");
    Bundle::of_model(onnx::product(&vec![0.5; 512 * 512], 512))
        .with_lines("[sample]\nbody = \"x.json\"")
        .with_file("x.json", row().into_bytes())
        .with_lines(&scaling)
}

fn row() -> String {
    json!({"x": vec![1; 512]}).to_string()
}

async fn call_product(server: &Server, path: &str) {
    server.invoke_at(path, row()).await.expect(200);
}

#[tokio::test]
async fn what_a_guest_burns_is_what_the_process_burnt() {
    let server = Server::start().await;
    deploy_probe(&server).await;
    let call = async |rounds: u64| {
        let path = format!("/v1/functions/probe/invoke?mode=burn&rounds={rounds}");
        let answer = server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await;
        answer.expect(200)
    };
    call(1).await;
    let (before, counted_before) = (
        server.cpu_seconds(),
        used(&server, "probe", "guest_cpu_seconds").await,
    );
    let answer = call(400_000_000).await;
    let burnt = server.cpu_seconds() - before;
    let counted = used(&server, "probe", "guest_cpu_seconds").await - counted_before;
    // The process does little beside, and its own clock ticks in hundredths of a second.
    assert!(burnt > 0.1, "the guest burns {burnt} s only");
    assert!(counted <= burnt + 0.03, "{counted} s of {burnt} s");
    assert!(counted >= burnt * 0.8 - 0.03, "{counted} s of {burnt} s");
    let timing = answer.header("server-timing");
    let (_, cpu) = timing.split_once("cpu;dur=").unwrap();
    let cpu: f64 = cpu.split(',').next().unwrap().parse().unwrap();
    assert!((cpu / 1e3 - counted).abs() < 0.01, "{timing}, {counted} s");
    let guest = ["function=\"probe\"", "version=\"1\"", "part=\"guest\""];
    let metric = server.metric("firebox_cpu_seconds_total", &guest).await;
    assert!((metric - counted - counted_before).abs() < 0.01, "{metric}");
}

#[tokio::test]
async fn calls_that_fail_or_are_given_up_cost_what_they_had_used() {
    let server = Server::start().await;
    deploy_probe(&server).await;
    let path = |mode: &str| format!("/v1/functions/probe/invoke?mode={mode}");
    let body = r#"{"x": [[1, 2]]}"#;
    server.invoke_at(&path("panic"), body).await.expect(502);
    let trapped = used(&server, "probe", "guest_cpu_seconds").await;
    assert!(trapped > 0.0);

    let request = server.request(Method::POST, &path("spin")).body(body);
    let late = request.header("x-firebox-timeout-ms", "1000").send().await;
    assert_eq!(late.unwrap().status(), 504);
    let late = used(&server, "probe", "guest_cpu_seconds").await;
    assert!(late - trapped > 0.05, "{} s", late - trapped);

    let request = server.request(Method::POST, &path("spin")).body(body);
    let gone = request.timeout(Duration::from_millis(1000)).send().await;
    assert!(gone.is_err());
    let began = Instant::now();
    while used(&server, "probe", "requests").await < 3.0 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it is never counted"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let given_up = used(&server, "probe", "guest_cpu_seconds").await;
    assert!(given_up - late > 0.05, "{} s", given_up - late);
    assert_eq!(used(&server, "probe", "predictions").await, 0.0);
}

#[tokio::test]
async fn memory_costs_while_it_is_held_and_versions_share_what_they_share() {
    let server = Server::start().await;
    // Two versions of one model.
    for keep_alive in ["4000ms", "4001ms"] {
        server.deploy("product", &product(keep_alive)).await;
    }
    let at = |version: u32| format!("/v1/functions/product/versions/{version}/invoke");
    let held = async |version: u32| {
        let usage = usage(&server, "product", version).await;
        (usage["memory_gb_seconds"].as_f64().unwrap(), Instant::now())
    };
    // Both what is held, and the time, are read right after the figure was brought up to date.
    let rate = |(before, then): (f64, Instant), (after, now): (f64, Instant)| {
        (after - before) / (now - then).as_secs_f64()
    };
    assert_eq!(held(1).await.0, 0.0, "what was never loaded costs nothing");
    call_product(&server, &at(1)).await;
    let bytes = server.metric("firebox_weight_bytes", &[]).await;
    assert!(bytes >= 1e6, "{bytes}");
    let first = held(1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let alone = rate(first, held(1).await) * 1e9 / bytes;
    assert!((0.9..1.1).contains(&alone), "{alone} of the weights");

    call_product(&server, &at(2)).await;
    call_product(&server, &at(1)).await;
    let (first, second) = (held(1).await, held(2).await);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let parts = [rate(first, held(1).await), rate(second, held(2).await)];
    for part in parts.map(|part| part * 1e9 / bytes) {
        assert!((0.45..0.55).contains(&part), "{part} of the weights");
    }

    let began = Instant::now();
    for version in [1, 2] {
        let path = format!("/v1/functions/product/versions/{version}");
        while server.get(&path).await.json()["residency"] != "cold" {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "it never goes cold"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let cold = held(1).await.0;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(held(1).await.0, cold);
}

#[tokio::test]
async fn sums_outlive_a_restart_and_but_for_seconds_a_crash() {
    let server = Server::start().await;
    server.deploy("product", &product("1h")).await;
    let path = "/v1/functions/product/invoke";
    for _ in 0..3 {
        call_product(&server, path).await;
    }
    server.invoke("product", "{}").await.expect(400);
    let before = usage(&server, "product", 1).await;
    assert_eq!(
        (&before["requests"], &before["predictions"]),
        (&json!(4), &json!(3))
    );
    assert!(before["compute_cpu_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(before["gpu_seconds"], 0.0);

    let server = server.stop().await.again().await;
    let after = usage(&server, "product", 1).await;
    for what in ["requests", "predictions", "compute_cpu_seconds"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    let held = |usage: &Value| usage["memory_gb_seconds"].as_f64().unwrap();
    assert!(held(&after) >= held(&before) && held(&before) > 0.0);

    call_product(&server, path).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let server = server.kill().await.again().await;
    assert_eq!(used(&server, "product", "requests").await, 5.0);

    // What is deleted takes its sums with it; a later version begins anew.
    let other = Bundle::of_model(onnx::add_one());
    assert_eq!(server.deploy("product", &other).await, 2);
    let all = json!({"weights": {"2": 10_000}});
    server
        .put("/v1/functions/product/traffic", &all)
        .await
        .expect(200);
    server
        .delete("/v1/functions/product/versions/1")
        .await
        .expect(204);
    let costs = server
        .get("/v1/functions/product/cost")
        .await
        .expect(200)
        .json();
    let versions = costs["versions"].as_array().unwrap();
    let numbers: Vec<_> = versions.iter().map(|version| &version["version"]).collect();
    assert_eq!(numbers, [&json!(2)]);
    assert_eq!(versions[0]["usage"]["requests"], 0);
    assert_eq!(versions[0]["cost_per_1000_predictions"], Value::Null);
}

#[tokio::test]
async fn prices_make_the_figures() {
    let prices = ["--price-request", "0.5", "--price-currency", "EUR"];
    let server = Server::start_with(&prices).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    for body in [r#"{"x": [1]}"#, r#"{"x": [2]}"#, "{}"] {
        server.invoke("adder", body).await;
    }
    let path = "/v1/functions/adder/versions/1/cost";
    let cost = server.get(path).await.expect(200).json();
    assert_eq!(cost["cost"]["requests"], 1.5);
    assert_eq!(cost["cost"]["total"], 1.5);
    assert_eq!(cost["cost_per_1000_predictions"], 750.0);
    let request = server.request(Method::POST, "/v1/functions/adder/invoke");
    let request = request.header("x-firebox-cost", "?").body(r#"{"x": [1]}"#);
    let told = request.send().await.unwrap();
    assert_eq!(told.headers()["x-firebox-cost"], "0.500000000000 EUR");
}

#[tokio::test]
async fn the_command_tells_each_version() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server
            .deploy("adder", &Bundle::of_model(onnx::add(amount)))
            .await;
    }
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    let run = |arguments: &[&str]| {
        let mut command = binary::command();
        command.env("FIREBOX_SERVER", server.url()).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["cost", "adder"]);
    assert!(
        text.contains("PER 1,000") && text.contains("no prices"),
        "{text}"
    );
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("adder"))
            .count(),
        2
    );
    let all: Value = serde_json::from_str(&run(&["cost", "--json"])).unwrap();
    assert_eq!(all["versions"][0]["usage"]["requests"], 1);
    assert_eq!(all["versions"][1]["usage"]["requests"], 0);
    assert_eq!(all["prices"]["currency"], "USD");
    assert_eq!(all["total"], 0.0);
}
