//! The Open Inference Protocol over gRPC, asked by an unmodified `tritonclient[grpc]` and by frames
//! of HTTP/2 that no client would send.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::{Bundle, Server, guests, onnx, python};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENT: &[&str] = &[
    "tritonclient[grpc]==2.73.0",
    "ml_dtypes",
    "grpcio-health-checking",
];

/// Datatypes of the protocol, with their numbers in ONNX.
const DATATYPES: [(&str, u64); 14] = [
    ("fp32", 1),
    ("uint8", 2),
    ("int8", 3),
    ("uint16", 4),
    ("int16", 5),
    ("int32", 6),
    ("int64", 7),
    ("bytes", 8),
    ("bool", 9),
    ("fp16", 10),
    ("fp64", 11),
    ("uint32", 12),
    ("uint64", 13),
    ("bf16", 16),
];

/// A server with a function `adder`, whose first version adds 1 and takes all the traffic, and
/// whose second, `next`, adds 10.
async fn server_with_adder(arguments: &[&str]) -> Server {
    let server = Server::start_with(arguments).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add(1.0)))
        .await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add(10.0)))
        .await;
    let policy = json!({"weights": {"1": 10000}, "labels": {"next": 2}});
    let set = server.put("/v1/functions/adder/traffic", &policy).await;
    set.expect(200);
    server
}

fn address(server: &Server) -> &str {
    server.url().trim_start_matches("http://")
}

/// Runs one part of `clients/triton_grpc.py`, where its packages can be had.
fn run(address: &str, part: &str) {
    let Some(python) = python::with(CLIENT) else {
        return;
    };
    let said = python::client(&python, "triton_grpc.py", &[address, part]);
    assert_eq!(said.trim(), format!("{part} passed"));
}

/// A part that asks `adder` alone.
async fn asks_adder(part: &str, arguments: &[&str]) {
    let server = server_with_adder(arguments).await;
    let address = address(&server).to_owned();
    let part = part.to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&address, &part));
    ran.await.unwrap();
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn tritonclient_sees_what_is_ready() {
    asks_adder("health", &[]).await;
}

#[tokio::test]
async fn tritonclient_reads_metadata_and_configuration() {
    asks_adder("metadata", &[]).await;
}

#[tokio::test]
async fn tritonclient_infers_at_versions_labels_and_sizes_compressed_or_not() {
    asks_adder("infer", &[]).await;
}

#[tokio::test]
async fn tritonclient_streams_and_gets_each_answer_in_its_turn() {
    asks_adder("stream", &[]).await;
}

#[tokio::test]
async fn streams_end_as_they_should() {
    let limits = ["--max-body", "1MiB", "--stream-timeout", "1s"];
    asks_adder("raw_stream", &limits).await;
}

#[tokio::test]
async fn streams_beyond_those_that_a_connection_carries_wait_for_their_turn() {
    asks_adder("many_streams", &["--max-streams", "8"]).await;
}

#[tokio::test]
async fn tritonclient_lists_loads_unloads_and_reads_statistics() {
    asks_adder("repository", &[]).await;
}

#[tokio::test]
async fn bad_input_is_refused_with_what_was_expected() {
    asks_adder("bad_input", &["--max-body", "1MiB"]).await;
}

#[tokio::test]
async fn the_health_service_answers_probes_and_says_when_the_server_stops() {
    let server = server_with_adder(&["--grpc-listen", "127.0.0.1:0"]).await;
    let Some(python) = python::with(CLIENT) else {
        return;
    };
    for address in [address(&server), &server.grpc_address().unwrap()] {
        let said = python::client(&python, "health_probe.py", &[address, "check"]);
        assert_eq!(said.trim(), "passed");
    }
    let address = address(&server).to_owned();
    let watch = tokio::task::spawn_blocking(move || {
        python::client(&python, "health_probe.py", &[&address, "watch"])
    });
    // The watch is one connection, the question for it another.
    let began = Instant::now();
    while server.metric("firebox_connections", &[]).await < 2.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody watches");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.stop().await;
    assert_eq!(watch.await.unwrap().trim(), "SERVING\nNOT_SERVING");
}

