//! From nothing loaded to the first answer: of components without a model, each with code of its own
//! that is mapped from the disk; and of the examples that have a model, by stage, MiniLM's beside what
//! onnxruntime takes to open the same file and run it once. Fails where the first call of a component
//! takes more than 5 ms at p99.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use firebox::bench::{self, Firebox, Input, Onnxruntime};
use firebox_benches::{Series, know_onnxruntime, millis};
use firebox_engine::{Device, Model, Options, Precision};
use firebox_tests::{Bundle, Server, binary, guests};

const ROUNDS: usize = 9;
/// Functions without a model, and restarts of their server.
const FUNCTIONS: usize = 50;
const RESTARTS: usize = 4;
const TARGET: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    know_onnxruntime();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure())
}

async fn measure() -> ExitCode {
    let first = components().await;
    println!("components without a model, over HTTP, after a restart of the server");
    println!(
        "  the first call   {first} (target {} at p99)",
        millis(TARGET)
    );
    model("magika", "magika.onnx");
    model("minilm", "minilm.onnx");
    let markdown = std::fs::read(binary::workspace().join("README.md")).unwrap();
    function("file-type", &markdown).await;
    function("sentence-embedding", b"A cat sits on the mat.").await;
    println!("onnxruntime opens minilm and runs it once in {}", peer());
    match first.quantile(0.99) <= TARGET {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The first calls of functions whose components differ, after each restart of their server.
async fn components() -> Series {
    let mut server = Server::start().await;
    let probe = guests::component_of(&guests::guest("probe"));
    for at in 0..FUNCTIONS {
        // A custom section that says nothing, so that each has code of its own.
        let own = format!("{at:08}");
        let section = [&[0, 9, 8], own.as_bytes()].concat();
        let wasm = [&probe[..], &section].concat();
        let name = format!("function-{at}");
        server.deploy(&name, &Bundle::of_component(wasm)).await;
    }
    let mut times = Vec::new();
    for _ in 0..RESTARTS {
        server = server.stop().await.again().await;
        for at in 0..FUNCTIONS {
            let path = format!("/v1/functions/function-{at}/invoke?mode=echo");
            let began = Instant::now();
            let answer = server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await;
            times.push(began.elapsed());
            answer.expect(200);
        }
    }
    Series::new(times)
}

/// How long onnxruntime takes from MiniLM's file to its first answer, for as many tokens as the
/// sentence has.
fn peer() -> Series {
    let path = binary::target().join("models/minilm.onnx");
    let given = [
        "input_ids=1x9:1..30000",
        "attention_mask=1x9",
        "token_type_ids=1x9:0",
    ];
    let given: Vec<Input> = given.iter().map(|text| text.parse().unwrap()).collect();
    let model = Firebox::open(&path, Device::Cpu, 1, Precision::F32).unwrap();
    let inputs = bench::inputs(model.signature(), 1, &given, 0).unwrap();
    let start = |_| {
        let peer = Onnxruntime::start(&path, 2, &inputs).unwrap();
        Duration::from_secs_f64(peer.footprint.first_answer_ms / 1e3)
    };
    Series::new((0..ROUNDS).map(start).collect())
}

/// How long the engine takes to open a model file that the system has in its page cache.
fn model(name: &str, file: &str) {
    guests::model(name, file);
    let path = binary::target().join("models").join(file);
    let open = |_| {
        let began = Instant::now();
        Model::open(&path, &Options::default()).unwrap();
        began.elapsed()
    };
    println!(
        "{name}: the engine opens it in {}",
        Series::new((0..ROUNDS).map(open).collect())
    );
}

/// The first and the second call after each restart of a server, as its callers see them.
async fn function(name: &str, body: &[u8]) {
    let mut server = Server::start().await;
    server.upload(name, guests::example(name)).await.expect(201);
    let mut calls: [Vec<Duration>; 2] = Default::default();
    let mut stages = String::new();
    for _ in 0..ROUNDS {
        server = server.stop().await.again().await;
        for times in &mut calls {
            let began = Instant::now();
            let answer = server.invoke(name, body.to_vec()).await.expect(200);
            times.push(began.elapsed());
            if answer.header("server-timing").contains("cold") && times.len() == ROUNDS {
                stages.push_str(&format!("\n    {}", answer.header("server-timing")));
            }
        }
    }
    let [first, second] = calls.map(Series::new);
    println!("{name}, over HTTP, after a restart of the server");
    println!("  the first call   {first}");
    println!("  the second call  {second}");
    println!(
        "  coming from zero costs {}",
        millis(first.p50().saturating_sub(second.p50()))
    );
    println!("  the last round's stages:{stages}");
}
