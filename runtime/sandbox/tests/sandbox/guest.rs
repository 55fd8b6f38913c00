//! Builds the probe guest, once per process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "wasm32-wasip2";

/// The probe as a component.
pub fn probe() -> &'static [u8] {
    static WASM: OnceLock<Vec<u8>> = OnceLock::new();
    WASM.get_or_init(|| std::fs::read(build()).expect("cargo built the probe"))
}

/// Builds in a target folder of its own, so as not to wait for the cargo that
/// runs this test; a file lock makes test processes take turns.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir).join("guests"),
        None => root.join("target/guests"),
    };
    std::fs::create_dir_all(&target).expect("target/guests can be made");
    let lock = File::create(target.join(".probe.lock")).expect("a lock file can be made");
    lock.lock().expect("the lock can be taken");
    add_target();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .current_dir(&root)
        .args([
            "build",
            "--release",
            "--package",
            "firebox-probe-guest",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target));
    target.join(TARGET).join("release/firebox_probe_guest.wasm")
}

fn add_target() {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .expect("rustc runs");
    let dir = String::from_utf8(libraries.stdout).expect("rustc prints a path");
    if !Path::new(dir.trim()).is_dir() {
        run(Command::new("rustup").args(["target", "add", TARGET]));
    }
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
