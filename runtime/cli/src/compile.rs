//! Rust to WebAssembly: the target, cargo, and the file that cargo made.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::failure::{Context, Failure, Result};

/// What libraries are compiled for: they become components.
const LIBRARY: &str = "wasm32-wasip2";
/// What programs are compiled for: they become commands, with wasi-nn in the ABI that crates for
/// programs have.
const PROGRAM: &str = "wasm32-wasip1";

/// Compiles the package in a folder; what cargo has to say goes to standard error as it comes.
/// Returns the path of what it made.
pub fn compile(project: &Path) -> Result<PathBuf> {
    let target = target(project)?;
    ensure_target(project, target)?;
    let manifest = project.join("Cargo.toml");
    let what = || format!("{} can't be found", manifest.display());
    let manifest = manifest.canonicalize().context(what)?;
    let mut command = cargo(project);
    command.args(["build", "--release", "--target", target]);
    command
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(&manifest);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.spawn().map_err(|error| {
        Failure::new(format!("cargo can't be run: {error}"))
            .hint("Rust is needed to build a function: https://rustup.rs")
    })?;
    let out = process.stdout.take();
    let made = out.map(|out| artifacts(BufReader::new(out), &manifest));
    let status = process
        .wait()
        .context(|| "cargo can't be waited for".into())?;
    if !status.success() {
        return Err(
            Failure::new(format!("{} does not compile", project.display()))
                .hint("cargo's messages above say where"),
        );
    }
    match made.unwrap_or_default().as_slice() {
        [.., last] if target == LIBRARY => Ok(last.clone()),
        [only] => Ok(only.clone()),
        [] => Err(Failure::new(format!(
            "{} makes neither a WebAssembly library nor a program",
            manifest.display()
        ))
        .hint("a function's Cargo.toml says: [lib] crate-type = [\"cdylib\", \"rlib\"]")),
        several => Err(Failure::new(format!(
            "{} makes {} programs, and a command is one",
            manifest.display(),
            several.len()
        ))
        .hint("name one of them in firebox.toml: [function] component = \"target/…/NAME.wasm\"")),
    }
}

/// What the package in a folder is compiled for: a package without a library is a program.
fn target(project: &Path) -> Result<&'static str> {
    let manifest = project.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest);
    let text = text.context(|| format!("{} can't be read", manifest.display()))?;
    let says = |section: &str| text.lines().any(|line| line.trim() == section);
    let has = |file: &str| project.join(file).exists();
    let library = says("[lib]") || has("src/lib.rs");
    let program = says("[[bin]]") || has("src/main.rs");
    Ok(match program && !library {
        true => PROGRAM,
        false => LIBRARY,
    })
}

fn cargo(project: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(project);
    // What a cargo around us says about its own package would make build scripts look stale.
    for (name, _) in std::env::vars_os() {
        if is_of_a_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_a_package(variable: &OsString) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// One of cargo's messages, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The `.wasm` files among the artifacts of the package with this manifest.
fn artifacts(messages: impl BufRead, manifest: &Path) -> Vec<PathBuf> {
    let messages = messages.lines().map_while(std::result::Result::ok);
    let artifacts = messages
        .filter_map(|line| serde_json::from_str::<Message>(&line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.manifest_path.as_deref() == Some(manifest));
    let files = artifacts.flat_map(|artifact| artifact.filenames);
    files
        .filter(|file| file.extension() == Some("wasm".as_ref()))
        .collect()
}

/// Adds the compilation target by rustup where the project's toolchain lacks it.
fn ensure_target(project: &Path, target: &str) -> Result {
    if has_target(project, target)? {
        return Ok(());
    }
    eprintln!("Rust's target {target} is not installed yet: rustup target add {target}");
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", target])
        .current_dir(project)
        .stdin(Stdio::null());
    match rustup.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::new(format!("rustup could not add {target}"))
            .hint("its message above says why; without a network it can't be fetched")),
        Err(error) => Err(Failure::new(format!(
            "{target} is missing, and rustup can't be run: {error}"
        ))
        .hint("install the target the way this Rust was installed, or Rust by https://rustup.rs")),
    }
}

/// Whether the toolchain that compiles this project has the target's libraries.
fn has_target(project: &Path, target: &str) -> Result<bool> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(project);
    let output = rustc.output().map_err(|error| {
        Failure::new(format!("rustc can't be run: {error}"))
            .hint("Rust is needed to build a function: https://rustup.rs")
    })?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_the_projects_own_artifact() {
        let messages = r#"
            {"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/other.wasm"]}
            not a message
            {"reason":"compiler-artifact","manifest_path":"/mine/Cargo.toml","filenames":["/a.rlib","/mine.wasm"]}
            {"reason":"build-finished","success":true}
        "#;
        let found = artifacts(messages.as_bytes(), Path::new("/mine/Cargo.toml"));
        assert_eq!(found, [PathBuf::from("/mine.wasm")]);
        let none = artifacts(messages.as_bytes(), Path::new("/none/Cargo.toml"));
        assert!(none.is_empty());
    }

    #[test]
    fn a_package_without_a_library_is_a_program() {
        let project = |manifest: &str, file: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("src")).unwrap();
            std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
            std::fs::write(folder.path().join(file), "").unwrap();
            target(folder.path()).unwrap()
        };
        assert_eq!(project("[package]", "src/main.rs"), PROGRAM);
        assert_eq!(project("[package]\n[[bin]]", "src/other.rs"), PROGRAM);
        assert_eq!(project("[package]", "src/lib.rs"), LIBRARY);
        assert_eq!(project("[package]\n[lib]", "src/main.rs"), LIBRARY);
    }
}
