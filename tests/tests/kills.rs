//! A server that is killed at any moment, while versions are uploaded, policies change and callers
//! call, comes back with what it acknowledged, or with the whole of the one change that was on its
//! way: never with less, and never with half of something.
//!
//! `FIREBOX_KILL_ROUNDS` says how many times it is killed (8 where it is not set), and
//! `FIREBOX_KILL_SEED` from where the moments are drawn.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use firebox_tests::kills::{random, setting};
use firebox_tests::{Bundle, Server, onnx};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

const CALLERS: usize = 4;
const ZERO: &str = r#"{"x": [0]}"#;

/// Version `n` of `adder` adds `n`; every third upload carries a megabyte that doesn't compress.
fn adder(n: u32) -> Vec<u8> {
    let bundle = Bundle::of_model(onnx::add(n as f32));
    let bundle = match n.is_multiple_of(3) {
        false => bundle,
        true => {
            let mut state = u64::from(n);
            let bytes = std::iter::repeat_with(|| random(&mut state) as u8);
            bundle
                .with_lines("[assets]\n\"payload.bin\" = \"payload.bin\"")
                .with_file("payload.bin", bytes.take(1 << 20).collect())
        }
    };
    bundle.tar("adder")
}

/// What a client knows: all that was acknowledged.
#[derive(Clone, Default)]
struct Known {
    /// The policies, oldest first.
    policies: Vec<Value>,
    /// What each version adds.
    sums: BTreeMap<u64, u32>,
    /// The last amount and the last weight that were tried: none is tried twice.
    amount: u32,
    weight: u32,
}

/// The answer to a request; `None` where the server died first.
async fn told(request: RequestBuilder) -> Option<(u16, Value)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

/// Changes the policy until the server dies. Returns the policy that was on its way.
async fn change(url: &str, known: &mut Known) -> Value {
    let client = client();
    loop {
        known.weight += 1;
        let before = known.policies.iter().rev().nth(1).cloned();
        let (request, next) = match before.filter(|_| known.weight.is_multiple_of(5)) {
            Some(before) => (
                client.post(format!("{url}/v1/functions/adder/rollback")),
                before,
            ),
            None => {
                let policy = json!({
                    "weights": {"1": 10_000 - known.weight, "2": known.weight},
                    "labels": {"mark": known.weight % 2 + 1, "stable": 1},
                    "shadow": {"version": 2, "share_bp": known.weight},
                });
                let request = client.put(format!("{url}/v1/functions/adder/traffic"));
                (request.json(&policy), policy)
            }
        };
        match told(request).await {
            Some((status, answer)) => {
                assert_eq!(status, 200, "{answer}");
                known.policies.push(next);
            }
            None => return next,
        }
    }
}

/// Uploads versions until the server dies. Returns the amount that was on its way.
async fn upload(url: &str, known: &mut Known) -> u32 {
    let client = client();
    loop {
        known.amount += 1;
        let bundle = adder(known.amount);
        let request = client.post(format!("{url}/v1/functions/adder/versions"));
        match told(request.body(bundle)).await {
            Some((status, answer)) => {
                assert_eq!(status, 201, "{answer}");
                let number = answer["version"].as_u64().unwrap();
                known.sums.insert(number, known.amount);
            }
            None => return known.amount,
        }
    }
}

/// Calls until the server dies; every answer must be right. Returns how many there were.
async fn call(url: &str) -> usize {
    let client = client();
    let mut answered = 0;
    loop {
        let request = client
            .post(format!("{url}/v1/functions/adder/invoke"))
            .body(ZERO);
        let Ok(answer) = request.send().await else {
            return answered;
        };
        assert_eq!(answer.status(), 200);
        let version = answer.headers()["x-firebox-version"].to_str().unwrap();
        let expected = json!({"y": [version.parse::<f64>().unwrap()]});
        let Ok(body) = answer.json::<Value>().await else {
            return answered;
        };
        assert_eq!(body, expected);
        answered += 1;
    }
}

fn client() -> Client {
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60));
    client.build().unwrap()
}

