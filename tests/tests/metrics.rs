//! `/metrics` tells what was asked and answered, in Prometheus' text format.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firebox_tests::client::total;
use firebox_tests::{Bundle, Server, onnx};

#[tokio::test]
async fn requests_are_counted_by_function_version_and_outcome() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    for _ in 0..3 {
        server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    }
    server.invoke("adder", r#"{"x": "one"}"#).await.expect(400);

    let answer = server.get("/metrics").await.expect(200);
    assert!(answer.header("content-type").starts_with("text/plain"));
    let text = answer.text();
    let of_adder = ["function=\"adder\"", "version=\"1\""];
    assert_eq!(
        total(&text, "firebox_requests_total", &of_adder),
        4.0,
        "{text}"
    );
    let good = [of_adder[0], of_adder[1], "status=\"2xx\""];
    assert_eq!(total(&text, "firebox_requests_total", &good), 3.0, "{text}");
    let timed = total(&text, "firebox_request_seconds_count", &of_adder[..1]);
    assert_eq!(timed, 4.0, "{text}");
}
