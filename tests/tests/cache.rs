//! Answers that are kept: who gets them, who doesn't, and when they go.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::send;
use firebox_tests::{Answer, Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::{Value, json};

const ADDER: &str = "/v1/functions/adder/invoke";

fn adder(amount: f32, cache: &str) -> Bundle {
    Bundle::of_model(onnx::add(amount)).with_lines(&format!("[cache]\n{cache}"))
}

/// The guest that does as its parameter `mode` says.
fn probe(cache: &str) -> Bundle {
    let component = guests::component_of(&guests::guest("probe"));
    Bundle::of_component(component).with_lines(&format!("[cache]\n{cache}"))
}

async fn ask(server: &Server, path: &str, control: &str) -> Answer {
    let request = server.request(Method::POST, path).body(r#"{"x": [1]}"#);
    let request = match control {
        "" => request,
        control => request.header("cache-control", control),
    };
    send(request).await.expect(200)
}

/// How an answer came about: `hit`, `miss`, `bypass`, or nothing.
async fn cached(server: &Server, path: &str) -> String {
    let answer = ask(server, path, "").await;
    answer.header("x-firebox-cache").to_owned()
}

async fn requests(server: &Server, function: &str, result: &str) -> f64 {
    let labels = [
        format!("function=\"{function}\""),
        format!("result=\"{result}\""),
    ];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    server.metric("firebox_cache_requests_total", &labels).await
}

fn infer(data: &Value) -> Value {
    json!({"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": data}]})
}

#[tokio::test]
async fn equal_requests_get_the_kept_answer_over_either_protocol() {
    let server = Server::start().await;
    server.deploy("adder", &adder(1.0, "ttl = \"1m\"")).await;
    let first = ask(&server, ADDER, "").await;
    assert_eq!(first.header("x-firebox-cache"), "miss");
    assert_eq!(first.header("cache-control"), "max-age=60");
    assert_eq!(first.header("age"), "0");
    let second = ask(&server, ADDER, "").await;
    assert_eq!(second.header("x-firebox-cache"), "hit");
    assert_eq!(second.header("cache-control"), "max-age=60");
    assert_eq!(second.body, first.body);
    assert!(second.header("server-timing").contains("cache;desc=hit"));
    let id = |answer: &Answer| answer.header("x-firebox-prediction-id").to_owned();
    assert_ne!(id(&first), id(&second));

    let third = server.infer("adder", &infer(&json!([1]))).await.expect(200);
    assert_eq!(third.header("x-firebox-cache"), "hit");
    assert_eq!(
        (third.json()["id"].as_str(), third.version()),
        (Some("7"), 1)
    );
    assert_eq!(third.json()["outputs"][0]["data"], json!([2.0]));
    let pinned = cached(&server, "/v1/functions/adder/versions/1/invoke").await;
    assert_eq!(pinned, "hit");

    assert_eq!(requests(&server, "adder", "hit").await, 3.0);
    assert_eq!(requests(&server, "adder", "miss").await, 1.0);
    let of_adder = ["function=\"adder\"", "status=\"2xx\""];
    assert_eq!(
        server.metric("firebox_requests_total", &of_adder).await,
        4.0
    );
    assert_eq!(server.metric("firebox_cache_entries", &[]).await, 1.0);
    assert!(server.metric("firebox_cache_bytes", &[]).await > 0.0);
}

