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
use tokio::runtime::Builder;

const ROUNDS: usize = 7;
const CALLS: usize = 1000;
const CALLERS: usize = 32;

fn main() {
    // One caller on one thread: others of the client would have to be woken, too.
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let (server, requests) = one.block_on(latency());
    let many = Builder::new_multi_thread().enable_all().build().unwrap();
    many.block_on(throughput(&requests));
    drop(server);
}

/// How long one caller waits.
async fn latency() -> (Server, [Request; 3]) {
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

    let mut callers = Vec::new();
    for request in [&route, &guest, &model, &hit] {
        callers.push(Caller::connect(request).await);
    }
    let mut rounds: [Vec<Series>; 4] = Default::default();
    for _ in 0..ROUNDS {
        // One call of each in turns: which processors the two processes are on, and whether these
        // sleep meanwhile, makes more of a difference than the call.
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..CALLS {
            for (caller, times) in callers.iter_mut().zip(&mut times) {
                times.push(caller.call().await);
            }
        }
        for (times, rounds) in times.into_iter().zip(&mut rounds) {
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
    (server, [guest, model, hit])
}

/// How many answers many callers get.
async fn throughput(requests: &[Request; 3]) {
    println!("{CALLERS} callers at once");
    let names = [
        "a guest that echoes its input",
        "a model without a guest",
        "an echo that was kept",
    ];
    for (name, request) in names.into_iter().zip(requests) {
        let mut rates = Vec::new();
        for _ in 0..3 {
            let (rate, _) = load(request, CALLERS, Duration::from_secs(3)).await;
            rates.push(rate);
        }
        println!("  {name:29} {} calls a second", Spread::of(rates));
    }
}