#[tokio::test]
async fn a_stream_that_is_open_does_not_hold_a_stop_up() {
    let server = server_with_adder(&[]).await;
    let Some(python) = python::with(CLIENT) else {
        return;
    };
    let address = address(&server).to_owned();
    let client = move || python::client(&python, "triton_grpc.py", &[&address, "until_stopped"]);
    let client = tokio::task::spawn_blocking(client);
    let began = Instant::now();
    let answered = ["function=\"adder\"", "status=\"2xx\""];
    while server.metric("firebox_requests_total", &answered).await < 1.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody asks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.metric("firebox_grpc_streams", &[]).await, 1.0);
    let told = Instant::now();
    server.stop().await;
    assert!(
        told.elapsed() < Duration::from_secs(20),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(client.await.unwrap().trim(), "until_stopped passed");
}

#[tokio::test]
async fn one_key_gets_one_version_over_grpc_and_rest() {
    let server = server_with_adder(&[]).await;
    let sticky = json!({"body": "/parameters/user"});
    let policy = json!({"weights": {"1": 5000, "2": 5000}, "sticky": sticky});
    let set = server.put("/v1/functions/adder/traffic", &policy).await;
    set.expect(200);
    let address = address(&server).to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&address, "sticky"));
    ran.await.unwrap();
}

#[tokio::test]
async fn every_datatype_goes_there_and_back_raw_and_typed() {
    let server = Server::start().await;
    for (name, element) in DATATYPES {
        let identity = Bundle::of_model(onnx::identity(element));
        server.deploy(&format!("identity-{name}"), &identity).await;
    }
    let address = address(&server).to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        run(&address, "datatypes");
        run(&address, "typed");
    });
    ran.await.unwrap();
}

#[tokio::test]
async fn a_functions_failures_have_their_codes_and_say_who_answered() {
    let server = Server::start().await;
    let component = guests::component_of(&guests::guest("probe"));
    let probe = Bundle::of_component(component).with_lines("[limits]\nmemory = \"64MiB\"\n");
    server.deploy("probe", &probe).await;
    let address = address(&server).to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&address, "failures"));
    ran.await.unwrap();
    let failed = ["function=\"probe\"", "status=\"5xx\""];
    let failed = server.metric("firebox_requests_total", &failed).await;
    assert!(
        failed >= 5.0,
        "calls over gRPC are counted as others: {failed}"
    );
}

#[tokio::test]
async fn an_address_of_its_own_answers_grpc_and_nothing_else() {
    let server = server_with_adder(&["--grpc-listen", "127.0.0.1:0"]).await;
    let own = server.grpc_address().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/v1/functions", "/metrics", "/v2/health/live"] {
        let answer = client
            .get(format!("http://{own}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 415, "{path}");
        let said = answer.text().await.unwrap();
        assert!(said.starts_with("expected a gRPC call"), "{said}");
    }
    let ran = tokio::task::spawn_blocking(move || run(&own, "infer"));
    ran.await.unwrap();
}

// What follows speaks HTTP/2 by hand.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// The header block of a call of this method, in literals without an index (RFC 7541, 6.2.2).
fn call_of(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fixed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| {
        let length = text.len();
        assert!(length < 127 + 128, "one more byte says how long it is");
        let length = match u8::try_from(length).unwrap() {
            short @ 0..127 => vec![short],
            long => vec![127, long - 127],
        };
        [length.as_slice(), text.as_bytes()].concat()
    };
    let pairs = fixed.iter().chain(more);
    pairs
        .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
        .collect()
}

/// `grpc-status: 4`, that the deadline is exceeded, where neither name nor value was said before: their
/// lengths, and their letters in Huffman's code (RFC 7541, appendix B).
const TOO_LATE: [u8; 11] = [
    0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x81, 0x6b,
];

/// Whether a header block begins with `:status: 200`, which has a number (RFC 7541, appendix A).
fn is_ok(block: &[u8]) -> bool {
    block.first() == Some(&0x88)
}

/// A field of a message: bytes, fewer than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[number << 3 | 2, length], bytes].concat()
}

