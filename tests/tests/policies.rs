//! The document that says who takes a function's traffic: changed by many, kept, and brought back.
//!
//! Version n of `adder` adds n, so each answer tells which version gave it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use firebox_tests::client::{Answer, long_body, send, slow_body};
use firebox_tests::{Bundle, Server, onnx};
use reqwest::Method;
use serde_json::{Value, json};

const TRAFFIC: &str = "/v1/functions/adder/traffic";
const POLICIES: &str = "/v1/functions/adder/policies";
const ROLLBACK: &str = "/v1/functions/adder/rollback";
const INVOKE: &str = "/v1/functions/adder/invoke";
const ZERO: &str = r#"{"x": [0]}"#;

async fn server_with_versions(count: u8) -> Server {
    let server = Server::start().await;
    for n in 1..=count {
        let bundle = Bundle::of_model(onnx::add(f32::from(n)));
        assert_eq!(server.deploy("adder", &bundle).await, u32::from(n));
    }
    server
}

/// A change by `author`, of the policy with this ETag.
async fn put_by(server: &Server, author: &str, etag: &str, policy: &Value) -> Answer {
    let request = server.request(Method::PUT, TRAFFIC).json(policy);
    let request = request.header("x-firebox-author", author.as_bytes());
    let request = request.header("x-firebox-reason", format!("{author} says so").as_bytes());
    send(request.header("if-match", etag)).await
}

