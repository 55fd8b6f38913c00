//! `scripts/models.py`, which brings the models: whole files or none, however often it is called.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

use firebox_tests::binary::workspace;

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(workspace().join("scripts/models.py"))
        .args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn three_at_once_leave_whole_files_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().to_str().unwrap();
    let fetch = || script(&["--dest", dest, "text-direction"]).spawn().unwrap();
    let fetches = [fetch(), fetch(), fetch()];
    for output in fetches.map(|fetch| fetch.wait_with_output().unwrap()) {
        assert!(output.status.success(), "{}", said(&output));
    }
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".lock", "text_direction.onnx"]);
}

#[test]
fn a_package_index_out_of_reach_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = script(&["--dest", folder.path().to_str().unwrap(), "text-direction"]);
    command.envs([
        ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
        ("PIP_RETRIES", "0"),
    ]);
    command.envs([
        ("PIP_NO_CACHE_DIR", "1"),
        ("PIP_FIND_LINKS", ""),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(
        said(&output).contains("rapidocr-onnxruntime==1.4.4"),
        "{}",
        said(&output)
    );
    assert!(!folder.path().join("text_direction.onnx").exists());
}

#[test]
fn an_unknown_model_is_told_the_known_ones() {
    let output = script(&["mini"]).output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("minilm"), "{}", said(&output));
}
