//! Jobs, from their submission to their end.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::send;
use firebox_tests::compare::assert_close;
use firebox_tests::jobs::{by_item, lines};
use firebox_tests::load::{Load, Sample, latency};
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::{Body, Method};
use serde_json::{Value, json};

async fn adder() -> Server {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    server
}

/// A server with a version of `probe` that gives its numbers back, and fails or dawdles as
/// `behaviour` says.
async fn probe(behaviour: &str) -> Server {
    let component = guests::component_of(&guests::guest("probe"));
    let bundle = Bundle::of_component(component)
        .with_lines("[assets]\n\"behaviour\" = \"behaviour\"")
        .with_file("behaviour", behaviour.as_bytes().to_vec());
    let server = Server::start().await;
    server.deploy("probe", &bundle).await;
    server
}

const PROBE: &str = "probe/jobs?mode=behave";

fn pairs(count: u64) -> String {
    (1..=count)
        .map(|n| format!("{{\"x\": [[{n}, 0]]}}\n"))
        .collect()
}

async fn act(server: &Server, id: &str, action: &str) -> firebox_tests::Answer {
    let path = format!("/v1/jobs/{id}/{action}");
    send(server.request(Method::POST, &path)).await
}

#[tokio::test]
async fn each_line_gets_the_answer_that_an_invoke_gets() {
    let server = adder().await;
    let id = server.submitted("adder/jobs", lines(300)).await;
    // The version is that of the submission, whatever becomes of the traffic.
    server
        .deploy("adder", &Bundle::of_model(onnx::add(7.0)))
        .await;
    let policy = json!({"weights": {"2": 10_000}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    let job = server.job_done(&id).await;
    assert_eq!(job["function"], "adder");
    assert_eq!(job["version"], 1);
    let counts = ["items", "succeeded", "failed", "progress"].map(|member| job[member].clone());
    assert_eq!(counts, [json!(300), json!(300), json!(0), json!(1.0)]);
    assert!(job["input_bytes"].as_u64() >= Some(lines(300).len() as u64));
    let results = server.results(&id).await;
    assert_eq!(results.len(), 300);
    for (item, result) in results {
        assert_eq!(result["line"], item);
        assert_eq!(result["output"], json!({"y": [item as f64 + 1.0]}));
    }
    // A pinned one asks the other.
    let pinned = server.submitted("adder/versions/2/jobs", lines(3)).await;
    server.job_done(&pinned).await;
    assert_eq!(
        server.results(&pinned).await[&1]["output"],
        json!({"y": [8.0]})
    );

    let list = server
        .get("/v1/functions/adder/jobs")
        .await
        .expect(200)
        .json();
    let ids: Vec<_> = list["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["job"])
        .collect();
    assert_eq!(ids, [&json!(pinned), &json!(id)], "newest first");
    let page = server.get("/v1/jobs?limit=1").await.expect(200).json();
    assert_eq!(page["next"], json!(pinned));
    let rest = server
        .get(&format!("/v1/jobs?limit=1&before={pinned}"))
        .await
        .expect(200)
        .json();
    assert_eq!(rest["jobs"][0]["job"], json!(id));
    assert_eq!(rest["next"], Value::Null);
    server
        .get("/v1/jobs?limit=0")
        .await
        .refused(400, &["limit", "1 to 500"]);
    server
        .get("/v1/jobs?before=x")
        .await
        .refused(400, &["before"]);
}

#[tokio::test]
async fn requests_of_v2_are_answered_as_v2_answers() {
    let server = adder().await;
    let infer = |n: u32| {
        json!({"id": format!("mine-{n}"), "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1], "data": [n]}]})
    };
    let lines: String = (1..=20).map(|n| format!("{}\n", infer(n))).collect();
    let request = server
        .request(Method::POST, "/v1/functions/adder/jobs")
        .header("x-firebox-protocol", "v2");
    let job = send(request.body(lines)).await.expect(202).json();
    let id = job["job"].as_str().unwrap();
    server.job_done(id).await;
    let results = server.results(id).await;
    assert_eq!(results.len(), 20);
    for n in 1..=20 {
        let expected = server.infer("adder", &infer(n)).await.expect(200).json();
        assert_eq!(results[&n.into()]["output"], expected);
    }
    let request = server
        .request(Method::POST, "/v1/functions/adder/jobs")
        .header("x-firebox-protocol", "grpc");
    send(request.body("{}"))
        .await
        .refused(400, &["X-Firebox-Protocol", "v2"]);
    let request = server
        .request(Method::POST, "/v1/functions/adder/jobs?mode=echo")
        .header("x-firebox-protocol", "v2");
    send(request.body("{}"))
        .await
        .refused(400, &["`mode`", "`parameters` of each item"]);
}

#[tokio::test]
async fn files_are_items() {
    let server = Server::start().await;
    server
        .upload("file-type", guests::example("file-type"))
        .await
        .expect(201);
    let files = [
        (
            "ring.rs",
            "text/plain",
            "fn main() { println!(\"{}\", 1 + 1); }\n".repeat(40),
        ),
        (
            "data.json",
            "application/json",
            "{\"a\": [1, 2, 3]}".repeat(9),
        ),
        ("empty", "application/octet-stream", String::new()),
    ];
    let mut form = String::new();
    for (name, kind, body) in &files {
        form += &format!(
            "--cut\r\ncontent-disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\
             content-type: {kind}\r\n\r\n{body}\r\n"
        );
    }
    form += "--cut--\r\n";
    let request = server
        .request(Method::POST, "/v1/functions/file-type/jobs")
        .header("content-type", "multipart/form-data; boundary=cut");
    let job = send(request.body(form)).await.expect(202).json();
    let id = job["job"].as_str().unwrap();
    server.job_done(id).await;
    let results = server.results(id).await;
    for ((name, kind, body), n) in files.iter().zip(1..) {
        let request = server
            .request(Method::POST, "/v1/functions/file-type/invoke")
            .header("content-type", *kind);
        let answer = send(request.body(body.clone())).await;
        let result = &results[&n];
        assert_eq!(result["name"], *name);
        match answer.status {
            200 => assert_eq!(result["output"], answer.json(), "{result}"),
            status => assert_eq!(result["error"]["status"], status, "{result}"),
        }
    }
    assert!(results[&1]["output"].is_object());
}

#[tokio::test]
async fn a_bad_line_is_a_failed_item_and_no_failed_job() {
    let server = adder().await;
    let text = "{\"x\": [1]}\n\n{\"x\": [2]\n{\"y\": [3]}\n\u{7f}\n{\"x\": [4]}";
    let id = server.submitted("adder/jobs", text).await;
    let job = server.job_done(&id).await;
    assert_eq!(
        (job["succeeded"].clone(), job["failed"].clone()),
        (json!(2), json!(3))
    );
    let results = server.results(&id).await;
    let by_line = |line: u64| {
        results
            .values()
            .find(|result| result["line"] == line)
            .unwrap()
    };
    assert_eq!(by_line(1)["output"], json!({"y": [2.0]}));
    assert_eq!(by_line(6)["output"], json!({"y": [5.0]}));
    for (line, word) in [(3, "JSON object"), (4, "no input `y`"), (5, "JSON object")] {
        let error = &by_line(line)["error"];
        assert_eq!(error["status"], 400, "{error}");
        assert!(error["detail"].as_str().unwrap().contains(word), "{error}");
        // Another attempt can't help.
        assert_eq!(by_line(line)["attempts"], 1);
    }
    let answer = server
        .get(&format!("/v1/jobs/{id}/results?failed=true"))
        .await
        .expect(200);
    let failed: Vec<u64> = by_item(&answer.text()).into_keys().collect();
    assert_eq!(failed, [2, 3, 4]);
}

#[tokio::test]
async fn what_is_no_job_is_refused_and_leaves_nothing() {
    let server = adder().await;
    for nothing in ["", "\n \r\n\t"] {
        let answer = server.submit("adder/jobs", nothing).await;
        answer.refused(422, &["no items", "one JSON body a line"]);
    }
    server
        .submit("addr/jobs", lines(1))
        .await
        .refused(404, &["addr", "adder"]);
    server
        .submit("adder/labels/gold/jobs", lines(1))
        .await
        .refused(404, &["gold"]);
    let request = server
        .request(Method::POST, "/v1/functions/adder/jobs")
        .header("x-firebox-max-attempts", "11");
    send(request.body(lines(1)))
        .await
        .refused(400, &["1 to 10", "11"]);
    let request = server
        .request(Method::POST, "/v1/functions/adder/jobs")
        .header("content-type", "multipart/form-data; boundary=cut");
    send(request.body("--cut\r\nnot a part"))
        .await
        .refused(400, &["form"]);
    for path in ["no-id", "0198c0de-0000-7000-8000-000000000001", ".."] {
        let path = format!("/v1/jobs/{path}/results");
        let status = server.get(&path).await.status;
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(
        server.get("/v1/jobs").await.expect(200).json()["jobs"],
        json!([])
    );
    for folder in ["jobs", "staging"] {
        let left: Vec<_> = std::fs::read_dir(server.data().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("assets-"))
            .collect();
        assert_eq!(left, [] as [String; 0], "{folder}");
    }
}

#[tokio::test]
async fn failed_items_are_tried_again_at_once_and_when_somebody_asks() {
    let server = probe("fail-every 3").await;
    let id = server.submitted(PROBE, pairs(30)).await;
    let job = server.job_done(&id).await;
    assert_eq!(
        (job["succeeded"].clone(), job["failed"].clone()),
        (json!(20), json!(10))
    );
    for _ in 0..2 {
        let results = server.results(&id).await;
        assert_eq!(results.len(), 30);
        for (item, result) in results {
            let fails = item % 3 == 0;
            assert_eq!(result["error"].is_object(), fails, "{result}");
            assert_eq!(result["attempts"], if fails { 2 } else { 1 }, "{result}");
        }
        let queued = act(&server, &id, "retry").await.expect(200).json();
        assert_eq!(queued["ended"], Value::Null);
        server.job_done(&id).await;
    }
    let of = |outcome: &str| {
        format!("firebox_job_items_total{{function=\"probe\",outcome=\"{outcome}\"}}")
    };
    let expected = [
        (of("succeeded"), 20),
        (of("failed"), 30),
        (of("retried"), 30),
        ("firebox_jobs{state=\"done\"}".to_owned(), 1),
        ("firebox_jobs{state=\"queued\"}".to_owned(), 0),
        ("firebox_job_oldest_queued_seconds".to_owned(), 0),
    ];
    // A job counts as done there when that is on the disk, a moment after it is told.
    let began = Instant::now();
    loop {
        let text = server.get("/metrics").await.expect(200).text();
        let missing = expected
            .iter()
            .find(|(line, value)| !text.contains(&format!("{line} {value}\n")));
        let Some((line, value)) = missing else {
            break;
        };
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{line} {value} in\n{text}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let good = server.submitted(PROBE, pairs(2)).await;
    server.job_done(&good).await;
    act(&server, &good, "retry")
        .await
        .refused(409, &["nothing is left to retry"]);
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_results_and_can_go_on() {
    let server = probe("sleep 20").await;
    let id = server.submitted(PROBE, pairs(2000)).await;
    server
        .job_that(&id, |job| {
            job["state"] == "running" && job["succeeded"].as_u64() > Some(40)
        })
        .await;
    act(&server, &id, "retry")
        .await
        .refused(409, &["running still"]);
    server
        .delete(&format!("/v1/jobs/{id}"))
        .await
        .refused(409, &["cancel it first"]);
    for path in ["/v1/functions/probe/versions/1", "/v1/functions/probe"] {
        let answer = server.delete(path).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    let request = server
        .request(Method::POST, &format!("/v1/jobs/{id}/cancel"))
        .header("x-firebox-author", "ann")
        .header("x-firebox-reason", "too dear");
    let job = send(request).await.expect(200).json();
    assert_eq!(job["state"], "cancelled");
    assert_eq!(job["reason"], "cancelled by ann: too dear");
    act(&server, &id, "cancel")
        .await
        .refused(409, &["cancelled already"]);
    let results = server.results(&id).await;
    assert_eq!(json!(results.len()), job["succeeded"]);
    assert!((41..2000).contains(&results.len()), "{}", results.len());

    act(&server, &id, "retry").await.expect(200);
    server.job_done(&id).await;
    let all = server.results(&id).await;
    assert_eq!(all.len(), 2000);
    for (item, result) in &results {
        assert_eq!(all[item], *result, "it was not asked again");
    }
    server.delete(&format!("/v1/jobs/{id}")).await.expect(204);
    server
        .get(&format!("/v1/jobs/{id}"))
        .await
        .refused(404, &[&id]);
    server.delete("/v1/functions/probe").await.expect(204);
}

#[tokio::test]
async fn a_version_with_an_open_job_is_not_deleted() {
    let server = probe("sleep 50").await;
    let bundle = Bundle::of_model(onnx::add_one());
    server.deploy("probe", &bundle).await;
    let policy = json!({"weights": {"2": 10_000}});
    server
        .put("/v1/functions/probe/traffic", &policy)
        .await
        .expect(200);
    let id = server
        .submitted("probe/versions/1/jobs?mode=behave", pairs(500))
        .await;
    server
        .delete("/v1/functions/probe/versions/1")
        .await
        .refused(409, &[&id, "in use by job"]);
    let kept = json!({"keep_last": 1});
    let retired = server
        .put("/v1/functions/probe/retention", &kept)
        .await
        .expect(200)
        .json();
    assert_eq!(retired["deleted"], json!([]));
    act(&server, &id, "cancel").await.expect(200);
    server
        .delete("/v1/functions/probe/versions/1")
        .await
        .expect(204);
    act(&server, &id, "retry")
        .await
        .refused(404, &["no version 1"]);
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart() {
    let server = probe("sleep 5").await;
    let id = server.submitted(PROBE, pairs(3000)).await;
    server
        .job_that(&id, |job| job["succeeded"].as_u64() > Some(100))
        .await;
    let began = Instant::now();
    let server = server.stop().await.again().await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "the job held the stop up"
    );
    let job = server.job(&id).await;
    let kept = job["succeeded"].as_u64().unwrap();
    assert!(kept > 100, "what was done is not done again: {job}");
    server.job_done(&id).await;
    assert_eq!(server.results(&id).await.len(), 3000);
    // Not many were asked again: a stop lets none go that has an answer.
    let text = server.get("/metrics").await.expect(200).text();
    let name = "firebox_job_items_total{function=\"probe\",outcome=\"succeeded\"} ";
    let (_, rest) = text.split_once(name).unwrap();
    let asked: u64 = rest.lines().next().unwrap().parse().unwrap();
    assert!(asked <= 3000 - kept, "{asked} after {kept}");
}

#[tokio::test]
async fn items_share_runs_of_a_model_that_allows_it() {
    let server = Server::start().await;
    let bundle = Bundle::of_model(onnx::ranker(&[4, 16, 3]))
        .with_lines("[models.model.batching]\nmax_batch_size = 32\nmax_queue_delay = \"20ms\"");
    server.deploy("ranker", &bundle).await;
    let row = |n: u32| [n % 7, n % 5, n % 3, 1].map(|x| f64::from(x) / 4.0);
    let text: String = (0..2000)
        .map(|n| format!("{}\n", json!({"x": [row(n)]})))
        .collect();
    let runs = async || {
        let text = server.get("/metrics").await.expect(200).text();
        let (_, rest) = text.split_once("\nfirebox_model_runs_total ").unwrap();
        rest.lines().next().unwrap().parse::<u64>().unwrap()
    };
    let before = runs().await;
    let id = server.submitted("ranker/jobs", text).await;
    server.job_done(&id).await;
    let runs = runs().await - before;
    println!("2000 items in {runs} runs");
    assert!(runs <= 500, "{runs} runs");
    let results = server.results(&id).await;
    assert_eq!(results.len(), 2000);
    for n in (0..2000).step_by(97) {
        let body = json!({"x": [row(n)]}).to_string();
        let alone = server.invoke("ranker", body).await.expect(200).json();
        assert_close(&results[&(u64::from(n) + 1)]["output"], &alone);
    }
}

#[tokio::test]
async fn a_full_disk_pauses_a_job_until_there_is_room() {
    let server = adder().await;
    // Answers are larger than what they answer: 6 MB in, 12 MB out.
    let numbers = vec!["1"; 2000].join(",");
    let line = format!("{{\"x\": [{numbers}]}}\n");
    let count = 1500_u64;
    server.limit_file_size(Some(8 << 20));
    server
        .submit("adder/jobs", line.repeat(3000))
        .await
        .refused(507, &["disk"]);
    let list = server.get("/v1/jobs").await.expect(200).json();
    assert_eq!(list["jobs"], json!([]));
    let id = server
        .submitted("adder/jobs", line.repeat(count as usize))
        .await;
    let job = server.job_that(&id, |job| job["state"] == "paused").await;
    assert!(job["reason"].is_string(), "{job}");
    let had = server.results(&id).await;
    assert!(!had.is_empty() && had.len() < 1500, "{}", had.len());
    // Callers are served meanwhile.
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    server.limit_file_size(None);
    let job = server.job_done(&id).await;
    assert_eq!(job["reason"], Value::Null);
    let results = server.results(&id).await;
    assert_eq!(results.len() as u64, count);
    for (item, result) in &had {
        assert_eq!(results[item], *result, "what was written is lost");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_job_of_a_million_lines_takes_no_more_memory_than_one_of_a_few() {
    let server = adder().await;
    let warm = server.submitted("adder/jobs", lines(100)).await;
    server.job_done(&warm).await;
    let before = server.resident_bytes();
    let piece = "{\"x\": [1]}\n".repeat(1000);
    let pieces = (0..1000).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let body = Body::wrap_stream(futures::stream::iter(pieces));
    let id = server.submitted("adder/jobs", body).await;
    let job = server
        .job_that(&id, |job| job["succeeded"].as_u64() > Some(2000))
        .await;
    assert_eq!(job["items"], 1_000_000);
    assert!(job["eta_ms"].is_u64(), "{job}");
    let grown = server.resident_bytes().saturating_sub(before);
    let job = act(&server, &id, "cancel").await.expect(200).json();
    assert_eq!(job["state"], "cancelled");
    println!("{} MiB more", grown >> 20);
    assert!(grown < 96 << 20, "{} MiB more", grown >> 20);
    server.delete(&format!("/v1/jobs/{id}")).await.expect(204);
}

/// Callers' p99 with and without a job beside them, measured in one run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and a quiet machine"]
async fn a_job_leaves_callers_their_latency() {
    const LONG: Duration = Duration::from_secs(15);
    let server = Server::start().await;
    let bundle = Bundle::new()
        .with_lines("tier = \"realtime\"")
        .with_model("model", onnx::add_one());
    server.deploy("caller", &bundle).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let path = "/v1/functions/caller/invoke";
    let load = || Load::start(&server, path, 100, |n| format!("{{\"x\": [{n}]}}"));
    let told = |samples: Vec<Sample>| {
        assert!(samples.iter().all(|sample| sample.status == 200));
        (
            latency(&samples, 0.5),
            latency(&samples, 0.99),
            samples.len(),
        )
    };
    let mut ratios = Vec::new();
    for round in 0..6 {
        let callers = load();
        tokio::time::sleep(LONG).await;
        let alone = told(callers.stop().await);
        let id = server.submitted("adder/jobs", lines(100_000)).await;
        server.job_that(&id, |job| job["state"] == "running").await;
        let callers = load();
        let began = Instant::now();
        let ended = async || server.job(&id).await["ended"].is_string();
        while began.elapsed() < LONG && !ended().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let beside = told(callers.stop().await);
        let done = server.job(&id).await["succeeded"].as_u64().unwrap();
        println!(
            "round {round}: p50, p99, calls: alone {alone:?}; beside a job {beside:?}, {done} items in {:?}",
            began.elapsed()
        );
        assert!(done > 0, "the job starves");
        act(&server, &id, "cancel").await;
        // The first is for what is cold.
        if round > 0 {
            ratios.push(beside.1.as_secs_f64() / alone.1.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("p99 beside a job, by that alone: {ratios:.2?}");
    assert!(ratios[2] <= 1.5, "{ratios:?}");
}
