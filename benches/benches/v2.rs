//! An inference with 1 MB of floats by the Open Inference Protocol, as JSON and as bytes, over HTTP:
//! of a model that gives as much back, of one that gives eight numbers back, and of a real one that
//! looks at two pictures. One caller, one kept connection, in turns; requests are made beforehand, and
//! answers are read and not decoded.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::time::{Duration, Instant};

use firebox_benches::{Series, Spread};
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::{Client, Method, Request};
use serde_json::json;

const ROUNDS: usize = 7;
const CALLS: usize = 60;
/// Floats in 1 MiB.
const FLOATS: usize = 1 << 18;

#[tokio::main]
async fn main() {
    let server = Server::start().await;
    let adder = Bundle::of_model(onnx::add_one());
    server.deploy("adder", &adder).await;
    let ranker = Bundle::of_model(onnx::ranker(&[FLOATS, 8]));
    server.deploy("ranker", &ranker).await;
    let pages = Bundle::of_model(guests::model("orientation", "orientation.onnx"));
    server.deploy("pages", &pages).await;
    let client = Client::builder().no_proxy().build().unwrap();
    for (function, shape, what) in [
        ("adder", vec![FLOATS], "1 MiB in, 1 MiB out"),
        ("ranker", vec![1, FLOATS], "1 MiB in, 8 numbers out"),
        (
            "pages",
            vec![2, 3, 224, 224],
            "two pictures (1.15 MiB) in, 8 numbers out, of the model of page-orientation",
        ),
    ] {
        let (json, bytes) = requests(&server, function, &shape);
        let mut rounds: [Vec<Series>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (request, rounds) in [&json, &bytes].into_iter().zip(&mut rounds) {
                call(&client, request).await;
                let mut times = Vec::with_capacity(CALLS);
                for _ in 0..CALLS {
                    times.push(call(&client, request).await);
                }
                rounds.push(Series::new(times));
            }
        }
        let [json, bytes] = rounds;
        println!("{what}");
        println!("  as JSON    {}", json[ROUNDS / 2]);
        println!("  as bytes   {}", bytes[ROUNDS / 2]);
        println!(
            "  JSON takes {} times as long",
            Spread::of_ratio(&json, &bytes)
        );
    }
}

/// The same inference as JSON and as bytes.
fn requests(server: &Server, function: &str, shape: &[usize]) -> (Request, Request) {
    // Numbers of 24 random bits between -1 and 1 have all the digits that an f32 can need.
    let mut state = 1_u64;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            // Knuth's constants for a linear congruential generator (MMIX).
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    let path = format!("/v2/models/{function}/infer");
    let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": values});
    let json = json!({ "inputs": [input] }).to_string();
    let json = server.request(Method::POST, &path).body(json);
    let input = json!({"name": "x", "datatype": "FP32", "shape": shape,
        "parameters": {"binary_data_size": values.len() * 4}});
    let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let raw: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let bytes = server.request(Method::POST, &path);
    let bytes = bytes.header("inference-header-content-length", head.len());
    let bytes = bytes.body([head.as_bytes(), &raw].concat());
    (json.build().unwrap(), bytes.build().unwrap())
}

async fn call(client: &Client, request: &Request) -> Duration {
    let request = request.try_clone().unwrap();
    let began = Instant::now();
    let answer = client.execute(request).await.unwrap();
    assert!(answer.status().is_success());
    answer.bytes().await.unwrap();
    began.elapsed()
}