/// Compares what the server has with what is known. Returns what is known from now on.
async fn check(server: &Server, mut known: Known, coming: Value, amount: u32) -> Known {
    let answer = server
        .get("/v1/functions/adder/policies")
        .await
        .expect(200)
        .json();
    let found: Vec<&Value> = answer["policies"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .collect();
    let revision = found.last().unwrap()["revision"].as_u64().unwrap() as usize;
    let acknowledged = known.policies.len();
    match revision - acknowledged {
        0 => {}
        1 => known.policies.push(coming),
        _ => panic!("{acknowledged} policies were acknowledged, {revision} are there"),
    }
    let kept = known.policies.len().min(100);
    assert_eq!(found.len(), kept);
    for (found, expected) in found
        .iter()
        .zip(&known.policies[known.policies.len() - kept..])
    {
        assert_eq!(found["policy"], *expected, "policy {}", found["revision"]);
    }

    let info = server.get("/v1/functions/adder").await.expect(200).json();
    let mut numbers: Vec<u64> = info["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    let before: Vec<u64> = known.sums.keys().copied().collect();
    let new = numbers.split_off(before.len().min(numbers.len()));
    assert_eq!(numbers, before, "an acknowledged version is lost");
    match new.as_slice() {
        [] => {}
        [new] => drop(known.sums.insert(*new, amount)),
        _ => panic!("{new:?} were never acknowledged"),
    }
    // The newest are those that a kill could have harmed.
    for (version, sum) in known.sums.iter().rev().take(6) {
        let path = format!("/v1/functions/adder/versions/{version}/invoke");
        let answer = server.invoke_at(&path, ZERO).await.expect(200);
        assert_eq!(
            answer.json(),
            json!({"y": [f64::from(*sum)]}),
            "version {version}"
        );
        let path = format!("/v1/functions/adder/versions/{version}/bundle");
        assert!(
            server.get(&path).await.expect(200).body == adder(*sum),
            "bundle {version}"
        );
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let rounds = setting("FIREBOX_KILL_ROUNDS", 8);
    let mut seed = setting("FIREBOX_KILL_SEED", 0x5EED).max(1);
    let mut server = Server::start().await;
    let mut known = Known::default();
    for amount in 1..=2 {
        let answer = server
            .upload("adder", adder(amount))
            .await
            .expect(201)
            .json();
        known
            .sums
            .insert(answer["version"].as_u64().unwrap(), amount);
        known.amount = amount;
    }
    known
        .policies
        .push(json!({"weights": {"1": 10_000}, "labels": {}}));
    let (mut answered, mut whole) = (0, 0);
    for round in 0..rounds {
        let url = server.url().to_owned();
        let changing = tokio::spawn({
            let (url, mut known) = (url.clone(), known.clone());
            async move { (change(&url, &mut known).await, known) }
        });
        let uploading = tokio::spawn({
            let (url, mut known) = (url.clone(), known.clone());
            async move { (upload(&url, &mut known).await, known) }
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { call(&url).await })
            })
            .collect();
        let moment = Duration::from_micros(20_000 + random(&mut seed) % 480_000);
        tokio::time::sleep(moment).await;
        let stopped = server.kill().await;
        let (coming, changed) = changing.await.unwrap();
        let (amount, uploaded) = uploading.await.unwrap();
        for caller in callers {
            answered += caller.await.unwrap();
        }
        server = stopped.again().await;
        let acknowledged = Known {
            policies: changed.policies,
            weight: changed.weight,
            ..uploaded
        };
        let before = (acknowledged.policies.len(), acknowledged.sums.len());
        known = check(&server, acknowledged, coming, amount).await;
        let after = (known.policies.len(), known.sums.len());
        whole += (after.0 - before.0) + (after.1 - before.1);
        println!(
            "round {round}: killed after {moment:?}; {} policies, {} versions",
            after.0, after.1
        );
    }
    println!(
        "{rounds} kills, {answered} calls answered rightly, {} policies and {} versions kept; {whole} \
         changes came whole without having been acknowledged",
        known.policies.len(),
        known.sums.len()
    );
    assert!(
        known.policies.len() > 1 && known.sums.len() > 2,
        "nothing was changed"
    );
    server.stop().await;
}
