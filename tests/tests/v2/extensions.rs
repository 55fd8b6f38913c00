//! Triton's extensions, as they stand on the wire.

use firebox_tests::client::send;
use firebox_tests::{Bundle, Server, onnx};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{binary, server};

const X: &str = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}"#;

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[tokio::test]
async fn an_answer_with_bytes_says_where_its_json_ends() {
    let server = server().await;
    let wanted = X.replace(
        "}}]}",
        r#"}}], "parameters": {"binary_data_output": true}}"#,
    );
    let tail = floats(&[1.0, 2.0]);
    let length = wanted.len().to_string();
    let answer = binary(&server, "adder", &wanted, &length, &tail)
        .await
        .expect(200);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let json: usize = answer
        .header("inference-header-content-length")
        .parse()
        .unwrap();
    let (head, bytes) = answer.body.split_at(json);
    let head: Value = serde_json::from_slice(head).unwrap();
    let output = json!({"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}});
    assert_eq!(head["outputs"], json!([output]));
    assert_eq!(bytes, floats(&[2.0, 3.0]));
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );

    // Without a wish for bytes, it is JSON alone.
    let length = X.len().to_string();
    let answer = binary(&server, "adder", X, &length, &tail)
        .await
        .expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("inference-header-content-length"), "");
    assert_eq!(answer.json()["outputs"][0]["data"], json!([2.0, 3.0]));

    // A body without any JSON is the only input, and is answered in bytes.
    let answer = binary(&server, "adder", "", "0", &tail).await.expect(200);
    assert!(answer.body.ends_with(&floats(&[2.0, 3.0])));
}

#[tokio::test]
async fn small_answers_are_never_compressed() {
    let server = server().await;
    let path = "/v2/models/adder/infer";
    for (count, coding) in [(3, ""), (3000, "gzip")] {
        let input =
            json!({"name": "x", "datatype": "FP32", "shape": [count], "data": vec![1; count]});
        let request = server.request(Method::POST, path);
        let request = request.header("accept-encoding", "gzip");
        let answer = send(request.json(&json!({ "inputs": [input] })))
            .await
            .expect(200);
        assert_eq!(answer.header("content-encoding"), coding);
    }
}

#[tokio::test]
async fn a_realtime_version_in_traffic_cannot_be_unloaded() {
    let server = Server::start().await;
    let tier = Bundle::new().with_lines("tier = \"realtime\"");
    let bundle = tier.with_model("model", onnx::add_one());
    server.deploy("pinned", &bundle).await;
    let path = "/v2/repository/models/pinned/unload";
    let unload = || async { send(server.request(Method::POST, path)).await };
    unload()
        .await
        .refused_v2(409, &["pinned version 1", "realtime"]);
    let index = || async {
        let request = server.request(Method::POST, "/v2/repository/index");
        send(request.json(&json!({"ready": true})))
            .await
            .expect(200)
            .json()
    };
    assert_eq!(index().await[0]["state"], "READY");
}

#[tokio::test]
async fn an_index_of_what_is_ready_leaves_the_rest_out() {
    let server = server().await;
    let post = |path: &'static str| send(server.request(Method::POST, path));
    post("/v2/repository/models/adder/load").await.expect(200);
    post("/v2/repository/models/echo/unload").await.expect(200);
    let request = server.request(Method::POST, "/v2/repository/index");
    let index = send(request.json(&json!({"ready": true})))
        .await
        .expect(200)
        .json();
    assert_eq!(
        index,
        json!([{"name": "adder", "version": "1", "state": "READY", "reason": ""}])
    );
    let moves = server
        .get("/v1/functions/adder/versions/1/residency")
        .await
        .json();
    assert_eq!(moves["reason"], "asked for");
}

#[tokio::test]
async fn statistics_tell_what_was_computed_together_and_what_was_kept() {
    let server = Server::start().await;
    let ranker = Bundle::of_model(onnx::ranker(&[4, 8, 2]));
    let batching = "[models.model.batching]\nmax_batch_size = 8\nmax_queue_delay = \"200ms\"";
    server
        .deploy("ranker", &ranker.clone().with_lines(batching))
        .await;
    let cache = "[cache]\nttl = \"1h\"";
    server.deploy("kept", &ranker.with_lines(cache)).await;
    let body = |n: usize| {
        let rows = vec![n as f32; 4];
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": rows}]})
    };
    let bodies: Vec<_> = (0..8).map(body).collect();
    let calls = bodies.iter().map(|body| server.infer("ranker", body));
    for answer in join_all(calls).await {
        answer.expect(200);
    }
    let told = server
        .get("/v2/models/ranker/stats")
        .await
        .expect(200)
        .json();
    let told = &told["model_stats"][0];
    assert_eq!(told["inference_count"], 8, "{told}");
    let batches = told["batch_stats"].as_array().unwrap();
    let sum = |of: &dyn Fn(&Value) -> u64| batches.iter().map(of).sum::<u64>();
    let runs = sum(&|batch| batch["compute_infer"]["count"].as_u64().unwrap());
    let rows = sum(&|batch| {
        batch["batch_size"].as_u64().unwrap() * batch["compute_infer"]["count"].as_u64().unwrap()
    });
    assert_eq!(told["execution_count"], runs, "{told}");
    assert_eq!(rows, 8, "{told}");
    assert!(runs < 8, "none were computed together: {told}");

    for _ in 0..3 {
        server.infer("kept", &body(1)).await.expect(200);
    }
    let told = server
        .get("/v2/models/kept/versions/1/stats")
        .await
        .expect(200)
        .json();
    let told = &told["model_stats"][0];
    let sums = &told["inference_stats"];
    assert_eq!(told["inference_count"], 3, "{told}");
    assert_eq!(told["execution_count"], 1, "{told}");
    assert_eq!(sums["cache_hit"]["count"], 2, "{told}");
    assert_eq!(sums["cache_miss"]["count"], 1, "{told}");
    server
        .get("/v2/models/nobody/stats")
        .await
        .refused_v2(404, &["nobody"]);
    let config = server
        .get("/v2/models/ranker/config")
        .await
        .expect(200)
        .json();
    assert_eq!(config["max_batch_size"], 8);
    assert_eq!(config["input"][0]["dims"], json!([4]));
    assert_eq!(
        config["dynamic_batching"]["max_queue_delay_microseconds"],
        200_000
    );
}
