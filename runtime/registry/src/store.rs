//! The records in sled. What a function has is in four trees, written together in one transaction,
//! and then flushed; jobs are in a fifth and what versions have used in a sixth, each written by
//! itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};

use crate::record::{self, SCHEMA};
use crate::{
    FunctionName, FunctionRecord, JobId, JobRecord, PolicyRecord, RegistryError, Revision,
    RolloutRecord, UsageRecord, VersionNumber, VersionRecord,
};

type Result<T> = std::result::Result<T, RegistryError>;

/// Pages that sled keeps in memory. Records are small and read once, at start.
const CACHE_BYTES: u64 = 16 << 20;

const SCHEMA_KEY: &str = "schema";

/// The record store.
#[derive(Clone)]
pub(crate) struct Records {
    dir: PathBuf,
    db: sled::Db,
    /// Function name → [`FunctionRecord`].
    functions: sled::Tree,
    /// Function name, a zero byte, the number in big-endian order → [`VersionRecord`].
    versions: sled::Tree,
    /// Function name, a zero byte, the revision in big-endian order → [`PolicyRecord`]: the
    /// policies that others replaced. The one that holds is in the function's record.
    policies: sled::Tree,
    /// Function name, a zero byte, the number in big-endian order → [`RolloutRecord`].
    rollouts: sled::Tree,
    /// The bytes of the id → [`JobRecord`].
    jobs: sled::Tree,
    /// Function name, a zero byte, the version's number in big-endian order → [`UsageRecord`].
    /// Written by itself: what a version has used is no part of what it is.
    usage: sled::Tree,
}

