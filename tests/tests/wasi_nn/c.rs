//! `examples/c-file-type`: a program in C, by a compiler from the package index.

use std::path::{Path, PathBuf};
use std::process::Command;

use firebox_tests::binary::{self, target, workspace};

use super::*;

/// The folder of a Python that has zig, which brings clang and wasi-libc; shared by all tests. None,
/// with the reason printed, where it can't be installed.
fn zig() -> Option<PathBuf> {
    let _one_at_a_time = binary::lock("zig");
    let folder = target().join("zig");
    let bin = folder.join("bin");
    let has_it = |bin: &Path| {
        let zig = Command::new(bin.join("python3"))
            .args(["-m", "ziglang", "version"])
            .output();
        zig.is_ok_and(|output| output.status.success())
    };
    if has_it(&bin) {
        return Some(bin);
    }
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&folder)
        .output();
    let pip = |_| {
        let mut pip = Command::new(bin.join("python3"));
        pip.args(["-m", "pip", "install", "--quiet", "ziglang>=0.14"])
            .output()
    };
    let installed = made.and_then(pip);
    if has_it(&bin) {
        return Some(bin);
    }
    println!("SKIPPED: no compiler for C, as ziglang can't be installed: {installed:?}");
    None
}

#[tokio::test]
async fn the_example_in_c_tells_what_files_are() {
    let Some(bin) = zig() else { return };
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