#[tokio::test]
async fn a_function_that_does_not_ask_for_it_has_no_cache() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    for _ in 0..2 {
        let answer = ask(&server, ADDER, "").await;
        let names = ["x-firebox-cache", "cache-control", "age"];
        assert_eq!(names.map(|name| answer.header(name)), ["", "", ""]);
    }
    assert_eq!(
        server.metric("firebox_cache_requests_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn an_answer_goes_when_its_time_is_over() {
    let server = Server::start().await;
    server.deploy("adder", &adder(1.0, "ttl = \"1s\"")).await;
    assert_eq!(cached(&server, ADDER).await, "miss");
    assert_eq!(cached(&server, ADDER).await, "hit");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(cached(&server, ADDER).await, "miss");
    // It goes by itself, too.
    let began = Instant::now();
    while server.metric("firebox_cache_bytes", &[]).await > 0.0 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = server.metric("firebox_cache_evictions_total", &["reason=\"ttl\""]);
    assert_eq!(gone.await, 2.0);
}

#[tokio::test]
async fn callers_say_how_old_an_answer_may_be() {
    let server = Server::start().await;
    server.deploy("adder", &adder(1.0, "ttl = \"1m\"")).await;
    let by = async |control| {
        let answer = ask(&server, ADDER, control).await;
        let (cache, kept) = ("x-firebox-cache", "cache-control");
        format!("{} {}", answer.header(cache), answer.header(kept))
    };
    assert_eq!(by("no-store").await, "bypass no-store");
    assert_eq!(by("").await, "miss max-age=60");
    assert_eq!(by("no-store").await, "bypass no-store");
    assert_eq!(by("no-cache").await, "bypass max-age=60");
    assert_eq!(by("max-age=30").await, "hit max-age=60");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let aged = ask(&server, ADDER, "").await;
    assert_eq!(aged.header("age"), "1");
    assert_eq!(by("max-age=1").await, "miss max-age=60");
    let fresh = ask(&server, ADDER, "max-age=1").await;
    assert_eq!(
        (fresh.header("x-firebox-cache"), fresh.header("age")),
        ("hit", "0")
    );
}

#[tokio::test]
async fn a_hit_wakes_no_cold_version() {
    let server = Server::start().await;
    let bundle = adder(1.0, "ttl = \"1m\"").with_lines("[scaling]\nkeep_alive = \"0s\"");
    server.deploy("adder", &bundle).await;
    assert_eq!(cached(&server, ADDER).await, "miss");
    let residency = async || {
        let info = server.get("/v1/functions/adder/versions/1").await;
        info.expect(200).json()["residency"].clone()
    };
    let began = Instant::now();
    while residency().await != "cold" {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let loads = server.metric("firebox_model_loads_total", &[]).await;
    assert_eq!(cached(&server, ADDER).await, "hit");
    assert_eq!(residency().await, "cold");
    assert_eq!(server.metric("firebox_model_loads_total", &[]).await, loads);
}

#[tokio::test]
async fn versions_never_get_each_others_answers() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server.deploy("adder", &adder(amount, "ttl = \"1m\"")).await;
    }
    let at = |version: u32| format!("/v1/functions/adder/versions/{version}/invoke");
    for expected in ["miss", "hit"] {
        for version in [1, 2] {
            let answer = ask(&server, &at(version), "").await;
            assert_eq!(answer.header("x-firebox-cache"), expected);
            assert_eq!(answer.json(), json!({"y": [1.0 + version as f32]}));
        }
    }
    // The same bundle under another name is another version too.
    server.deploy("other", &adder(1.0, "ttl = \"1m\"")).await;
    assert_eq!(cached(&server, "/v1/functions/other/invoke").await, "miss");
}

