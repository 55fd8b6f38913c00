//! The Open Inference Protocol over REST: the clients that people use, unmodified, and what other
//! ones could get wrong.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod clients;
mod contract;
mod extensions;

use firebox_tests::client::{Answer, send};
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::json;

/// A server with `adder`, a model that adds one, and `echo`, a component that gives its inputs back
/// where its parameter `mode` says `echo`.
async fn server() -> Server {
    server_with(&[]).await
}

/// The same with further arguments to `firebox serve`.
async fn server_with(arguments: &[&str]) -> Server {
    let server = Server::start_with(arguments).await;
    let adder = Bundle::of_model(onnx::add_one());
    server.deploy("adder", &adder).await;
    let probe = guests::component_of(&guests::guest("probe"));
    server.deploy("echo", &Bundle::of_component(probe)).await;
    let policy = json!({"weights": {"1": 10_000}, "labels": {"gold": 1}});
    let traffic = "/v1/functions/adder/traffic";
    server.put(traffic, &policy).await.expect(200);
    server
}

/// An inference whose JSON is followed by bytes; `length` is what its header says of the JSON.
async fn binary(server: &Server, function: &str, json: &str, length: &str, tail: &[u8]) -> Answer {
    let path = format!("/v2/models/{function}/infer");
    let request = server.request(Method::POST, &path);
    let request = request.header("inference-header-content-length", length);
    send(request.body([json.as_bytes(), tail].concat())).await
}
