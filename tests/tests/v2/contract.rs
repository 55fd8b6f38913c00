//! Schemathesis draws requests from `/openapi.json`, and holds the answers against it.

use std::process::Command;
use std::time::Duration;

use firebox_tests::{binary, python};

use super::server;

/// Longer than its few examples take on a slow machine.
const LONGEST: Duration = Duration::from_secs(300);

#[tokio::test]
async fn requests_drawn_from_the_description_are_answered_as_it_says() {
    let Some(python) = python::with(&["schemathesis==4.32.5"]) else {
        return;
    };
    let server = server().await;
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.args(["run", &format!("{}/openapi.json", server.url())]);
    command.args([
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=4",
        "--seed=7",
        "--generation-deterministic",
        "--no-color",
        "--suppress-health-check=all",
        "--request-timeout=30",
    ]);
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    // It keeps examples where it runs.
    command.current_dir(server.data().parent().unwrap());
    let run = move || binary::output_within(command, LONGEST);
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        server.log()
    );
}
