//! What sharing runs brings: 64 callers at once, each in an instance of its own, of a small model
//! whose weights don't fit the second cache, with every call in a run of its own and with up to 32
//! rows in one. The two are measured in turns.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::process::ExitCode;
use std::time::Duration;

use firebox_benches::{Spread, load};
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::json;

const ROUNDS: usize = 5;
const CALLERS: usize = 64;
const ROUND: Duration = Duration::from_secs(4);
const SIZES: [usize; 5] = [64, 2048, 2048, 2048, 32];

#[tokio::main]
async fn main() -> ExitCode {
    let server = Server::start().await;
    let probe = guests::component_of(&guests::guest("probe"));
    let bundle = Bundle::of_component(probe).with_model("ranker", onnx::ranker(&SIZES));
    server.deploy("ranker", &bundle).await;
    let batching = "[models.ranker.batching]\nmax_batch_size = 32";
    server.deploy("ranker", &bundle.with_lines(batching)).await;
    let row: Vec<f32> = (0..SIZES[0]).map(|i| i as f32 / 64.0).collect();
    let requests = [1, 2].map(|version| {
        let path =
            format!("/v1/functions/ranker/versions/{version}/invoke?mode=model&model=ranker");
        let request = server.request(Method::POST, &path);
        request.json(&json!({ "x": [row] })).build().unwrap()
    });
    let (mut rates, mut times) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (at, request) in requests.iter().enumerate() {
            let (rate, latencies) = load(request, CALLERS, ROUND).await;
            rates[at].push(rate);
            times[at].push(latencies);
        }
    }
    let ratio = |of: &dyn Fn(usize, usize) -> f64| {
        Spread::of((0..ROUNDS).map(|round| of(1, round) / of(0, round)))
    };
    let throughput = ratio(&|at, round| rates[at][round]);
    let p99 = ratio(&|at, round| times[at][round].quantile(0.99).as_secs_f64());
    for (at, name) in ["each alone", "up to 32 rows together"]
        .into_iter()
        .enumerate()
    {
        let rate = Spread::of(rates[at].clone());
        println!("{name}: {rate} calls a second, {}", times[at][ROUNDS / 2]);
    }
    println!("throughput, together by alone: {throughput} (target 3)");
    println!("p99, together by alone: {p99} (target 1)");
    match throughput.median >= 3.0 && p99.median <= 1.0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
