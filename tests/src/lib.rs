//! The harness of the end-to-end tests: the real binary, real WebAssembly, real HTTP.
//!
//! ```no_run
//! # use firebox_tests::{Bundle, Server, onnx};
//! # async fn story() {
//! let server = Server::start().await;
//! server.deploy("adder", &Bundle::of_model(onnx::add_one())).await;
//! let answer = server.invoke("adder", r#"{"x": [1, 2]}"#).await;
//! assert_eq!(answer.expect(200).json()["y"], serde_json::json!([2.0, 3.0]));
//! server.stop().await;
//! # }
//! ```
//!
//! [`binary`] builds `firebox` once and runs it as a command; [`server`] runs it as a server with
//! a data folder of its own; [`client`] is what a test says to a server and what it hears;
//! [`bundle`] and [`onnx`] write uploads by hand; [`guests`] has the real examples built by
//! `firebox build`; [`compare`] holds the tolerance between answers; [`schema`] checks answers against
//! the description that the server gives of itself; [`load`] sends many requests at a steady rate;
//! [`pressure`] calls more models than fit into memory; [`jobs`] submits jobs and follows them;
//! [`python`] has real clients in Python; [`kills`] draws the moments at which servers are killed;
//! [`toolchains`] brings programs that a machine may lack.
//!
//! Whatever is started here ends with the test process, however that ends.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a harness fails a test by panicking"
)]

pub mod binary;
pub mod bundle;
pub mod client;
pub mod compare;
pub mod guests;
pub mod jobs;
pub mod kills;
pub mod load;
pub mod onnx;
pub mod pressure;
pub mod python;
pub mod schema;
pub mod server;
pub mod toolchains;

pub use bundle::Bundle;
pub use client::Answer;
pub use server::Server;