async fn who_answers(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> u32 {
    let mut request = server.request(Method::POST, path).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await.expect(200).version()
}

#[tokio::test]
async fn a_change_of_an_old_policy_is_refused_with_the_one_that_holds() {
    let server = server_with_versions(2).await;
    let read = server.get(TRAFFIC).await.expect(200);
    let etag = read.header("etag").to_owned();
    assert_eq!(etag, "\"1\"");
    let half = json!({"weights": {"1": 5000, "2": 5000}});
    let changed = put_by(&server, "ann", &etag, &half).await.expect(200);
    assert_eq!(changed.header("etag"), "\"2\"");

    let whole = json!({"weights": {"2": 10000}});
    let stale = put_by(&server, "bob", &etag, &whole).await;
    let stale = stale.refused(412, &["revision 2", "set by ann", "no longer at 1"]);
    assert_eq!(stale.header("etag"), "\"2\"");
    let current = &stale.json()["current"];
    assert_eq!(current["policy"]["weights"], half["weights"]);
    assert_eq!(current["author"], "ann");
    assert_eq!(server.get(TRAFFIC).await.json()["weights"], half["weights"]);

    let current = stale.header("etag");
    put_by(&server, "bob", current, &whole).await.expect(200);
    let again = put_by(&server, "bob", "*", &whole).await.expect(200);
    assert_eq!(
        again.header("etag"),
        "\"3\"",
        "what says the same is no change"
    );
    let metrics = server.get("/metrics").await.text();
    for line in [
        "firebox_policy_changes_total{result=\"set\"} 3",
        "firebox_policy_changes_total{result=\"stale\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn of_changes_at_once_to_the_same_policy_one_comes_through() {
    let server = Arc::new(server_with_versions(2).await);
    let changes = (1..=8).map(|n: u32| {
        let server = server.clone();
        tokio::spawn(async move {
            let policy = json!({"weights": {"1": 10_000 - n, "2": n}});
            put_by(&server, "ann", "\"1\"", &policy).await.status
        })
    });
    let mut statuses = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        statuses.push(change.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

#[tokio::test]
async fn the_history_says_who_when_and_why_and_outlives_a_kill() {
    let server = server_with_versions(2).await;
    let policy = json!({"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}});
    put_by(&server, "Änne", "\"1\"", &policy).await.expect(200);
    let history = server.get(POLICIES).await.expect(200).json();
    let [newest, first] = history["policies"].as_array().unwrap().as_slice() else {
        panic!("{history}");
    };
    assert_eq!(
        (&newest["revision"], &first["revision"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(newest["author"], "Änne");
    assert_eq!(newest["reason"], "Änne says so");
    assert!(
        newest["created"].as_str().unwrap().ends_with('Z'),
        "{newest}"
    );
    assert_eq!(newest["policy"], policy);
    assert_eq!(first["reason"], "first version");
    let server = server.kill().await.again().await;
    assert_eq!(server.get(POLICIES).await.expect(200).json(), history);
    let one = server.get(&format!("{POLICIES}/2")).await.expect(200);
    assert_eq!((one.header("etag"), &one.json()), ("\"2\"", newest));
}

#[tokio::test]
async fn a_rollback_is_one_call_and_another_undoes_it() {
    let server = server_with_versions(3).await;
    let policy = json!({"weights": {"1": 10000}, "labels": {"stable": 1}});
    put_by(&server, "ann", "*", &policy).await.expect(200);
    put_by(&server, "ann", "*", &json!({"weights": {"2": 10000}}))
        .await
        .expect(200);
    assert_eq!(who_answers(&server, INVOKE, &[], ZERO).await, 2);
    let back = send(server.request(Method::POST, ROLLBACK))
        .await
        .expect(200);
    assert_eq!(back.header("etag"), "\"4\"");
    assert_eq!(
        (&back.json()["restored"], &back.json()["policy"]),
        (&json!(2), &policy)
    );
    assert_eq!(who_answers(&server, INVOKE, &[], ZERO).await, 1);
    server.post(ROLLBACK, &json!({})).await.expect(200);
    assert_eq!(who_answers(&server, INVOKE, &[], ZERO).await, 2);
    let far = server
        .post(ROLLBACK, &json!({"to_policy": 1}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        far["policy"],
        json!({"weights": {"1": 10000}, "labels": {}})
    );
}

#[tokio::test]
async fn a_rollback_to_what_is_gone_is_refused_and_changes_nothing() {
    let server = server_with_versions(3).await;
    let nothing = server.post(ROLLBACK, &json!({})).await;
    nothing.refused(409, &["none to go back to"]);
    server
        .put(TRAFFIC, &json!({"weights": {"2": 10000}}))
        .await
        .expect(200);
    server
        .put(TRAFFIC, &json!({"weights": {"3": 10000}}))
        .await
        .expect(200);
    server
        .delete("/v1/functions/adder/versions/1")
        .await
        .expect(204);
    let gone = server.post(ROLLBACK, &json!({"to_policy": 1})).await;
    gone.refused(409, &["names deleted versions: 1"]);
    let never = server.post(ROLLBACK, &json!({"to_policy": 77})).await;
    never.refused(404, &["keeps no policy 77", "1 to 3"]);
    for body in [
        json!({"to": 1}),
        json!([1]),
        json!({"to_policy": "one"}),
        json!({"to_policy": -1}),
    ] {
        server
            .post(ROLLBACK, &body)
            .await
            .refused(400, &["to_policy"]);
    }
    let request = server
        .request(Method::POST, ROLLBACK)
        .header("if-match", "\"1\"");
    send(request).await.refused(412, &["revision 3"]);
    assert_eq!(server.get(TRAFFIC).await.header("etag"), "\"3\"");
    assert_eq!(who_answers(&server, INVOKE, &[], ZERO).await, 3);
}

#[tokio::test]
async fn a_caller_stays_with_its_version_while_a_canary_grows() {
    let server = server_with_versions(3).await;
    let keys: Vec<String> = (0..60).map(|n| format!("caller-{n}")).collect();
    let mut before: Option<Vec<u32>> = None;
    for canary in [1000, 2500, 5000] {
        let policy = json!({"weights": {"1": 8000 - canary, "2": canary, "3": 2000}});
        server.put(TRAFFIC, &policy).await.expect(200);
        let mut now = Vec::new();
        for key in &keys {
            now.push(who_answers(&server, INVOKE, &[("x-firebox-key", key)], ZERO).await);
        }
        for (was, is) in before.iter().flatten().zip(&now) {
            assert!(
                was == is || (*was, *is) == (1, 2),
                "a caller moved from {was} to {is}"
            );
        }
        before = Some(now);
    }
    // After a restart, and by V2, each has the version that it had.
    let server = server.kill().await.again().await;
    let v2 = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0]}]}"#;
    for (key, version) in keys.iter().zip(before.unwrap()).take(20) {
        let headers = [("x-firebox-key", key.as_str())];
        assert_eq!(who_answers(&server, INVOKE, &headers, ZERO).await, version);
        let path = "/v2/models/adder/infer";
        assert_eq!(who_answers(&server, path, &headers, v2).await, version);
    }
}

#[tokio::test]
async fn a_key_is_taken_from_where_the_policy_says() {
    let server = server_with_versions(2).await;
    let weights = json!({"1": 5000, "2": 5000});
    let v2 = |key: &str| {
        json!({"parameters": {"user": key},
               "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0]}]})
        .to_string()
    };
    let policy = |sticky: Value| json!({"weights": weights, "sticky": sticky});
    // The point of a key is a matter of the function and the key alone, wherever it is.
    server
        .put(TRAFFIC, &policy(json!({"header": "X-User"})))
        .await
        .expect(200);
    let mut versions = Vec::new();
    for n in 0..16 {
        let key = format!("user-{n}");
        versions.push(who_answers(&server, INVOKE, &[("x-user", &key)], ZERO).await);
    }
    assert!(
        versions.contains(&1) && versions.contains(&2),
        "{versions:?}"
    );
    server
        .put(TRAFFIC, &policy(json!({"cookie": "sid"})))
        .await
        .expect(200);
    for (n, version) in versions.iter().enumerate() {
        let cookie = format!("theme=dark; sid=user-{n}");
        let headers = [("cookie", cookie.as_str())];
        assert_eq!(who_answers(&server, INVOKE, &headers, ZERO).await, *version);
    }
    server
        .put(TRAFFIC, &policy(json!({"body": "/parameters/user"})))
        .await
        .expect(200);
    for (n, version) in versions.iter().enumerate() {
        let body = v2(&format!("user-{n}"));
        assert_eq!(
            who_answers(&server, "/v2/models/adder/infer", &[], &body).await,
            *version
        );
    }
    // A pin goes around the key, and what has no key, or is no JSON, is still answered.
    let pin = [("x-firebox-version", "2")];
    let body = v2("user-1");
    assert_eq!(
        who_answers(&server, "/v2/models/adder/infer", &pin, &body).await,
        2
    );
    who_answers(&server, INVOKE, &[], ZERO).await;
    server.invoke("adder", "{").await.refused(400, &["JSON"]);
}

#[tokio::test]
async fn a_body_that_holds_the_key_is_bounded_in_size_and_time() {
    let server = server_with_versions(1).await;
    let policy = json!({"weights": {"1": 10000}, "sticky": {"body": "/user"}});
    server.put(TRAFFIC, &policy).await.expect(200);
    let long = server
        .request(Method::POST, INVOKE)
        .body(long_body(65 << 20));
    send(long).await.refused(413, &["larger than the limit"]);
    let slow = slow_body(vec![b' '; 8 << 20], Duration::from_millis(50));
    let slow = server.request(Method::POST, INVOKE).body(slow);
    let began = Instant::now();
    let answer = send(slow.header("x-firebox-timeout-ms", "300")).await;
    answer.refused(504, &["300ms"]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let whole = r#"{"x": [0]}"#;
    assert_eq!(who_answers(&server, INVOKE, &[], whole).await, 1);
}

#[tokio::test]
async fn a_request_without_a_key_goes_to_the_default() {
    let server = server_with_versions(2).await;
    for default in [json!("stable"), json!(1)] {
        let policy = json!({"weights": {"2": 10000}, "labels": {"stable": 1}, "default": default});
        assert_eq!(
            server.put(TRAFFIC, &policy).await.expect(200).json(),
            policy
        );
        assert_eq!(who_answers(&server, INVOKE, &[], ZERO).await, 1);
        assert_eq!(
            who_answers(&server, INVOKE, &[("x-firebox-key", "ann")], ZERO).await,
            2
        );
    }
}

#[tokio::test]
async fn pins_and_labels_work_alike_over_both_protocols() {
    let server = server_with_versions(3).await;
    let policy = json!({"weights": {"1": 10000}, "labels": {"canary": 3}});
    server.put(TRAFFIC, &policy).await.expect(200);
    let v2 = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0]}]}"#;
    let split = "/v2/models/adder/infer";
    for (path, headers, version) in [
        (split, vec![], 1),
        (split, vec![("x-firebox-version", "2")], 2),
        (split, vec![("x-firebox-label", "canary")], 3),
        (
            split,
            vec![("x-firebox-version", "2"), ("x-firebox-label", "canary")],
            2,
        ),
        (
            "/v2/models/adder/versions/2/infer",
            vec![("x-firebox-label", "canary")],
            2,
        ),
        (
            "/v2/models/adder/labels/canary/infer",
            vec![("x-firebox-version", "2")],
            3,
        ),
        // A client that can only name a version names a label in its place.
        ("/v2/models/adder/versions/canary/infer", vec![], 3),
    ] {
        assert_eq!(
            who_answers(&server, path, &headers, v2).await,
            version,
            "{path} {headers:?}"
        );
    }
    for path in [
        "/v2/models/adder/labels/canary",
        "/v2/models/adder/labels/canary/ready",
    ] {
        assert_eq!(server.get(path).await.expect(200).json()["name"], "adder");
    }
    for path in ["labels/gold", "versions/gold", "labels/gold/ready"] {
        let answer = server.get(&format!("/v2/models/adder/{path}")).await;
        answer.refused_v2(404, &["gold"]);
    }
}

#[tokio::test]
async fn a_policy_that_can_not_be_is_refused_and_changes_nothing() {
    let server = server_with_versions(2).await;
    let all = json!({"1": 10000});
    for (policy, status, words) in [
        (json!({"weights": {"1": 9000}}), 422, vec!["9000", "10000"]),
        (
            json!({"weights": {"1": 90, "2": 10}}),
            422,
            vec!["percentages"],
        ),
        (json!({"weights": {}}), 422, vec!["add up to 0"]),
        (
            json!({"weights": {"1": 70000}}),
            400,
            vec!["traffic policy"],
        ),
        (json!({"weights": {"1": 10001}}), 400, vec!["10001"]),
        (json!({"weights": {"1": -1}}), 400, vec!["traffic policy"]),
        (json!({"weights": {"1": 0.5}}), 400, vec!["traffic policy"]),
        (
            json!({"weights": {"0": 10000}}),
            400,
            vec!["number of a version"],
        ),
        (
            json!({"weights": {"one": 10000}}),
            400,
            vec!["traffic policy"],
        ),
        (json!({"weights": {"1": 5000, "9": 5000}}), 404, vec!["9"]),
        (json!({"labels": {"stable": 1}}), 400, vec!["weights"]),
        (
            json!({"weights": all, "labels": {"2": 1}}),
            400,
            vec!["starts with a digit"],
        ),
        (
            json!({"weights": all, "labels": {"Stable": 1}}),
            400,
            vec!["a-z"],
        ),
        (
            json!({"weights": all, "labels": {"": 1}}),
            400,
            vec!["empty"],
        ),
        (
            json!({"weights": all, "labels": {"stable": 9}}),
            404,
            vec!["9"],
        ),
        (
            json!({"weights": all, "shadow": {"version": 9, "share_bp": 10}}),
            404,
            vec!["9"],
        ),
        (
            json!({"weights": all, "shadow": {"version": 2, "share_bp": 10001}}),
            400,
            vec!["10001"],
        ),
        (
            json!({"weights": all, "shadow": {"version": 2}}),
            400,
            vec!["share_bp"],
        ),
        (
            json!({"weights": all, "sticky": {"header": "a b"}}),
            400,
            vec!["a b"],
        ),
        (
            json!({"weights": all, "sticky": {"body": "user"}}),
            400,
            vec!["/user/id"],
        ),
        (
            json!({"weights": all, "sticky": "header"}),
            400,
            vec!["traffic policy"],
        ),
        (
            json!({"weights": all, "default": "stable"}),
            422,
            vec!["stable"],
        ),
        (json!({"weights": all, "default": 9}), 404, vec!["9"]),
        (
            json!({"weights": all, "default": 0}),
            400,
            vec!["number of a version or a label"],
        ),
        (json!({"weights": all, "mirror": 2}), 400, vec!["mirror"]),
        (json!([all]), 400, vec!["traffic policy"]),
    ] {
        let answer = server.put(TRAFFIC, &policy).await;
        assert_eq!(answer.status, status, "{policy}: {}", answer.text());
        answer.refused(status, &words);
    }
    for etag in ["1", "W/\"1\"", "\"one\"", "\"1\", \"2\""] {
        let answer = put_by(&server, "ann", etag, &json!({"weights": all})).await;
        answer.refused(400, &["If-Match", "\"7\""]);
    }
    let answer = server.get(&format!("{POLICIES}/one")).await;
    answer.refused(400, &["one"]);
    server
        .get(&format!("{POLICIES}/9"))
        .await
        .refused(404, &["9"]);
    server
        .get("/v1/functions/addr/policies")
        .await
        .refused(404, &["adder"]);
    assert_eq!(server.get(TRAFFIC).await.header("etag"), "\"1\"");
}

#[tokio::test]
async fn a_version_that_failed_validation_gets_no_share() {
    let server = server_with_versions(1).await;
    let strange = Bundle::of_model(onnx::unknown_operator()).tar("adder");
    server
        .upload("adder", strange)
        .await
        .refused(422, &["FrobnicateTwice"]);
    let policy = json!({"weights": {"1": 9000, "2": 1000}});
    server.put(TRAFFIC, &policy).await.refused(404, &["2"]);
}

#[tokio::test]
async fn a_version_that_is_being_deleted_gets_no_share_or_is_not_deleted() {
    let server = Arc::new(server_with_versions(1).await);
    for round in 0..10 {
        let bundle = Bundle::of_model(onnx::add(100.0 + round as f32));
        let new = server.deploy("adder", &bundle).await;
        let path = format!("/v1/functions/adder/versions/{new}");
        let policy = json!({"weights": {"1": 5000, new.to_string(): 5000}});
        let (deleted, shared) = tokio::join!(server.delete(&path), server.put(TRAFFIC, &policy));
        match (deleted.status, shared.status) {
            (204, 404) => {}
            (409, 200) => assert!(deleted.text().contains("50%"), "{}", deleted.text()),
            other => panic!("{other:?}: {} {}", deleted.text(), shared.text()),
        }
        who_answers(&server, INVOKE, &[], ZERO).await;
        server
            .put(TRAFFIC, &json!({"weights": {"1": 10000}}))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_deletion_is_refused_with_every_use_of_the_version() {
    let server = server_with_versions(4).await;
    let policy = json!({
        "weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1, "old": 1},
        "shadow": {"version": 3, "share_bp": 500}, "default": 4,
    });
    server.put(TRAFFIC, &policy).await.expect(200);
    for (version, words) in [
        (1, vec!["90%", "stable", "old"]),
        (2, vec!["10%"]),
        (3, vec!["shadows 5%"]),
        (4, vec!["default"]),
    ] {
        let path = format!("/v1/functions/adder/versions/{version}");
        server.delete(&path).await.refused(409, &words);
    }
}

/// What one worker saw: when a call began, and which version answered.
type Calls = Vec<(Instant, u32)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_under_load_holds_at_once_and_fails_nobody() {
    const WORKERS: usize = 16;
    const LATEST: Duration = Duration::from_millis(100);
    let server = Arc::new(server_with_versions(2).await);
    server
        .put(TRAFFIC, &json!({"weights": {"2": 10000}}))
        .await
        .expect(200);
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (server, stop) = (server.clone(), stop.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                let url = format!("{}{INVOKE}", server.url());
                let mut calls: Calls = Vec::new();
                while !stop.load(Relaxed) {
                    let at = Instant::now();
                    let answer = client.post(&url).body(ZERO).send().await.unwrap();
                    assert_eq!(answer.status(), 200);
                    let version = answer.headers()["x-firebox-version"].to_str().unwrap();
                    calls.push((at, version.parse().unwrap()));
                    answer.bytes().await.unwrap();
                }
                calls
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let asked = Instant::now();
    server.post(ROLLBACK, &json!({})).await.expect(200);
    let returned = Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    stop.store(true, Relaxed);
    let mut calls = Vec::new();
    for worker in workers {
        calls.extend(worker.await.unwrap());
    }
    let rate = calls.len() as f64 / began.elapsed().as_secs_f64();
    let late = calls
        .iter()
        .filter(|(_, version)| *version == 2)
        .map(|(at, _)| *at)
        .max()
        .unwrap();
    let late = late.saturating_duration_since(returned);
    println!(
        "{} calls, {rate:.0}/s, none failed; the rollback took {:?}; the last call that the old \
         policy answered began {late:?} after it had returned",
        calls.len(),
        returned - asked
    );
    assert!(
        calls
            .iter()
            .any(|(at, version)| *at > returned && *version == 1)
    );
    assert!(
        calls
            .iter()
            .all(|(at, version)| *at < asked || *version == 1 || *at < returned + LATEST)
    );
    assert!(late <= LATEST, "{late:?}");
}
