//! Versions, labels and the policy that shares a function's traffic among them.
//!
//! Version n of `adder` adds n, so each answer tells which version gave it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use firebox_tests::{Bundle, Server, onnx};
use reqwest::Method;
use serde_json::json;

const ZERO: &str = r#"{"x": [0]}"#;

fn adder(amount: u8) -> Bundle {
    Bundle::of_model(onnx::add(f32::from(amount)))
}

async fn server_with_versions(count: u8) -> Server {
    let server = Server::start().await;
    for n in 1..=count {
        assert_eq!(server.deploy("adder", &adder(n)).await, u32::from(n));
    }
    server
}

/// Calls the function and returns the version that answered, checked against what it answered.
async fn who_answers(server: &Server, path: &str, headers: &[(&str, &str)]) -> u32 {
    let mut request = server.request(Method::POST, path).body(ZERO);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = firebox_tests::client::send(request).await.expect(200);
    assert_eq!(answer.json(), json!({"y": [f64::from(answer.version())]}));
    answer.version()
}

const INVOKE: &str = "/v1/functions/adder/invoke";

#[tokio::test]
async fn the_first_version_takes_all_traffic_and_later_ones_none_until_told() {
    let server = server_with_versions(2).await;
    let policy = server
        .get("/v1/functions/adder/traffic")
        .await
        .expect(200)
        .json();
    assert_eq!(policy["weights"], json!({"1": 10000}));
    for _ in 0..20 {
        assert_eq!(who_answers(&server, INVOKE, &[]).await, 1);
    }
}

