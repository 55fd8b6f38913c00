//! A `wasi:http/incoming-handler` that answers as the request's path says, well or badly, so that
//! tests can see what the host makes of it. It uses plain bindings of WASI 0.2 and knows nothing of
//! its host but the models of wasi:nn; without `/model` it would run on any host of wasi:http.
#![cfg(target_family = "wasm")]
#![allow(
    missing_docs,
    unsafe_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "generated bindings, and a test program in which what fails should panic"
)]

mod bad;
mod good;

use std::io::Write as _;

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::OutputStream;

wit_bindgen::generate!({
    path: "../../../wit/deps/wasi-nn",
    inline: "
        package probe:models;

        world models {
            import wasi:nn/tensor@0.2.0-rc-2024-10-28;
            import wasi:nn/errors@0.2.0-rc-2024-10-28;
            import wasi:nn/inference@0.2.0-rc-2024-10-28;
            import wasi:nn/graph@0.2.0-rc-2024-10-28;
        }
    ",
    generate_all,
});

struct Probe;

impl Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/" | "/hello" => good::hello(out),
            "/seen" => good::seen(&request, &target, out),
            "/status" => good::status(query, out),
            "/count" => good::count(request, out),
            "/echo" => good::echo(request, out),
            "/events" => good::events(query, out),
            "/length" => good::length(query, out),
            "/model" => good::model(request, out),
            "/asset" => good::asset(out),
            "/call" => good::call(query, out),
            "/after" => good::after(out),
            "/trap" => panic!("it panics on purpose"),
            "/half" => bad::half(query, out),
            "/nothing" => {}
            "/error" => bad::error(out),
            "/unfinished" => bad::unfinished(out),
            "/leaked" => bad::leaked(query, out),
            "/silent" => bad::silent(&out),
            "/spin" => bad::spin(&out),
            "/endless" => bad::endless(out),
            "/flood" => bad::flood(out),
            "/hoard" => bad::hoard(&out),
            _ => begin(out, 404, &[]).end("there is nothing here\n"),
        }
    }
}

wasip2::http::proxy::export!(Probe);

/// A response whose head is out. The stream goes before the body that it belongs to.
struct Answer {
    stream: OutputStream,
    body: OutgoingBody,
}

/// Sends the head of a response.
fn begin(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Answer {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    Answer { stream, body }
}

impl Answer {
    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn finish(self, trailers: Option<Fields>) {
        drop(self.stream);
        OutgoingBody::finish(self.body, trailers).unwrap();
    }

    /// Sends all of a body.
    fn end(mut self, text: &str) {
        self.write(text.as_bytes());
        self.finish(None);
    }
}

/// A number of the query, `name=123`.
fn number(query: &str, name: &str, usual: u64) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name);
    values
        .next()
        .map_or(usual, |(_, value)| value.parse().unwrap())
}

fn sleep(ms: u64) {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}
