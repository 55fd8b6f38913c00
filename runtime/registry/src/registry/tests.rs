//! What the registry promises, on real directories.

use std::num::NonZeroU32;

use super::*;
use crate::{BasisPoints, Change, Kind, Label, Manifest, Policy, Revision};

mod jobs;
mod rollouts;
mod usage;

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
        ..Policy::default()
    }
}

fn set(registry: &Registry, policy: Policy) -> Result<PolicyRecord> {
    registry.set_policy(&name(), policy, Change::new("ann", "a test"), None)
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
        kind: Kind::default(),
        digest: Digest::of(content.as_bytes()),
        bundle_bytes: content.len() as u64,
        author: "ann".to_owned(),
        bundle: None,
        manifest: Manifest::of_model(name(), "models/model.onnx"),
        component: None,
        compiled: None,
        models: BTreeMap::from([("model".to_owned(), path)]),
        assets: BTreeMap::new(),
        sample: None,
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
    let path = registry.blob(&records[1].models["model"]).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"two");
}

#[test]
fn the_first_version_takes_all_traffic_and_the_next_none() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    assert_eq!(
        registry.policy(&name()).unwrap().policy,
        Policy::all_to(number(1))
    );
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
                    registry.blob(&own.models["model"]).unwrap();
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
    assert_eq!(
        registry.policy(&name()).unwrap().policy,
        Policy::all_to(number(4))
    );
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
    set(&registry, policy).unwrap();
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
    let error = set(&registry, weights(&[(1, 9000)])).unwrap_err();
    assert!(matches!(error, RegistryError::Policy(_)), "{error}");
    let error = set(&registry, weights(&[(1, 9000), (7, 1000)])).unwrap_err();
    assert_eq!(error.to_string(), "`net` has no version 7; it has 2, 1");
    set(&registry, weights(&[(1, 0), (2, 10_000)])).unwrap();
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(
        registry.policy(&name()).unwrap().policy,
        Policy::all_to(number(2))
    );
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
    let stored = commit(&registry, "one").models["model"];
    let path = registry.blob(&stored).unwrap();
    drop(registry);
    fs::write(&path, "eno").unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let of_old = StoredFile {
        checksum: None,
        ..stored
    };
    for file in [stored, of_old] {
        let error = registry.blob(&file).unwrap_err();
        assert!(
            matches!(error, RegistryError::BlobDamaged { .. }),
            "{error}"
        );
    }
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
        let path = registry.blob(&record.compiled.unwrap()).unwrap();
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
    set(&registry, weights(&[(2, 10_000)])).unwrap();
    registry.delete_version(&name(), number(1)).unwrap();
    registry.delete_function(&name()).unwrap();
    for _ in 0..5 {
        assert_eq!(changes.try_recv(), Ok(name()));
    }
    assert!(changes.try_recv().is_err());
}

#[test]
fn each_change_of_a_policy_has_a_revision_an_author_and_a_reason() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let first = registry.policy(&name()).unwrap();
    assert_eq!(
        (first.revision, first.author.as_str()),
        (Revision::FIRST, "ann")
    );
    let changed = set(&registry, weights(&[(1, 9000), (2, 1000)])).unwrap();
    assert_eq!(
        (changed.revision.get(), changed.reason.as_str()),
        (2, "a test")
    );
    let same = set(&registry, weights(&[(1, 9000), (2, 1000), (3, 0)])).unwrap();
    assert_eq!(same, changed, "what says the same is no change");
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    assert_eq!(registry.policies(&name()).unwrap(), [changed, first]);
}

#[test]
fn a_change_of_what_was_read_before_another_change_is_refused_with_the_present() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let read = registry.policy(&name()).unwrap().revision;
    let change = |shares: &[(u32, u16)]| {
        registry.set_policy(&name(), weights(shares), Change::new("bob", ""), Some(read))
    };
    let now = change(&[(1, 5000), (2, 5000)]).unwrap();
    let error = change(&[(2, 10_000)]).unwrap_err();
    let RegistryError::StalePolicy {
        expected, current, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((expected, *current), (read, now));
}

