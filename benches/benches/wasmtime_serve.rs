//! Requests a second against `wasmtime serve`: the same component of `wasi:http` here and there, and a
//! function that gives its input back here, each request in an instance of its own. They are loaded in
//! turns by as many callers, each asking again as soon as it is answered.
//!
//! `wasmtime` is built once from crates.io into `target/tools`, which takes minutes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use firebox_benches::{Series, Spread, load};
use firebox_tests::{Bundle, Server, binary, guests};
use reqwest::{Client, Method, Request};

const WASMTIME: &str = "48.0.8";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const CALLERS: usize = 32;
const TARGET: f64 = 1.5;

#[tokio::main]
async fn main() -> ExitCode {
    let (wasmtime, hello) = (wasmtime(), hello());
    let server = Server::start().await;
    let probe = guests::component_of(&guests::guest("probe"));
    server.deploy("probe", &Bundle::of_component(probe)).await;
    let component = std::fs::read(&hello).unwrap();
    let component = Bundle::of_component(component);
    server.deploy("hello", &component).await;
    let client = Client::builder().no_proxy().build().unwrap();

    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut command = Command::new(wasmtime);
    command
        .args(["serve", "-Scli", "--addr", &address])
        .arg(hello);
    let peer = command.stdin(Stdio::null()).stdout(Stdio::null());
    let _peer = Peer(peer.stderr(Stdio::null()).spawn().unwrap());
    let body = r#"{"x": [[1, 2]]}"#;
    let requests = [
        server.request(Method::POST, "/f/hello/"),
        server.request(Method::POST, "/v1/functions/probe/invoke?mode=echo"),
        client.post(format!("http://{address}/")),
    ];
    let requests = requests.map(|request| request.body(body).build().unwrap());
    until_answered(&client, &requests[2]).await;

    let (mut rates, mut times): ([Vec<f64>; 3], [Vec<Series>; 3]) = Default::default();
    for _ in 0..ROUNDS {
        for (at, request) in requests.iter().enumerate() {
            let (rate, latencies) = load(request, CALLERS, ROUND).await;
            rates[at].push(rate);
            times[at].push(latencies);
        }
    }
    let names = ["the component here", "a function here", "wasmtime serve"];
    for (at, name) in names.into_iter().enumerate() {
        let rate = Spread::of(rates[at].clone());
        println!(
            "{name}: {rate} requests a second, {}",
            times[at][ROUNDS / 2]
        );
    }
    let ratio = |ours: usize| {
        let pairs = rates[ours].iter().zip(&rates[2]);
        Spread::of(pairs.map(|(ours, theirs)| ours / theirs))
    };
    let (same, function) = (ratio(0), ratio(1));
    println!(
        "requests a second by theirs: the component {same}, a function {function} (target {TARGET})"
    );
    match same.median >= TARGET && function.median >= TARGET {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Ends with the benchmark.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cargo(arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(binary::workspace()).args(arguments);
    assert!(command.status().unwrap().success(), "cargo {arguments:?}");
}

fn wasmtime() -> PathBuf {
    let root = binary::target().join("tools");
    let path = root.join("bin/wasmtime");
    if !path.exists() {
        let version = format!("wasmtime-cli@{WASMTIME}");
        let root = root.to_str().unwrap();
        cargo(&["install", "--locked", "--root", root, &version]);
    }
    path
}

fn hello() -> PathBuf {
    let package = "firebox-http-hello-guest";
    cargo(&[
        "build",
        "--release",
        "--target",
        "wasm32-wasip2",
        "-p",
        package,
    ]);
    binary::target().join("wasm32-wasip2/release/firebox_http_hello_guest.wasm")
}

async fn until_answered(client: &Client, request: &Request) {
    let began = Instant::now();
    loop {
        if let Ok(answer) = client.execute(request.try_clone().unwrap()).await {
            assert!(answer.status().is_success());
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it never answered"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
