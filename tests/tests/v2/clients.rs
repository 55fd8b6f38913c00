//! Clients as they are published.

use std::process::Command;
use std::time::Duration;

use firebox_tests::{Server, binary, python};
use serde_json::{Value, json};

use super::server;

const TRITON: &[&str] = &["tritonclient[http]==2.73.0", "ml_dtypes"];

/// Runs a part of `tests/clients/v2_http.py`.
async fn triton(part: &'static str) {
    let Some(python) = python::with(TRITON) else {
        return;
    };
    let server = server().await;
    let address = server.url().trim_start_matches("http://").to_owned();
    let client = move || python::client(&python, "v2_http.py", &[&address, part]);
    tokio::task::spawn_blocking(client).await.unwrap();
}

#[tokio::test]
async fn triton_asks_for_health_metadata_and_configuration() {
    triton("health_and_metadata").await;
}

#[tokio::test]
async fn triton_sends_and_gets_every_dtype_as_json_and_as_bytes() {
    triton("numbers").await;
}

#[tokio::test]
async fn triton_sends_and_gets_texts() {
    triton("texts").await;
}

#[tokio::test]
async fn triton_names_requests_outputs_and_versions() {
    triton("requests").await;
}

#[tokio::test]
async fn triton_compresses_both_ways() {
    triton("compression").await;
}

#[tokio::test]
async fn triton_loads_and_unloads() {
    triton("repository").await;
}

#[tokio::test]
async fn triton_reads_statistics() {
    triton("statistics").await;
}

#[tokio::test]
async fn triton_is_told_what_is_wrong() {
    triton("errors").await;
}

#[tokio::test]
async fn the_kserve_sdk_calls_a_model() {
    // With all that it brings along, it takes 450 MB.
    if std::env::var_os("FIREBOX_KSERVE").is_none() {
        println!("skipped: set FIREBOX_KSERVE to have the KServe SDK installed");
        return;
    }
    let Some(python) = python::with(&["kserve==0.21.0"]) else {
        return;
    };
    let server = server().await;
    let url = server.url().to_owned();
    let client = move || python::client(&python, "kserve_rest.py", &[&url]);
    tokio::task::spawn_blocking(client).await.unwrap();
}

/// What curl prints; none where there is no curl.
async fn curl(server: &Server, path: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*"]);
    command
        .args(arguments)
        .arg(format!("{}{path}", server.url()));
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl here");
        return None;
    }
    let run = move || binary::output_within(command, Duration::from_secs(60));
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn curl_calls_a_model_as_the_documentation_shows() {
    let server = server().await;
    let body = r#"{"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]}"#;
    let path = "/v2/models/adder/infer";
    for arguments in [&["-d", body][..], &["--compressed", "-d", body]] {
        let Some(answer) = curl(&server, path, arguments).await else {
            return;
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            answer,
            json!({"model_name": "adder", "model_version": "1", "id": "7",
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [2.0, 3.0, 4.0]}]})
        );
    }
    let index = curl(&server, "/v2/repository/index", &["-X", "POST"]).await;
    let index: Value = serde_json::from_str(&index.unwrap()).unwrap();
    assert_eq!(index[0]["name"], "adder");
}
