//! Jobs as a test submits and follows them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Body, Method};
use serde_json::Value;

use crate::Server;
use crate::client::{Answer, send};

/// Longer than any job here on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

impl Server {
    /// Submits lines to `/v1/functions/{path}`, such as `adder/jobs`.
    pub async fn submit(&self, path: &str, lines: impl Into<Body>) -> Answer {
        let request = self.request(Method::POST, &format!("/v1/functions/{path}"));
        let request = request.header("content-type", "application/x-ndjson");
        send(request.body(lines)).await
    }

    /// The same of a job that must be accepted; returns its id.
    pub async fn submitted(&self, path: &str, lines: impl Into<Body>) -> String {
        let answer = self.submit(path, lines).await.expect(202);
        let id = answer.json()["job"]
            .as_str()
            .expect("a job has an id")
            .to_owned();
        assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
        id
    }

    /// How a job stands.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200).json()
    }

    /// Waits until a job is as `holds` says.
    pub async fn job_that(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let job = self.job(id).await;
            if holds(&job) {
                return job;
            }
            assert!(began.elapsed() < PATIENCE, "the job stays so: {job}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a job is done.
    pub async fn job_done(&self, id: &str) -> Value {
        let job = self.job_that(id, |job| job["ended"].is_string()).await;
        assert_eq!(job["state"], "done", "{job}");
        job
    }

    /// The results that a job has, by the numbers of its items; each must be there once.
    pub async fn results(&self, id: &str) -> BTreeMap<u64, Value> {
        let answer = self
            .get(&format!("/v1/jobs/{id}/results"))
            .await
            .expect(200);
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        by_item(&answer.text())
    }
}

/// Lines of results by the numbers of their items; each must be there once.
pub fn by_item(lines: &str) -> BTreeMap<u64, Value> {
    let mut results = BTreeMap::new();
    for line in lines.lines() {
        let result: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("no line of results ({error}): {line}"));
        let item = result["item"].as_u64().expect("a result has an item");
        let before = results.insert(item, result);
        assert!(before.is_none(), "item {item} has two results");
    }
    results
}

/// Lines `{"x": [1]}`, `{"x": [2]}`, …
pub fn lines(count: u64) -> String {
    (1..=count).map(|n| format!("{{\"x\": [{n}]}}\n")).collect()
}
