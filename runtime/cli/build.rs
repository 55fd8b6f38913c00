//! Embeds what `firebox new` writes: the templates, and the SDK's sources with its WIT files.
//!
//! Each folder becomes one table of `(path, bytes)` in `$OUT_DIR/embedded.rs`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Parts of the SDK that a project has no use for.
const LEFT_OUT: [&str; 2] = ["tests", "target"];

fn main() -> io::Result<()> {
    let here = folder("CARGO_MANIFEST_DIR")?;
    let templates = table("TEMPLATES", &here.join("templates"))?;
    let sdk = table("SDK", &here.join("../../guest-sdk"))?;
    fs::write(folder("OUT_DIR")?.join("embedded.rs"), templates + &sdk)
}

fn folder(variable: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::other(format!("cargo does not set {variable}"));
    env::var_os(variable).map(PathBuf::from).ok_or_else(missing)
}

/// The Rust source of a table of all files below `root`, sorted by path.
fn table(name: &str, root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort();
    let mut source = format!("pub static {name}: &[(&str, &[u8])] = &[\n");
    for (path, file) in files {
        source += &format!("    ({path:?}, include_bytes!({file:?})),\n");
    }
    Ok(source + "];\n")
}

/// Symbolic links are followed: the SDK's `wit` is one.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::other("a file's name is not UTF-8"))?;
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        if !fs::metadata(entry.path())?.is_dir() {
            files.push((path, entry.path()));
        } else if !LEFT_OUT.contains(&name) {
            collect(&entry.path(), &path, files)?;
        }
    }
    Ok(())
}