#[tokio::test]
async fn bits_and_parameters_tell_requests_apart() {
    let server = Server::start().await;
    server.deploy("probe", &probe("ttl = \"1m\"")).await;
    let path = "/v1/functions/probe/invoke?mode=echo";
    let by = async |path: &str, body: &str| {
        let answer = server.invoke_at(path, body.to_owned()).await.expect(200);
        (answer.header("x-firebox-cache").to_owned(), answer.text())
    };
    let told = |cache: &str, text: &str| (cache.to_owned(), text.to_owned());
    for cache in ["miss", "hit"] {
        let zero = by(path, r#"{"x": [[0.0, 1]]}"#).await;
        assert_eq!(zero, told(cache, r#"{"x":[[0.0,1.0]]}"#));
        let below = by(path, r#"{"x": [[-0.0, 1]]}"#).await;
        assert_eq!(below, told(cache, r#"{"x":[[-0.0,1.0]]}"#));
        let nan = by(path, r#"{"x": [["NaN", 1]]}"#).await;
        assert_eq!(nan, told(cache, r#"{"x":[["NaN",1.0]]}"#));
    }
    let body = r#"{"x": [[0.0, 1]]}"#;
    assert_eq!(by(&format!("{path}&a=1"), body).await.0, "miss");
    assert_eq!(by(&format!("{path}&a=2"), body).await.0, "miss");
    assert_eq!(by(&format!("{path}&a=1"), body).await.0, "hit");
    assert_eq!(
        by("/v1/functions/probe/invoke?a=1&mode=echo", body).await.0,
        "hit"
    );
}

#[tokio::test]
async fn sixty_four_who_ask_the_same_at_once_cost_one_run() {
    let server = Server::start_with(&["--instances", "1"]).await;
    server.deploy("probe", &probe("ttl = \"1m\"")).await;
    let path = "/v1/functions/probe/invoke?mode=sleep&ms=500";
    let body = r#"{"x": [[1, 2]]}"#;
    server
        .invoke_at("/v1/functions/probe/invoke?mode=echo", body)
        .await
        .expect(200);
    let began = Instant::now();
    let all = (0..64).map(|_| server.invoke_at(path, body));
    let answers = futures::future::join_all(all).await;
    // One after another they would take 32 seconds.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        let answer = answer.expect(200);
        ids.insert(answer.header("x-firebox-prediction-id").to_owned());
    }
    assert_eq!(ids.len(), 64);
    assert_eq!(requests(&server, "probe", "miss").await, 2.0);
    let others =
        requests(&server, "probe", "coalesced").await + requests(&server, "probe", "hit").await;
    assert_eq!(others, 63.0);
    assert!(requests(&server, "probe", "coalesced").await > 0.0);
}

#[tokio::test]
async fn where_the_caller_who_runs_hangs_up_another_runs_in_its_place() {
    let server = Server::start().await;
    server.deploy("probe", &probe("ttl = \"1m\"")).await;
    let path = "/v1/functions/probe/invoke?mode=sleep&ms=1000";
    let body = r#"{"x": [[1, 2]]}"#;
    let first = server.request(Method::POST, path).body(body);
    let first = first.timeout(Duration::from_millis(400)).send();
    let second = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.invoke_at(path, body).await.expect(200)
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err_and(|error| error.is_timeout()));
    assert_eq!(second.header("x-firebox-cache"), "miss");
    let gone = ["function=\"probe\"", "status=\"cancelled\""];
    assert_eq!(server.metric("firebox_requests_total", &gone).await, 1.0);
}

#[tokio::test]
async fn a_caller_who_waits_for_another_keeps_its_own_deadline() {
    let server = Server::start().await;
    server.deploy("probe", &probe("ttl = \"1m\"")).await;
    let path = "/v1/functions/probe/invoke?mode=sleep&ms=1500";
    let body = r#"{"x": [[1, 2]]}"#;
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let request = server.request(Method::POST, path).body(body);
        let began = Instant::now();
        let answer = send(request.header("x-firebox-timeout-ms", "300")).await;
        (answer, began.elapsed())
    };
    let (first, (second, took)) = tokio::join!(server.invoke_at(path, body), second);
    first.expect(200);
    second.refused(504, &["no answer within 300ms"]);
    assert!(took < Duration::from_millis(1000), "{took:?}");
}

#[tokio::test]
async fn errors_are_not_kept() {
    let server = Server::start().await;
    server.deploy("probe", &probe("ttl = \"1m\"")).await;
    for (mode, status) in [("refuse", 400), ("internal", 500), ("panic", 502)] {
        for _ in 0..2 {
            let path = format!("/v1/functions/probe/invoke?mode={mode}");
            let answer = server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await;
            let answer = answer.expect(status);
            assert_eq!(answer.header("cache-control"), "");
        }
    }
    assert_eq!(requests(&server, "probe", "miss").await, 6.0);
    assert_eq!(server.metric("firebox_cache_entries", &[]).await, 0.0);
}

#[tokio::test]
async fn a_version_keeps_no_more_than_it_may_and_no_answer_that_is_too_large() {
    let server = Server::start().await;
    let bundle = adder(1.0, "ttl = \"1m\"\nmax_bytes = \"16KiB\"");
    server.deploy("adder", &bundle).await;
    // The answers take 4 KB each, and what it costs to keep them.
    let by = async |value: u32, count: usize| {
        let body = json!({"x": vec![value; count]}).to_string();
        let answer = server.invoke("adder", body).await.expect(200);
        answer.header("x-firebox-cache").to_owned()
    };
    for value in 0..3 {
        assert_eq!(by(value, 1000).await, "miss");
    }
    assert_eq!(by(0, 1000).await, "hit");
    assert_eq!(by(3, 1000).await, "miss");
    assert_eq!(by(1, 1000).await, "miss");
    assert_eq!(by(0, 1000).await, "hit");
    assert!(server.metric("firebox_cache_bytes", &[]).await <= 16_384.0);
    let over = ["reason=\"max_bytes\""];
    assert_eq!(
        server.metric("firebox_cache_evictions_total", &over).await,
        2.0
    );
    for _ in 0..2 {
        assert_eq!(by(7, 5000).await, "miss");
    }
    assert_eq!(by(0, 1000).await, "hit");
}

#[tokio::test]
async fn a_rollback_drops_what_is_kept_of_the_version_it_leaves() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server.deploy("adder", &adder(amount, "ttl = \"1m\"")).await;
    }
    let at = |version: u32| format!("/v1/functions/adder/versions/{version}/invoke");
    let rollback = "/v1/functions/adder/rollback";
    let traffic = "/v1/functions/adder/traffic";
    server
        .put(traffic, &json!({"weights": {"1": 5000, "2": 5000}}))
        .await
        .expect(200);
    for version in [1, 2] {
        assert_eq!(cached(&server, &at(version)).await, "miss");
    }
    server.post(rollback, &json!({})).await.expect(200);
    assert_eq!(cached(&server, &at(1)).await, "hit");
    assert_eq!(cached(&server, &at(2)).await, "miss");
    let dropped = server.metric("firebox_cache_evictions_total", &["reason=\"dropped\""]);
    assert_eq!(dropped.await, 1.0);

    let rollout = "/v1/functions/adder/rollout";
    // A guard that no answer keeps: it goes back by itself.
    let plan = json!({"to": 2, "steps": "50%:1h,100%", "guards": ["p95<=1ms"], "min_sample": 20});
    let answer = server.post(rollout, &plan).await.expect(201);
    assert_eq!(answer.json()["state"], "running");
    assert_eq!(cached(&server, &at(2)).await, "hit");
    let began = Instant::now();
    for number in 0.. {
        let body = json!({"x": vec![number; 20_000]}).to_string();
        server.invoke("adder", body).await.expect(200);
        if number % 10 == 9 && server.get(rollout).await.json()["state"] == "rolled_back" {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it never goes back"
        );
    }
    assert_eq!(cached(&server, &at(2)).await, "miss");
}

#[tokio::test]
async fn kept_answers_say_nothing_to_the_guards_of_a_rollout() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server.deploy("adder", &adder(amount, "ttl = \"1m\"")).await;
    }
    let rollout = "/v1/functions/adder/rollout";
    let plan = json!({
        "to": 2, "steps": "50%:1h,100%", "guards": ["error_rate<=stable+1%"], "min_sample": 1
    });
    server.post(rollout, &plan).await.expect(201);
    for _ in 0..60 {
        ask(&server, ADDER, "").await;
    }
    assert_eq!(requests(&server, "adder", "hit").await, 58.0);
    let sample = async || {
        let verdict = server.get(rollout).await.expect(200).json()["verdicts"][0].clone();
        let of = |who: &str| verdict[who]["sample"].as_u64().unwrap_or(0);
        of("canary") + of("stable")
    };
    let began = Instant::now();
    while sample().await < 2 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the misses are never judged"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(sample().await, 2, "one of each version");
}

#[tokio::test]
async fn what_is_kept_goes_with_the_version_and_with_the_server() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server.deploy("adder", &adder(amount, "ttl = \"1m\"")).await;
    }
    let second = "/v1/functions/adder/versions/2/invoke";
    assert_eq!(cached(&server, ADDER).await, "miss");
    assert_eq!(cached(&server, second).await, "miss");
    let path = "/v1/functions/adder/versions/2";
    server.delete(path).await.expect(204);
    assert_eq!(server.metric("firebox_cache_entries", &[]).await, 1.0);
    let server = server.stop().await.again().await;
    assert_eq!(server.metric("firebox_cache_entries", &[]).await, 0.0);
    assert_eq!(cached(&server, ADDER).await, "miss");
}
