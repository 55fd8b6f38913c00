//! A `wasi:http/incoming-handler` that gives every request the same answer: what other runtimes are
//! compared by.
#![cfg(target_family = "wasm")]
#![allow(
    missing_docs,
    unsafe_code,
    clippy::expect_used,
    reason = "generated bindings, and a test program in which what fails should panic"
)]

use std::io::Write as _;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

impl Guest for Hello {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is asked for once");
        ResponseOutparam::set(out, Ok(response));
        let mut stream = body.write().expect("the stream is asked for once");
        stream
            .write_all(br#"{"x":[[1,2]]}"#)
            .expect("the answer is short");
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body has no announced length");
    }
}

wasip2::http::proxy::export!(Hello);
