//! What a well-behaved function does.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingRequest, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, StreamError};

use crate::wasi::nn::graph;
use crate::wasi::nn::tensor::{Tensor, TensorType};
use crate::{begin, number, sleep};

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

pub fn hello(out: ResponseOutparam) {
    begin(out, 200, &[("content-type", "text/plain")]).end("hello\n");
}

/// What the request looks like from here.
pub fn seen(request: &IncomingRequest, target: &str, out: ResponseOutparam) {
    let method = match request.method() {
        Method::Other(name) => name,
        method => format!("{method:?}"),
    };
    let scheme = matches!(request.scheme(), Some(Scheme::Http));
    let mut text = format!(
        "{method}\n{target}\nhttp: {scheme}\nauthority: {}\n",
        request.authority().unwrap_or_default()
    );
    for (name, value) in request.headers().entries() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    begin(
        out,
        200,
        &[("x-own", "yes"), ("server-timing", "own;dur=1")],
    )
    .end(&text);
}

/// Answers with the status `code` and no body.
pub fn status(query: &str, out: ResponseOutparam) {
    let code = u16::try_from(number(query, "code", 204)).unwrap();
    begin(out, code, &[]).end("");
}

/// Reads the whole body, and then says how long it was.
pub fn count(request: IncomingRequest, out: ResponseOutparam) {
    let bytes = whole(request.consume().unwrap()).len();
    begin(out, 200, &[]).end(&format!("{bytes} bytes\n"));
}

/// Sends back what comes, as it comes; then trailers: the number of bytes, and the trailer `x-sent`
/// of the request.
pub fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let mut answer = begin(out, 200, &[("trailer", "x-bytes, x-sent")]);
    let input = incoming.stream().unwrap();
    let mut bytes = 0;
    while let Some(piece) = next(&input) {
        bytes += piece.len();
        answer.write(&piece);
    }
    drop(input);
    let trailers = Fields::new();
    trailers
        .set("x-bytes", &[bytes.to_string().into_bytes()])
        .unwrap();
    let sent = IncomingBody::finish(incoming);
    sent.subscribe().block();
    if let Some(Ok(Ok(Some(sent)))) = sent.get() {
        trailers.set("x-sent", &sent.get("x-sent")).unwrap();
    }
    answer.finish(Some(trailers));
}

/// The next piece of a body; none at its end.
fn next(input: &InputStream) -> Option<Vec<u8>> {
    match input.blocking_read(PIECE) {
        Ok(piece) => Some(piece),
        Err(StreamError::Closed) => None,
        Err(StreamError::LastOperationFailed(error)) => {
            panic!("the body broke off: {}", error.to_debug_string())
        }
    }
}

fn whole(incoming: IncomingBody) -> Vec<u8> {
    let input = incoming.stream().unwrap();
    std::iter::from_fn(|| next(&input)).flatten().collect()
}

/// Server-sent events: `n` of them, with a pause of `ms` before each but the first.
pub fn events(query: &str, out: ResponseOutparam) {
    let mut answer = begin(out, 200, &[("content-type", "text/event-stream")]);
    for event in 0..number(query, "n", 3) {
        if event > 0 {
            sleep(number(query, "ms", 100));
        }
        answer.write(format!("data: {event}\n\n").as_bytes());
    }
    answer.finish(None);
}

/// `n` bytes that are announced.
pub fn length(query: &str, out: ResponseOutparam) {
    let bytes = number(query, "n", 5);
    let answer = begin(out, 200, &[("content-length", &bytes.to_string())]);
    answer.end(&"x".repeat(usize::try_from(bytes).unwrap()));
}

/// Asks the model `model` for `y` of `x`; both are numbers of 32 bits, little-endian.
pub fn model(request: IncomingRequest, out: ResponseOutparam) {
    let body = whole(request.consume().unwrap());
    let model = graph::load_by_name("model").unwrap();
    let context = model.init_execution_context().unwrap();
    let count = u32::try_from(body.len() / 4).unwrap();
    let x = Tensor::new(&[count], TensorType::Fp32, &body);
    let outputs = context.compute(vec![("x".to_owned(), x)]).unwrap();
    let mut answer = begin(out, 200, &[]);
    answer.write(&outputs[0].1.data());
    answer.finish(None);
}

/// The file `words.txt`.
pub fn asset(out: ResponseOutparam) {
    let text = std::fs::read_to_string("/words.txt").unwrap();
    begin(out, 200, &[]).end(&text);
}

/// Asks `host`, plainly, and says what came of it.
pub fn call(query: &str, out: ResponseOutparam) {
    let authority = query.strip_prefix("host=").unwrap();
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request
        .set_path_with_query(Some("/v2/health/live"))
        .unwrap();
    let said = match outgoing_handler::handle(request, None) {
        Err(error) => format!("refused: {error:?}"),
        Ok(coming) => {
            coming.subscribe().block();
            match coming.get().unwrap().unwrap() {
                Err(error) => format!("failed: {error:?}"),
                Ok(response) => format!("status {}", response.status()),
            }
        }
    };
    begin(out, 200, &[]).end(&said);
}

/// Works on after its answer.
pub fn after(out: ResponseOutparam) {
    begin(out, 200, &[("content-length", "5")]).end("done\n");
    sleep(200);
    eprintln!("worked on after the answer");
}
