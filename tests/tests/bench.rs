//! `firebox bench`: a model timed by the real binary.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Output;

use firebox_tests::{binary, guests};
use serde_json::Value;

fn model() -> PathBuf {
    guests::model("text-direction", "text_direction.onnx");
    binary::target().join("models/text_direction.onnx")
}

fn bench(model: &Path, more: &[&str]) -> Output {
    let mut command = binary::command();
    command.arg("bench").arg(model).args(more);
    command.output().unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const SHAPE: [&str; 2] = ["--input", "x=2x3x48x192"];

#[test]
fn a_model_is_timed() {
    let said = json(&bench(
        &model(),
        &[&SHAPE[..], &["--rounds", "1", "--json"]].concat(),
    ));
    let [one] = said["engines"].as_array().unwrap().as_slice() else {
        panic!("expected one engine: {said}");
    };
    assert_eq!(one["engine"], "firebox");
    let (p50, p99) = (
        one["p50_ns"].as_f64().unwrap(),
        one["p99_ns"].as_f64().unwrap(),
    );
    assert!(
        p50 > 1000.0 && p99 >= p50 && one["runs"].as_u64().unwrap() > 0,
        "{one}"
    );
}

#[test]
fn int8_is_timed_against_f32_and_told_how_near_it_is() {
    let arguments = ["--rounds", "1", "--json", "--precision", "int8"];
    let said = json(&bench(&model(), &[&SHAPE[..], &arguments].concat()));
    let [int8, exact] = said["engines"].as_array().unwrap().as_slice() else {
        panic!("expected two engines: {said}");
    };
    assert_eq!(int8["engine"], "firebox int8");
    assert_eq!(exact["engine"], "firebox");
    assert!(exact["ratio"][1].as_f64().unwrap() > 0.0, "{exact}");
    let relative = exact["difference"]["relative"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 0.5, "{exact}");
}

#[test]
fn a_profile_tells_every_step() {
    let said = json(&bench(
        &model(),
        &[&SHAPE[..], &["--profile", "--json"]].concat(),
    ));
    let steps = said["steps"].as_array().unwrap();
    assert!(
        steps
            .iter()
            .filter(|step| step["operator"] == "Conv")
            .count()
            > 50
    );
    assert!(steps.iter().all(|step| step["ns"].as_u64().unwrap() > 0));
    let table = bench(&model(), &[&SHAPE[..], &["--profile"]].concat());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.starts_with("OPERATOR") && table.contains("Conv"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_timed_is_said() {
    let failed = |model: &Path, more: &[&str], code: i32| {
        let output = bench(model, more);
        assert_eq!(output.status.code(), Some(code));
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = failed(Path::new("no-such.onnx"), &[], 1);
    assert!(
        missing.contains("no-such.onnx can't be loaded"),
        "{missing}"
    );
    let unknown = failed(&model(), &["--input", "y=1x2"], 2);
    assert!(
        unknown.contains("no input `y`") && unknown.contains("its inputs are x"),
        "{unknown}"
    );
    let wrong = failed(&model(), &["--input", "x=1x4x48x192"], 1);
    assert!(wrong.contains("[1, 4, 48, 192]"), "{wrong}");
    let precision = failed(&model(), &["--precision", "int4"], 2);
    assert!(precision.contains("expected f32 or int8"), "{precision}");
    let device = failed(&model(), &["--precision", "int8", "--device", "cuda"], 2);
    assert!(device.contains("int8 is for the cpu"), "{device}");
    let shape = failed(&model(), &["--input", "x=1,3"], 2);
    assert!(shape.contains("sizes with x between them"), "{shape}");
}
