//! Dynamic batching: calls of different instances share runs of a model, and each gets its own rows.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::compare::assert_close;
use firebox_tests::{Bundle, Server, guests, onnx};
use futures::future::join_all;
use serde_json::{Value, json};

const INPUTS: usize = 64;

fn row(seed: usize) -> Vec<f32> {
    let each = 0..INPUTS;
    each.map(|i| ((i * 29 + seed * 7) % 64) as f32 / 32.0 - 1.0)
        .collect()
}

fn ranker() -> Vec<u8> {
    onnx::ranker(&[INPUTS, 96, 8])
}

/// Version 1 runs each call alone, version 2 together with others.
async fn both(server: &Server, function: &str, bundle: Bundle, batching: &str) {
    server.deploy(function, &bundle).await;
    server.deploy(function, &bundle.with_lines(batching)).await;
}

#[tokio::test]
async fn sandboxed_calls_share_runs_and_are_answered_as_alone() {
    let server = Server::start().await;
    let probe = guests::component_of(&guests::guest("probe"));
    let bundle = Bundle::of_component(probe).with_model("ranker", ranker());
    let batching = "[models.ranker.batching]\nmax_batch_size = 16\nmax_queue_delay = \"50ms\"";
    both(&server, "ranker", bundle, batching).await;
    let call = |version: u32, rows: Value| {
        let path =
            format!("/v1/functions/ranker/versions/{version}/invoke?mode=model&model=ranker");
        let server = &server;
        async move { server.post(&path, &json!({ "x": rows })).await }
    };
    // Callers with one row and with three.
    let questions: Vec<Value> = (0..32)
        .map(|n| match n % 8 {
            7 => json!([row(n), row(n + 1), row(n + 2)]),
            _ => json!([row(n)]),
        })
        .collect();
    let mut alone = vec![];
    for question in &questions {
        alone.push(call(1, question.clone()).await.expect(200).json());
    }
    let before = server.metric("firebox_model_runs_total", &[]).await;
    let together = join_all(questions.iter().map(|question| call(2, question.clone()))).await;
    let runs = server.metric("firebox_model_runs_total", &[]).await - before;
    for (together, alone) in together.into_iter().zip(alone) {
        assert_close(&together.expect(200).json(), &alone);
    }
    println!("32 calls in {runs} runs");
    assert!((3.0..=16.0).contains(&runs), "{runs} runs");
    let rows = server
        .metric("firebox_batch_rows_sum", &["function=\"ranker\""])
        .await;
    assert!(rows >= 40.0, "{rows} rows");

    // One whose input fits nothing fails alone, and a NaN stays with its caller.
    let mut questions: Vec<Value> = (0..8).map(|n| json!([row(n)])).collect();
    questions[2] = json!([[1.0, 2.0]]);
    questions[5] = json!([vec![Value::from("NaN"); INPUTS]]);
    let answers = join_all(questions.iter().map(|question| call(2, question.clone()))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        if n == 2 {
            answer.refused(400, &["expected shape [batch, 64]", "found [1, 2]"]);
            continue;
        }
        let answer = answer.expect(200).json();
        if n != 5 {
            let alone = call(1, questions[n].clone()).await.expect(200).json();
            assert_close(&answer, &alone);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn sentences_of_different_lengths_share_runs_where_the_manifest_pads() {
    let server = Server::start().await;
    let component = guests::component_of(&guests::example("sentence-embedding"));
    let bundle = Bundle::of_component(component)
        .with_lines("[assets]\n\"vocab.txt\" = \"vocab.txt\"")
        .with_file("vocab.txt", guests::model("minilm", "minilm.vocab.txt"))
        .with_model("minilm", guests::model("minilm", "minilm.onnx"));
    let batching = "[models.minilm.batching]\nmax_batch_size = 8\nmax_queue_delay = \"100ms\"\n\
                    pad = { input_ids = 0, attention_mask = 0, token_type_ids = 0 }";
    both(&server, "embed", bundle, batching).await;
    let sentences = [
        "A cat sits on the mat.",
        "A kitten rests on a soft rug.",
        "The stock market crashed today.",
        "It rains.",
        "Where is the next railway station, please?",
        "She sells sea shells by the sea shore.",
    ];
    let path = |version: u32| format!("/v1/functions/embed/versions/{version}/invoke");
    let (one, two) = (path(1), path(2));
    let mut alone = vec![];
    for sentence in sentences {
        alone.push(server.invoke_at(&one, sentence).await.expect(200).json());
    }
    server.invoke_at(&two, sentences[0]).await.expect(200);
    let before = server.metric("firebox_model_runs_total", &[]).await;
    let calls = sentences
        .iter()
        .map(|&sentence| server.invoke_at(&two, sentence));
    let together = join_all(calls).await;
    let runs = server.metric("firebox_model_runs_total", &[]).await - before;
    for (together, alone) in together.into_iter().zip(alone) {
        assert_close(&together.expect(200).json(), &alone);
    }
    println!("{} sentences in {runs} runs", sentences.len());
    assert!(runs < sentences.len() as f64, "{runs} runs");
    server.stop().await;
}

#[tokio::test]
async fn models_that_cannot_share_runs_are_refused() {
    let server = Server::start().await;
    let batched = |onnx: Vec<u8>, more: &str| {
        Bundle::of_model(onnx).with_lines(&format!("batching = {{ max_batch_size = 8{more} }}"))
    };
    let upload = |bundle: Bundle| {
        let server = &server;
        async move { server.upload("f", bundle.tar("f")).await }
    };
    upload(batched(onnx::running_sum(), "")).await.refused(
        422,
        &["model `model`", "answered otherwise than alone", "`y`"],
    );
    upload(batched(ranker(), ", pad = { z = 0 }"))
        .await
        .refused(422, &["`z`, which is no input; expected x"]);
    upload(batched(ranker(), ", pad = { x = 0 }"))
        .await
        .refused(422, &["`x`, [batch, 64], which has no named dimension"]);
    upload(batched(ranker(), ", max_batch = 9")).await.refused(
        422,
        &["did you mean `models.model.batching.max_batch_size`"],
    );
    upload(batched(ranker(), "")).await.expect(201);
    server.stop().await;
}

/// A caller who hangs up or whose deadline passes costs no run, and holds nobody up.
#[tokio::test]
async fn who_has_gone_is_not_computed() {
    let server = Server::start_with(&["--threads", "1"]).await;
    let bundle = Bundle::of_model(ranker())
        .with_lines("batching = { max_batch_size = 8, max_queue_delay = \"1s\" }");
    server.deploy("f", &bundle).await;
    let question = json!({ "x": [row(0)] });
    let before = server.metric("firebox_model_runs_total", &[]).await;
    let started = Instant::now();
    let hasty = server
        .request(reqwest::Method::POST, "/v1/functions/f/invoke")
        .header("x-firebox-timeout-ms", "100")
        .json(&question);
    let hasty = firebox_tests::client::send(hasty).await;
    hasty.expect(504);
    assert!(started.elapsed() < Duration::from_millis(900));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let runs = server.metric("firebox_model_runs_total", &[]).await - before;
    assert_eq!(runs, 0.0);
    let answer = server.post("/v1/functions/f/invoke", &question).await;
    answer.expect(200);
    server.stop().await;
}
