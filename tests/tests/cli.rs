//! The commands, as someone at a terminal uses them.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Output;

use firebox_tests::{Bundle, Server, binary, onnx};
use serde_json::{Value, json};

/// Runs `firebox` against a server, which must go well; returns what it printed.
#[track_caller]
fn firebox(server: &Server, folder: &Path, arguments: &[&str]) -> String {
    let output = against(server, folder, arguments);
    let (out, err) = texts(&output);
    assert!(
        output.status.success(),
        "firebox {arguments:?} failed: {out}{err}"
    );
    out
}

const LOCAL_FAILURE: i32 = 1;
const WRONG_LINE: i32 = 2;
const REFUSED: i32 = 4;

/// Runs `firebox` against a server, which must end with this exit code; returns the complaint.
#[track_caller]
fn failed(server: &Server, folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = against(server, folder, arguments);
    let (out, err) = texts(&output);
    assert_eq!(
        output.status.code(),
        Some(code),
        "firebox {arguments:?}: {out}{err}"
    );
    assert!(err.contains("error: "), "{err}");
    err
}

fn against(server: &Server, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = binary::command();
    command
        .current_dir(folder)
        .env("FIREBOX_SERVER", server.url())
        .args(arguments);
    command.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_tells_every_command_and_each_has_its_own() {
    let (help, _) = texts(&binary::run(["--help"]));
    let commands = [
        "serve",
        "new",
        "build",
        "bench",
        "push",
        "pull",
        "deploy",
        "invoke",
        "jobs",
        "functions",
        "versions",
        "residency",
        "traffic",
        "label",
        "rollback",
        "download",
        "rollout",
        "shadow",
        "cost",
        "devices",
        "demo",
    ];
    for command in commands {
        assert!(help.contains(command), "{command} is not in:\n{help}");
        let output = binary::run([command, "--help"]);
        let (own, _) = texts(&output);
        assert!(output.status.success());
        assert!(own.contains("Usage:") && own.lines().count() > 3, "{own}");
    }
    let (version, _) = texts(&binary::run(["--version"]));
    assert_eq!(
        version.trim(),
        format!("firebox {}", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn residency_tells_what_is_loaded_and_why() {
    let server = Server::start().await;
    let here = tempfile::tempdir().unwrap();
    let firebox = |arguments: &[&str]| firebox(&server, here.path(), arguments);
    let adder = Bundle::of_model(onnx::add_one());
    server.deploy("adder", &adder).await;
    assert!(firebox(&["residency"]).contains("nothing is loaded"));
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    let overview = firebox(&["residency"]);
    for word in ["models", " of ", "adder", "resident", "first request"] {
        assert!(overview.contains(word), "{word} is not in:\n{overview}");
    }
    let one = firebox(&["residency", "adder", "1"]);
    assert!(
        one.contains("cold") && one.contains("first request"),
        "{one}"
    );
    let json: Value = serde_json::from_str(&firebox(&["residency", "--json"])).unwrap();
    assert_eq!(json["versions"][0]["function"], "adder");
    let missing = against(&server, here.path(), &["residency", "adder"]);
    assert_eq!(missing.status.code(), Some(WRONG_LINE));
}

#[test]
fn a_mistyped_command_ends_with_2_and_is_told_the_nearest() {
    let output = binary::run(["deplyo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(texts(&output).1.contains("deploy"));
}

#[test]
fn no_server_is_told_with_its_address_and_what_to_do() {
    let output = binary::run(["--server", "http://127.0.0.1:9", "functions"]);
    let (_, err) = texts(&output);
    assert!(!output.status.success());
    assert!(
        err.contains("127.0.0.1:9") && err.contains("firebox serve"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_goes_from_new_to_an_answer() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    firebox(&server, here, &["new", "word-count"]);
    firebox(&server, here, &["build", "word-count"]);
    let deployed = firebox(&server, here, &["deploy", "word-count"]);
    assert!(deployed.contains("word-count version 1"), "{deployed}");
    let answer = firebox(
        &server,
        here,
        &["invoke", "word-count", "to be or not to be"],
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["words"], 6);
    assert_eq!(
        answer["most_frequent"][0],
        json!({"word": "be", "count": 2})
    );
    let list = firebox(&server, here, &["functions"]);
    assert!(list.contains("word-count"), "{list}");

    let again = failed(&server, here, LOCAL_FAILURE, &["new", "word-count"]);
    assert!(
        again.contains("word-count"),
        "a project is not written over: {again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_model_is_deployed_called_and_shares_traffic() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("adder.onnx"), onnx::add(1.0)).unwrap();
    std::fs::write(here.join("other.onnx"), onnx::add(2.0)).unwrap();
    firebox(&server, here, &["deploy", "adder.onnx"]);
    firebox(&server, here, &["deploy", "--name", "adder", "other.onnx"]);

    let answer = firebox(
        &server,
        here,
        &["invoke", "adder", "--json", r#"{"x": [1]}"#],
    );
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"y": [2.0]})
    );
    std::fs::write(here.join("body.json"), r#"{"x": [5]}"#).unwrap();
    let answer = firebox(
        &server,
        here,
        &[
            "invoke",
            "adder",
            "--file",
            "body.json",
            "--header",
            "X-Firebox-Version: 2",
        ],
    );
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"y": [7.0]})
    );

    firebox(&server, here, &["traffic", "adder", "1=90", "2=10"]);
    let policy = server.get("/v1/functions/adder/traffic").await.json();
    assert_eq!(policy["weights"], json!({"1": 9000, "2": 1000}));
    let versions = firebox(&server, here, &["versions", "adder"]);
    assert!(
        versions.contains("90") && versions.contains("10"),
        "{versions}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_json_when_asked() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        ["functions", "--json"].as_slice(),
        &["versions", "adder", "--json"],
    ] {
        let out = firebox(&server, folder.path(), arguments);
        let value: Value = serde_json::from_str(&out).unwrap();
        assert!(out.contains("adder"), "{value}");
    }
    let devices = firebox(&server, folder.path(), &["devices"]);
    assert!(devices.to_lowercase().contains("cpu"), "{devices}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_with_its_hint() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let said = failed(&server, folder.path(), REFUSED, &["invoke", "addr", "{}"]);
    assert!(said.contains("addr") && said.contains("adder"), "{said}");
    std::fs::write(folder.path().join("bad.onnx"), "not a model").unwrap();
    let said = failed(&server, folder.path(), REFUSED, &["deploy", "bad.onnx"]);
    assert!(said.contains("not an ONNX model"), "{said}");
    let said = failed(&server, folder.path(), LOCAL_FAILURE, &["deploy", "absent"]);
    assert!(said.contains("absent"), "{said}");
}

/// `adder` in three versions, the first with all the traffic; version n adds n.
async fn three_adders() -> Server {
    let server = Server::start().await;
    for n in 1..=3_u8 {
        let adder = Bundle::of_model(onnx::add(f32::from(n)));
        server.deploy("adder", &adder).await;
    }
    server
}

#[tokio::test]
async fn a_change_of_traffic_is_kept_with_who_and_why_and_taken_back() {
    let server = three_adders().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let line = [
        "traffic", "adder", "1=90", "2=10", "--reason", "try 2", "--author", "ann",
    ];
    firebox(&server, here, &line);
    let line = [
        "traffic",
        "adder",
        "--sticky",
        "cookie sid",
        "--shadow",
        "3=5",
        "--default",
        "2",
    ];
    let shown = firebox(&server, here, &line);
    for part in ["1=90% 2=10%", "3=5%", "cookie sid", "default"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let history = firebox(&server, here, &["traffic", "adder", "--history"]);
    assert!(
        history.contains("ann") && history.contains("try 2"),
        "{history}"
    );

    let back = firebox(&server, here, &["rollback", "adder", "--reason", "no"]);
    assert!(back.contains("policy 4, that of 2, holds now"), "{back}");
    let policy = server.get("/v1/functions/adder/traffic").await.json();
    assert_eq!(
        policy,
        json!({"weights": {"1": 9000, "2": 1000}, "labels": {}})
    );
    let line = ["rollback", "adder", "--to-policy", "1", "--json"];
    let back: Value = serde_json::from_str(&firebox(&server, here, &line)).unwrap();
    assert_eq!(
        (&back["revision"], &back["restored"]),
        (&json!(5), &json!(1))
    );
    let said = failed(
        &server,
        here,
        REFUSED,
        &["rollback", "adder", "--to-policy", "77"],
    );
    assert!(said.contains("77") && said.contains("1 to 5"), "{said}");
}

#[tokio::test]
async fn labels_are_shown_moved_and_removed() {
    let server = three_adders().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let none = firebox(&server, here, &["label", "adder"]);
    assert!(none.contains("adder has no labels"), "{none}");
    firebox(&server, here, &["label", "adder", "stable", "1"]);
    let two = firebox(&server, here, &["label", "adder", "canary", "2"]);
    assert!(two.contains("canary=2 stable=1"), "{two}");
    let line = ["invoke", "adder", r#"{"x": [0]}"#, "--label", "canary"];
    assert!(firebox(&server, here, &line).contains("2.0"));
    let one = firebox(&server, here, &["label", "adder", "canary", "--remove"]);
    assert!(one.contains("stable=1") && !one.contains("canary"), "{one}");
    let said = failed(&server, here, WRONG_LINE, &["label", "adder", "2", "2"]);
    assert!(said.contains("starts with a digit"), "{said}");
    failed(&server, here, WRONG_LINE, &["label", "adder", "stable"]);
    let said = failed(&server, here, REFUSED, &["label", "adder", "stable", "9"]);
    assert!(said.contains('9'), "{said}");
}

#[tokio::test]
async fn a_change_on_top_of_an_old_policy_is_refused() {
    let server = three_adders().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    firebox(
        &server,
        here,
        &["traffic", "adder", "1=90", "2=10", "--author", "ann"],
    );
    for line in [
        vec!["traffic", "adder", "3=100", "--if-match", "1"],
        vec!["label", "adder", "stable", "3", "--if-match", "1"],
        vec!["rollback", "adder", "--if-match", "1"],
    ] {
        let said = failed(&server, here, REFUSED, &line);
        for part in ["412", "set by ann", "hint: "] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
    }
    firebox(
        &server,
        here,
        &["traffic", "adder", "3=100", "--if-match", "2"],
    );
}

#[tokio::test]
async fn versions_are_listed_compared_downloaded_and_retired() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for n in 1..=3_u8 {
        let file = format!("adder{n}.onnx");
        std::fs::write(here.join(&file), onnx::add(f32::from(n))).unwrap();
        let line = ["deploy", &file, "--name", "adder", "--author", "ann"];
        firebox(&server, here, &line);
    }
    let again = firebox(&server, here, &["deploy", "adder1.onnx", "--name", "adder"]);
    assert!(
        again.contains("this very bundle was a version already"),
        "{again}"
    );
    let listed = firebox(&server, here, &["versions", "adder"]);
    for part in ["AGE", "BY", "REFERENCE", "ann", "100%"] {
        assert!(listed.contains(part), "{part} is not in:\n{listed}");
    }
    let diff = firebox(&server, here, &["versions", "adder", "--diff", "1", "2"]);
    assert!(diff.contains("files.models.model"), "{diff}");

    let told = firebox(&server, here, &["download", "adder", "2"]);
    let bytes = std::fs::read(here.join("adder-2.firebox")).unwrap();
    assert_eq!(bytes, onnx::add(2.0));
    let info = server.get("/v1/functions/adder/versions/2").await.json();
    assert!(told.contains(info["digest"].as_str().unwrap()), "{told}");
    let said = failed(&server, here, REFUSED, &["download", "adder", "9"]);
    assert!(
        said.contains('9') && !here.join("adder-9.firebox").exists(),
        "{said}"
    );

    let kept = firebox(&server, here, &["versions", "adder", "--keep-last", "1"]);
    assert!(kept.contains("deleted: 2"), "{kept}");
    let kept = firebox(&server, here, &["versions", "adder", "--keep-all"]);
    assert!(kept.contains("all versions are kept"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_begun_watched_and_ended() {
    let server = Server::start().await;
    for amount in [1.0, 2.0] {
        server
            .deploy("adder", &Bundle::of_model(onnx::add(amount)))
            .await;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let rollout = |arguments: &[&str]| {
        let all = [&["rollout"], arguments].concat();
        firebox(&server, here, &all)
    };
    let steps = ["--to", "2", "--steps", "10%:1h,50%:1h,100%"];
    let begun = rollout(&[&["start", "adder"], steps.as_slice()].concat());
    for part in [
        "rollout 1 from version 1 to 2",
        "1 of 3: 10%",
        "p95<=1.2*stable",
    ] {
        assert!(begun.contains(part), "{part} is not in:\n{begun}");
    }
    let second = [&["rollout", "start", "adder"], steps.as_slice()].concat();
    let said = failed(&server, here, REFUSED, &second);
    assert!(
        said.contains("rollout 1") && said.contains("abort"),
        "{said}"
    );

    assert!(rollout(&["pause", "adder"]).contains("paused"));
    assert!(rollout(&["resume", "adder"]).contains("running"));
    assert!(rollout(&["promote", "adder"]).contains("2 of 3: 50%"));
    let status: Value = serde_json::from_str(&rollout(&["status", "adder", "--json"])).unwrap();
    assert_eq!(
        (&status["state"], &status["share_bp"]),
        (&json!("running"), &json!(5000))
    );
    let aborted = rollout(&["abort", "adder", "--reason", "looks odd"]);
    assert!(
        aborted.contains("aborted") && aborted.contains("looks odd"),
        "{aborted}"
    );
    let watched = failed(
        &server,
        here,
        LOCAL_FAILURE,
        &["rollout", "status", "adder", "--watch"],
    );
    assert!(watched.contains("looks odd"), "{watched}");

    let quick = [
        "--to",
        "2",
        "--steps",
        "50%,100%",
        "--guard",
        "p99<=60s",
        "--min-sample",
        "5",
    ];
    rollout(&[&["start", "adder"], quick.as_slice()].concat());
    for _ in 0..40 {
        server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    }
    let watched = rollout(&["status", "adder", "--watch"]);
    assert!(
        watched.contains("succeeded, version 2 at 100%"),
        "{watched}"
    );
    let history = rollout(&["history", "adder"]);
    assert!(
        history.contains("succeeded") && history.contains("aborted"),
        "{history}"
    );
    let policies = firebox(&server, here, &["traffic", "adder", "--history"]);
    assert!(policies.contains("rollout 2"), "{policies}");
    let shadow = firebox(&server, here, &["shadow", "adder"]);
    assert!(shadow.contains("no version gets copies"), "{shadow}");
}

#[test]
fn a_guard_that_can_not_be_read_is_pointed_at_before_anything_is_sent() {
    for (arguments, part) in [
        (
            ["--guard", "p95<=1.2*stabel"],
            "character 10: expected `stable`",
        ),
        (
            ["--steps", "5%:10m"],
            "character 7: expected `,` and a last step of 100%",
        ),
    ] {
        let start = ["rollout", "start", "adder", "--to", "2"];
        let output = binary::run(start.iter().chain(&arguments));
        assert_eq!(output.status.code(), Some(2));
        let (_, err) = texts(&output);
        assert!(err.contains(part), "{err}");
    }
}
