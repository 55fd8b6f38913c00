//! A process that is killed in the middle of its commits leaves whole versions or none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firebox_registry::{
    Commit, Digest, FunctionName, Kind, Manifest, NewVersion, Policy, Registry, VersionNumber,
};

const ROUNDS: u64 = 12;
const DIR: &str = "FIREBOX_CRASH_DIR";

/// The child runs the same test with `DIR` set, and commits until it is killed.
#[test]
fn a_kill_at_any_moment_leaves_whole_versions_or_none() {
    if let Some(dir) = std::env::var_os(DIR) {
        commit_forever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let wait = Duration::from_micros((seed >> 33) % 120_000);
        let told = kill_after(start(dir.path()), wait);
        acknowledged = told.unwrap_or(acknowledged);
        let found = check(dir.path());
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "round {round}: {acknowledged} versions were acknowledged, {found} are there"
        );
        acknowledged = found;
    }
    assert!(
        acknowledged > 0,
        "no commit came through in {ROUNDS} rounds"
    );
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_kill_at_any_moment_leaves_whole_versions_or_none",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the child some time after it has opened the registry; gives the last version that it
/// acknowledged.
fn kill_after(mut child: Child, wait: Duration) -> Option<u32> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap() == "open")
        .expect("the child opens the registry")
        .unwrap();
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    lines
        .filter_map(|line| line.ok()?.strip_prefix("committed ")?.parse().ok())
        .last()
}

/// Checks that all there is, is whole; says how many versions there are.
fn check(dir: &Path) -> u32 {
    let registry = Registry::open(dir).unwrap();
    assert_eq!(fs::read_dir(registry.staging()).unwrap().count(), 0);
    let mut named = BTreeSet::new();
    let mut count = 0;
    for function in registry.functions().unwrap() {
        assert_eq!(
            function.current.policy,
            Policy::all_to(VersionNumber::FIRST)
        );
        for version in registry.versions(&function.name).unwrap() {
            count += 1;
            assert_eq!(version.number.get(), count);
            for file in version.files() {
                let path = registry.blob(file).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().len(), file.bytes);
                named.insert(path);
            }
        }
        assert_eq!(function.last_number, count);
    }
    let root = registry.staging().with_file_name("blobs").join("sha256");
    for folder in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            assert!(
                named.contains(&file.unwrap().path()),
                "a file that no version names"
            );
        }
    }
    count
}

fn commit_forever(dir: &Path) -> ! {
    let registry = Registry::open(dir).unwrap();
    let name: FunctionName = "net".parse().unwrap();
    let mut next = registry
        .functions()
        .unwrap()
        .first()
        .map_or(1, |f| f.last_number + 1);
    println!("\nopen");
    loop {
        let folder = tempfile::tempdir_in(registry.staging()).unwrap();
        let file = |kind: &str, bytes: usize| {
            let path = folder.path().join(kind);
            fs::write(&path, format!("{kind} {next} ").repeat(bytes / 12)).unwrap();
            path
        };
        let new = NewVersion {
            kind: Kind::default(),
            digest: Digest::of(&next.to_be_bytes()),
            bundle_bytes: 4,
            author: "the test".to_owned(),
            bundle: None,
            manifest: Manifest::of_component(name.clone()),
            component: Some(file("component", 60_000)),
            compiled: Some(file("compiled", 200_000)),
            models: BTreeMap::from([("net".to_owned(), file("model", 300_000))]),
            assets: BTreeMap::from([("words".to_owned(), file("words", 1_000))]),
            sample: None,
            signature: serde_json::Value::Null,
            reference_latency_us: None,
            deviation: serde_json::Value::Null,
            snapshot: true,
        };
        let Commit::Created(version) = registry.commit(&name, new).unwrap() else {
            panic!("version {next} is there already");
        };
        println!("\ncommitted {}", version.number);
        next += 1;
    }
}
