//! The `firebox` binary: built once per test process, in the profile of the tests, and run as a
//! command. Cargo finds it fresh in a moment when nothing has changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        tests
            .parent()
            .expect("tests/ lies in the workspace")
            .to_path_buf()
    });
    &ROOT
}

/// `target/` of the workspace.
pub fn target() -> PathBuf {
    workspace().join("target")
}

/// Holds `target/<name>.lock` against other test processes until the answer is dropped.
pub fn lock(name: &str) -> File {
    std::fs::create_dir_all(target()).expect("target/ can be made");
    let path = target().join(format!("{name}.lock"));
    let file = File::create(&path).expect("the lock file can be made");
    file.lock().expect("the lock can be taken");
    file
}

/// The path of the built `firebox`.
pub fn firebox() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let _one_at_a_time = lock("firebox-binary");
        build()
    })
}

/// Runs `firebox` with these arguments to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    command().args(arguments).output().expect("firebox runs")
}

/// Runs a command that must end within `limit`. What it says must fit into a pipe (64 KiB).
pub fn output_within(mut command: Command, limit: Duration) -> Output {
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = piped.spawn().expect("the command runs");
    let began = Instant::now();
    while process
        .try_wait()
        .expect("a child can be waited for")
        .is_none()
    {
        if began.elapsed() > limit {
            process.kill().expect("a child can be killed");
            let output = process
                .wait_with_output()
                .expect("a child can be waited for");
            panic!(
                "it did not end within {limit:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process
        .wait_with_output()
        .expect("a child can be waited for")
}

/// `firebox`, ready to be given arguments, without settings from the caller's environment.
pub fn command() -> Command {
    let mut command = Command::new(firebox());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FIREBOX_") {
            command.env_remove(&name);
        }
    }
    without_cargo_variables(&mut command);
    command
}

/// Cargo, in the workspace.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    without_cargo_variables(&mut command);
    command
}

fn build() -> PathBuf {
    let mut command = cargo();
    // The whole workspace and a test, so that cargo resolves the features of dependencies as it does
    // for `cargo test --workspace`; else it would compile half of them a second time.
    command.args([
        "build",
        "--workspace",
        "--bin",
        "firebox",
        "--test",
        "models",
    ]);
    command.args(["--profile", profile()]);
    command.args(["--message-format", "json-render-diagnostics"]);
    let output = command.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "firebox could not be built:\n{said}"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "firebox")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable it built")
}

/// The profile that this test process was built in, after the folder it lies in:
/// `target/<profile>/deps/<test>`.
fn profile() -> &'static str {
    static PROFILE: LazyLock<String> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("a process has an executable");
        let folder = test.ancestors().nth(2).and_then(Path::file_name);
        match folder.and_then(|name| name.to_str()) {
            None | Some("debug") => "dev".into(),
            Some(other) => other.into(),
        }
    });
    &PROFILE
}

/// What cargo says to a test about its package would make build scripts look out of date.
fn without_cargo_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}
