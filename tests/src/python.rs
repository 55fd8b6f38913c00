//! Real clients in Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binary::{self, workspace};
use crate::toolchains;

/// Longer than any client's part takes on a slow, busy machine.
const LONGEST: Duration = Duration::from_secs(180);

/// An interpreter that has these packages. Where they can't be installed it says so, and the test
/// that needs them has nothing to do.
pub fn with(packages: &[&str]) -> Option<PathBuf> {
    toolchains::pip(packages).map(|bin| bin.join("python3"))
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
