//! A server that is told to stop finishes what it has begun, takes nothing new, and ends with 0.

use std::time::Duration;

use firebox_tests::{Bundle, Server, guests, onnx};
use serde_json::json;

#[tokio::test]
async fn a_request_in_flight_is_answered() {
    let server = Server::start().await;
    server
        .deploy(
            "probe",
            &Bundle::of_component(guests::component_of(&guests::guest("probe"))),
        )
        .await;
    let path = "/v1/functions/probe/invoke?mode=sleep&ms=1500";
    let slow = server.invoke_at(path, r#"{"x": [[1, 2]]}"#);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.terminate();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(server.is_alive(), "the server did not wait for the request");
        assert!(
            !server.is_ready().await,
            "a stopping server says that it is ready"
        );
    };
    let (answer, ()) = tokio::join!(slow, stop);
    answer.expect(200);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_server_stops_at_once_and_all_is_there_at_the_next_start() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let began = std::time::Instant::now();
    let stopped = server.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let server = stopped.again().await;
    let answer = server.invoke("adder", r#"{"x": [1]}"#).await.expect(200);
    assert_eq!(answer.json(), json!({"y": [2.0]}));
}
