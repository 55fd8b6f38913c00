//! Real guests and real models: each example and test guest is built once by `firebox build`,
//! each model fetched once by `scripts/models.py`; both are shared by all test processes.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::binary::{self, target, workspace};

/// The bundle of `examples/<name>`, its model fetched where it is missing.
pub fn example(name: &str) -> Vec<u8> {
    fetch(&["--all"]);
    build(&workspace().join("examples").join(name))
}

/// The bundle of `tests/guests/<name>`.
pub fn guest(name: &str) -> Vec<u8> {
    build(&workspace().join("tests/guests").join(name))
}

/// A program of `tests/guests/wasi-nn`: a core module of WASI 0.1 where its name begins with
/// `classic`, a component of WASI 0.2 where it begins with `component`.
pub fn program(name: &str) -> Vec<u8> {
    let (kind, target) = match name.split('_').next() {
        Some("classic") => ("classic", "wasm32-wasip1"),
        _ => ("component", "wasm32-wasip2"),
    };
    static BUILT: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.contains(kind) {
        build_programs(kind, target);
        built.insert(kind);
    }
    let file = format!("{target}/release/{name}.wasm");
    std::fs::read(self::target().join(file)).expect("cargo has built the program")
}

/// Compiles all programs of a kind; those of the other kind can't be linked for this target.
fn build_programs(kind: &str, target: &str) {
    let _one_at_a_time = binary::lock("guests");
    let add = Command::new("rustup")
        .args(["target", "add", target])
        .output()
        .expect("rustup runs");
    let said = String::from_utf8_lossy(&add.stderr);
    assert!(add.status.success(), "no target {target}:\n{said}");
    let mut cargo = binary::cargo();
    cargo.args(["build", "--release", "--target", target]);
    cargo.args(["--package", "firebox-wasi-nn-guests"]);
    for program in ["classification", "classification_named", "probe"] {
        cargo.arg("--bin").arg(format!("{kind}_{program}"));
    }
    let output = cargo.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no {kind} programs:\n{said}");
}

/// The smallest component that is a function, at hand without a compiler.
pub fn small() -> Vec<u8> {
    wat::parse_str(include_str!("small_guest.wat")).expect("the text is WebAssembly")
}

/// WebAssembly of this text.
pub fn of_text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is WebAssembly")
}

/// A model file of `target/models`, fetched if it is not there. `model` is a name that
/// `scripts/models.py` knows, `file` one of its files.
pub fn model(model: &str, file: &str) -> Vec<u8> {
    fetch(&[model]);
    std::fs::read(target().join("models").join(file)).expect("the model is there")
}

fn fetch(arguments: &[&str]) {
    let script = workspace().join("scripts/models.py");
    let output = Command::new("python3").arg(script).args(arguments).output();
    let output = output.expect("python3 runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The component inside a bundle: `function.wasm`.
pub fn component_of(bundle: &[u8]) -> Vec<u8> {
    const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
    let plain = match bundle.starts_with(&ZSTD) {
        true => zstd::decode_all(bundle).expect("the bundle unpacks"),
        false => bundle.to_vec(),
    };
    let mut archive = tar::Archive::new(plain.as_slice());
    let entries = archive.entries().expect("the bundle is a tar");
    let mut component = entries
        .map(|entry| entry.expect("the bundle is whole"))
        .find(|entry| {
            entry
                .path()
                .is_ok_and(|path| path.extension() == Some("wasm".as_ref()))
        })
        .expect("the bundle holds a component");
    let mut bytes = Vec::new();
    component
        .read_to_end(&mut bytes)
        .expect("the component is whole");
    bytes
}

fn build(project: &Path) -> Vec<u8> {
    static BUILT: LazyLock<Mutex<HashMap<PathBuf, Vec<u8>>>> = LazyLock::new(Mutex::default);
    // A test that failed to build its guest must not take the others' down.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built
        .entry(project.to_path_buf())
        .or_insert_with(|| run_build(project))
        .clone()
}

fn run_build(project: &Path) -> Vec<u8> {
    let _one_at_a_time = binary::lock("guests");
    let bundle = bundle_path(project);
    let output = binary::command()
        .arg("build")
        .arg(project)
        .arg("--output")
        .arg(&bundle)
        .output()
        .expect("firebox runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} does not build:\n{said}",
        project.display()
    );
    std::fs::read(&bundle).expect("firebox build has written the bundle")
}

fn bundle_path(project: &Path) -> PathBuf {
    let guests = target().join("guests");
    std::fs::create_dir_all(&guests).expect("target/guests can be made");
    let name = project
        .file_name()
        .expect("a project has a name")
        .to_string_lossy();
    guests.join(format!("{name}.firebox"))
}
