//! Each kind of bad input gets its own clear refusal, and the server is none the worse for it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::long_body;
use firebox_tests::{Bundle, Server, guests, onnx};
use serde_json::{Value, json};

/// A server with `adder`, a model-only function: `x` float32 `[n]` → `y` float32 `[n]`.
async fn server_with_adder() -> Server {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    server
}

/// Fails unless the server still answers another function.
async fn still_serves(server: &Server) {
    let answer = server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    assert_eq!(answer.json(), json!({"y": [2.0]}));
}

/// Uploads a bundle that must be refused with these words and leave no version behind.
async fn upload_refused(bundle: Bundle, words: &[&str]) {
    let server = server_with_adder().await;
    server
        .upload("bad", bundle.tar("bad"))
        .await
        .refused(422, words);
    server
        .get("/v1/functions/bad/versions/1")
        .await
        .refused(404, &["bad"]);
    still_serves(&server).await;
}

mod uploads {
    use super::*;

    #[tokio::test]
    async fn bytes_that_are_no_bundle() {
        let server = server_with_adder().await;
        server
            .upload("bad", "this is not a tar")
            .await
            .refused(422, &["not an ONNX model"]);
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn a_component_that_is_not_wasm() {
        let text = b"#!/bin/sh\necho hello\n".to_vec();
        upload_refused(Bundle::of_component(text), &["WebAssembly"]).await;
    }

    #[tokio::test]
    async fn a_core_module_where_a_component_is_wanted() {
        let module = b"\0asm\x01\0\0\0".to_vec();
        upload_refused(Bundle::of_component(module), &["component"]).await;
    }

    #[tokio::test]
    async fn a_component_that_imports_what_the_host_does_not_give() {
        // A good component, but for the package of its wasi:nn imports.
        let mut wasm = guests::component_of(&guests::guest("probe"));
        let (given, wanted) = (b"wasi:nn/graph@", b"acme:nn/graph@");
        let places = wasm.windows(given.len()).enumerate();
        let places: Vec<usize> = places
            .filter(|(_, w)| w == given)
            .map(|(at, _)| at)
            .collect();
        for at in places {
            wasm[at..at + wanted.len()].copy_from_slice(wanted);
        }
        upload_refused(
            Bundle::of_component(wasm),
            &["acme:nn/graph@0.2.0-rc-2024-10-28"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_truncated_model() {
        let mut model = guests::model("text-direction", "text_direction.onnx");
        model.truncate(model.len() / 2);
        upload_refused(Bundle::of_model(model), &["model", "ONNX"]).await;
    }

    #[tokio::test]
    async fn a_model_with_an_operator_that_is_not_supported() {
        let words = ["FrobnicateTwice", "strange", "17"];
        upload_refused(Bundle::of_model(onnx::unknown_operator()), &words).await;
    }

    #[tokio::test]
    async fn a_manifest_with_an_unknown_key_is_told_the_nearest_one() {
        let bundle = Bundle::of_model(onnx::add_one()).with_lines("[scaling]\nkeepalive = \"1s\"");
        upload_refused(bundle, &["keepalive", "keep_alive"]).await;
    }

    #[tokio::test]
    async fn a_manifest_that_names_a_file_the_bundle_lacks() {
        let bundle = Bundle::new().with_lines("[models.m]\npath = \"models/gone.onnx\"");
        upload_refused(bundle, &["models/gone.onnx"]).await;
    }

    #[tokio::test]
    async fn a_file_that_would_leave_the_bundle() {
        let server = server_with_adder().await;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..12].copy_from_slice(b"../evil.onnx");
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        let bytes = tar.into_inner().unwrap();
        server
            .upload("bad", bytes)
            .await
            .refused(422, &["../evil.onnx"]);
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn a_function_name_that_is_none() {
        let server = server_with_adder().await;
        let bytes = Bundle::of_model(onnx::add_one()).tar("adder");
        let answer = server.upload("No%20Name", bytes).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert!(answer.text().contains("No Name"), "{}", answer.text());
    }
}

mod tensors {
    use super::*;

    /// A V2 request to `adder` with this input.
    async fn infer_refused(input: Value, words: &[&str]) {
        let server = server_with_adder().await;
        server
            .infer("adder", &json!({"inputs": [input]}))
            .await
            .refused_v2(400, words);
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn of_a_wrong_type() {
        let input = json!({"name": "x", "datatype": "INT64", "shape": [2], "data": [1, 2]});
        infer_refused(input, &["x", "f32", "i64"]).await;
    }

    #[tokio::test]
    async fn of_a_wrong_rank() {
        let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
        infer_refused(input, &["x", "[1, 2]"]).await;
    }

    #[tokio::test]
    async fn of_a_wrong_name() {
        let input = json!({"name": "z", "datatype": "FP32", "shape": [2], "data": [1, 2]});
        infer_refused(input, &["z", "x"]).await;
    }

    #[tokio::test]
    async fn of_another_length_than_their_shape() {
        let input = json!({"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2]});
        infer_refused(input, &["x", "3", "2"]).await;
    }

    #[tokio::test]
    async fn of_no_known_type() {
        let input = json!({"name": "x", "datatype": "FLOAT", "shape": [2], "data": [1, 2]});
        infer_refused(input, &["FLOAT"]).await;
    }

    #[tokio::test]
    async fn of_a_shape_too_big_to_be_true() {
        let shape = json!([u64::MAX, u64::MAX]);
        let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": [1]});
        infer_refused(input, &["x"]).await;
    }

    #[tokio::test]
    async fn that_are_missing() {
        let server = server_with_adder().await;
        server
            .infer("adder", &json!({"inputs": []}))
            .await
            .refused_v2(400, &["x"]);
        server.invoke("adder", "{}").await.refused(400, &["x"]);
    }

    #[tokio::test]
    async fn of_words_where_numbers_are_wanted() {
        let server = server_with_adder().await;
        server
            .invoke("adder", r#"{"x": ["one"]}"#)
            .await
            .refused(400, &["x"]);
        server
            .invoke("adder", r#"{"x": [[1], [2, 3]]}"#)
            .await
            .refused(400, &["x"]);
    }
}

mod bodies {
    use super::*;

    #[tokio::test]
    async fn of_broken_json() {
        let server = server_with_adder().await;
        server
            .invoke("adder", r#"{"x": [1, "#)
            .await
            .refused(400, &["JSON"]);
        let path = "/v2/models/adder/infer";
        server
            .invoke_at(path, "{")
            .await
            .refused_v2(400, &["V2", "while parsing"]);
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn of_text_that_is_not_utf8() {
        let server = server_with_adder().await;
        let bytes = b"{\"x\": [1], \"\xFF\xFE\": 2}".to_vec();
        server
            .invoke("adder", bytes.clone())
            .await
            .refused(400, &["UTF-8"]);
        server
            .invoke_at("/v2/models/adder/infer", bytes)
            .await
            .refused_v2(400, &["UTF-8"]);
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn of_200_megabytes_over_the_limit() {
        let server = server_with_adder().await;
        let before = server.resident_bytes();
        let request = server
            .request(reqwest::Method::POST, "/v1/functions/adder/invoke")
            .header("content-length", 200_u64 << 20)
            .body(long_body(200 << 20));
        // The server may answer and hang up before all is sent; that must not look like success.
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), 413);
        }
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 100 << 20, "the server grew by {grown} bytes");
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn over_a_small_limit_with_and_without_a_length() {
        let server = Server::start_with(&["--max-body", "64KiB"]).await;
        server
            .deploy("adder", &Bundle::of_model(onnx::add_one()))
            .await;
        let path = "/v1/functions/adder/invoke";
        server
            .invoke("adder", vec![b' '; 65 << 10])
            .await
            .refused(413, &["65536"]);
        server
            .invoke_at(path, long_body(128 << 10))
            .await
            .refused(413, &["65536"]);
        still_serves(&server).await;
    }
}

mod guest_programs {
    use super::*;

    /// A server with `adder` and `probe`, a guest that misbehaves as its parameter `mode` says.
    async fn server_with_probe(limits: &str) -> Server {
        let server = server_with_adder().await;
        let component = guests::component_of(&guests::guest("probe"));
        let limits = format!("[limits]\n{limits}");
        let bundle = Bundle::of_component(component).with_lines(&limits);
        server.deploy("probe", &bundle).await;
        server
    }

    async fn probe(server: &Server, mode: &str) -> firebox_tests::Answer {
        let path = format!("/v1/functions/probe/invoke?mode={mode}");
        server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await
    }

    #[tokio::test]
    async fn that_trap() {
        let server = server_with_probe("").await;
        for mode in ["panic", "recurse", "exit"] {
            let answer = probe(&server, mode).await.refused(502, &["stopped"]);
            assert!(
                !answer.text().contains("wasm["),
                "a backtrace is told: {}",
                answer.text()
            );
            still_serves(&server).await;
        }
        let answer = probe(&server, "echo").await.expect(200);
        assert_eq!(answer.json(), json!({"x": [[1.0, 2.0]]}));
    }

    #[tokio::test]
    async fn that_never_end_while_others_keep_answering() {
        let server = server_with_probe("deadline = \"2s\"").await;
        let began = Instant::now();
        let stuck = probe(&server, "spin");
        let others = async {
            let mut answered = 0;
            while began.elapsed() < Duration::from_millis(1500) {
                still_serves(&server).await;
                answered += 1;
            }
            answered
        };
        let (stuck, answered) = tokio::join!(stuck, others);
        stuck.refused(504, &["2s"]);
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "the deadline held {:?}",
            began.elapsed()
        );
        assert!(
            answered > 20,
            "only {answered} answers beside a guest that loops"
        );
    }

    #[tokio::test]
    async fn that_take_memory_without_end() {
        let server = server_with_probe("memory = \"32MiB\"").await;
        let before = server.resident_bytes();
        let hungry = probe(&server, "allocate");
        let (hungry, ()) = tokio::join!(hungry, still_serves(&server));
        hungry.refused(502, &["32"]);
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 96 << 20, "the server grew by {grown} bytes");
        still_serves(&server).await;
    }

    #[tokio::test]
    async fn that_answer_with_an_error() {
        let server = server_with_probe("").await;
        probe(&server, "refuse")
            .await
            .refused(400, &["refused on purpose"]);
        probe(&server, "internal")
            .await
            .refused(500, &["internal on purpose"]);
        let busy = probe(&server, "unavailable")
            .await
            .refused(503, &["unavailable on purpose"]);
        assert!(!busy.header("retry-after").is_empty());
    }
}
