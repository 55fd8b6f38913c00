//! Limits of jobs, which only a server's own settings can make small.

use super::*;

const JOBS: &str = "/v1/functions/doubler/jobs";

async fn submit(server: &Running, body: String) -> (StatusCode, Value) {
    read(server.ask(Method::POST, JOBS).body(body)).await
}

async fn ended(server: &Running, id: &Value) -> Value {
    let path = format!("/v1/jobs/{}", id.as_str().unwrap());
    loop {
        let (_, job) = server.get(&path).await;
        if job["ended"].is_string() {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_over_a_limit_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |config| {
        config.max_job_bytes = 400;
        config.max_job_items = 3;
        config.max_body = 100;
        config.max_jobs = 2;
    })
    .await;
    server.upload("doubler", onnx("Add")).await;
    let line = "{\"x\": [[1, 2]]}\n";
    for (body, status, says) in [
        (line.repeat(4), 422, "more than 3 items"),
        (
            format!("{line}{}", "1".repeat(101)),
            422,
            "line 2: it is larger than 100 bytes",
        ),
        (" ".repeat(401), 413, "larger than the limit of 400 bytes"),
    ] {
        // With a length that is announced, and without one.
        let pieces = futures::stream::iter([Ok::<_, std::io::Error>(body.clone())]);
        let stream = reqwest::Body::wrap_stream(pieces);
        for sent in [body.into(), stream] {
            let (code, problem) = read(server.ask(Method::POST, JOBS).body(sent)).await;
            assert_eq!(code, status, "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(says), "{detail}");
        }
    }
    assert_eq!(files_below(&dir.path().join("jobs")), 0);
    for _ in 0..2 {
        let (status, job) = submit(&server, line.repeat(3)).await;
        assert_eq!(status, 202, "{job}");
        ended(&server, &job["job"]).await;
    }
    let (status, problem) = submit(&server, line.to_owned()).await;
    assert_eq!(status, 429, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("2 jobs are kept")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_deleted_some_time_after_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |config| {
        config.job_retention = Duration::from_millis(1500);
    })
    .await;
    server.upload("doubler", onnx("Add")).await;
    let (_, job) = submit(&server, "{\"x\": [[1, 2]]}\n".to_owned()).await;
    ended(&server, &job["job"]).await;
    let path = format!("/v1/jobs/{}", job["job"].as_str().unwrap());
    assert_eq!(server.get(&path).await.0, 200, "it is kept for a while");
    let began = std::time::Instant::now();
    while server.get(&path).await.0 == 200 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it is kept for ever"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(files_below(&dir.path().join("jobs")), 0);
    server.stop().await;
}
