//! What is committed stays, what is not was never there, and a data folder has one server.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::client::slow_body;
use firebox_tests::kills::random;
use firebox_tests::{Bundle, Server, binary, onnx};
use serde_json::json;

const ROUNDS: u8 = 12;
/// Big enough that an upload spends time in each of its steps.
const PAYLOAD: usize = 8 << 20;

/// Version `n` adds `n` and carries some megabytes that don't compress.
fn heavy_adder(n: u8) -> Bundle {
    let mut state = u64::from(n) + 1;
    let payload = std::iter::repeat_with(|| random(&mut state) as u8)
        .take(PAYLOAD)
        .collect();
    Bundle::of_model(onnx::add(f32::from(n)))
        .with_lines("[assets]\n\"payload.bin\" = \"payload.bin\"")
        .with_file("payload.bin", payload)
}

async fn version_numbers(server: &Server) -> Vec<u32> {
    let info = server.get("/v1/functions/adder").await.expect(200).json();
    let numbers = info["versions"].as_array().unwrap().iter();
    numbers
        .map(|n| u32::try_from(n.as_u64().unwrap()).unwrap())
        .collect()
}

/// Every listed version must be whole: it answers, and with its own sum.
async fn check_versions(server: &Server, sums: &[(u32, u8)]) {
    for (version, sum) in sums {
        let path = format!("/v1/functions/adder/versions/{version}/invoke");
        let answer = server.invoke_at(&path, r#"{"x": [0]}"#).await.expect(200);
        assert_eq!(
            answer.json(),
            json!({"y": [f64::from(*sum)]}),
            "version {version}"
        );
    }
}

#[tokio::test]
async fn a_kill_during_an_upload_leaves_a_whole_version_or_none() {
    let mut server = Server::start().await;
    let began = Instant::now();
    let mut sums = vec![(server.deploy("adder", &heavy_adder(0)).await, 0)];
    let usual = began.elapsed();
    let mut seed = 0x5EED;
    let (mut whole, mut none) = (0, 0);
    for round in 1..=ROUNDS {
        let bytes = heavy_adder(round).tar("adder");
        // From the first byte to a little past the usual end.
        let share = (random(&mut seed) % 1000) as u32;
        let delay = usual.mul_f64(1.1) * share / 1000;
        let path = "/v1/functions/adder/versions";
        let upload = server
            .request(reqwest::Method::POST, path)
            .body(bytes.clone())
            .send();
        let upload = tokio::spawn(upload);
        tokio::time::sleep(delay).await;
        server = server.kill().await.again().await;
        let told = matches!(upload.await.unwrap(), Ok(answer) if answer.status() == 201);

        let before = sums.len();
        let numbers = version_numbers(&server).await;
        let known: Vec<u32> = sums.iter().map(|(version, _)| *version).collect();
        match numbers.strip_prefix(known.as_slice()) {
            Some([]) => none += 1,
            Some([new]) => sums.push((*new, round)),
            _ => panic!("round {round}: {known:?} became {numbers:?}"),
        }
        whole += sums.len() - before;
        assert!(
            !told || sums.len() > before,
            "round {round}: an acknowledged version is lost"
        );
        check_versions(&server, &sums).await;
    }
    assert!(
        none > 0,
        "no kill came before the commit ({whole} came after)"
    );
    // What a kill interrupted can be done again.
    let last = heavy_adder(ROUNDS).tar("adder");
    let status = server.upload("adder", last).await.status;
    assert!(status == 200 || status == 201, "{status}");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_versions_labels_and_traffic() {
    let server = Server::start().await;
    for n in 1..=2_u8 {
        server
            .deploy("adder", &Bundle::of_model(onnx::add(f32::from(n))))
            .await;
    }
    let policy = json!({"weights": {"1": 2500, "2": 7500}, "labels": {"stable": 1}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    let before = server.get("/v1/functions/adder").await.expect(200).json();

    let server = server.kill().await.again().await;
    assert_eq!(
        server.get("/v1/functions/adder").await.expect(200).json(),
        before
    );
    assert_eq!(
        server
            .get("/v1/functions/adder/traffic")
            .await
            .expect(200)
            .json(),
        policy
    );
    check_versions(&server, &[(1, 1), (2, 2)]).await;
}

#[tokio::test]
async fn a_second_server_on_the_same_data_folder_is_refused() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let mut second = binary::command();
    second
        .arg("serve")
        .arg("--data")
        .arg(server.data())
        .args(["--listen", "127.0.0.1:0"]);
    let output = binary::output_within(second, Duration::from_secs(20));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "the second server ended well: {said}"
    );
    let folder = server.data().to_string_lossy();
    assert!(said.contains(&*folder), "the folder is not named: {said}");
    assert!(!said.contains("panicked"), "{said}");
    check_versions(&server, &[(1, 1)]).await;
}

#[tokio::test]
async fn leftovers_of_killed_uploads_are_swept_at_the_next_start() {
    let server = Server::start().await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let small = folder_bytes(server.data());
    let body = slow_body(heavy_adder(3).tar("adder"), Duration::from_millis(20));
    let path = "/v1/functions/adder/versions";
    let upload = tokio::spawn(
        server
            .request(reqwest::Method::POST, path)
            .body(body)
            .send(),
    );
    wait_until(|| folder_bytes(server.data()) > small + (1 << 20)).await;
    let server = server.kill().await.again().await;
    assert!(upload.await.unwrap().is_err(), "the upload was cut");
    let after = folder_bytes(server.data());
    assert!(
        after < small + (1 << 20),
        "{small} bytes before, {after} after"
    );
}

async fn wait_until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it never came to pass"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sizes of all files below a folder that may change meanwhile.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        });
    sizes.sum()
}
