//! Each example answers its samples as onnxruntime does on the same preprocessed input, over the raw
//! interface and over the Open Inference Protocol. The expected answers are `tests/expected/*.json`,
//! made by `make.py` there.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use firebox_tests::binary::workspace;
use firebox_tests::client::send;
use firebox_tests::compare::assert_close;
use firebox_tests::{Server, guests};
use reqwest::Method;
use serde_json::{Value, json};

/// One sample of an example.
struct Sample {
    path: String,
    content_type: String,
    body: Vec<u8>,
    expected: Value,
}

/// What `tests/expected/<example>.json` holds: an expected answer for each sample of the example.
fn samples(example: &str) -> Vec<Sample> {
    let file = workspace().join(format!("tests/expected/{example}.json"));
    let list: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sample = |entry: &Value| {
        let path = text(&entry["sample"]);
        let body = std::fs::read(workspace().join(&path)).unwrap();
        let (content_type, expected) = (text(&entry["content_type"]), entry["expected"].clone());
        Sample {
            path,
            content_type,
            body,
            expected,
        }
    };
    let samples: Vec<Sample> = list.iter().map(sample).collect();
    assert!(!samples.is_empty());
    samples
}

/// A server with the example deployed as `function`.
async fn server_with(example: &str) -> Server {
    let server = Server::start().await;
    server
        .upload("function", guests::example(example))
        .await
        .expect(201);
    server
}

/// Calls the example with each of its samples as a raw body.
async fn answers_its_samples(example: &str) {
    let server = server_with(example).await;
    for sample in samples(example) {
        let request = server.request(Method::POST, "/v1/functions/function/invoke");
        let request = request
            .header("content-type", &sample.content_type)
            .body(sample.body);
        let answer = send(request).await.expect(200);
        println!("{}", sample.path);
        assert_close(&answer.json(), &sample.expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn file_type_answers_its_samples() {
    answers_its_samples("file-type").await;
}

#[tokio::test]
async fn sentence_embedding_answers_its_samples() {
    answers_its_samples("sentence-embedding").await;
}

#[tokio::test]
async fn voice_activity_answers_its_samples() {
    answers_its_samples("voice-activity").await;
}

#[tokio::test]
async fn page_orientation_answers_its_samples() {
    answers_its_samples("page-orientation").await;
}

#[tokio::test]
async fn passthrough_onnx_answers_its_samples() {
    answers_its_samples("passthrough-onnx").await;
}

#[tokio::test]
async fn a_component_answers_over_v2_as_over_the_raw_interface() {
    let server = server_with("sentence-embedding").await;
    let metadata = server.get("/v2/models/function").await.expect(200).json();
    assert_eq!(metadata["name"], "function");
    assert_eq!(metadata["inputs"][0]["name"], "body");
    assert_eq!(metadata["inputs"][0]["datatype"], "BYTES");
    for sample in samples("sentence-embedding") {
        let text = String::from_utf8(sample.body).unwrap();
        let question = json!({
            "id": "mine",
            "parameters": {"content-type": sample.content_type},
            "inputs": [{"name": "body", "datatype": "BYTES", "shape": [1], "data": [text]}],
        });
        let answer = server.infer("function", &question).await.expect(200).json();
        assert_eq!(
            (&answer["id"], &answer["model_name"]),
            (&json!("mine"), &json!("function"))
        );
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["name"], &output["datatype"]),
            (&json!("body"), &json!("BYTES"))
        );
        let body = output["data"][0].as_str().unwrap();
        assert_close(&serde_json::from_str(body).unwrap(), &sample.expected);
    }
}

#[tokio::test]
async fn a_model_answers_over_v2_as_over_the_raw_interface() {
    let server = server_with("passthrough-onnx").await;
    server.get("/v2/health/live").await.expect(200);
    server.get("/v2/models/function/ready").await.expect(200);
    let metadata = server
        .get("/v2/models/function/versions/1")
        .await
        .expect(200)
        .json();
    assert_eq!(metadata["inputs"][0]["datatype"], "FP32");
    for sample in samples("passthrough-onnx") {
        let input: Value = serde_json::from_slice(&sample.body).unwrap();
        let (shape, data) = flattened(&input["x"]);
        let x = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
        let answer = server
            .infer("function", &json!({"inputs": [x]}))
            .await
            .expect(200)
            .json();
        let (name, expected) = sample.expected.as_object().unwrap().iter().next().unwrap();
        let (shape, data) = flattened(expected);
        assert_eq!(
            (
                &answer["outputs"][0]["name"],
                &answer["outputs"][0]["shape"]
            ),
            (&json!(name), &json!(shape))
        );
        assert_close(&answer["outputs"][0]["data"], &json!(data));
    }
}

/// Nested arrays as their shape and their numbers in row-major order.
fn flattened(value: &Value) -> (Vec<usize>, Vec<Value>) {
    let Some(rows) = value.as_array() else {
        return (vec![], vec![value.clone()]);
    };
    let (mut shape, mut numbers) = (vec![rows.len()], vec![]);
    for (i, row) in rows.iter().enumerate() {
        let (inner, data) = flattened(row);
        if i == 0 {
            shape.extend(inner);
        }
        numbers.extend(data);
    }
    (shape, numbers)
}

#[tokio::test]
async fn a_snapshot_is_made_where_there_is_an_init() {
    let server = server_with("sentence-embedding").await;
    let info = server
        .get("/v1/functions/function/versions/1")
        .await
        .expect(200)
        .json();
    assert_eq!(info["kind"], "function");
    assert_eq!(info["snapshot"], true);
    assert!(info["reference_latency_ms"].as_f64().unwrap() > 0.0);
    assert!(info["models"]["minilm"]["bytes"].as_u64().unwrap() > 80_000_000);
}
