//! Functions in other languages than Rust, and every template of `firebox new`: built and deployed by
//! `firebox deploy`, and called. A test is skipped, with the reason printed, only where its toolchain
//! can't be had.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use firebox_tests::binary::{self, workspace};
use firebox_tests::client::send;
use firebox_tests::compare::assert_close;
use firebox_tests::{Server, guests, toolchains};
use reqwest::Method;
use serde_json::{Value, json};

const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";
const ZIG: &str = "ziglang==0.16.0";

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A new project of a template in a folder of its own; what `firebox new` printed.
fn new_project(template: &str) -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary::command();
    command.current_dir(folder.path());
    let printed = succeeds(command.args(["new", "greeter", "--template", template]));
    let project = folder.path().join("greeter");
    (folder, project, printed)
}

/// Calls a function with a raw body.
async fn call(server: &Server, function: &str, content_type: &str, body: &[u8]) -> Value {
    let request = server.request(Method::POST, &format!("/v1/functions/{function}/invoke"));
    let request = request.header("content-type", content_type);
    send(request.body(body.to_vec())).await.expect(200).json()
}

/// The same with a sample of an example.
async fn call_with_sample(server: &Server, example: &str, sample: &str, kind: &str) -> Value {
    let path = workspace().join(format!("examples/{example}/samples/{sample}"));
    call(server, example, kind, &std::fs::read(path).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn python_cleans_what_was_pasted_and_asks_the_model() {
    let Some(bin) = toolchains::pip(&[COMPONENTIZE_PY]) else {
        return;
    };
    guests::model("magika", "magika.onnx");
    let project = workspace().join("examples/python-snippet");
    let server = Server::start().await;
    let version = deploy(&server, &project, &toolchains::path_with(&bin));
    assert_eq!(version["signature"]["inputs"][0]["name"], "body");
    for (sample, language) in [
        ("chat.md", "rust"),
        ("page.html", "sql"),
        ("session.txt", "python"),
    ] {
        let answer = call_with_sample(&server, "python-snippet", sample, "text/plain").await;
        assert_eq!(answer["language"], language, "{sample}: {answer}");
        assert_eq!(answer["guesses"].as_array().unwrap().len(), 3);
    }
    let request = server.request(Method::POST, "/v1/functions/python-snippet/invoke");
    let empty = send(request.body("```\n```")).await;
    empty.refused(400, &["bytes of code"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_takes_and_gives_json() {
    let Some(path) = toolchains::npm() else {
        return;
    };
    let project = workspace().join("examples/javascript-redact");
    let server = Server::start().await;
    deploy(&server, &project, &path);
    let answer = call_with_sample(
        &server,
        "javascript-redact",
        "tickets.json",
        "application/json",
    )
    .await;
    assert_eq!(answer["texts"][0], "Please call me back on [phone].");
    assert_eq!(answer["found"], json!({"phone": 1, "card": 1, "email": 1}));
    let request = server.request(Method::POST, "/v1/functions/javascript-redact/invoke");
    let unknown = send(request.body(r#"{"texts": [], "kinds": ["name"]}"#)).await;
    unknown.refused(400, &["there is no kind", "email"]);
    let request = server.request(Method::POST, "/v1/functions/javascript-redact/invoke");
    let no_list = send(request.body(r#"{"texts": [], "kinds": "email"}"#)).await;
    no_list.refused(400, &["kinds must be a list"]);
    server.stop().await;
    let mut npm = Command::new("npm");
    succeeds(npm.args(["test"]).env("PATH", &path).current_dir(&project));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_template_builds_and_answers() {
    let Some(bin) = toolchains::pip(&[COMPONENTIZE_PY]) else {
        return;
    };
    let (_folder, project, printed) = new_project("python");
    assert!(
        printed.contains("pip install -r greeter/requirements.txt"),
        "{printed}"
    );
    let wanted = std::fs::read_to_string(project.join("requirements.txt")).unwrap();
    assert_eq!(
        wanted.trim(),
        COMPONENTIZE_PY,
        "what is tested is what is told"
    );
    // In place of the printed commands, which would bring the same once more.
    std::os::unix::fs::symlink(bin.parent().unwrap(), project.join(".venv")).unwrap();
    answers_with_statistics(&project).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_template_builds_and_answers() {
    let Some(path) = toolchains::npm() else {
        return;
    };
    let (_folder, project, _) = new_project("js");
    let server = Server::start().await;
    deploy(&server, &project, &path);
    check_statistics(&server).await;
}

/// Deploys a project as its author would: the client waits for as long as a large component takes.
#[track_caller]
fn deploy(server: &Server, project: &Path, path: &str) -> Value {
    let mut command = binary::command();
    command
        .env("PATH", path)
        .env("FIREBOX_SERVER", server.url());
    let answer = succeeds(command.arg("deploy").arg(project).arg("--json"));
    serde_json::from_str(&answer).unwrap()
}

async fn answers_with_statistics(project: &Path) {
    let server = Server::start().await;
    deploy(&server, project, &std::env::var("PATH").unwrap());
    check_statistics(&server).await;
}

async fn check_statistics(server: &Server) {
    let text = "To be, or not to be:\nthat is the question.\n".as_bytes();
    let answer = call(server, "greeter", "text/plain", text).await;
    assert_eq!(
        (&answer["lines"], &answer["words"]),
        (&json!(2), &json!(10))
    );
    assert_eq!(
        answer["most_frequent"][0],
        json!({"word": "to", "count": 2})
    );
    let request = server.request(Method::POST, "/v1/functions/greeter/invoke");
    let binary = send(request.body(vec![0xFF, 0xFE])).await;
    binary.refused(400, &["UTF-8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_c_template_builds_and_answers() {
    let Some(bin) = toolchains::pip(&[ZIG]) else {
        return;
    };
    let (_folder, project, printed) = new_project("c");
    assert!(
        printed.contains("pip install -r greeter/requirements.txt"),
        "{printed}"
    );
    let wanted = std::fs::read_to_string(project.join("requirements.txt")).unwrap();
    assert_eq!(wanted.trim(), ZIG, "what is tested is what is told");
    std::os::unix::fs::symlink(bin.parent().unwrap(), project.join(".venv")).unwrap();
    let server = Server::start().await;
    deploy(&server, &project, &std::env::var("PATH").unwrap());
    let text = "To be, or not to be:\nthat is the question.\n".as_bytes();
    let answer = call(&server, "greeter", "text/plain", text).await;
    assert_eq!(
        answer,
        json!({"lines": 2, "words": 10, "bytes": text.len()})
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_templates_build_and_answer_as_their_readmes_say() {
    // What all of them depend on is compiled once.
    let compiled = tempfile::tempdir().unwrap();
    for (template, sample, kind) in [
        ("rust", "harbour.txt", "text/plain"),
        ("tensor", "values.json", "application/json"),
        ("model", "orange.txt", "text/plain"),
    ] {
        let (_folder, project, _) = new_project(template);
        std::os::unix::fs::symlink(compiled.path(), project.join("target")).unwrap();
        let server = Server::start().await;
        deploy(&server, &project, &std::env::var("PATH").unwrap());
        let body = std::fs::read(project.join("samples").join(sample)).unwrap();
        let answer = call(&server, "greeter", kind, &body).await;
        let readme = std::fs::read_to_string(project.join("README.md")).unwrap();
        let (_, told) = readme.split_once("```json\n").unwrap();
        let (told, _) = told.split_once("```").unwrap();
        let told: Value = serde_json::from_str(told).unwrap();
        assert_close(&answer, &told);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_template_builds_and_answers() {
    let (_folder, project, _) = new_project("http");
    let server = Server::start().await;
    deploy(&server, &project, &std::env::var("PATH").unwrap());
    let ask = |method, path: &str| server.request(method, &format!("/f/greeter{path}"));
    let greeted = send(ask(Method::GET, "/?name=Ada")).await.expect(200);
    assert_eq!(greeted.json()["greeting"], "Hello, Ada!");
    let text = ask(Method::POST, "/words").body("to be or not to be");
    assert_eq!(send(text).await.expect(200).json()["words"], 6);
    let wrong = send(ask(Method::DELETE, "/words")).await.expect(405);
    assert!(wrong.json()["error"].is_string());
    assert!(send(ask(Method::GET, "/nothing")).await.expect(404).json()["error"].is_string());
    server.stop().await;
}
