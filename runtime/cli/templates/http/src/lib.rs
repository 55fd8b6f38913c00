//! Answers HTTP requests by itself: `GET /?name=Ada` greets, `POST /words` counts the words of its
//! body. The interface is `wasi:http`, so other runtimes can serve this component too.

use std::io::{Read, Write};

use serde_json::{Value, json};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// The longest body that is read.
const BODY_BYTES: u64 = 1 << 20;

struct Function;

impl Guest for Function {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let (status, answer) = answer(request);
        respond(out, status, &answer);
    }
}

wasip2::http::proxy::export!(Function);

/// The status and the body of the answer.
fn answer(request: IncomingRequest) -> (u16, Value) {
    let target = request.path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    match (request.method(), path) {
        (Method::Get, "/" | "") => {
            let name = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("name="))
                .unwrap_or("world");
            (200, json!({"greeting": format!("Hello, {name}!")}))
        }
        (Method::Post, "/words") => match body(request) {
            Ok(text) => (200, json!({"words": text.split_whitespace().count()})),
            Err(why) => (400, json!({"error": why})),
        },
        (_, "/" | "" | "/words") => (405, json!({"error": "GET / and POST /words are answered"})),
        _ => (404, json!({"error": format!("there is nothing at {path}")})),
    }
}

fn body(request: IncomingRequest) -> Result<String, String> {
    let taken = |()| "the body was taken already".to_owned();
    let body = request.consume().map_err(taken)?;
    let stream = body.stream().map_err(taken)?;
    let mut bytes = Vec::new();
    let read = stream.take(BODY_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BODY_BYTES {
        return Err(format!("the body is longer than {BODY_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "the body is not UTF-8".to_owned())
}

fn respond(out: ResponseOutparam, status: u16, answer: &Value) {
    let headers = Fields::new();
    // Neither can fail: the names and values are well formed, and nothing was set before.
    let _ = headers.set("content-type", &[b"application/json".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(mut stream) = body.write() {
        // A caller who has gone away is no fault of ours.
        let _ = stream.write_all(answer.to_string().as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
