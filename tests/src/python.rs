//! Real clients in Python: packages from pip in an environment of their own, `target/python`, which
//! all test processes share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binary::{self, target, workspace};

/// Longer than any client's part takes on a slow, busy machine.
const LONGEST: Duration = Duration::from_secs(180);

/// An interpreter that has these packages. Where they can't be installed it says so, and the test
/// that needs them has nothing to do.
pub fn with(packages: &[&str]) -> Option<PathBuf> {
    let _one_at_a_time = binary::lock("python");
    let folder = target().join("python");
    let python = folder.join("bin/python");
    let name: String = packages
        .join(" ")
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let done = folder.join(format!("installed-{name}"));
    if done.exists() {
        return Some(python);
    }
    if !python.exists()
        && let Err(why) = run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
    {
        eprintln!("skipped: there is no environment for Python: {why}");
        return None;
    }
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    if let Err(why) = run(pip.args(packages)) {
        eprintln!("skipped: {} can't be installed: {why}", packages.join(" "));
        return None;
    }
    std::fs::write(done, "").expect("the environment can be marked");
    Some(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Runs `tests/clients/<script>` with these arguments; fails the test unless it ends well. What it
/// says is given back.
#[track_caller]
pub fn client(python: &Path, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python);
    command.arg(workspace().join("tests/clients").join(script));
    command.args(arguments);
    // Not through a proxy, and not to be written beside the script.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = binary::output_within(command, LONGEST);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script} {arguments:?} failed:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
