//! Commands, and wasi-nn as programs find it that were written for other hosts, in both of its ABIs.
//!
//! `docs/wasi-nn.md` has a table of all calls; what it calls tested is tested here.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use firebox_tests::{Answer, Bundle, Server, guests, onnx};

#[path = "wasi_nn/c.rs"]
mod c;
#[path = "wasi_nn/calls.rs"]
mod calls;
#[path = "wasi_nn/classification.rs"]
mod classification;
#[path = "wasi_nn/commands.rs"]
mod commands;
#[path = "wasi_nn/refusals.rs"]
mod refusals;

/// A program with small models: `add` takes floats, and `t1` to `t16` give back vectors of the ONNX
/// element type of that number.
fn probe(kind: &str) -> Bundle {
    let mut bundle = Bundle::of_component(guests::program(&format!("{kind}_probe")))
        .with_lines("load_models = \"cpu\"");
    for (path, content) in [
        ("add.onnx", onnx::add_one()),
        ("other.onnx", onnx::add(2.0)),
        ("strange.onnx", onnx::unknown_operator()),
        ("text.onnx", b"this is no model".to_vec()),
    ] {
        bundle = bundle.with_file(path, content);
    }
    bundle = bundle.with_lines(
        "[assets]\n\"add.onnx\" = \"add.onnx\"\n\"other.onnx\" = \"other.onnx\"\n\
         \"strange.onnx\" = \"strange.onnx\"\n\"text.onnx\" = \"text.onnx\"",
    );
    for element in [1, 2, 6, 7, 10, 11, 16] {
        bundle = bundle.with_model(&format!("t{element}"), onnx::identity(element));
    }
    bundle.with_model("add", onnx::add_one())
}

/// A server with the probe of an ABI as the function `probe`.
async fn server_with(kind: &str) -> Server {
    let server = Server::start().await;
    server.deploy("probe", &probe(kind)).await;
    server
}

/// What the lines of a script are answered with.
async fn say(server: &Server, script: &[&str]) -> Vec<String> {
    let answer = server.invoke("probe", script.join("\n")).await.expect(200);
    answer.text().lines().map(str::to_owned).collect()
}

/// Calls it with a script that makes it fail.
async fn fails(server: &Server, script: &[&str]) -> Answer {
    server.invoke("probe", script.join("\n")).await
}

/// Floats as a script has them.
fn hex(values: &[f32]) -> String {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
