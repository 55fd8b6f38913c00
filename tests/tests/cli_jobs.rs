//! `firebox jobs`, as someone at a terminal uses it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use firebox_tests::jobs::{by_item, lines};
use firebox_tests::{Bundle, Server, binary, guests, onnx};
use serde_json::{Value, json};

/// Runs `firebox jobs`; what it printed, what it complained about, and its exit code.
fn jobs(server: &Server, folder: &Path, arguments: &[&str]) -> (String, String, i32) {
    let mut command = binary::command();
    command
        .current_dir(folder)
        .env("FIREBOX_SERVER", server.url())
        .args(["--author", "ann", "jobs"])
        .args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (text(&output.stdout), text(&output.stderr), code)
}

#[track_caller]
fn well(server: &Server, folder: &Path, arguments: &[&str]) -> String {
    let (out, err, code) = jobs(server, folder, arguments);
    assert_eq!(code, 0, "firebox jobs {arguments:?}: {out}{err}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_a_file_to_a_file_of_results() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("in.ndjson"), lines(50)).unwrap();
    let said = well(
        &server,
        here,
        &["submit", "adder", "in.ndjson", "--wait", "--json"],
    );
    let job: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&job["state"], &job["author"]),
        (&json!("done"), &json!("ann"))
    );
    let id = job["job"].as_str().unwrap();

    let said = well(&server, here, &["results", id, "-o", "out.ndjson"]);
    assert!(said.contains("out.ndjson"), "{said}");
    let results = by_item(&std::fs::read_to_string(here.join("out.ndjson")).unwrap());
    assert_eq!(results.len(), 50);
    assert_eq!(results[&7]["output"], json!({"y": [8.0]}));
    assert_eq!(by_item(&well(&server, here, &["results", id])), results);
    assert_eq!(well(&server, here, &["results", id, "--failed"]), "");

    let list = well(&server, here, &["list"]);
    assert!(list.contains(id) && list.contains("adder 1"), "{list}");
    let status = well(&server, here, &["show", id]);
    assert!(status.contains("50: 50 answered, 0 failed"), "{status}");
    let (_, err, code) = jobs(&server, here, &["cancel", id]);
    assert!(code == 4 && err.contains("is done already"), "{err}");
    let (_, err, code) = jobs(&server, here, &["retry", id]);
    assert!(
        code == 4 && err.contains("nothing is left to retry"),
        "{err}"
    );
    let said = well(&server, here, &["delete", id]);
    assert!(said.contains("is deleted"), "{said}");
    assert!(well(&server, here, &["list", "adder"]).contains("no jobs"));

    std::fs::write(here.join("bad.jsonl"), "{\"x\": [1]}\n{\"x\": [}\n").unwrap();
    let (out, err, code) = jobs(&server, here, &["submit", "adder", "bad.jsonl", "--wait"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("1 of 2 items failed") && err.contains("--failed"),
        "{err}"
    );
    let (_, err, code) = jobs(&server, here, &["submit", "adder", "none.ndjson"]);
    assert!(code == 1 && err.contains("none.ndjson"), "{err}");
    let (_, err, code) = jobs(&server, here, &["show", "7"]);
    assert!(code == 2 && err.contains("is no job's id"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_submitted_together() {
    let server = Server::start().await;
    server
        .upload("file-type", guests::example("file-type"))
        .await
        .expect(201);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let json = "{\"a\": [1, 2, 3]}\n".repeat(30);
    std::fs::write(here.join("a.json"), json).unwrap();
    std::fs::write(
        here.join("b.rs"),
        "fn main() { println!(\"{}\", 1 + 1); }\n".repeat(40),
    )
    .unwrap();
    let said = well(
        &server,
        here,
        &["submit", "file-type", "a.json", "b.rs", "--wait"],
    );
    assert!(said.contains("2: 2 answered"), "{said}");
    let list = well(&server, here, &["list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let id = list["jobs"][0]["job"].as_str().unwrap();
    let results = by_item(&well(&server, here, &["results", id]));
    assert_eq!(results[&1]["name"], "a.json");
    assert_eq!(results[&2]["name"], "b.rs");
    let (_, err, code) = jobs(&server, here, &["submit", "file-type", "."]);
    assert!(code == 1 && err.contains("is no file"), "{err}");
}