/// One change to what a function has.
pub(crate) enum Edit<'a> {
    PutVersion(&'a VersionRecord),
    RemoveVersion(VersionNumber),
    PutPolicy(&'a PolicyRecord),
    RemovePolicy(Revision),
    PutRollout(&'a RolloutRecord),
    RemoveRollout(u64),
}

/// Where an edit goes.
enum Tree {
    Versions,
    Policies,
    Rollouts,
}

impl Records {
    /// Opens the store below `dir`, or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Records> {
        let of = |e| RegistryError::sled(dir, e);
        let db = open_sled(&dir.join("records")).map_err(of)?;
        let found = db.get(SCHEMA_KEY).map_err(of)?;
        if let Some(found) = &found {
            check_schema(dir, found)?;
        }
        // An older directory is of this schema from now on: an older Firebox must not misread what
        // this one writes.
        let schema = SCHEMA.to_string();
        if found.is_none_or(|found| found != schema.as_bytes()) {
            db.insert(SCHEMA_KEY, schema.as_bytes()).map_err(of)?;
            db.flush().map_err(of)?;
        }
        let functions = db.open_tree("functions").map_err(of)?;
        let versions = db.open_tree("versions").map_err(of)?;
        let policies = db.open_tree("policies").map_err(of)?;
        let rollouts = db.open_tree("rollouts").map_err(of)?;
        let jobs = db.open_tree("jobs").map_err(of)?;
        let usage = db.open_tree("usage").map_err(of)?;
        Ok(Records {
            dir: dir.to_owned(),
            db,
            functions,
            versions,
            policies,
            rollouts,
            jobs,
            usage,
        })
    }

    fn sled(&self) -> impl Fn(sled::Error) -> RegistryError {
        |error| RegistryError::sled(&self.dir, error)
    }

    /// The record of a name, also where its function is deleted.
    pub(crate) fn function(&self, name: &FunctionName) -> Result<Option<FunctionRecord>> {
        let bytes = self.functions.get(name.as_str()).map_err(self.sled())?;
        bytes
            .map(|bytes| record::decode(&bytes, &what_function(name.as_str())))
            .transpose()
    }

    /// All records in order of their names, also those of deleted functions.
    pub(crate) fn functions(&self) -> impl Iterator<Item = Result<FunctionRecord>> {
        self.functions.iter().map(|entry| {
            let (key, bytes) = entry.map_err(self.sled())?;
            record::decode(&bytes, &what_function(&String::from_utf8_lossy(&key)))
        })
    }

    pub(crate) fn version(
        &self,
        function: &FunctionName,
        number: VersionNumber,
    ) -> Result<Option<VersionRecord>> {
        self.one(&self.versions, &version_key(function, number), what_version)
    }

    /// The versions of one function, or of all, in order.
    pub(crate) fn versions(
        &self,
        function: Option<&FunctionName>,
    ) -> impl Iterator<Item = Result<VersionRecord>> {
        let prefix = function.map(prefix).unwrap_or_default();
        self.all(&self.versions, &prefix, what_version)
    }

    /// The functions that have a rollout, in order; reads no record.
    pub(crate) fn with_rollouts(&self) -> Result<Vec<FunctionName>> {
        let mut names: Vec<FunctionName> = Vec::new();
        for key in self.rollouts.iter().keys() {
            let key = key.map_err(self.sled())?;
            let name = key.split(|b| *b == 0).next().unwrap_or_default();
            if names
                .last()
                .is_some_and(|last| last.as_str().as_bytes() == name)
            {
                continue;
            }
            let name = String::from_utf8_lossy(name).parse();
            names.push(name.map_err(|error| RegistryError::corrupt(&what_rollout(&key), error))?);
        }
        Ok(names)
    }

    /// The numbers of a function's versions, in order; reads no record.
    pub(crate) fn numbers(&self, function: &FunctionName) -> Result<Vec<VersionNumber>> {
        let keys = self.versions.scan_prefix(prefix(function)).keys();
        keys.map(|key| {
            let key = key.map_err(self.sled())?;
            let number = number_in(&key);
            number
                .ok_or_else(|| RegistryError::corrupt(&what_version(&key), "its key has no number"))
        })
        .collect()
    }

    /// The policies of a function that others replaced, oldest first.
    pub(crate) fn policies(
        &self,
        function: &FunctionName,
    ) -> impl DoubleEndedIterator<Item = Result<PolicyRecord>> {
        self.all(&self.policies, &prefix(function), what_policy)
    }

    /// One of these.
    pub(crate) fn policy(
        &self,
        function: &FunctionName,
        revision: Revision,
    ) -> Result<Option<PolicyRecord>> {
        self.one(&self.policies, &policy_key(function, revision), what_policy)
    }

    /// The rollouts of a function that are kept, oldest first.
    pub(crate) fn rollouts(
        &self,
        function: &FunctionName,
    ) -> impl DoubleEndedIterator<Item = Result<RolloutRecord>> {
        self.all(&self.rollouts, &prefix(function), what_rollout)
    }

    pub(crate) fn job(&self, id: JobId) -> Result<Option<JobRecord>> {
        self.one(&self.jobs, &id.key(), what_job)
    }

    /// All jobs, oldest first.
    pub(crate) fn jobs(&self) -> impl DoubleEndedIterator<Item = Result<JobRecord>> {
        self.all(&self.jobs, &[], what_job)
    }

    /// Writes a job's record; it is on the disk when this returns.
    pub(crate) fn put_job(&self, job: &JobRecord) -> Result<()> {
        let key = job.id.key();
        let bytes = record::encode(job, &what_job(&key))?;
        self.jobs.insert(key, bytes).map_err(self.sled())?;
        self.db.flush().map_err(self.sled())?;
        Ok(())
    }

    /// Whether a job has a record.
    pub(crate) fn has_job(&self, id: JobId) -> Result<bool> {
        self.jobs.contains_key(id.key()).map_err(self.sled())
    }

    /// Removes a job's record; it is gone from the disk when this returns.
    pub(crate) fn remove_job(&self, id: JobId) -> Result<()> {
        self.jobs.remove(id.key()).map_err(self.sled())?;
        self.db.flush().map_err(self.sled())?;
        Ok(())
    }

    /// The record of a key; `what` names it in errors.
    fn one<T: DeserializeOwned>(
        &self,
        tree: &sled::Tree,
        key: &[u8],
        what: fn(&[u8]) -> String,
    ) -> Result<Option<T>> {
        let bytes = tree.get(key).map_err(self.sled())?;
        bytes
            .map(|bytes| record::decode(&bytes, &what(key)))
            .transpose()
    }

    /// The records whose keys begin so, in order of these.
    fn all<T: DeserializeOwned>(
        &self,
        tree: &sled::Tree,
        prefix: &[u8],
        what: fn(&[u8]) -> String,
    ) -> impl DoubleEndedIterator<Item = Result<T>> + use<'_, T> {
        tree.scan_prefix(prefix).map(move |entry| {
            let (key, bytes) = entry.map_err(self.sled())?;
            record::decode(&bytes, &what(&key))
        })
    }

    /// Writes a function's record and what changes with it: all or nothing, and on the disk when
    /// this returns.
    pub(crate) fn write(&self, function: &FunctionRecord, edits: &[Edit<'_>]) -> Result<()> {
        let name = &function.name;
        let function_bytes = record::encode(function, &what_function(name.as_str()))?;
        let encoded: Vec<(Tree, Vec<u8>, Option<Vec<u8>>)> = edits
            .iter()
            .map(|edit| match edit {
                Edit::PutVersion(version) => {
                    let key = version_key(name, version.number);
                    let bytes = record::encode(version, &what_version(&key))?;
                    Ok((Tree::Versions, key, Some(bytes)))
                }
                Edit::RemoveVersion(number) => {
                    Ok((Tree::Versions, version_key(name, *number), None))
                }
                Edit::PutPolicy(policy) => {
                    let key = policy_key(name, policy.revision);
                    let bytes = record::encode(policy, &what_policy(&key))?;
                    Ok((Tree::Policies, key, Some(bytes)))
                }
                Edit::RemovePolicy(revision) => {
                    Ok((Tree::Policies, policy_key(name, *revision), None))
                }
                Edit::PutRollout(rollout) => {
                    let key = rollout_key(name, rollout.number);
                    let bytes = record::encode(rollout, &what_rollout(&key))?;
                    Ok((Tree::Rollouts, key, Some(bytes)))
                }
                Edit::RemoveRollout(number) => {
                    Ok((Tree::Rollouts, rollout_key(name, *number), None))
                }
            })
            .collect::<Result<_>>()?;

        type Outcome = std::result::Result<(), ConflictableTransactionError<()>>;
        type Trees = (
            TransactionalTree,
            TransactionalTree,
            TransactionalTree,
            TransactionalTree,
        );
        let write = |(functions, versions, policies, rollouts): &Trees| -> Outcome {
            for (tree, key, bytes) in &encoded {
                let tree = match tree {
                    Tree::Versions => versions,
                    Tree::Policies => policies,
                    Tree::Rollouts => rollouts,
                };
                match bytes {
                    Some(bytes) => tree.insert(key.as_slice(), bytes.as_slice())?,
                    None => tree.remove(key.as_slice())?,
                };
            }
            functions.insert(name.as_str(), function_bytes.as_slice())?;
            Ok(())
        };
        let trees = (
            &self.functions,
            &self.versions,
            &self.policies,
            &self.rollouts,
        );
        match trees.transaction(write) {
            Ok(()) => {}
            Err(TransactionError::Storage(error)) => return Err(self.sled()(error)),
            Err(TransactionError::Abort(())) => {
                return Err(RegistryError::corrupt("a transaction", "it was aborted"));
            }
        }
        for edit in edits {
            // Numbers are never used twice, so that what a crash leaves here is never read.
            if let Edit::RemoveVersion(number) = edit {
                let removed = self.usage.remove(version_key(name, *number));
                removed.map_err(self.sled())?;
            }
        }
        self.db.flush().map_err(self.sled())?;
        Ok(())
    }

    /// What a version has used, as far as it was written.
    pub(crate) fn usage(
        &self,
        function: &FunctionName,
        number: VersionNumber,
    ) -> Result<Option<UsageRecord>> {
        self.one(&self.usage, &version_key(function, number), what_usage)
    }

    /// The same of all versions.
    pub(crate) fn all_usage(&self) -> impl Iterator<Item = Result<UsageRecord>> {
        self.all(&self.usage, &[], what_usage)
    }

    /// Writes what versions have used, all or nothing; those that are gone are passed over. On the
    /// disk when this returns.
    pub(crate) fn write_usage(&self, usage: &[UsageRecord]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for record in usage {
            let key = version_key(&record.function, record.version);
            if self.versions.contains_key(&key).map_err(self.sled())? {
                let bytes = record::encode(record, &what_usage(&key))?;
                batch.insert(key, bytes);
            }
        }
        self.usage.apply_batch(batch).map_err(self.sled())?;
        self.db.flush().map_err(self.sled())?;
        Ok(())
    }
}

/// Opens sled. Its own lock lingers for a moment after a database is dropped, until its threads are
/// done; nobody else can hold it, as the data directory is locked for this process.
pub(crate) fn open_sled(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None); // every write is flushed before it is acknowledged
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_lock(&e) && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// sled wraps the system's refusal of its lock into text.
fn is_lock(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn check_schema(dir: &Path, found: &[u8]) -> Result<()> {
    let what = format!("the data directory {}", dir.display());
    let text = String::from_utf8_lossy(found);
    match text.parse::<u32>() {
        Ok(1..=SCHEMA) => Ok(()),
        Ok(found) => Err(RegistryError::UnknownSchema {
            what,
            found,
            known: SCHEMA,
        }),
        Err(_) => Err(RegistryError::corrupt(
            &what,
            format!("its schema reads {text:?}"),
        )),
    }
}

/// What the keys of all that a function has begin with.
fn prefix(function: &FunctionName) -> Vec<u8> {
    let mut prefix = function.as_str().as_bytes().to_vec();
    prefix.push(0);
    prefix
}

fn key(function: &FunctionName, number: &[u8]) -> Vec<u8> {
    let mut key = prefix(function);
    key.extend(number);
    key
}

fn version_key(function: &FunctionName, number: VersionNumber) -> Vec<u8> {
    key(function, &number.get().to_be_bytes())
}

fn policy_key(function: &FunctionName, revision: Revision) -> Vec<u8> {
    key(function, &revision.get().to_be_bytes())
}

fn rollout_key(function: &FunctionName, number: u64) -> Vec<u8> {
    key(function, &number.to_be_bytes())
}

fn number_in(key: &[u8]) -> Option<VersionNumber> {
    VersionNumber::try_from(u32::from_be_bytes(*key.last_chunk()?)).ok()
}

fn what_function(name: &str) -> String {
    format!("the record of function `{name}`")
}

fn what_version(key: &[u8]) -> String {
    let number = number_in(key).map_or(0, VersionNumber::get);
    what("version", key, number.into())
}

fn what_usage(key: &[u8]) -> String {
    let number = number_in(key).map_or(0, VersionNumber::get);
    what("the usage of version", key, number.into())
}

fn what_policy(key: &[u8]) -> String {
    what("policy", key, last_u64(key))
}

fn what_rollout(key: &[u8]) -> String {
    what("rollout", key, last_u64(key))
}

fn what_job(key: &[u8]) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("the record of job {hex}")
}

fn last_u64(key: &[u8]) -> u64 {
    key.last_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// How errors name a record that a function has.
fn what(kind: &str, key: &[u8], number: u64) -> String {
    let name = key.split(|b| *b == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    format!("the record of {kind} {number} of `{name}`")
}
