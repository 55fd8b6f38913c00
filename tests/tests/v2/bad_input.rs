//! Requests that lie about themselves: each is refused with what is wrong, and the server is none
//! the worse for it.

use firebox_tests::Server;
use firebox_tests::client::send;
use reqwest::Method;
use serde_json::json;

use super::{binary, server, server_with};

async fn still_serves(server: &Server) {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]});
    let answer = server.infer("adder", &json!({ "inputs": [input] })).await;
    assert_eq!(
        answer.expect(200).json()["outputs"][0]["data"],
        json!([2.0])
    );
}

fn input(datatype: &str, shape: &str, size: &str) -> String {
    format!(
        r#"{{"inputs": [{{"name": "x", "datatype": "{datatype}", "shape": {shape}, "parameters": {{"binary_data_size": {size}}}}}]}}"#
    )
}

#[tokio::test]
async fn lengths_that_lie() {
    let server = server().await;
    let json = input("FP32", "[1]", "4");
    let right = json.len().to_string();
    let past = (json.len() + 5).to_string();
    for (length, tail, words) in [
        (&*past, &[0; 4][..], "the body is shorter"),
        (
            "18446744073709551616",
            &[0; 4],
            "Inference-Header-Content-Length",
        ),
        ("-1", &[0; 4], "Inference-Header-Content-Length"),
        ("5", &[0; 4], "not an inference request"),
        (&*right, &[0; 3], "the body ends before"),
        (&*right, &[0; 5], "left behind the last input"),
    ] {
        let answer = binary(&server, "adder", &json, length, tail).await;
        answer.refused_v2(400, &[words]);
    }
    for (size, words) in [
        ("8", "has 4 bytes, `binary_data_size` says 8"),
        ("-4", "expected a number of bytes"),
        ("18446744073709551615", "`binary_data_size` says"),
    ] {
        let json = input("FP32", "[1]", size);
        let answer = binary(&server, "adder", &json, &json.len().to_string(), &[0; 4]).await;
        answer.refused_v2(400, &[words]);
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn shapes_that_overflow() {
    let server = server().await;
    for shape in [
        "[4611686018427387904, 4]",
        "[9223372036854775807, 9223372036854775807]",
        "[-1]",
        "[1e30]",
        "[1.5]",
        "\"[1]\"",
        "[9223372036854775808]",
    ] {
        let json = input("FP32", shape, "4");
        let answer = binary(&server, "adder", &json, &json.len().to_string(), &[0; 4]).await;
        answer.refused_v2(400, &[]);
        let json = json.replace(r#""parameters": {"binary_data_size": 4}"#, r#""data": [1]"#);
        let request = server.request(Method::POST, "/v2/models/adder/infer");
        send(request.body(json)).await.refused_v2(400, &[]);
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn shapes_of_too_many_dimensions() {
    let server = server().await;
    let deep = format!("[{}]", vec!["1"; 100_000].join(","));
    let json = input("FP32", &deep, "4");
    let words = ["input `x`", "at most 32 dimensions, found 100000"];
    let answer = binary(&server, "echo", &json, &json.len().to_string(), &[0; 4]).await;
    answer.refused_v2(400, &words);
    let json = json.replace(r#""parameters": {"binary_data_size": 4}"#, r#""data": [1]"#);
    let request = server.request(Method::POST, "/v2/models/echo/infer");
    send(request.body(json)).await.refused_v2(400, &words);
    // One that a function answers with is the function's fault, in each form of an answer.
    let words = ["output `x`", "at most 32 dimensions, found 100000"];
    let path = "/v1/functions/echo/invoke?mode=deep-output";
    let answer = server.invoke_at(path, r#"{"x": [[1, 2]]}"#).await;
    answer.refused(500, &words);
    let asked = json!({"inputs": [], "parameters": {"mode": "deep-output"}});
    server.infer("echo", &asked).await.refused_v2(500, &words);
    still_serves(&server).await;
}

/// Ten thousand times 4 MB would be 40 GB.
#[tokio::test]
async fn an_output_that_is_asked_for_many_times() {
    let server = server().await;
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]});
    let outputs = vec![json!({"name": "y"}); 10_000];
    let many = json!({"inputs": [x], "outputs": outputs});
    let before = server.metric("firebox_model_runs_total", &[]).await;
    let words = ["output `y` is asked for twice"];
    let answer = server.infer("adder", &many).await;
    answer.refused_v2(400, &words);
    let binary =
        json!({"inputs": [x], "outputs": outputs, "parameters": {"binary_data_output": true}});
    let answer = server.infer("adder", &binary).await;
    answer.refused_v2(400, &words);
    // The model isn't run for it.
    assert_eq!(server.metric("firebox_model_runs_total", &[]).await, before);
    let request = server.request(Method::POST, "/v1/functions/adder/jobs");
    let request = request.header("x-firebox-protocol", "v2");
    let job = send(request.body(many.to_string())).await.expect(202);
    let job = job.json();
    let id = job["job"].as_str().unwrap();
    server.job_done(id).await;
    let results = server.results(id).await;
    let error = &results[&1]["error"];
    assert_eq!(error["status"], 400, "{error}");
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains(words[0]), "{detail}");
    still_serves(&server).await;
}

#[tokio::test]
async fn texts_with_bad_lengths_and_booleans_that_are_neither() {
    let server = server().await;
    for (datatype, shape, tail, words) in [
        (
            "BYTES",
            "[1]",
            &[5, 0, 0, 0, b'a'][..],
            "reaches past the end",
        ),
        (
            "BYTES",
            "[1]",
            &[255, 255, 255, 255, 0],
            "reaches past the end",
        ),
        ("BYTES", "[1]", &[0, 0], "expected a length in 4 bytes"),
        ("BYTES", "[2]", &[0, 0, 0, 0], "should hold 2"),
        ("BYTES", "[1]", &[0, 0, 0, 0, 0, 0, 0, 0], "should hold 1"),
        ("BOOL", "[2]", &[1, 2], "expected a byte of 0 or 1, found 2"),
    ] {
        let json = input(datatype, shape, &tail.len().to_string());
        let answer = binary(&server, "echo", &json, &json.len().to_string(), tail).await;
        answer.refused_v2(400, &["input `x`", words]);
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn bodies_that_inflate_without_end_or_not_at_all() {
    let server = server_with(&["--max-body", "1MiB"]).await;
    let zeros = vec![0; 64 << 20];
    let bomb = {
        let mut packed = Vec::new();
        // zlib's format, in blocks that are stored, is made by hand only where it is small; a bomb
        // needs compressing.
        let mut encoder = flate2::write::ZlibEncoder::new(&mut packed, flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
        encoder.finish().unwrap();
        packed
    };
    assert!(bomb.len() < 100_000);
    let post = |coding: &'static str, body: Vec<u8>| {
        let request = server.request(Method::POST, "/v2/models/adder/infer");
        send(request.header("content-encoding", coding).body(body))
    };
    let answer = post("deflate", bomb.clone()).await;
    answer.refused_v2(413, &["1048576"]);
    post("gzip", bomb)
        .await
        .refused_v2(400, &["not whole gzip"]);
    post("deflate", b"{}".to_vec())
        .await
        .refused_v2(400, &["not whole deflate"]);
    let answer = post("br", b"{}".to_vec()).await;
    let answer = answer.refused_v2(415, &["gzip and deflate"]);
    assert_eq!(answer.header("accept-encoding"), "gzip, deflate");
    // What is too large before it is inflated is too.
    post("gzip", vec![7; 2 << 20]).await.refused_v2(413, &[]);
    still_serves(&server).await;
}

#[tokio::test]
async fn json_that_is_not_what_it_should_be() {
    let server = server().await;
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{\"inputs\":",
        "\u{feff}{}",
        r#"{"inputs": [[]]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": {"0": 1}}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1,]}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [01]}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["AAAA"]}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1], "data": [2]}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}"#,
        r#"{"inputs": [], "parameters": {"a": [1]}}"#,
        r#"{"inputs": [], "parameters": {"a": 9223372036854775808}}"#,
        r#"{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}"#,
    ] {
        let request = server.request(Method::POST, "/v2/models/adder/infer");
        send(request.body(body)).await.refused_v2(400, &[]);
    }
    let load = server.request(Method::POST, "/v2/repository/models/adder/load");
    let files = json!({"parameters": {"file:1/model.onnx": "this is no base64"}});
    send(load.json(&files))
        .await
        .refused_v2(400, &["deploy another version"]);
    let index = server.request(Method::POST, "/v2/repository/index");
    send(index.body("[true]"))
        .await
        .refused_v2(400, &["JSON object"]);
    still_serves(&server).await;
}

#[tokio::test]
async fn paths_that_are_not_text() {
    let server = server().await;
    for path in ["/v2/models/%FF", "/v2/models/%C3%28/versions/1"] {
        server
            .get(path)
            .await
            .refused_v2(400, &["the path", "UTF-8"]);
    }
    for path in ["/v1/functions/%FF", "/v1/functions/adder/versions/%FF"] {
        server.get(path).await.refused(400, &["the path", "UTF-8"]);
    }
    still_serves(&server).await;
}