/// A question to `probe`, which sleeps so long: a message and what stands before it.
fn sleep(ms: &str) -> Vec<u8> {
    let parameter = |name: &str, text: &str| {
        let value = field(2, &field(3, text.as_bytes()));
        field(4, &[field(1, name.as_bytes()), value].concat())
    };
    let message = [
        field(1, b"probe"),
        parameter("mode", "sleep"),
        parameter("ms", ms),
    ];
    let message = message.concat();
    let length = u8::try_from(message.len()).unwrap();
    [&[0, 0, 0, 0, length], message.as_slice()].concat()
}

/// Waits until `probe` has so many calls that count with these labels.
async fn counted(server: &Server, metric: &str, labels: &[&str], value: f64) {
    let began = Instant::now();
    while server.metric(metric, labels).await != value {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{metric} never is {value}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

async fn speak(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Frames until the connection ends, or one of this kind comes: its kind and payload.
async fn frames_until(stream: &mut TcpStream, kind: u8) -> Vec<(u8, Vec<u8>)> {
    let mut got = Vec::new();
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                break;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            got.push((head[3], payload));
            if head[3] == kind {
                break;
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    assert!(read.is_ok(), "the server neither says nor ends anything");
    got
}

fn has(frames: &[(u8, Vec<u8>)], kind: u8) -> bool {
    frames.iter().any(|(found, _)| *found == kind)
}

#[tokio::test]
async fn a_connection_that_says_nothing_more_is_not_kept() {
    let server = server_with_adder(&["--header-timeout", "500ms"]).await;
    let mut silent = speak(&server).await;
    let mut halting = TcpStream::connect(address(&server)).await.unwrap();
    halting.write_all(&PREFACE[..10]).await.unwrap();
    assert!(has(&frames_until(&mut silent, GOAWAY).await, GOAWAY));
    // It ends; which bytes come before that is of no matter.
    let mut rest = Vec::new();
    let ended = halting.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(ended.is_ok(), "it is kept");
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
}

#[tokio::test]
async fn a_message_that_trickles_in_is_given_up() {
    let server = server_with_adder(&["--body-timeout", "700ms"]).await;
    for path in [INFER, "/inference.GRPCInferenceService/ModelStreamInfer"] {
        let mut stream = speak(&server).await;
        let head = frame(HEADERS, END_HEADERS, 1, &call_of(path, &[]));
        stream.write_all(&head).await.unwrap();
        // A message of 100 bytes begins, and its first byte is the last that comes.
        let begun = frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 10]);
        stream.write_all(&begun).await.unwrap();
        let began = Instant::now();
        let frames = frames_until(&mut stream, RESET).await;
        assert!(began.elapsed() < Duration::from_secs(20));
        let told = frames.iter().any(|(kind, block)| {
            *kind == HEADERS && block.windows(TOO_LATE.len()).any(|part| part == TOO_LATE)
        });
        assert!(told, "{path}: {frames:?}");
    }
    let stalled = ("firebox_connections_timed_out_total", "waited_for=\"body\"");
    assert_eq!(server.metric(stalled.0, &[stalled.1]).await, 2.0);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = server_with_adder(&["--send-timeout", "700ms"]).await;
    let mut stream = TcpStream::connect(address(&server)).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0: nothing of an answer may be sent.
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&no_window).await.unwrap();
    let path = "/inference.GRPCInferenceService/ServerLive";
    let head = frame(HEADERS, END_HEADERS, 1, &call_of(path, &[]));
    stream.write_all(&head).await.unwrap();
    let empty = frame(DATA, END_STREAM, 1, &[0; 5]);
    stream.write_all(&empty).await.unwrap();
    frames_until(&mut stream, u8::MAX).await;
    let stalled = (
        "firebox_connections_timed_out_total",
        "waited_for=\"answer\"",
    );
    assert_eq!(server.metric(stalled.0, &[stalled.1]).await, 1.0);
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
}

#[tokio::test]
async fn a_question_of_a_stream_ends_in_its_time_though_nobody_takes_the_answers() {
    let server = Server::start().await;
    let component = guests::component_of(&guests::guest("probe"));
    let probe = Bundle::of_component(component).with_lines("[limits]\ndeadline = \"60s\"\n");
    server.deploy("probe", &probe).await;
    let mut stream = TcpStream::connect(address(&server)).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE: the first answer takes all of it, and the second waits to be sent.
    let small_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]);
    stream.write_all(&small_window).await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let head = frame(HEADERS, END_HEADERS, 1, &call_of(path, &[]));
    stream.write_all(&head).await.unwrap();
    let times = ["100", "1000", "2000", "50000"];
    let questions = times.map(sleep).concat();
    let questions = frame(DATA, 0, 1, &questions);
    stream.write_all(&questions).await.unwrap();
    counted(&server, "firebox_requests_in_flight", &[], 4.0).await;
    let answered = ["function=\"probe\"", "status=\"2xx\""];
    counted(&server, "firebox_requests_total", &answered, 3.0).await;
    counted(&server, "firebox_requests_in_flight", &[], 1.0).await;
    // The caller who goes takes the last one along.
    drop(stream);
    counted(&server, "firebox_requests_in_flight", &[], 0.0).await;
    let cancelled = ["function=\"probe\"", "status=\"cancelled\""];
    counted(&server, "firebox_requests_total", &cancelled, 1.0).await;
}

