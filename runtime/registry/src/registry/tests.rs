//! What the registry promises, on real directories.

use super::*;
use crate::{BasisPoints, Label, Manifest};

fn name() -> FunctionName {
    "net".parse().unwrap()
}

fn number(number: u32) -> VersionNumber {
    VersionNumber::try_from(number).unwrap()
}

fn weights(shares: &[(u32, u16)]) -> Policy {
    let share = |(v, points): &(u32, u16)| (number(*v), BasisPoints::try_from(*points).unwrap());
    Policy {
        weights: shares.iter().map(share).collect(),
        labels: BTreeMap::new(),
    }
}

fn opened() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    (dir, registry)
}

/// A version whose one model holds `content`.
fn version(registry: &Registry, content: &str) -> NewVersion {
    let staged = tempfile::NamedTempFile::new_in(registry.staging()).unwrap();
    fs::write(staged.path(), content).unwrap();
    let (_, path) = staged.keep().unwrap();
    NewVersion {
        digest: Digest::of(content.as_bytes()),
        bundle_bytes: content.len() as u64,
        manifest: Manifest::of_model(name(), "models/model.onnx"),
        component: None,
        compiled: None,
        models: BTreeMap::from([("model".to_owned(), path)]),
        assets: BTreeMap::new(),
        signature: serde_json::json!({"inputs": []}),
        reference_latency_us: Some(12),
        deviation: serde_json::Value::Null,
        snapshot: false,
    }
}

fn commit(registry: &Registry, content: &str) -> VersionRecord {
    match registry
        .commit(&name(), version(registry, content))
        .unwrap()
    {
        Commit::Created(record) => record,
        Commit::Existing(record) => panic!("version {} has this digest", record.number),
    }
}

fn blob_files(dir: &Path) -> usize {
    let folders = fs::read_dir(dir.join("blobs/sha256")).unwrap();
    folders
        .map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn versions_and_files_are_there_after_a_restart() {
    let (dir, registry) = opened();
    let records = [commit(&registry, "one"), commit(&registry, "two")];
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.versions(&name()).unwrap(), records);
    let path = registry.blob(&records[1].models["model"].digest).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"two");
}

#[test]
fn the_first_version_takes_all_traffic_and_the_next_none() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    assert_eq!(registry.policy(&name()).unwrap(), Policy::all_to(number(1)));
}

#[test]
fn the_same_bundle_is_the_same_version() {
    let (dir, registry) = opened();
    let first = commit(&registry, "one");
    let again = registry.commit(&name(), version(&registry, "one")).unwrap();
    assert_eq!(again, Commit::Existing(first));
    assert_eq!(blob_files(dir.path()), 1);
}

#[test]
fn commits_at_once_get_numbers_of_their_own_and_one_bundle_gets_one() {
    let (_dir, registry) = opened();
    std::thread::scope(|scope| {
        for at in 0..16 {
            let registry = &registry;
            scope.spawn(move || {
                let content = format!("content {}", at / 2);
                registry
                    .commit(&name(), version(registry, &content))
                    .unwrap();
            });
        }
    });
    let versions = registry.versions(&name()).unwrap();
    let numbers: Vec<u32> = versions
        .iter()
        .map(|version| version.number.get())
        .collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let digests: HashSet<Digest> = versions.iter().map(|version| version.digest).collect();
    assert_eq!(digests.len(), 8);
}

#[test]
fn deletions_sweep_no_file_of_a_commit_beside_them() {
    let (_dir, registry) = opened();
    commit(&registry, "stays");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                for round in 0..10 {
                    let own = commit(registry, &format!("{worker} {round}"));
                    registry.blob(&own.models["model"].digest).unwrap();
                    registry.delete_version(&name(), own.number).unwrap();
                }
            });
        }
    });
    assert_eq!(registry.version_numbers(&name()).unwrap(), [number(1)]);
}

#[test]
fn numbers_are_never_given_twice() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    registry.delete_version(&name(), number(2)).unwrap();
    assert_eq!(commit(&registry, "two").number, number(3));
    registry.delete_function(&name()).unwrap();
    assert!(registry.functions().unwrap().is_empty());
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(commit(&registry, "one").number, number(4));
    assert_eq!(registry.policy(&name()).unwrap(), Policy::all_to(number(4)));
}

#[test]
fn a_version_in_use_is_not_deleted_and_the_error_says_by_what() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let mut policy = weights(&[(1, 10_000)]);
    policy
        .labels
        .insert("next".parse::<Label>().unwrap(), number(2));
    registry.set_policy(&name(), policy).unwrap();
    for (version, usage) in [(1, "takes 100% of the traffic"), (2, "is labelled next")] {
        let error = registry
            .delete_version(&name(), number(version))
            .unwrap_err()
            .to_string();
        assert!(error.contains(usage), "{error}");
    }
    assert_eq!(registry.version_numbers(&name()).unwrap().len(), 2);
}

