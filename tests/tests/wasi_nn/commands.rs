//! Commands: how they are started, what they can reach, and what becomes of how they end.

use std::time::Duration;

use firebox_tests::client::send;
use reqwest::Method;
use serde_json::json;

use super::*;

/// A probe whose manifest has more lines, those of `[function]` first.
async fn server_with_lines(function: &str, rest: &str) -> Server {
    let bundle = Bundle::of_component(guests::program("classic_probe"))
        .with_lines(function)
        .with_lines("[assets]\n\"deep/words.txt\" = \"words.txt\"")
        .with_file("words.txt", b"two words".to_vec())
        .with_lines(rest);
    let server = Server::start().await;
    server.deploy("probe", &bundle).await;
    server
}

#[tokio::test]
async fn arguments_environment_and_files_are_those_of_the_manifest() {
    let line = "args = [\"--top\", \"5\"]\nenv = { LANG = \"C\" }\ncontent_type = \"text/plain\"";
    let server = server_with_lines(line, "").await;
    let script = [
        "args",
        "env",
        "cat deep/words.txt",
        "write deep/words.txt",
        "write new.txt",
    ];
    let answer = server.invoke("probe", script.join("\n")).await.expect(200);
    assert_eq!(answer.header("content-type"), "text/plain");
    let said = answer.text();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said[0], r#"["probe", "--top", "5"]"#);
    assert_eq!(said[1], r#"{"LANG": "C"}"#);
    assert_eq!(said[2], "two words");
    // The files are read-only: which error that is differs between libcs.
    assert!(said[3..].iter().all(|said| *said != "written"), "{said:?}");
}

#[tokio::test]
async fn a_command_is_a_version_like_others() {
    let server = server_with("classic").await;
    let info = server.get("/v1/functions/probe/versions/1").await;
    let info = info.expect(200).json();
    assert_eq!(info["kind"], "command");
    assert_eq!(info["signature"]["inputs"][0]["name"], "body");
    // Over V2 its input and output are one element of bytes.
    let body = json!({"name": "body", "datatype": "BYTES", "shape": [1], "data": ["args"]});
    let answer = server.infer("probe", &json!({"inputs": [body]})).await;
    let outputs = &answer.expect(200).json()["outputs"];
    assert_eq!(outputs[0]["data"][0], "[\"probe\"]\n");
    let answer = server.invoke("probe", "").await.expect(200);
    assert_eq!(answer.text(), "");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn the_exit_code_says_how_it_ended() {
    let server = server_with("classic").await;
    let answer = fails(&server, &["args", "exit 0", "never"])
        .await
        .expect(200);
    assert_eq!(answer.text(), "[\"probe\"]\n");
    for (code, status, kind) in [
        (1, 500, "function-failed"),
        (65, 400, "invalid-input"),
        (75, 503, "unavailable"),
        (70, 500, "function-failed"),
        (126, 500, "function-failed"),
        (255, 500, "function-failed"),
    ] {
        let exit = format!("exit {code}");
        let answer = fails(&server, &["stderr it went wrong", &exit]).await;
        let words = [&*format!("exited with code {code}"), "it went wrong"];
        let answer = answer.refused(status, &words);
        let problem = answer.json();
        let found = problem["type"].as_str().unwrap();
        assert!(found.contains(kind), "{code}: {found}");
    }
    // `main` that returns an error exits with 1, and says it.
    let words = ["exited with code 1", "on purpose"];
    fails(&server, &["panic"]).await.refused(500, &words);
    fails(&server, &["abort"]).await.refused(502, &["stopped"]);
}

#[tokio::test]
async fn the_limits_of_other_functions_hold_for_commands() {
    let limits = "[limits]\nmemory = \"16MiB\"\ntensors = \"1MiB\"\ndeadline = \"2s\"";
    let server = server_with_lines("", limits).await;
    fails(&server, &["allocate 64"])
        .await
        .refused(502, &["16 MiB"]);
    fails(&server, &["spin"]).await.refused(504, &["2s"]);
    fails(&server, &["sleep 60000"]).await.refused(504, &["2s"]);
    let words = ["1048576 bytes to standard output", "limits.tensors"];
    fails(&server, &["flood 2"]).await.refused(502, &words);
    let answer = fails(&server, &["args"]).await.expect(200);
    assert_eq!(answer.text(), "[\"probe\"]\n");

    let server = server_with_lines("", "[limits]\ncpu = \"300ms\"").await;
    fails(&server, &["spin"])
        .await
        .refused(502, &["processor time"]);
}

/// Sixteen runs asleep on a server of few threads take about as long as one.
#[tokio::test]
async fn runs_that_wait_hold_no_thread() {
    let server = server_with("classic").await;
    let began = std::time::Instant::now();
    let runs = (0..16).map(|_| say(&server, &["sleep 1000"]));
    for said in futures::future::join_all(runs).await {
        assert_eq!(said, ["slept"]);
    }
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn equal_requests_are_answered_once_where_the_manifest_says_so() {
    let server = server_with_lines("", "[cache]\nttl = \"60s\"").await;
    let first = fails(&server, &["args"]).await.expect(200);
    let second = fails(&server, &["args"]).await.expect(200);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("x-firebox-cache"), "miss");
    assert_eq!(second.header("x-firebox-cache"), "hit");
}

#[tokio::test]
async fn a_command_survives_a_restart_of_the_server() {
    let server = server_with("classic").await;
    assert_eq!(say(&server, &["args"]).await, [r#"["probe"]"#]);
    let server = server.stop().await.again().await;
    assert_eq!(say(&server, &["args"]).await, [r#"["probe"]"#]);
}

#[tokio::test]
async fn a_job_runs_a_command_for_each_item() {
    let server = server_with("classic").await;
    // Files of a form: a line of a job has to be JSON.
    let mut form = String::new();
    for (at, script) in ["args", "exit 3", "args"].iter().enumerate() {
        let head = format!("content-disposition: form-data; name=\"file\"; filename=\"{at}\"");
        form += &format!("--cut\r\n{head}\r\n\r\n{script}\r\n");
    }
    let request = server
        .request(Method::POST, "/v1/functions/probe/jobs")
        .header("content-type", "multipart/form-data; boundary=cut");
    let answer = send(request.body(form + "--cut--\r\n")).await.expect(202);
    let id = answer.json()["job"].as_str().unwrap().to_owned();
    let job = server.job_done(&id).await;
    assert_eq!((&job["succeeded"], &job["failed"]), (&json!(2), &json!(1)));
    let results = server.results(&id).await;
    let failed: Vec<_> = results
        .values()
        .filter(|r| r["error"].is_object())
        .collect();
    let error = failed[0]["error"].to_string();
    assert!(error.contains("exited with code 3"), "{error}");
}
