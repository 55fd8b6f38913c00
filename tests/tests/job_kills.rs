//! A server that is killed at any moment, while a job runs, goes on with it, and each of its inputs
//! ends with exactly one result.
//!
//! `FIREBOX_KILL_ROUNDS` says how many times it is killed (6 where it is not set), and
//! `FIREBOX_KILL_SEED` from where the moments are drawn.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use firebox_tests::jobs::lines;
use firebox_tests::kills::{random, setting};
use firebox_tests::{Bundle, Server, onnx};
use serde_json::{Value, json};

/// Enough that the job outlives some kills, on a fast machine too.
const ITEMS: u64 = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_job_leaves_each_input_with_one_result() {
    let rounds = setting("FIREBOX_KILL_ROUNDS", 6);
    let mut seed = setting("FIREBOX_KILL_SEED", 0x5EED).max(1);
    let mut server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let (mut id, mut jobs, mut small, mut in_the_middle) = (String::new(), 0, 0, 0);
    for round in 0..rounds {
        if id.is_empty() || server.job(&id).await["ended"].is_string() {
            if !id.is_empty() {
                check(&server, &id).await;
            }
            id = server.submitted("adder/jobs", lines(ITEMS)).await;
            jobs += 1;
        }
        let moment = Duration::from_micros(random(&mut seed) % 2_000_000);
        let submitting = tokio::spawn(submit(server.url().to_owned()));
        tokio::time::sleep(moment).await;
        let before = server.results(&id).await;
        server = server.kill().await.again().await;
        let acknowledged = submitting.await.unwrap();
        small += acknowledged.len();
        for job in &acknowledged {
            server.job_done(job).await;
            assert_eq!(server.results(job).await.len(), 3);
        }
        // The job is there, with all that a caller could have read.
        let after = server.results(&id).await;
        for (item, result) in &before {
            assert_eq!(after[item], *result);
        }
        let open = !server.job(&id).await["ended"].is_string();
        in_the_middle += u64::from(open && !before.is_empty());
        println!(
            "round {round}: killed after {moment:?}, with {} results",
            before.len()
        );
    }
    server.job_done(&id).await;
    check(&server, &id).await;
    println!(
        "{rounds} kills, {in_the_middle} in the middle of one of {jobs} jobs; {small} small ones were \
         acknowledged meanwhile"
    );
    assert!(in_the_middle > 0, "no kill came while a job ran");
    server.stop().await;
}

/// Submits small jobs until the server dies; those that were acknowledged.
async fn submit(url: String) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    loop {
        let request = client.post(format!("{url}/v1/functions/adder/jobs"));
        let Ok(answer) = request.body(lines(3)).send().await else {
            return acknowledged;
        };
        assert_eq!(answer.status(), 202);
        let Ok(job) = answer.json::<Value>().await else {
            return acknowledged;
        };
        acknowledged.push(job["job"].as_str().unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(server: &Server, id: &str) {
    let job = server.job(id).await;
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(job["succeeded"], ITEMS);
    let results = server.results(id).await;
    assert_eq!(results.len() as u64, ITEMS);
    for (item, result) in results {
        assert_eq!(result["output"], json!({"y": [item as f64 + 1.0]}));
    }
}
