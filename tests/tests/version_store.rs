//! What is kept of versions, and what is not: bundles, uploaders, differences, retention.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use firebox_tests::client::send;
use firebox_tests::{Bundle, Server, onnx};
use reqwest::Method;
use serde_json::json;

const VERSIONS: &str = "/v1/functions/adder/versions";

fn adder(n: u8) -> Bundle {
    Bundle::of_model(onnx::add(f32::from(n)))
}

#[tokio::test]
async fn a_downloaded_bundle_is_the_one_that_was_uploaded() {
    let server = Server::start().await;
    let tar = adder(1).tar("adder");
    let packed = zstd::encode_all(tar.as_slice(), 3).unwrap();
    for (number, bytes) in [(1, &tar), (2, &packed), (3, &onnx::add_one())] {
        let info = server
            .upload("adder", bytes.clone())
            .await
            .expect(201)
            .json();
        assert_eq!(info["version"], number);
        let path = format!("{VERSIONS}/{number}/bundle");
        let answer = server.get(&path).await.expect(200);
        assert!(answer.body == *bytes, "bundle {number} is another");
        let etag = format!("\"{}\"", info["digest"].as_str().unwrap());
        assert_eq!(answer.header("etag"), etag);
        let name = format!("attachment; filename=\"adder-{number}.firebox\"");
        assert_eq!(answer.header("content-disposition"), name);
        // What comes down goes up again as the same version.
        let again = server.upload("adder", answer.body).await.expect(200).json();
        assert_eq!(
            (&again["version"], &again["created_now"]),
            (&json!(number), &json!(false))
        );
    }
    server
        .get(&format!("{VERSIONS}/9/bundle"))
        .await
        .refused(404, &["9"]);
    let server = server.kill().await.again().await;
    assert_eq!(server.get(&format!("{VERSIONS}/1/bundle")).await.body, tar);
    server.delete(&format!("{VERSIONS}/2")).await.expect(204);
    server
        .get(&format!("{VERSIONS}/2/bundle"))
        .await
        .refused(404, &["2"]);
}

#[tokio::test]
async fn a_version_says_who_uploaded_it() {
    let server = Server::start().await;
    let upload = |author: Option<&str>, n: u8| {
        let request = server
            .request(Method::POST, VERSIONS)
            .body(adder(n).tar("adder"));
        match author {
            Some(author) => send(request.header("x-firebox-author", author.as_bytes())),
            None => send(request),
        }
    };
    for (author, shown) in [(Some("Änne"), "Änne"), (None, "unknown")] {
        let n = if author.is_some() { 1 } else { 2 };
        assert_eq!(upload(author, n).await.expect(201).json()["author"], shown);
    }
    let bytes = server
        .request(Method::POST, VERSIONS)
        .body(adder(3).tar("adder"));
    let bytes = bytes.header("x-firebox-author", b"\xff".as_slice());
    send(bytes)
        .await
        .refused(400, &["x-firebox-author", "UTF-8"]);
}

#[tokio::test]
async fn two_versions_are_compared_by_manifest_and_files() {
    let server = Server::start().await;
    server.deploy("adder", &adder(1)).await;
    let second = adder(2).with_lines("[limits]\nmemory = \"64MiB\"");
    server.deploy("adder", &second).await;
    let found = server
        .get(&format!("{VERSIONS}/1/diff/2"))
        .await
        .expect(200)
        .json();
    let keys: Vec<&str> = found["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["files.models.model", "limits.memory"], "{found}");
    assert_eq!(found["changes"][1]["from"], "256MiB");
    assert_eq!(found["changes"][1]["to"], "64MiB");
    let same = server
        .get(&format!("{VERSIONS}/2/diff/2"))
        .await
        .expect(200)
        .json();
    assert_eq!(same["changes"], json!([]));
    server
        .get(&format!("{VERSIONS}/1/diff/7"))
        .await
        .refused(404, &["7"]);
    server
        .get(&format!("{VERSIONS}/1/diff/x"))
        .await
        .refused(400, &["x"]);
}

#[tokio::test]
async fn retention_keeps_the_newest_and_all_that_is_in_use() {
    let server = Server::start().await;
    for n in 1..=5 {
        server.deploy("adder", &adder(n)).await;
    }
    let policy = json!({"weights": {"5": 10000}, "labels": {"old": 2}});
    server
        .put("/v1/functions/adder/traffic", &policy)
        .await
        .expect(200);
    let path = "/v1/functions/adder/retention";
    let retired = server
        .put(path, &json!({"keep_last": 2}))
        .await
        .expect(200)
        .json();
    // 1 is where a rollback goes, 2 has a label, 4 and 5 are the newest.
    assert_eq!(retired, json!({"keep_last": 2, "deleted": [3]}));
    server.deploy("adder", &adder(6)).await;
    server.deploy("adder", &adder(7)).await;
    let info = server.get("/v1/functions/adder").await.expect(200).json();
    assert_eq!(
        (&info["versions"], &info["keep_last"]),
        (&json!([1, 2, 5, 6, 7]), &json!(2))
    );
    server
        .post("/v1/functions/adder/rollback", &json!({}))
        .await
        .expect(200);
    assert_eq!(
        server
            .invoke("adder", r#"{"x": [0]}"#)
            .await
            .expect(200)
            .version(),
        1
    );

    let server = server.kill().await.again().await;
    let kept = server
        .put(path, &json!({"keep_last": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(kept, json!({"keep_last": null, "deleted": []}));
    for body in [
        json!({"keep_last": 0}),
        json!({"keep_last": -1}),
        json!({"keep": 1}),
        json!(3),
    ] {
        server.put(path, &body).await.refused(400, &["keep_last"]);
    }
}
