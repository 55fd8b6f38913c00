//! An inference with 1 MB of floats by the Open Inference Protocol, as JSON and as bytes, over HTTP:
//! of a model that gives as much back, of one that gives eight numbers back, and of a real one that
//! looks at two pictures. One caller, one kept connection, in turns; requests are made beforehand, and
//! answers are read and not decoded. Beside them, what no server gets around that takes JSON: that
//! this text comes over a connection, and that its numbers are read.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::convert::Infallible;
use std::hint::black_box;
use std::time::{Duration, Instant};

use firebox_benches::{Series, Spread};
use firebox_tests::{Bundle, Server, guests, onnx};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Client, Method, Request};
use serde_json::json;
use tokio::net::TcpListener;

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
    let reader = reader().await;
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
        let mut dropped = json.try_clone().unwrap();
        dropped.url_mut().set_port(Some(reader)).unwrap();
        let numbers = numbers(&json);
        let mut rounds: [Vec<Series>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let [calls @ .., parses] = &mut rounds;
            for (request, rounds) in [&json, &bytes, &dropped].into_iter().zip(calls) {
                call(&client, request).await;
                let mut times = Vec::with_capacity(CALLS);
                for _ in 0..CALLS {
                    times.push(call(&client, request).await);
                }
                rounds.push(Series::new(times));
            }
            parses.push(Series::new((0..CALLS).map(|_| parse(numbers)).collect()));
        }
        let [json, bytes, dropped, parsed] = rounds;
        println!("{what}");
        println!("  as JSON    {}", json[ROUNDS / 2]);
        println!("  as bytes   {}", bytes[ROUNDS / 2]);
        for (what, times) in [
            ("JSON takes", json),
            ("sending the text to a server that drops it takes", dropped),
            ("reading its numbers by serde_json takes", parsed),
        ] {
            let ratio = Spread::of_ratio(&times, &bytes);
            println!("  {what} {ratio} times as long as bytes");
        }
    }
}

/// The port of a server that reads what it is sent, keeps nothing and answers with nothing.
async fn reader() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = async |mut request: hyper::Request<Incoming>| {
        while let Some(frame) = request.frame().await {
            frame.unwrap();
        }
        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
    };
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let serve = http1::Builder::new();
            let serve = serve.serve_connection(TokioIo::new(connection), service_fn(answer));
            tokio::spawn(serve);
        }
    });
    port
}

/// The array of numbers in a request.
fn numbers(request: &Request) -> &[u8] {
    let text = request.body().unwrap().as_bytes().unwrap();
    let data = b"\"data\":";
    let at = text.windows(data.len()).position(|part| part == data);
    let (_, array) = text.split_at(at.unwrap() + data.len());
    let end = array.iter().position(|byte| *byte == b']').unwrap();
    &array[..=end]
}

fn parse(numbers: &[u8]) -> Duration {
    let began = Instant::now();
    black_box(serde_json::from_slice::<Vec<f32>>(numbers).unwrap());
    began.elapsed()
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