#[test]
fn deleting_removes_the_files_that_nothing_else_has() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    let mut twin = version(&registry, "one");
    twin.digest = Digest::of(b"another bundle of the same file");
    registry.commit(&name(), twin).unwrap();
    commit(&registry, "three");
    assert_eq!(blob_files(dir.path()), 2);
    registry.delete_version(&name(), number(3)).unwrap();
    assert_eq!(blob_files(dir.path()), 1);
    registry.delete_version(&name(), number(2)).unwrap();
    assert_eq!(blob_files(dir.path()), 1);
    registry.delete_function(&name()).unwrap();
    assert_eq!(blob_files(dir.path()), 0);
}

#[test]
fn a_policy_names_versions_that_exist_and_keeps_no_empty_share() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let error = registry
        .set_policy(&name(), weights(&[(1, 9000)]))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Policy(_)), "{error}");
    let error = registry
        .set_policy(&name(), weights(&[(1, 9000), (7, 1000)]))
        .unwrap_err();
    assert_eq!(error.to_string(), "`net` has no version 7; it has 2, 1");
    registry
        .set_policy(&name(), weights(&[(1, 0), (2, 10_000)]))
        .unwrap();
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.policy(&name()).unwrap(), Policy::all_to(number(2)));
}

#[test]
fn an_unknown_function_is_answered_with_the_nearest() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    let error = registry
        .function(&"nett".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean `net`?"), "{error}");
}

#[test]
fn leftovers_are_swept_at_open() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    fs::create_dir(registry.staging().join("half")).unwrap();
    let orphan = dir.path().join("blobs/sha256/ab").join("c".repeat(62));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, "left over").unwrap();
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert!(!orphan.exists());
    assert_eq!(fs::read_dir(registry.staging()).unwrap().count(), 0);
    assert_eq!(blob_files(dir.path()), 1);
}

#[test]
fn a_damaged_file_is_noticed_and_replaced_by_a_good_one() {
    let (dir, registry) = opened();
    let stored = commit(&registry, "one").models["model"].digest;
    let path = registry.blob(&stored).unwrap();
    drop(registry);
    fs::write(&path, "eno").unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let error = registry.blob(&stored).unwrap_err();
    assert!(
        matches!(error, RegistryError::BlobDamaged { .. }),
        "{error}"
    );
    let mut twin = version(&registry, "one");
    twin.digest = Digest::of(b"another bundle of the same file");
    registry.commit(&name(), twin).unwrap();
    assert_eq!(fs::read(registry.blob(&stored).unwrap()).unwrap(), b"one");
    fs::remove_file(&path).unwrap();
    let error = registry.blob(&stored).unwrap_err();
    assert!(
        matches!(error, RegistryError::BlobMissing { .. }),
        "{error}"
    );
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let (dir, registry) = opened();
    let error = Registry::open(dir.path()).err().unwrap();
    assert!(matches!(error, RegistryError::Locked { .. }));
    let shown = dir.path().canonicalize().unwrap().display().to_string();
    assert!(error.to_string().contains(&shown), "{error}");
    drop(registry);
    Registry::open(dir.path()).unwrap();
}

#[test]
fn a_directory_of_another_schema_is_refused() {
    let (dir, registry) = opened();
    drop(registry);
    let db = crate::store::open_sled(&dir.path().join("records")).unwrap();
    db.insert("schema", "99").unwrap();
    drop(db);
    let error = Registry::open(dir.path()).err().unwrap();
    assert!(
        matches!(error, RegistryError::UnknownSchema { found: 99, .. }),
        "{error}"
    );
}

#[test]
fn a_damaged_record_is_refused_by_name() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    drop(registry);
    let db = crate::store::open_sled(&dir.path().join("records")).unwrap();
    let versions = db.open_tree("versions").unwrap();
    let (key, _) = versions.first().unwrap().unwrap();
    versions.insert(key, &b"{\"schema\": 1, \"rec"[..]).unwrap();
    drop((versions, db));
    let error = Registry::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("version 1 of `net` is damaged"), "{error}");
}

#[test]
fn new_machine_code_replaces_the_old() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    for code in ["old code", "new code"] {
        let file = registry.staging().join("code");
        fs::write(&file, code).unwrap();
        let record = registry
            .set_compiled(&name(), number(1), &file, true)
            .unwrap();
        let path = registry.blob(&record.compiled.unwrap().digest).unwrap();
        assert_eq!(fs::read(path).unwrap(), code.as_bytes());
        assert_eq!(blob_files(dir.path()), 2);
    }
}

#[test]
fn every_change_is_told() {
    let (_dir, registry) = opened();
    let mut changes = registry.changes();
    commit(&registry, "one");
    commit(&registry, "two");
    registry
        .set_policy(&name(), weights(&[(2, 10_000)]))
        .unwrap();
    registry.delete_version(&name(), number(1)).unwrap();
    registry.delete_function(&name()).unwrap();
    for _ in 0..5 {
        assert_eq!(changes.try_recv(), Ok(name()));
    }
    assert!(changes.try_recv().is_err());
}
