//! `examples/c-file-type`: a program in C, by a compiler from the package index.

use std::process::Command;

use firebox_tests::binary::workspace;
use firebox_tests::toolchains;

use super::*;

#[tokio::test]
async fn the_example_in_c_tells_what_files_are() {
    // It brings clang and wasi-libc.
    let Some(bin) = toolchains::pip(&["ziglang==0.16.0"]) else {
        return;
    };
    guests::model("magika", "magika.onnx");
    let project = workspace().join("examples/c-file-type");
    let compiled = Command::new("sh")
        .arg(project.join("build.sh"))
        .env("CC", format!("{}/python3 -m ziglang cc", bin.display()))
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{said}");

    let server = Server::start().await;
    let bundle = guests::example("c-file-type");
    let info = server.upload("kind", bundle).await.expect(201).json();
    assert_eq!(info["kind"], "command");
    for (sample, label) in [
        ("readme.md", "markdown"),
        ("primes.py", "python"),
        ("rings.png", "png"),
    ] {
        let body = std::fs::read(project.join("samples").join(sample)).unwrap();
        let answer = server.invoke("kind", body).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/json");
        let answer = answer.json();
        assert_eq!(answer["label"], label, "{sample}: {answer}");
        assert!(
            answer["confidence"].as_f64().unwrap() > 0.5,
            "{sample}: {answer}"
        );
    }
    let words = ["at least 8 bytes", "exited with code 65"];
    server.invoke("kind", "abc").await.refused(400, &words);
}
