//! What a caller sees over HTTP: a call of a function that gives its input back, against a route of
//! the same server that does nothing, and a kept answer of the same function, one caller at a time on
//! one kept connection, and many at once.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::time::Duration;

use firebox_benches::{Caller, Series, Spread, load};
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::{Method, Request};

const ROUNDS: usize = 7;
const CALLS: usize = 1000;
const CALLERS: usize = 32;

#[tokio::main]
async fn main() {
    let server = Server::start().await;
    let probe = guests::component_of(&guests::guest("probe"));
    let probe = Bundle::of_component(probe);
    server.deploy("probe", &probe).await;
    let kept = probe.with_lines("[cache]\nttl = \"1h\"");
    server.deploy("kept", &kept).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let request = |method, path: &str, body: &'static str| {
        server.request(method, path).body(body).build().unwrap()
    };
    let route = request(Method::GET, "/v2/health/live", "");
    let guest = request(
        Method::POST,
        "/v1/functions/probe/invoke?mode=echo",
        r#"{"x": [[1, 2]]}"#,
    );
    let hit = request(
        Method::POST,
        "/v1/functions/kept/invoke?mode=echo",
        r#"{"x": [[1, 2]]}"#,
    );
    let model = request(Method::POST, "/v1/functions/adder/invoke", r#"{"x": [1]}"#);

    let mut rounds: [Vec<Series>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (request, rounds) in [&route, &guest, &model, &hit].into_iter().zip(&mut rounds) {
            let mut caller = Caller::connect(request).await;
            caller.call().await;
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                times.push(caller.call().await);
            }
            rounds.push(Series::new(times));
        }
    }
    let [route, echo, adder, kept] = rounds;
    println!("one caller, one kept connection");
    println!("  a route that does nothing     {}", route[ROUNDS / 2]);
    println!("  a guest that echoes its input {}", echo[ROUNDS / 2]);
    println!("  a model without a guest       {}", adder[ROUNDS / 2]);
    println!("  an echo that was kept         {}", kept[ROUNDS / 2]);
    println!(
        "  the guest's call adds         {} ms",
        Spread::of_difference(&echo, &route)
    );
    println!(
        "  the model's call adds         {} ms",
        Spread::of_difference(&adder, &route)
    );
    println!(
        "  the kept answer adds          {} ms",
        Spread::of_difference(&kept, &route)
    );

    let rates = [
        throughput(&guest).await,
        throughput(&model).await,
        throughput(&hit).await,
    ];
    println!("{CALLERS} callers at once");
    println!(
        "  a guest that echoes its input {} calls a second",
        rates[0]
    );
    println!(
        "  a model without a guest       {} calls a second",
        rates[1]
    );
    println!(
        "  an echo that was kept         {} calls a second",
        rates[2]
    );
}

/// Calls a second over rounds of three seconds.
async fn throughput(request: &Request) -> Spread {
    let mut rates = Vec::new();
    for _ in 0..3 {
        let (rate, _) = load(request, CALLERS, Duration::from_secs(3)).await;
        rates.push(rate);
    }
    Spread::of(rates)
}