#[tokio::test]
async fn traffic_is_split_as_told() {
    let server = server_with_versions(2).await;
    let policy = json!({"weights": {"1": 9000, "2": 1000}, "labels": {}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    let mut answers = BTreeMap::new();
    for _ in 0..400 {
        *answers
            .entry(who_answers(&server, INVOKE, &[]).await)
            .or_insert(0) += 1;
    }
    // 40 are expected; 5 standard deviations are 30.
    let second = answers.get(&2).copied().unwrap_or(0);
    assert!((10..=70).contains(&second), "{answers:?}");
}

#[tokio::test]
async fn a_request_can_pin_a_version_or_a_label() {
    let server = server_with_versions(3).await;
    let policy = json!({"weights": {"1": 10000}, "labels": {"canary": 3}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    let by_header = [("x-firebox-version", "2")];
    assert_eq!(who_answers(&server, INVOKE, &by_header).await, 2);
    let by_label = [("x-firebox-label", "canary")];
    assert_eq!(who_answers(&server, INVOKE, &by_label).await, 3);
    let both = [("x-firebox-version", "2"), ("x-firebox-label", "canary")];
    assert_eq!(
        who_answers(&server, INVOKE, &both).await,
        2,
        "a pin wins over a label"
    );
    let path = "/v1/functions/adder/versions/2/invoke";
    assert_eq!(who_answers(&server, path, &[]).await, 2);
    let path = "/v1/functions/adder/labels/canary/invoke";
    assert_eq!(who_answers(&server, path, &[]).await, 3);
}

#[tokio::test]
async fn the_same_bundle_again_is_the_same_version() {
    let server = Server::start().await;
    let bytes = adder(1).tar("adder");
    let first = server
        .upload("adder", bytes.clone())
        .await
        .expect(201)
        .json();
    let again = server.upload("adder", bytes).await.expect(200).json();
    assert_eq!(
        (&first["created_now"], &again["created_now"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(first["digest"], again["digest"]);
    assert_eq!(again["version"], 1);
    let versions = server
        .get("/v1/functions/adder/versions")
        .await
        .expect(200)
        .json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_version_that_the_policy_names_can_not_be_deleted() {
    let server = server_with_versions(3).await;
    let policy = json!({"weights": {"2": 10000}, "labels": {"old": 1}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    server
        .delete("/v1/functions/adder/versions/2")
        .await
        .refused(409, &["2"]);
    server
        .delete("/v1/functions/adder/versions/1")
        .await
        .refused(409, &["old"]);
    let deleted = server.delete("/v1/functions/adder/versions/3").await;
    assert!((200..300).contains(&deleted.status), "{}", deleted.text());
    server
        .get("/v1/functions/adder/versions/3")
        .await
        .refused(404, &["3"]);
}

#[tokio::test]
async fn a_version_number_is_never_given_twice() {
    let server = server_with_versions(2).await;
    server.delete("/v1/functions/adder/versions/2").await;
    let server = server.stop().await.again().await;
    assert_eq!(server.deploy("adder", &adder(3)).await, 3);
}

#[tokio::test]
async fn a_policy_must_add_up_and_name_versions_that_exist() {
    let server = server_with_versions(1).await;
    let path = "/v1/functions/adder/traffic";
    let short = json!({"weights": {"1": 9000}, "labels": {}});
    let answer = server.put(path, &short).await;
    assert!((400..500).contains(&answer.status), "{}", answer.text());
    assert!(
        answer.text().contains("9000") || answer.text().contains("90"),
        "{}",
        answer.text()
    );
    let absent = json!({"weights": {"1": 5000, "7": 5000}, "labels": {}});
    let answer = server.put(path, &absent).await;
    assert!((400..500).contains(&answer.status), "{}", answer.text());
    assert!(answer.text().contains('7'), "{}", answer.text());
    assert_eq!(
        server.get(path).await.json()["weights"],
        json!({"1": 10000}),
        "nothing changed"
    );
}

#[tokio::test]
async fn an_unknown_function_is_answered_with_the_nearest_name() {
    let server = server_with_versions(1).await;
    server
        .invoke("addr", ZERO)
        .await
        .refused(404, &["addr", "adder"]);
    server
        .get("/v1/functions/ader")
        .await
        .refused(404, &["ader", "adder"]);
    server
        .get("/v2/models/addder")
        .await
        .refused_v2(404, &["addder", "adder"]);
}

#[tokio::test]
async fn an_unknown_version_or_label_is_answered_with_the_name_it_lacks() {
    let server = server_with_versions(1).await;
    server
        .invoke_at("/v1/functions/adder/versions/9/invoke", ZERO)
        .await
        .refused(404, &["9"]);
    server
        .invoke_at("/v1/functions/adder/labels/gold/invoke", ZERO)
        .await
        .refused(404, &["gold"]);
    server
        .get("/v2/models/adder/versions/9")
        .await
        .refused_v2(404, &["9"]);
}

#[tokio::test]
async fn functions_and_versions_are_listed_and_described() {
    let server = server_with_versions(2).await;
    let functions = server.get("/v1/functions").await.expect(200).json();
    assert_eq!(functions["functions"][0]["name"], "adder");
    assert_eq!(functions["functions"][0]["versions"], json!([1, 2]));
    let one = server
        .get("/v1/functions/adder/versions/1")
        .await
        .expect(200)
        .json();
    assert_eq!(one["function"], "adder");
    assert_eq!(one["kind"], "model");
    assert_eq!(one["share_bp"], 10000);
    assert!(one["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(one["signature"]["inputs"][0]["name"], "x");
}

#[tokio::test]
async fn every_answer_carries_its_prediction_id_and_its_times() {
    let server = server_with_versions(1).await;
    let first = server.invoke("adder", ZERO).await.expect(200);
    let second = server.invoke("adder", ZERO).await.expect(200);
    let (a, b) = (
        first.header("x-firebox-prediction-id"),
        second.header("x-firebox-prediction-id"),
    );
    assert_eq!((a.len(), a.as_bytes()[14]), (36, b'7'), "a UUIDv7: {a}");
    assert!(a < b, "later ids sort later: {a} {b}");
    for stage in ["queue", "cold", "compute"] {
        assert!(
            first.header("server-timing").contains(stage),
            "{:?}",
            first.headers
        );
    }
}

#[tokio::test]
async fn a_deleted_function_is_gone() {
    let server = server_with_versions(2).await;
    let deleted = server.delete("/v1/functions/adder").await;
    assert!((200..300).contains(&deleted.status), "{}", deleted.text());
    server.invoke("adder", ZERO).await.refused(404, &["adder"]);
    let functions = server.get("/v1/functions").await.expect(200).json();
    assert_eq!(functions["functions"], json!([]));
}