#[tokio::test]
async fn heads_and_resets_without_end_do_not_wear_a_server_out() {
    let server = server_with_adder(&["--max-streams", "16"]).await;
    // A head of many fields, each below every limit, and all together above it.
    let mut stream = speak(&server).await;
    let value = "v".repeat(200);
    let names: Vec<String> = (0..400).map(|n| format!("x-{n}")).collect();
    let fields: Vec<_> = names.iter().map(|n| (n.as_str(), value.as_str())).collect();
    let block = call_of(INFER, &fields);
    let pieces: Vec<&[u8]> = block.chunks(16 << 10).collect();
    const CONTINUATION: u8 = 9;
    for (at, piece) in pieces.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let flags = if at + 1 == pieces.len() {
            END_HEADERS
        } else {
            0
        };
        if stream
            .write_all(&frame(kind, flags, 1, piece))
            .await
            .is_err()
        {
            break;
        }
    }
    let frames = frames_until(&mut stream, HEADERS).await;
    let refused = has(&frames, GOAWAY) || has(&frames, RESET) || has(&frames, HEADERS);
    assert!(refused, "{frames:?}");
    let heads = frames.iter().filter(|(kind, _)| *kind == HEADERS);
    for (_, block) in heads {
        assert!(!is_ok(block), "{block:?}");
    }

    // Calls that are taken back as soon as they are made: the connection is ended for it.
    let mut stream = speak(&server).await;
    let block = call_of(INFER, &[]);
    for call in 0..20_000u32 {
        let (id, cancel) = (2 * call + 1, 8u32.to_be_bytes());
        let head = frame(HEADERS, END_HEADERS, id, &block);
        let both = [head, frame(RESET, 0, id, &cancel)].concat();
        if stream.write_all(&both).await.is_err() {
            break;
        }
    }
    // It ends, and not for want of anything to do. Where it ends before it says why, that is lost to
    // the calls that were still on their way.
    let frames = frames_until(&mut stream, GOAWAY).await;
    const ENHANCE_YOUR_CALM: [u8; 4] = 11u32.to_be_bytes();
    if let Some((_, why)) = frames.iter().find(|(kind, _)| *kind == GOAWAY) {
        assert_eq!(why[4..8], ENHANCE_YOUR_CALM, "{why:?}");
    }
    server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
}

#[tokio::test]
async fn rest_is_answered_over_http_2_as_well() {
    let server = server_with_adder(&[]).await;
    let client = reqwest::Client::builder().no_proxy();
    let client = client.http2_prior_knowledge().build().unwrap();
    let url = format!("{}/v1/functions/adder/invoke", server.url());
    let answer = client
        .post(&url)
        .body(r#"{"x": [1]}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), r#"{"y":[2.0]}"#);
    let large = vec!["1"; 300_000].join(",");
    let body = format!(r#"{{"x": [{large}]}}"#);
    let answer = client.post(&url).body(body).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap().matches("2.0").count(), 300_000);
    // gRPC over HTTP/1 is told what it takes.
    let call = server.request(reqwest::Method::POST, INFER);
    let call = call.header("content-type", "application/grpc");
    let answer = firebox_tests::client::send(call).await.expect(415);
    assert!(
        answer.text().contains("POST over HTTP/2"),
        "{}",
        answer.text()
    );
}
