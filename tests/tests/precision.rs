//! `precision = "int8"`: a model in 8 bits, beside the same file in f32.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use firebox_tests::{Bundle, Server, binary, onnx};
use serde_json::{Value, json};

/// Inputs and outputs: enough for weights to be quantised.
const SIZE: usize = 64;

fn weights() -> Vec<f32> {
    let each = 0..SIZE * SIZE;
    each.map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

fn input() -> Vec<f32> {
    let each = 0..SIZE;
    each.map(|i| (i * 29 % 64) as f32 / 32.0 - 1.0).collect()
}

/// `y = x · weights` on the CPU with a sample, and further lines about the model.
fn product(lines: &str) -> Bundle {
    let sample = json!({ "x": input() }).to_string();
    Bundle::of_model(onnx::product(&weights(), SIZE))
        .with_lines("device = \"cpu\"")
        .with_lines(lines)
        .with_lines("[sample]\nbody = \"sample.json\"")
        .with_file("sample.json", sample.into_bytes())
}

/// How far an answer is from the product, as a part of its largest number.
fn off(answer: &Value) -> f64 {
    let (x, weights) = (input(), weights());
    let answer = answer["y"].as_array().unwrap();
    assert_eq!(answer.len(), SIZE);
    let (mut most, mut largest) = (0.0f64, 0.0f64);
    for (column, y) in answer.iter().enumerate() {
        let terms = (0..SIZE).map(|at| f64::from(x[at]) * f64::from(weights[at * SIZE + column]));
        let expected: f64 = terms.sum();
        most = most.max((y.as_f64().unwrap() - expected).abs());
        largest = largest.max(expected.abs());
    }
    most / largest
}

#[tokio::test]
async fn int8_answers_near_f32_and_its_version_tells_how_near() {
    let server = Server::start().await;
    for (version, lines) in [(1, ""), (2, "precision = \"int8\"")] {
        assert_eq!(server.deploy("product", &product(lines)).await, version);
    }
    // Both are loaded at once, from one file.
    let body = json!({ "x": input() });
    for (version, least, most) in [(1, 0.0, 1e-5), (2, 1e-4, 0.02)] {
        let path = format!("/v1/functions/product/versions/{version}/invoke");
        let answer = server.post(&path, &body).await.expect(200).json();
        let off = off(&answer);
        assert!((least..=most).contains(&off), "version {version}: {off}");
    }
    let mut told = Vec::new();
    for version in [1, 2] {
        let path = format!("/v1/functions/product/versions/{version}");
        told.push(server.get(&path).await.expect(200).json());
    }
    assert_eq!(told[0]["models"]["model"]["precision"], "f32");
    assert!(told[0]["deviation"].is_null(), "{}", told[0]);
    assert_eq!(told[1]["models"]["model"]["precision"], "int8");
    let deviation = &told[1]["deviation"][0];
    assert_eq!(deviation["output"], "y");
    let relative = deviation["max_relative"].as_f64().unwrap();
    let cosine = deviation["cosine"].as_f64().unwrap();
    assert!((1e-4..=0.02).contains(&relative), "{deviation}");
    assert!((0.999..=1.0).contains(&cosine), "{deviation}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_tells_how_near_int8_is() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("product.firebox");
    let bundle = product("precision = \"int8\"").tar("product");
    std::fs::write(&path, bundle).unwrap();
    let mut command = binary::command();
    command.env("FIREBOX_SERVER", server.url());
    let output = command.arg("deploy").arg(&path).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("off from f32") && said.contains("y: by 0.00"),
        "{said}"
    );
}

#[tokio::test]
async fn a_precision_that_there_is_not_is_refused() {
    let server = Server::start().await;
    let bundle = product("precision = \"int4\"").tar("product");
    let answer = server.upload("product", bundle).await;
    answer.refused(422, &["int4", "f32", "int8"]);
}
