//! A server's settings: a file for the host, the environment over it, flags over that.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Output;

use firebox_tests::{Bundle, Server, binary, onnx};
use serde_json::Value;

const HOST: &str = "\
[requests]
max_body = \"1KiB\"

[instances]
max = 7
";

/// `firebox serve` with these arguments, which must end by itself.
fn serve(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = binary::command();
    command
        .current_dir(folder)
        .envs(environment.iter().copied());
    command.arg("serve").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder_with(file: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("host.toml"), file).unwrap();
    folder
}

#[tokio::test]
async fn a_server_does_as_its_file_says_and_a_flag_goes_over_it() {
    let folder = folder_with(HOST);
    let file = folder.path().join("host.toml");
    let file = ["--config", file.to_str().unwrap()];
    for (more, status) in [(vec![], 413), (vec!["--max-body", "1MiB"], 200)] {
        let arguments = [file.as_slice(), more.as_slice()].concat();
        let server = Server::start_with(&arguments).await;
        let adder = Bundle::of_model(onnx::add_one());
        server.deploy("adder", &adder).await;
        let body = format!("{:2000}", r#"{"x": [1]}"#);
        server.invoke("adder", body).await.expect(status);
    }
}

#[test]
fn every_setting_is_printed_with_where_it_is_from() {
    let folder = folder_with(HOST);
    let environment = [("FIREBOX_GRACE", "5s"), ("FIREBOX_INSTANCES", "8")];
    let arguments = ["--config", "host.toml", "--print-config", "--threads", "3"];
    let output = serve(folder.path(), &environment, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for (setting, origin) in [
        ("max_body = \"1KiB\"", "host.toml:2"),
        ("max = 8", "environment FIREBOX_INSTANCES"),
        ("grace = \"5s\"", "environment FIREBOX_GRACE"),
        ("threads = 3", "flag --threads"),
        ("listen = \"127.0.0.1:8080\"", "default"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(setting));
        let line = line.unwrap_or_else(|| panic!("{setting} is not in:\n{shown}"));
        assert!(line.ends_with(&format!("# {origin}")), "{line}");
    }
    assert!(
        !folder.path().join("firebox-data").exists(),
        "nothing is begun"
    );

    // What is printed is a file that says the same.
    std::fs::write(folder.path().join("all.toml"), &shown).unwrap();
    let arguments = ["--config", "all.toml", "--print-config", "--json"];
    let output = serve(folder.path(), &[], &arguments);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = json["settings"].as_array().unwrap();
    let threads = settings.iter().find(|s| s["key"] == "compute.threads");
    assert_eq!(threads.unwrap()["value"], "3");
    for setting in settings {
        let origin = setting["origin"].as_str().unwrap();
        assert!(origin.starts_with("all.toml:"), "{setting}");
    }
}

#[test]
fn what_can_not_be_is_a_wrong_command_line_and_told() {
    for (file, environment, arguments, words) in [
        (
            "[server]\nlisen = \"127.0.0.1:0\"",
            vec![],
            vec![],
            vec!["host.toml, line 2", "`server.lisen`", "`server.listen`"],
        ),
        (
            "[instances]\nmax = \"many\"",
            vec![],
            vec![],
            vec!["host.toml:2", "`instances.max`", "\"many\"", "a number"],
        ),
        ("[instances", vec![], vec![], vec!["host.toml", "line 1"]),
        (
            "",
            vec![("FIREBOX_MAX_BODY", "64MB")],
            vec![],
            vec!["FIREBOX_MAX_BODY", "`requests.max_body`", "64MB", "64MiB"],
        ),
        (
            "",
            vec![],
            vec!["--realtime-share", "100"],
            vec!["--realtime-share", "100", "from 0 to 90"],
        ),
        ("", vec![], vec!["--instnaces", "3"], vec!["--instances"]),
    ] {
        let folder = folder_with(file);
        let arguments = [vec!["--config", "host.toml"], arguments].concat();
        let output = serve(folder.path(), &environment, &arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "'{word}' is not said in:\n{said}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let output = serve(folder.path(), &[("FIREBOX_CONFIG", "gone.toml")], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("gone.toml can't be read"));
}
