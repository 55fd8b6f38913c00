//! Functions that answer HTTP requests themselves: components built for any host of wasi:http.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::{long_body, send};
use firebox_tests::{Bundle, Server, binary, guests, onnx};
use futures::StreamExt;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: u64 = 1 << 20;

/// Longer than anything here takes on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn component() -> Vec<u8> {
    guests::component_of(&guests::guest("http-probe"))
}

/// A server with the function `probe`, whose manifest has these lines as well.
async fn probe(lines: &str) -> Server {
    let server = Server::start().await;
    let bundle = Bundle::of_component(component()).with_lines(lines);
    server.deploy("probe", &bundle).await;
    server
}

async fn connect(server: &Server) -> TcpStream {
    let address = server.url().trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// Reads until `end` has come, or the connection ends; returns all that came.
async fn hear(stream: &mut TcpStream, end: &str) -> String {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    let hearing = async {
        while !String::from_utf8_lossy(&said).contains(end) {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => said.extend_from_slice(&piece[..read]),
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, hearing).await;
    assert!(
        heard.is_ok(),
        "`{end}` never came, only: {}",
        String::from_utf8_lossy(&said)
    );
    String::from_utf8_lossy(&said).into_owned()
}

/// All that comes of a plain request until the server closes the connection.
async fn exchange(server: &Server, head: &str) -> String {
    let mut stream = connect(server).await;
    let request = format!("{head}\r\nhost: probe.test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    hear(&mut stream, "\0 never said").await
}

/// Waits until the server's log says `words`.
async fn logged(server: &Server, words: &str) {
    let began = Instant::now();
    while !server.log().contains(words) {
        assert!(began.elapsed() < PATIENCE, "`{words}` is never logged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a metric has a value.
async fn counted(server: &Server, metric: &str, labels: &[&str], value: f64) {
    let began = Instant::now();
    loop {
        let found = server.metric(metric, labels).await;
        if (found - value).abs() < 0.5 {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{metric} {labels:?} is {found}, never {value}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing runs: the instances of all calls are gone.
async fn at_rest(server: &Server) {
    counted(server, "firebox_admission_running", &[], 0.0).await;
    counted(server, "firebox_requests_in_flight", &[], 0.0).await;
}

fn id_in(head: &str) -> &str {
    let (_, rest) = head.split_once("x-firebox-prediction-id: ").unwrap();
    rest.split("\r\n").next().unwrap()
}

#[tokio::test]
async fn a_component_without_a_manifest_is_deployed_and_answers() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello.wasm"), component()).unwrap();
    let mut deploy = binary::command();
    deploy.current_dir(folder.path());
    deploy.env("FIREBOX_SERVER", server.url());
    let output = deploy.args(["deploy", "hello.wasm"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("kind               http"), "{said}");
    assert!(said.contains("below /f/hello/"), "{said}");
    let info = server.get("/v1/functions/hello/versions/1").await.json();
    assert_eq!(info["kind"], "http");
    for path in ["/f/hello", "/f/hello/", "/f/hello/hello"] {
        let answer = server.get(path).await.expect(200);
        assert_eq!(answer.text(), "hello\n");
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.version(), 1);
        assert_eq!(answer.header("x-firebox-prediction-id").len(), 36);
        assert!(answer.header("server-timing").contains("guest;dur="));
    }
    server.get("/f/hello/elsewhere").await.expect(404);
    counted(&server, "firebox_requests_total", &["2xx"], 3.0).await;
    counted(&server, "firebox_requests_total", &["4xx"], 1.0).await;
    // What its code is outlives the server.
    let server = server.stop().await.again().await;
    let answer = server.get("/f/hello").await.expect(200);
    assert_eq!(answer.text(), "hello\n");
}

#[tokio::test]
async fn a_function_sees_its_own_path_and_its_callers_headers() {
    let server = probe("").await;
    let request = server
        .request(
            Method::from_bytes(b"PROPFIND").unwrap(),
            "/f/probe/seen?a=%20b",
        )
        .header("x-theirs", "1")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let answer = send(request).await.expect(200);
    let seen = answer.text();
    let id = answer.header("x-firebox-prediction-id");
    let authority = server.url().trim_start_matches("http://");
    for line in [
        "PROPFIND\n/seen?a=%20b\nhttp: true\n",
        &format!("authority: {authority}\n"),
        "x-theirs: 1\n",
        "x-forwarded-prefix: /f/probe\n",
        &format!("x-firebox-prediction-id: {id}\n"),
    ] {
        assert!(seen.contains(line), "{line} in\n{seen}");
    }
    assert!(!seen.contains("x-hop"), "{seen}");
    assert_eq!(answer.header("x-own"), "yes");
    let timings = answer.headers.get_all("server-timing").iter();
    assert_eq!(timings.count(), 2, "the function's own and the server's");
}

#[tokio::test]
async fn statuses_and_methods_without_a_body_have_none() {
    let server = probe("").await;
    for code in [204, 304] {
        let said = exchange(
            &server,
            &format!("GET /f/probe/status?code={code} HTTP/1.1"),
        )
        .await;
        assert!(said.starts_with(&format!("HTTP/1.1 {code}")), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }
    let said = exchange(&server, "HEAD /f/probe/length?n=9 HTTP/1.1").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(said.contains("content-length: 9\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\n"), "{said}");
    at_rest(&server).await;
    // 204, 304 and 200.
    counted(&server, "firebox_requests_total", &["2xx"], 3.0).await;
    assert_eq!(server.metric("firebox_requests_total", &["5xx"]).await, 0.0);
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_does_not_keep_an_instance() {
    let server = probe("[limits]\ndeadline = \"1s\"\n").await;
    let said = exchange(&server, "HEAD /f/probe/endless HTTP/1.1").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["2xx"], 1.0).await;
}

#[tokio::test]
async fn bodies_stream_both_ways_and_end_with_trailers() {
    let server = probe("").await;
    let mut stream = connect(&server).await;
    let head = "POST /f/probe/echo HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\
                transfer-encoding: chunked\r\ntrailer: x-sent\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = hear(&mut stream, "\r\n\r\n").await;
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    for piece in ["first", "second"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
        hear(&mut stream, &format!("{piece}\r\n")).await;
    }
    let last = b"0\r\nx-sent: from afar\r\n\r\n";
    stream.write_all(last).await.unwrap();
    let end = hear(&mut stream, "\r\n\r\n").await;
    assert!(end.contains("x-bytes: 11\r\n"), "{end}");
    assert!(end.contains("x-sent: from afar\r\n"), "{end}");
    // The connection is good for another request.
    let next = b"GET /f/probe/hello HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let said = hear(&mut stream, "hello\n").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn a_body_that_waits_to_be_wanted_is_asked_for_when_the_function_reads_it() {
    let server = probe("").await;
    let head = |path: &str| {
        let head = format!("POST /f/probe/{path} HTTP/1.1\r\nhost: a\r\n");
        head + "expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    };
    let mut stream = connect(&server).await;
    stream.write_all(head("count").as_bytes()).await.unwrap();
    let asked = hear(&mut stream, "\r\n\r\n").await;
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    let said = hear(&mut stream, "5 bytes\n").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    // One that answers without reading it never asks.
    let mut stream = connect(&server).await;
    stream.write_all(head("hello").as_bytes()).await.unwrap();
    let said = hear(&mut stream, "hello\n").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn a_body_much_larger_than_the_instance_passes_through_it() {
    let server = probe("[limits]\nmemory = \"16MiB\"\ndeadline = \"60s\"\n").await;
    server.get("/f/probe/hello").await.expect(200);
    let (before, bytes) = (server.resident_bytes(), 256 * MIB);
    let request = server.request(Method::POST, "/f/probe/echo");
    let answer = request.body(long_body(bytes)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut heard, mut most) = (answer.bytes_stream(), 0, 0);
    while let Some(piece) = body.next().await {
        heard += piece.unwrap().len() as u64;
        most = most.max(server.resident_bytes());
    }
    assert_eq!(heard, bytes);
    let grown = most.saturating_sub(before) / MIB;
    assert!(grown < 48, "the server grew by {grown} MiB");
}

#[tokio::test]
async fn events_come_as_they_happen_and_may_outlast_the_deadline() {
    let server = probe("[limits]\ndeadline = \"2s\"\n").await;
    let request = server.request(Method::GET, "/f/probe/events?n=4&ms=1000");
    let began = Instant::now();
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let (mut body, mut said, mut first) = (answer.bytes_stream(), Vec::new(), None);
    while let Some(piece) = body.next().await {
        first.get_or_insert(began.elapsed());
        said.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(said, b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(first.unwrap() + Duration::from_secs(2) < took, "{first:?}");
    // A stream's latency is the time to its head: the guards of a rollout would fail it else.
    counted(&server, "firebox_request_seconds_count", &[], 1.0).await;
    let seconds = server.metric("firebox_request_seconds_sum", &[]).await;
    assert!(seconds < 2.0, "{seconds}");
}

#[tokio::test]
async fn a_function_has_models_assets_and_the_hosts_of_its_manifest() {
    let server = Server::start().await;
    let authority = server.url().trim_start_matches("http://").to_owned();
    let bundle = Bundle::of_component(component())
        .with_model("model", onnx::add_one())
        .with_lines("[assets]\n\"words.txt\" = \"words.txt\"\n")
        .with_file("words.txt", b"a few words".to_vec());
    let listed = bundle
        .clone()
        .with_lines(&format!("[network]\nhosts = [\"{authority}\"]\n"));
    server.deploy("closed", &bundle).await;
    server.deploy("open", &listed).await;
    let x: Vec<u8> = [1.0_f32, 41.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let y: Vec<u8> = [2.0_f32, 42.0]
        .iter()
        .flat_map(|y| y.to_le_bytes())
        .collect();
    let answer = server.invoke_at("/f/open/model", x).await.expect(200);
    assert_eq!(answer.body, y);
    let answer = server.get("/f/open/asset").await.expect(200);
    assert_eq!(answer.text(), "a few words");
    let asked = |function: &str| format!("/f/{function}/call?host={authority}");
    let answer = server.get(&asked("open")).await.expect(200);
    assert_eq!(answer.text(), "status 200");
    let answer = server.get(&asked("closed")).await.expect(200);
    assert!(
        answer.text().contains("HttpRequestDenied"),
        "{}",
        answer.text()
    );
    // One for the dry run of the model is none: its calls alone count.
    assert_eq!(server.metric("firebox_model_runs_total", &[]).await, 1.0);
}

#[tokio::test]
async fn each_way_to_fail_before_an_answer_has_its_status() {
    let lines = "[limits]\nmemory = \"16MiB\"\ndeadline = \"1s\"\ncpu = \"300ms\"\n";
    let server = probe(lines).await;
    for (path, status, words) in [
        ("trap", 502, &["The function stopped"][..]),
        ("nothing", 502, &["gave no response", "without setting one"]),
        ("error", 502, &["gave no response", "LoopDetected"]),
        ("status?code=103", 502, &["gave no response", "103"]),
        ("spin", 502, &["300ms of processor time"]),
        ("hoard", 502, &["16 MiB of memory"]),
        ("silent", 504, &["no answer within 1s"]),
    ] {
        let answer = server.get(&format!("/f/probe/{path}")).await;
        let answer = answer.refused(status, words);
        assert_eq!(answer.version(), 1, "{path}");
    }
    let log = server.log();
    assert!(log.contains("it panics on purpose"), "{log}");
    // How it stopped without the memory is for its owner to read.
    let stopped = "an instance that was refused memory stopped";
    assert!(log.contains(stopped), "{log}");
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["5xx"], 7.0).await;
    server.get("/f/probe/hello").await.expect(200);
}

#[tokio::test]
async fn half_an_answer_is_cut_and_counts_as_a_failure() {
    let server = probe("[limits]\nstream = \"1s\"\n").await;
    for (path, words) in [
        ("half", "it panics half-way on purpose"),
        ("half?length=1", "it panics half-way on purpose"),
        ("unfinished", "it dropped its body unfinished"),
        ("leaked?ms=100", "it returned with its body unfinished"),
        ("endless", "did not answer within 1s"),
    ] {
        let said = exchange(&server, &format!("GET /f/probe/{path} HTTP/1.1")).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{path}: {said}");
        assert!(said.contains("half of") || said.contains("to be") || said.contains("this goes"));
        // The chunk that ends a body is missing.
        assert!(!said.ends_with("0\r\n\r\n"), "{path}: {said}");
        let told = format!("the answer broke off prediction_id={}", id_in(&said));
        logged(&server, &told).await;
        let log = server.log();
        assert!(log.contains(words), "{path}: {words} in\n{log}");
    }
    // One that fails before its head is on its way: there is no end of a body either.
    let said = exchange(&server, "GET /f/probe/leaked HTTP/1.1").await;
    assert!(!said.ends_with("0\r\n\r\n"), "{said}");
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["5xx"], 6.0).await;
    assert_eq!(server.metric("firebox_answers_cut_total", &[]).await, 6.0);
    assert_eq!(server.metric("firebox_requests_total", &["2xx"]).await, 0.0);
}

/// Whenever its caller can take a piece, there is one: only the clock can end it.
#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_cut_when_its_time_is_over() {
    let server = probe("[limits]\ndeadline = \"20s\"\nstream = \"1s\"\n").await;
    server.get("/f/probe/hello").await.expect(200);
    let mut stream = connect(&server).await;
    let request = b"GET /f/probe/flood HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let began = Instant::now();
    let mut piece = vec![0; 64 << 10];
    while stream.read(&mut piece).await.is_ok_and(|read| read > 0) {
        let took = began.elapsed();
        assert!(took < Duration::from_secs(12), "it goes on after {took:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    logged(&server, "did not answer within 1s").await;
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["5xx"], 1.0).await;
}

#[tokio::test]
async fn a_function_is_asked_over_http_2_as_well() {
    let server = probe("").await;
    let client = reqwest::Client::builder().no_proxy();
    let client = client.http2_prior_knowledge().build().unwrap();
    let asked = client.post(format!("{}/f/probe/seen?a=%20b", server.url()));
    let answer = asked.body("x").send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let seen = answer.text().await.unwrap();
    let authority = server.url().trim_start_matches("http://");
    let expected = format!("/seen?a=%20b\nhttp: true\nauthority: {authority}\n");
    assert!(seen.contains(&expected), "{expected} in\n{seen}");
    let asked = client.post(format!("{}/f/probe/echo", server.url()));
    let answer = asked.body(long_body(MIB)).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len() as u64, MIB);
}

#[tokio::test]
async fn statistics_count_what_is_answered_and_what_is_not() {
    let server = probe("").await;
    for (path, status) in [
        ("hello", 200),
        ("status?code=304", 304),
        ("elsewhere", 404),
        ("trap", 502),
    ] {
        server.get(&format!("/f/probe/{path}")).await.expect(status);
    }
    at_rest(&server).await;
    let told = server.get("/v2/models/probe/stats").await.expect(200);
    let told = told.json();
    let told = &told["model_stats"][0];
    assert_eq!(told["inference_count"], 2, "{told}");
    let sums = &told["inference_stats"];
    assert_eq!(sums["success"]["count"], 2, "{sums}");
    assert_eq!(sums["fail"]["count"], 2, "{sums}");
}

#[tokio::test]
async fn a_caller_who_hangs_up_stops_the_instance() {
    let server = probe("").await;
    let mut stream = connect(&server).await;
    let request = b"GET /f/probe/endless HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    hear(&mut stream, "this goes on").await;
    assert_eq!(server.metric("firebox_admission_running", &[]).await, 1.0);
    drop(stream);
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["cancelled"], 1.0).await;
}

#[tokio::test]
async fn a_caller_who_takes_nothing_holds_the_function_up() {
    let server = probe("").await;
    server.get("/f/probe/hello").await.expect(200);
    let before = server.resident_bytes();
    let mut stream = connect(&server).await;
    let request = b"GET /f/probe/flood HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    hear(&mut stream, "xxx").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = server.resident_bytes().saturating_sub(before) / MIB;
    assert!(grown < 16, "the server grew by {grown} MiB");
    let spent = server.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.cpu_seconds() - spent < 0.5, "it works for nobody");
    drop(stream);
    at_rest(&server).await;
}

#[tokio::test]
async fn a_body_that_is_not_read_does_not_cost_its_sender_the_answer() {
    let server = probe("").await;
    for _ in 0..5 {
        let request = server.request(Method::POST, "/f/probe/hello");
        let answer = send(request.body(long_body(16 * MIB))).await.expect(200);
        assert_eq!(answer.text(), "hello\n");
    }
}

#[tokio::test]
async fn a_function_may_work_on_after_its_answer() {
    let server = probe("").await;
    let answer = server.get("/f/probe/after").await.expect(200);
    assert_eq!(answer.text(), "done\n");
    logged(&server, "worked on after the answer").await;
    at_rest(&server).await;
    counted(&server, "firebox_requests_total", &["2xx"], 1.0).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_its_senders_fault() {
    let server = Server::start_with(&["--body-timeout", "500ms"]).await;
    server
        .deploy("probe", &Bundle::of_component(component()))
        .await;
    let mut stream = connect(&server).await;
    let head = "POST /f/probe/count HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = hear(&mut stream, "\0 never said").await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn versions_are_chosen_by_headers_and_every_path_is_the_functions() {
    let server = probe("").await;
    let second = Bundle::of_component(component()).with_lines("[limits]\ndeadline = \"9s\"\n");
    assert_eq!(server.deploy("probe", &second).await, 2);
    let policy = json!({"weights": {"1": 10000}, "labels": {"canary": 2}});
    let path = "/v1/functions/probe/traffic";
    server.put(path, &policy).await.expect(200);
    let shadowed = json!({"weights": {"1": 10000}, "shadow": {"version": 2, "share_bp": 500}});
    let refused = server.put(path, &shadowed).await;
    refused.refused(422, &["the shadow is version 2", "kind `http`"]);
    let asked = |name: &'static str, value: &'static str| {
        let request = server.request(Method::GET, "/f/probe/hello");
        send(request.header(name, value))
    };
    assert_eq!(asked("x-other", "1").await.expect(200).version(), 1);
    assert_eq!(
        asked("x-firebox-version", "2").await.expect(200).version(),
        2
    );
    assert_eq!(
        asked("x-firebox-label", "canary")
            .await
            .expect(200)
            .version(),
        2
    );
    asked("x-firebox-version", "3").await.refused(404, &["3"]);
    let own = server.get("/f/probe/versions/2/hello").await.expect(404);
    assert_eq!(
        (own.text().as_str(), own.version()),
        ("there is nothing here\n", 1)
    );
    server
        .get("/f/prob/hello")
        .await
        .refused(404, &["Did you mean `probe`?"]);
    server.get("/f/").await.refused(404, &[]);
}

#[tokio::test]
async fn what_asks_in_tensors_is_sent_to_the_functions_own_path_and_back() {
    let server = probe("").await;
    let own = &["/f/probe/"];
    server.invoke("probe", "x").await.refused(409, own);
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]});
    let asked = server.infer("probe", &json!({"inputs": [input]})).await;
    asked.refused_v2(409, own);
    let job = server.invoke_at("/v1/functions/probe/jobs", "{}\n").await;
    job.refused(409, own);
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let words = &["of the kind `model`", "/v1/functions/adder/invoke"];
    server.get("/f/adder/").await.refused(409, words);
}

#[tokio::test]
async fn what_a_manifest_asks_in_vain_is_refused() {
    let server = Server::start().await;
    for (lines, word) in [
        ("reuse = true\n", "[function] reuse"),
        ("[cache]\n", "[cache]"),
        ("[sample]\nbody = \"sample\"\n", "[sample]"),
        ("[limits]\nstream = \"2days\"\n", "limits.stream"),
    ] {
        let bundle = Bundle::of_component(component())
            .with_lines(lines)
            .with_file("sample", b"x".to_vec());
        let answer = server.upload("probe", bundle.tar("probe")).await;
        answer.refused(422, &[word]);
    }
}
