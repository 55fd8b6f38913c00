//! Connections that do nothing, or next to nothing, cost the server little and are given up in time.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::{send, slow_body};
use firebox_tests::{Bundle, Server, onnx};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn server_with_adder(arguments: &[&str]) -> Server {
    let server = Server::start_with(arguments).await;
    let adder = Bundle::of_model(onnx::add_one());
    server.deploy("adder", &adder).await;
    server
}

async fn still_serves(server: &Server) {
    let answer = server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    assert_eq!(answer.json(), json!({"y": [2.0]}));
}

async fn connect(server: &Server) -> TcpStream {
    let address = server.url().trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// All that the server says until it closes the connection, which it must do within 20 s.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = stream.read_to_end(&mut said);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    // A reset is an end too.
    let _ = read.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_closed() {
    let server = server_with_adder(&["--max-connections", "8"]).await;
    // The deploy's connection has to have gone: then there is that of the question alone.
    while server.metric("firebox_connections", &[]).await > 1.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(connect(&server).await);
    }
    // The server takes them in order, so all eight are in by then.
    let mut ninth = connect(&server).await;
    ninth.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let said = rest(&mut ninth).await;
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains("retry-after: 1"), "{said}");
    assert!(said.contains("8 connections are open already"), "{said}");
    let refused = server.get("/v1/functions").await;
    refused.refused(503, &["Too many connections"]);
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    still_serves(&server).await;
    let refused = server
        .metric("firebox_connections_refused_total", &[])
        .await;
    assert_eq!(refused, 2.0);
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = server_with_adder(&["--header-timeout", "500ms"]).await;
    let began = Instant::now();
    let mut silent = connect(&server).await;
    let mut halting = connect(&server).await;
    halting.write_all(b"GET /v1/fun").await.unwrap();
    rest(&mut silent).await;
    rest(&mut halting).await;
    assert!(began.elapsed() >= Duration::from_millis(450));
    // Nor is one that has no end kept.
    let mut endless = connect(&server).await;
    let head = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(60_000));
    endless.write_all(head.as_bytes()).await.unwrap();
    let _ = endless.write_all(&[b'a'; 20_000]).await;
    let said = rest(&mut endless).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
    still_serves(&server).await;
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up_and_a_slow_but_sure_one_is_not() {
    let server = server_with_adder(&["--body-timeout", "1s"]).await;
    for path in [
        "/v1/functions/adder/invoke",
        "/v2/models/adder/infer",
        "/v1/functions/adder/jobs",
        "/v1/functions/other/versions",
    ] {
        let mut stream = connect(&server).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let mut said = [0; 4096];
        let heard = async {
            let heard = reader.read(&mut said);
            tokio::time::timeout(Duration::from_secs(9), heard).await
        };
        // A byte each 100 ms: no pause is too long, but the whole would take a day.
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if writer.write_all(b" ").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let bytes = tokio::select! {
            heard = heard => heard.unwrap().unwrap(),
            () = trickle => unreachable!("it trickles on"),
        };
        let said = String::from_utf8_lossy(&said[..bytes]).into_owned();
        assert!(said.starts_with("HTTP/1.1 408"), "{path}: {said}");
        assert!(said.contains("bytes a second"), "{path}: {said}");
    }
    let stalled = ("firebox_connections_timed_out_total", "waited_for=\"body\"");
    assert_eq!(server.metric(stalled.0, &[stalled.1]).await, 4.0);

    let text = r#"{"x": [1]}"#.to_owned() + &" ".repeat(300_000);
    let slow = slow_body(text.into_bytes(), Duration::from_millis(300));
    let request = server.request(Method::POST, "/v1/functions/adder/invoke");
    send(request.body(slow)).await.expect(200);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = Server::start_with(&["--send-timeout", "500ms"]).await;
    // More than the buffers of a loopback connection hold.
    let large = Bundle::of_model(onnx::add_one())
        .with_lines("[assets]\n\"noise\" = \"noise\"\n")
        .with_file("noise", vec![7; 48 << 20]);
    server.deploy("large", &large).await;
    let mut stream = connect(&server).await;
    let request = b"GET /v1/functions/large/versions/1/bundle HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let stalled = (
        "firebox_connections_timed_out_total",
        "waited_for=\"answer\"",
    );
    let began = Instant::now();
    while server.metric(stalled.0, &[stalled.1]).await < 1.0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it is held on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_cost_little_and_go_away() {
    const MIB: u64 = 1 << 20;
    let wanted = 10_000.min(open_files().saturating_sub(500));
    let server = server_with_adder(&["--max-connections", "3000", "--header-timeout", "15s"]).await;
    let before = server.resident_bytes();
    let mut held = Vec::new();
    for number in 0..wanted {
        let mut stream = connect(&server).await;
        // Half of them begin a request that they never end.
        if number % 2 == 0 {
            let _ = stream
                .write_all(b"POST /v1/functions/adder/invoke HTTP/1.1\r\n")
                .await;
        }
        held.push(stream);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    println!(
        "{wanted} connections, 3,000 of them held: {:.1} MiB",
        grown as f64 / MIB as f64
    );
    assert!(grown < 120 * MIB, "the server grew by {grown} bytes");
    // Until the server has done with those that it refused.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let refused = server.get("/v1/functions").await.expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    // Those that are held are given up by themselves.
    let began = Instant::now();
    while !server.is_ready().await {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "they are held on"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    still_serves(&server).await;
    drop(held);
}

/// How many files this process may open, after it has asked for all that it can.
#[allow(unsafe_code, reason = "std has no way to raise a limit")]
fn open_files() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls are given a whole `rlimit` of this frame.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

#[tokio::test]
async fn an_answer_that_is_on_its_way_is_whole_though_the_server_stops() {
    let server = Server::start().await;
    let large = Bundle::of_model(onnx::add_one())
        .with_lines("[assets]\n\"noise\" = \"noise\"\n")
        .with_file("noise", vec![7; 48 << 20]);
    server.deploy("large", &large).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    // One that comes in pieces, and one that is handed over whole.
    let bundle = "GET /v1/functions/large/versions/1/bundle HTTP/1.1\r\nhost: a\r\n\r\n";
    let numbers = format!(r#"{{"x": [1{}]}}"#, ",1".repeat(4 << 20));
    let sum = format!(
        "POST /v1/functions/adder/invoke HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{numbers}",
        numbers.len()
    );
    let mut streams = Vec::new();
    for (request, least) in [(bundle, 48 << 20), (&sum, 4 * (4 << 20))] {
        let mut stream = connect(&server).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 1024];
        let got = stream.read(&mut first).await.unwrap();
        assert!(first.starts_with(b"HTTP/1.1 200"), "{:?}", &first[..got]);
        streams.push((stream, got, least));
    }
    server.terminate();
    // Longer than anything is waited for that nobody is owed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut buffer = vec![0; 1 << 20];
    for (stream, got, least) in &mut streams {
        while let bytes @ 1.. = stream.read(&mut buffer).await.unwrap() {
            *got += bytes;
        }
        assert!(*got > *least, "{got} bytes, expected more than {least}");
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn idle_and_halting_connections_do_not_hold_up_a_stop() {
    let server = server_with_adder(&[]).await;
    let idle = connect(&server).await;
    let mut halting = connect(&server).await;
    halting.write_all(b"GET /v1/fun").await.unwrap();
    let mut kept = connect(&server).await;
    kept.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    assert!(kept.read(&mut answer).await.unwrap() > 0);
    let began = Instant::now();
    server.stop().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop((idle, halting, kept));
}
