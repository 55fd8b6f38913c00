//! Shadow traffic: copies of requests go to a version whose answers nobody sees, and are compared.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::load::{Load, latency};
use firebox_tests::{Bundle, Server, guests};
use serde_json::{Value, json};

const INVOKE: &str = "/v1/functions/probe/invoke?mode=behave";
const TRAFFIC: &str = "/v1/functions/probe/traffic";

/// A server with one version of `probe` for each behaviour; the first answers.
async fn server_with(behaviours: &[&str]) -> Server {
    let server = Server::start().await;
    let component = guests::component_of(&guests::guest("probe"));
    for behaviour in behaviours {
        let bundle = Bundle::of_component(component.clone())
            .with_lines("[assets]\n\"behaviour\" = \"behaviour\"")
            .with_file("behaviour", behaviour.as_bytes().to_vec());
        server.deploy("probe", &bundle).await;
    }
    server
}

async fn shadow_to(server: &Server, version: u32, share_bp: u32) {
    let shadow = json!({"version": version, "share_bp": share_bp});
    let policy = json!({"weights": {"1": 10000}, "shadow": shadow});
    server.put(TRAFFIC, &policy).await.expect(200);
}

/// What is known of version 1 and this shadow, once `count` of its copies are settled.
async fn pair(server: &Server, shadow: u32, count: u64) -> Value {
    let began = Instant::now();
    loop {
        let answer = server.get("/v1/functions/probe/shadow").await.expect(200);
        let info = answer.json();
        let mut pairs = info["pairs"].as_array().unwrap().iter();
        let found = pairs.find(|p| p["version"] == 1 && p["shadow"] == shadow);
        let settled = found.map_or(0, |p| {
            let counts = ["compared", "failed", "dropped"].iter();
            counts.map(|count| p[count].as_u64().unwrap()).sum()
        });
        if settled >= count {
            return found.unwrap().clone();
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{settled} of {count}: {info:#}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn body(number: u32) -> String {
    format!(r#"{{"x": [[{number}, 0.5]]}}"#)
}

#[tokio::test]
async fn answers_are_compared_with_those_of_the_shadow() {
    let server = server_with(&["", "add 0.25", "fail-every 2"]).await;
    shadow_to(&server, 2, 10_000).await;
    for number in 0..10 {
        let answer = server.invoke_at(INVOKE, body(number)).await.expect(200);
        assert_eq!(answer.version(), 1);
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), length);
        assert_eq!(answer.json(), json!({"x": [[f64::from(number), 0.5]]}));
    }
    let found = pair(&server, 2, 10).await;
    assert_eq!(found["compared"], 10, "{found:#}");
    assert_eq!(
        found["agreement"], 1.0,
        "the highest number is where it was"
    );
    assert_eq!(found["max_abs_difference"], 0.25);
    // 0 and 0.25: they are as far apart as can be.
    assert_eq!(found["max_rel_difference"], 1.0);

    shadow_to(&server, 3, 10_000).await;
    for number in 0..10 {
        server.invoke_at(INVOKE, body(number)).await.expect(200);
    }
    let found = pair(&server, 3, 10).await;
    assert_eq!(
        (&found["compared"], &found["failed"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(found["max_abs_difference"], 0.0);
    let metrics = server.get("/metrics").await.text();
    for line in [
        r#"firebox_shadow_requests_total{function="probe",version="1",shadow="2",result="agreed"} 10"#,
        r#"firebox_shadow_requests_total{function="probe",version="1",shadow="3",result="failed"} 5"#,
        r#"firebox_shadow_max_abs_difference{function="probe",version="1",shadow="2"} 0.25"#,
        // The shadow's own requests are not the callers'.
        r#"firebox_requests_total{function="probe",version="2",status="2xx"}"#,
    ] {
        let expected = !line.starts_with("firebox_requests_total");
        assert_eq!(metrics.contains(line), expected, "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn only_the_share_that_the_policy_says_is_copied_and_no_pinned_call() {
    let server = server_with(&["", "add 1"]).await;
    shadow_to(&server, 2, 2500).await;
    for number in 0..200 {
        server.invoke_at(INVOKE, body(number)).await.expect(200);
    }
    let pinned = "/v1/functions/probe/versions/1/invoke?mode=behave";
    for number in 0..50 {
        server.invoke_at(pinned, body(number)).await.expect(200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = pair(&server, 2, 1).await;
    let copied = found["compared"].as_u64().unwrap() + found["dropped"].as_u64().unwrap();
    // 50 are expected; 5 standard deviations are 31.
    assert!((19..=81).contains(&copied), "{found:#}");
}

#[tokio::test]
async fn a_caller_that_is_refused_is_not_copied() {
    let server = server_with(&["", "add 0"]).await;
    shadow_to(&server, 2, 10_000).await;
    server.invoke_at(INVOKE, "no JSON").await.expect(400);
    server.invoke_at(INVOKE, body(1)).await.expect(200);
    let found = pair(&server, 2, 1).await;
    assert_eq!(
        (&found["compared"], &found["failed"]),
        (&json!(1), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_shadow_is_dropped_first_and_costs_callers_nothing() {
    let server = server_with(&["", "sleep 200"]).await;
    let mut alone = Vec::new();
    let mut shadowed = Vec::new();
    // In turns, so that other work on the machine falls on both.
    for _ in 0..3 {
        for (share, samples) in [(0, &mut alone), (10_000, &mut shadowed)] {
            shadow_to(&server, 2, share).await;
            let load = Load::start(&server, INVOKE, 150, body);
            tokio::time::sleep(Duration::from_secs(3)).await;
            samples.extend(load.stop().await);
        }
    }
    let all = || alone.iter().chain(&shadowed);
    assert!(all().all(|sample| (sample.status, sample.version) == (200, 1)));
    for quantile in [0.5, 0.95, 0.99] {
        let (without, with) = (latency(&alone, quantile), latency(&shadowed, quantile));
        println!(
            "p{}: {without:?} alone, {with:?} with a shadow",
            quantile * 100.0
        );
    }
    let (without, with) = (latency(&alone, 0.5), latency(&shadowed, 0.5));
    assert!(
        with < without * 2 + Duration::from_millis(20),
        "{without:?} {with:?}"
    );
    let found = pair(&server, 2, shadowed.len() as u64 / 2).await;
    assert!(found["dropped"].as_u64() > Some(0), "{found:#}");
    assert!(found["compared"].as_u64() > Some(0), "{found:#}");
    assert!(found["shadow_latency_ms"]["p50"].as_f64() >= Some(200.0));
}