#[test]
fn changes_at_once_that_read_the_same_policy_let_one_through() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    let read = registry.policy(&name()).unwrap().revision;
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let change = |at: u16| {
            let registry = &registry;
            scope.spawn(move || {
                let policy = weights(&[(1, 10_000 - at), (2, at)]);
                registry
                    .set_policy(&name(), policy, Change::default(), Some(read))
                    .is_ok()
            })
        };
        let threads: Vec<_> = (1..9).map(change).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 1);
    assert_eq!(registry.policy(&name()).unwrap().revision.get(), 2);
}

#[test]
fn a_policy_that_is_brought_back_gives_every_caller_the_version_it_had() {
    let (_dir, registry) = opened();
    for content in ["one", "two", "three"] {
        commit(&registry, content);
    }
    set(&registry, weights(&[(1, 8000), (2, 1000), (3, 1000)])).unwrap();
    let good = set(&registry, weights(&[(1, 7000), (2, 2000), (3, 1000)])).unwrap();
    set(&registry, weights(&[(3, 10_000)])).unwrap();
    let restore = |revision: Option<u64>| {
        let revision = revision.map(Revision::from);
        registry.restore_policy(&name(), revision, Change::new("ann", "bad answers"), None)
    };
    let back = restore(None).unwrap();
    assert_eq!((&back.policy, &back.split), (&good.policy, &good.split));
    assert_eq!(
        (back.revision.get(), back.restored),
        (5, Some(good.revision))
    );
    assert_eq!(restore(Some(1)).unwrap().policy, Policy::all_to(number(1)));
    let error = restore(Some(77)).unwrap_err().to_string();
    assert_eq!(error, "`net` keeps no policy 77; it keeps 1 to 6");
}

#[test]
fn a_policy_whose_versions_are_gone_is_not_brought_back() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    let restore = || registry.restore_policy(&name(), None, Change::default(), None);
    let error = restore().unwrap_err();
    assert!(
        matches!(error, RegistryError::NoEarlierPolicy { .. }),
        "{error}"
    );
    commit(&registry, "two");
    set(&registry, weights(&[(2, 10_000)])).unwrap();
    registry.delete_version(&name(), number(1)).unwrap();
    let error = restore().unwrap_err().to_string();
    assert_eq!(error, "policy 1 of `net` names deleted versions: 1");
    assert_eq!(registry.policy(&name()).unwrap().revision.get(), 2);
}

#[test]
fn the_history_is_bounded() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    for at in 1..=POLICIES_KEPT as u16 + 5 {
        set(&registry, weights(&[(1, 10_000 - at), (2, at)])).unwrap();
    }
    let kept: Vec<u64> = registry
        .policies(&name())
        .unwrap()
        .iter()
        .map(|p| p.revision.get())
        .collect();
    assert_eq!(kept, (7..=106).rev().collect::<Vec<_>>());
    let policy = registry.policy_at(&name(), Revision::from(7)).unwrap();
    assert_eq!(policy.policy.share(number(2)).get(), 6);
    assert!(registry.policy_at(&name(), Revision::from(6)).is_err());
}

#[test]
fn revisions_go_on_where_a_deleted_function_stopped() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    set(&registry, weights(&[(2, 10_000)])).unwrap();
    registry.delete_function(&name()).unwrap();
    commit(&registry, "three");
    let policies = registry.policies(&name()).unwrap();
    let revisions: Vec<u64> = policies
        .iter()
        .map(|policy| policy.revision.get())
        .collect();
    assert_eq!(revisions, [3]);
}

#[test]
fn policies_are_in_order_whatever_the_clock_says() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    drop(registry);
    // As if the clock had been ahead by centuries when the first policy was set.
    let db = crate::store::open_sled(&dir.path().join("records")).unwrap();
    let functions = db.open_tree("functions").unwrap();
    let bytes = functions.get("net").unwrap().unwrap();
    let mut record: FunctionRecord = crate::record::decode(&bytes, "net").unwrap();
    record.current.created_unix_ms = u64::MAX;
    functions
        .insert("net", crate::record::encode(&record, "net").unwrap())
        .unwrap();
    drop((functions, db));
    let registry = Registry::open(dir.path()).unwrap();
    let next = set(&registry, weights(&[(2, 10_000)])).unwrap();
    assert_eq!(next.revision.get(), 2);
    let policies = registry.policies(&name()).unwrap();
    assert_eq!(
        (policies[0].revision.get(), policies[1].revision.get()),
        (2, 1)
    );
    let back = registry
        .restore_policy(&name(), None, Change::default(), None)
        .unwrap();
    assert_eq!(back.policy, Policy::all_to(number(1)));
}

