//! The Open Inference Protocol, version 2, over REST
//! (<https://github.com/kserve/open-inference-protocol>), with Triton's extensions for binary
//! tensors, the model repository, statistics and the model's configuration
//! (<https://github.com/triton-inference-server/server/tree/main/docs/protocol>). Functions are
//! its models. Where the protocol has a version, a label is taken too: they are never numbers.
//!
//! [`infer`](mod@infer) is the way of an inference: [`pieces`] and [`coding`] read its body,
//! [`request`] decodes it, with [`skim`] setting its long arrays aside, and [`answer`] encodes what
//! comes back.

mod answer;
mod coding;
pub mod configuration;
pub mod infer;
pub mod models;
mod pieces;
pub mod repository;
mod request;
mod schema;
pub mod server;
mod skim;
pub mod statistics;

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use firebox_engine::Signature;
use futures::FutureExt;
use uuid::Uuid;

pub use answer::{select, write};
pub use request::{Wanted, decode};

use super::{label, pin, selector};
use crate::problem::Failure;
use crate::routing::{Caller, Selector, Version};
use crate::server::App;

/// What the protocol calls a version: clients that can name nothing else can name a label.
pub(super) fn version_or_label(text: &str) -> Result<Selector, Failure> {
    match text.bytes().next() {
        Some(first) if first.is_ascii_lowercase() => label(text),
        _ => pin(text),
    }
}

/// The version that a request without a body would get.
pub(super) fn resolve(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
) -> Result<Arc<Version>, Failure> {
    let caller = Caller {
        id: Uuid::now_v7(),
        headers,
        body: None,
    };
    let selector = selector(path?, headers)?;
    app.routing.table().resolve(function, &selector, &caller)
}

/// Decodes a whole body, `length` bytes of which are JSON, all where none is given; the status of the
/// refusal otherwise. For fuzzing.
///
/// # Errors
/// The HTTP status that says why not.
pub fn decode_request(body: Bytes, length: Option<usize>) -> Result<(), u16> {
    let mut headers = HeaderMap::new();
    if let Some(length) = length {
        headers.insert(request::HEADER_LENGTH, length.into());
    }
    let (pieces, signature) = (pieces::Pieces::of(body), Signature::default());
    // The body is there, so nothing is waited for.
    let read = request::read(&headers, pieces, &signature).now_or_never();
    match read {
        Some(Err(failure)) => Err(failure.status().as_u16()),
        Some(Ok(_)) => Ok(()),
        None => Err(500),
    }
}

/// Writes a JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(
        written.is_ok(),
        "a string always serialises, and a Vec takes it"
    );
}
