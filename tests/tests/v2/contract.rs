//! Schemathesis draws requests from `/openapi.json`, and holds the answers against it.

use std::process::Command;
use std::time::Duration;

use firebox_tests::{binary, python};

use super::server;

/// Longer than its few examples take on a slow machine.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs Schemathesis with further arguments. The examples that it draws are always the same.
async fn schemathesis(arguments: &'static [&'static str]) {
    let Some(python) = python::with(&["schemathesis==4.32.5"]) else {
        return;
    };
    let server = server().await;
    let mut command = Command::new(python.with_file_name("schemathesis"));
    let clients = binary::workspace().join("tests/clients");
    command.env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.env("PYTHONPATH", &clients);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    // It keeps what it draws where it runs.
    let folder = tempfile::tempdir().unwrap();
    command.current_dir(folder.path());
    if arguments.contains(&OF_WHAT_IS_THERE) {
        command
            .arg("--config-file")
            .arg(clients.join("schemathesis.toml"));
    }
    command.args(["run", &format!("{}/openapi.json", server.url())]);
    command.args([
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases=examples,coverage,fuzzing",
        "--generation-deterministic",
        "--no-color",
        "--suppress-health-check=all",
        "--request-timeout=30",
    ]);
    command.args(arguments);
    let run = move || binary::output_within(command, LONGEST);
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        server.log()
    );
}

/// Nothing is deleted, so that the requests go on to meet something.
const OF_WHAT_IS_THERE: &str = "--exclude-method=DELETE";

#[tokio::test]
async fn requests_drawn_from_the_description_are_answered_as_it_says() {
    schemathesis(&["--max-examples=4"]).await;
}

#[tokio::test]
async fn requests_to_what_is_there_are_answered_as_it_says() {
    schemathesis(&[OF_WHAT_IS_THERE, "--max-examples=8"]).await;
}