#[test]
fn a_directory_of_the_first_schema_is_read_and_then_of_this() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    drop(registry);
    let db = crate::store::open_sled(&dir.path().join("records")).unwrap();
    db.insert("schema", "1").unwrap();
    let functions = db.open_tree("functions").unwrap();
    let old = br#"{"schema": 1, "record": {"name": "net", "created_unix_ms": 7, "last_number": 2,
        "policy": {"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}}}}"#;
    functions.insert("net", &old[..]).unwrap();
    let versions = db.open_tree("versions").unwrap();
    for entry in versions.iter() {
        let (key, bytes) = entry.unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        json["schema"] = 1.into();
        let record = json["record"].as_object_mut().unwrap();
        for key in ["author", "bundle", "kind"] {
            assert!(record.remove(key).is_some(), "{key}");
        }
        versions.insert(key, json.to_string().as_bytes()).unwrap();
    }
    drop((functions, versions, db));
    let registry = Registry::open(dir.path()).unwrap();
    let first = registry.version(&name(), number(1)).unwrap();
    assert_eq!(
        (first.author.as_str(), first.kind),
        (UNKNOWN_AUTHOR, Kind::Function)
    );
    let error = registry.bundle(&first).unwrap_err();
    assert!(
        matches!(error, RegistryError::BundleNotKept { .. }),
        "{error}"
    );
    let old = registry.policy(&name()).unwrap();
    assert_eq!(old.policy.share(number(2)).get(), 1000);
    set(&registry, weights(&[(2, 10_000)])).unwrap();
    let back = registry
        .restore_policy(&name(), None, Change::default(), None)
        .unwrap();
    assert_eq!(back.policy, old.policy);
    drop(registry);
    let db = crate::store::open_sled(&dir.path().join("records")).unwrap();
    assert_eq!(
        db.get("schema").unwrap().unwrap(),
        crate::record::SCHEMA.to_string().as_bytes()
    );
}

#[test]
fn retention_deletes_the_oldest_that_nothing_names() {
    let (dir, registry) = opened();
    for content in ["one", "two", "three", "four", "five"] {
        commit(&registry, content);
    }
    let mut policy = weights(&[(5, 10_000)]);
    policy.labels.insert("old".parse().unwrap(), number(2));
    set(&registry, policy).unwrap();
    let deleted = registry.set_retention(&name(), NonZeroU32::new(2)).unwrap();
    // 1 takes the traffic after a rollback, 2 has a label, 4 and 5 are the newest.
    assert_eq!(deleted, [number(3)]);
    assert_eq!(blob_files(dir.path()), 4);
    set(&registry, weights(&[(5, 10_000)])).unwrap();
    commit(&registry, "six");
    let left: Vec<u32> = registry
        .version_numbers(&name())
        .unwrap()
        .iter()
        .map(|n| n.get())
        .collect();
    assert_eq!(left, [2, 5, 6], "the policy before still names 2");
    assert!(registry.set_retention(&name(), None).unwrap().is_empty());
    commit(&registry, "seven");
    assert_eq!(registry.version_numbers(&name()).unwrap().len(), 4);
}

#[test]
fn a_version_is_deleted_or_takes_traffic_and_never_both() {
    let (_dir, registry) = opened();
    commit(&registry, "one");
    for round in 0..20 {
        let new = commit(&registry, &format!("round {round}")).number;
        let (deleted, shared) = std::thread::scope(|scope| {
            let deleting = scope.spawn(|| registry.delete_version(&name(), new));
            let sharing = scope.spawn(|| set(&registry, weights(&[(1, 5000), (new.get(), 5000)])));
            (deleting.join().unwrap(), sharing.join().unwrap())
        });
        assert_ne!(deleted.is_ok(), shared.is_ok(), "{deleted:?}, {shared:?}");
        assert_eq!(registry.version(&name(), new).is_ok(), shared.is_ok());
        set(&registry, weights(&[(1, 10_000)])).unwrap();
    }
}
