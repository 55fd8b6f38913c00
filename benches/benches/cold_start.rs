//! From nothing loaded to the first answer, by stage: the code mapped and linked, the model loaded,
//! the first call and the second; for each of the examples that have a model.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::time::{Duration, Instant};

use firebox_benches::{Series, millis};
use firebox_engine::{Model, Options};
use firebox_tests::{Server, binary, guests};

const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    model("magika", "magika.onnx");
    model("minilm", "minilm.onnx");
    let markdown = std::fs::read(binary::workspace().join("README.md")).unwrap();
    function("file-type", &markdown).await;
    function("sentence-embedding", b"A cat sits on the mat.").await;
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
