//! The registry: verbs over the [records](crate::store) and the [files](crate::blobs), and the feed
//! that tells of changes.
//!
//! One lock lets one change at a time read the records, decide, and write them. Files are stored
//! before it is taken, so a long upload delays no change of traffic.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::blobs::{Blobs, sync_dir};
use crate::policy::plain_author;
use crate::record::UNKNOWN_AUTHOR;
use crate::store::{Edit, Records};
use crate::{
    Digest, FunctionName, FunctionRecord, NewVersion, PolicyRecord, RegistryError, StoredFile,
    VersionNumber, VersionRecord, nearest,
};

mod jobs;
mod policies;
mod retention;
mod rollouts;
mod usage;

pub use policies::POLICIES_KEPT;
pub use rollouts::ROLLOUTS_KEPT;

type Result<T> = std::result::Result<T, RegistryError>;

/// Room that must be left before records are written: sled can't go on after a failed write.
const RESERVE_BYTES: u64 = 16 << 20;

/// Changes that a slow receiver of the feed may fall behind before it is told that it lags.
const FEED_CAPACITY: usize = 1024;

/// Functions, versions and their files in one directory. Clones are cheap and share it; calls block.
#[derive(Clone)]
pub struct Registry {
    dir: PathBuf,
    records: Records,
    blobs: Blobs,
    shared: Arc<Shared>,
}

struct Shared {
    changing: Mutex<()>,
    feed: broadcast::Sender<FunctionName>,
    /// Held as long as the registry is: the file's lock keeps other processes out.
    _lock: File,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Commit {
    /// A new version.
    Created(VersionRecord),
    /// The bundle is a version of this function already.
    Existing(VersionRecord),
}

impl Registry {
    /// How many clones there are, this one included: the data directory is free for others to
    /// open when the last is gone.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.shared)
    }

    /// Opens a data directory, or makes one. Takes its lock, and sweeps what interrupted uploads
    /// left behind.
    pub fn open(dir: &Path) -> Result<Registry> {
        fs::create_dir_all(dir).map_err(|e| RegistryError::io(dir, e))?;
        let dir = dir.canonicalize().map_err(|e| RegistryError::io(dir, e))?;
        let lock = lock(&dir)?;
        let staging = dir.join("staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(|e| RegistryError::io(&staging, e))?;
        }
        fs::create_dir(&staging).map_err(|e| RegistryError::io(&staging, e))?;
        let records = Records::open(&dir)?;
        let blobs = Blobs::open(&dir, &staging)?;
        sync_dir(&dir)?;
        let (feed, _) = broadcast::channel(FEED_CAPACITY);
        let shared = Arc::new(Shared {
            changing: Mutex::new(()),
            feed,
            _lock: lock,
        });
        let registry = Registry {
            dir,
            records,
            blobs,
            shared,
        };
        let swept = registry.sweep()?;
        if swept > 0 {
            tracing::info!(files = swept, "removed files of interrupted uploads");
        }
        let swept = registry.sweep_jobs()?;
        if swept > 0 {
            tracing::info!(jobs = swept, "removed files of jobs that are gone");
        }
        sync_dir(&registry.dir)?;
        Ok(registry)
    }

    /// The folder below which uploads are unpacked; emptied at [`open`](Self::open).
    pub fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    /// Makes a version of an unpacked bundle. Its files are moved out of staging and are on the
    /// disk before the record is; the first version of a function takes all its traffic.
    pub fn commit(&self, function: &FunctionName, new: NewVersion) -> Result<Commit> {
        if let Some(existing) = self.with_digest(function, &new.digest)? {
            return Ok(Commit::Existing(existing));
        }
        let storing = self.blobs.storing();
        let mut files = Files {
            blobs: &self.blobs,
            storing: &storing,
            stored: HashMap::new(),
        };
        let component = new
            .component
            .as_deref()
            .map(|file| files.store(file))
            .transpose()?;
        let compiled = new
            .compiled
            .as_deref()
            .map(|file| files.store(file))
            .transpose()?;
        let sample = new
            .sample
            .as_deref()
            .map(|file| files.store(file))
            .transpose()?;
        let models = files.store_all(&new.models)?;
        let assets = files.store_all(&new.assets)?;
        let bundle = new
            .bundle
            .as_deref()
            .map(|file| files.store(file))
            .transpose()?;

        let changing = self.changing();
        // The same bundle may have been uploaded twice at once.
        if let Some(existing) = self.with_digest(function, &new.digest)? {
            return Ok(Commit::Existing(existing));
        }
        self.check_room()?;
        let now = unix_ms();
        let mut record = match self.records.function(function)? {
            Some(record) if !record.deleted => record,
            former => FunctionRecord {
                name: function.clone(),
                created_unix_ms: now,
                last_number: former.as_ref().map_or(0, |record| record.last_number),
                current: PolicyRecord::none(former.map(|record| record.current.revision)),
                keep_last: None,
                deleted: false,
            },
        };
        let next = record
            .last_number
            .checked_add(1)
            .map(VersionNumber::try_from);
        let Some(Ok(number)) = next else {
            return Err(RegistryError::NumbersUsedUp {
                function: function.clone(),
            });
        };
        record.last_number = number.get();
        let author = match plain_author(&new.author) {
            author if author.is_empty() => UNKNOWN_AUTHOR.to_owned(),
            author => author,
        };
        if record.current.policy.weights.is_empty() {
            record.current = record.current.first(number, &author, now);
        }
        let version = VersionRecord {
            function: function.clone(),
            number,
            digest: new.digest,
            bundle_bytes: new.bundle_bytes,
            created_unix_ms: now,
            author,
            bundle,
            manifest: new.manifest,
            kind: new.kind,
            component,
            compiled,
            models,
            assets,
            sample,
            signature: new.signature,
            reference_latency_us: new.reference_latency_us,
            deviation: new.deviation,
            snapshot: new.snapshot,
        };
        let retired = self.retired(&record, Some(number))?;
        let mut edits = vec![Edit::PutVersion(&version)];
        edits.extend(retired.iter().copied().map(Edit::RemoveVersion));
        self.records.write(&record, &edits)?;
        drop((changing, storing));
        self.tell(function);
        self.sweep_retired(function, &retired);
        Ok(Commit::Created(version))
    }

    /// Replaces a version's machine code, after an update of Firebox made the old of no use.
    pub fn set_compiled(
        &self,
        function: &FunctionName,
        number: VersionNumber,
        compiled: &Path,
        snapshot: bool,
    ) -> Result<VersionRecord> {
        let storing = self.blobs.storing();
        let stored = self.blobs.store(compiled, &storing)?;
        let version = {
            let _changing = self.changing();
            self.check_room()?;
            let record = self.function(function)?;
            let mut version = self.version(function, number)?;
            version.compiled = Some(stored);
            version.snapshot = snapshot;
            self.records.write(&record, &[Edit::PutVersion(&version)])?;
            version
        };
        drop(storing);
        self.sweep()?;
        self.tell(function);
        Ok(version)
    }

    /// All functions, in order of their names.
    pub fn functions(&self) -> Result<Vec<FunctionRecord>> {
        self.records
            .functions()
            .filter(|record| !matches!(record, Ok(r) if r.deleted))
            .collect()
    }

    /// All functions in order of their names, each with its versions in order of their numbers:
    /// what a server reads when it starts, in one pass.
    pub fn everything(&self) -> impl Iterator<Item = Result<(FunctionRecord, Vec<VersionRecord>)>> {
        let mut versions = self.records.versions(None).peekable();
        let functions = self.records.functions();
        let functions = functions.filter(|record| !matches!(record, Ok(r) if r.deleted));
        functions.map(move |function| {
            let function = function?;
            let mut own = Vec::new();
            let later =
                |v: &Result<VersionRecord>| matches!(v, Ok(v) if v.function > function.name);
            while let Some(version) = versions.next_if(|version| !later(version)) {
                let version = version?;
                if version.function == function.name {
                    own.push(version);
                }
            }
            Ok((function, own))
        })
    }

    /// One function.
    pub fn function(&self, name: &FunctionName) -> Result<FunctionRecord> {
        match self.records.function(name)? {
            Some(record) if !record.deleted => Ok(record),
            _ => {
                let known = self.functions()?;
                let names = known.iter().map(|record| record.name.as_str());
                let nearest = nearest(name.as_str(), names).and_then(|name| name.parse().ok());
                Err(RegistryError::FunctionNotFound {
                    name: name.clone(),
                    nearest,
                })
            }
        }
    }

    /// A function's versions, in order.
    pub fn versions(&self, function: &FunctionName) -> Result<Vec<VersionRecord>> {
        self.function(function)?;
        self.records.versions(Some(function)).collect()
    }

    /// The numbers of a function's versions, in order.
    pub fn version_numbers(&self, function: &FunctionName) -> Result<Vec<VersionNumber>> {
        self.function(function)?;
        self.records.numbers(function)
    }

    /// One version.
    pub fn version(&self, function: &FunctionName, number: VersionNumber) -> Result<VersionRecord> {
        self.function(function)?;
        match self.records.version(function, number)? {
            Some(version) => Ok(version),
            None => Err(self.no_version(function, number)?),
        }
    }

    fn no_version(&self, function: &FunctionName, number: VersionNumber) -> Result<RegistryError> {
        let known = self.records.numbers(function)?;
        Ok(RegistryError::VersionNotFound {
            function: function.clone(),
            number,
            known,
        })
    }

    /// The version that was made of the bundle with this digest.
    pub fn with_digest(
        &self,
        function: &FunctionName,
        digest: &Digest,
    ) -> Result<Option<VersionRecord>> {
        let mut versions = self.records.versions(Some(function));
        versions
            .find(|v| !matches!(v, Ok(v) if v.digest != *digest))
            .transpose()
    }

    /// Deletes a version, which neither the policy nor an open job must name, and the files that only
    /// it had.
    pub fn delete_version(&self, function: &FunctionName, number: VersionNumber) -> Result<()> {
        {
            let _changing = self.changing();
            let record = self.function(function)?;
            self.version(function, number)?;
            let rollout = self.rollout_use(function, number)?;
            if let Some(usage) = record.current.policy.use_of(number).or(rollout) {
                let function = function.clone();
                return Err(RegistryError::VersionInUse {
                    function,
                    number,
                    usage,
                });
            }
            self.check_no_open_job(function, Some(number))?;
            self.records
                .write(&record, &[Edit::RemoveVersion(number)])?;
        }
        self.tell(function);
        self.sweep()?;
        Ok(())
    }

    /// Deletes a function with all its versions, unless a job of one is open. A later function of the
    /// same name goes on counting where this one stopped.
    pub fn delete_function(&self, function: &FunctionName) -> Result<()> {
        {
            let _changing = self.changing();
            let mut record = self.function(function)?;
            self.check_no_open_job(function, None)?;
            record.deleted = true;
            record.current = PolicyRecord::none(Some(record.current.revision));
            let numbers = self.records.numbers(function)?;
            let mut edits: Vec<Edit<'_>> = numbers.into_iter().map(Edit::RemoveVersion).collect();
            for policy in self.records.policies(function) {
                edits.push(Edit::RemovePolicy(policy?.revision));
            }
            for rollout in self.records.rollouts(function) {
                edits.push(Edit::RemoveRollout(rollout?.number));
            }
            self.records.write(&record, &edits)?;
        }
        self.tell(function);
        self.sweep()?;
        Ok(())
    }

    /// Where the bundle of a version lies, byte for byte as it was uploaded.
    ///
    /// # Errors
    /// [`RegistryError::BundleNotKept`] where it is from before bundles were kept.
    pub fn bundle(&self, version: &VersionRecord) -> Result<PathBuf> {
        match &version.bundle {
            Some(bundle) => self.blob(bundle),
            None => Err(RegistryError::BundleNotKept {
                function: version.function.clone(),
                number: version.number,
            }),
        }
    }

    /// Where a stored file lies. What it holds is checked the first time that this process asks.
    pub fn blob(&self, file: &StoredFile) -> Result<PathBuf> {
        self.blobs.read(file)
    }

    /// The change feed: names of functions that changed. A receiver that lags reads everything anew.
    pub fn changes(&self) -> broadcast::Receiver<FunctionName> {
        self.shared.feed.subscribe()
    }

    fn tell(&self, function: &FunctionName) {
        // An error says that nobody listens.
        let _ = self.shared.feed.send(function.clone());
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.shared
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for records.
    ///
    /// # Errors
    /// [`RegistryError::DiskFull`] where there is not.
    pub fn check_room(&self) -> Result<()> {
        match fs4::available_space(&self.dir) {
            Ok(room) if room < RESERVE_BYTES => Err(RegistryError::DiskFull {
                dir: self.dir.clone(),
            }),
            Ok(_) => Ok(()),
            Err(e) => Err(RegistryError::io(&self.dir, e)),
        }
    }

    /// Removes files that no version has.
    fn sweep(&self) -> Result<usize> {
        self.blobs.sweep(|| {
            let mut named = HashSet::new();
            for version in self.records.versions(None) {
                named.extend(version?.files().map(|file| file.digest));
            }
            Ok(named)
        })
    }
}

/// Stores the files of one version; one that it names twice is stored once.
struct Files<'a> {
    blobs: &'a Blobs,
    storing: &'a RwLockReadGuard<'a, ()>,
    stored: HashMap<PathBuf, StoredFile>,
}

impl Files<'_> {
    fn store(&mut self, file: &Path) -> Result<StoredFile> {
        if let Some(stored) = self.stored.get(file) {
            return Ok(*stored);
        }
        let stored = self.blobs.store(file, self.storing)?;
        self.stored.insert(file.to_owned(), stored);
        Ok(stored)
    }

    fn store_all(
        &mut self,
        files: &BTreeMap<String, PathBuf>,
    ) -> Result<BTreeMap<String, StoredFile>> {
        files
            .iter()
            .map(|(name, file)| Ok((name.clone(), self.store(file)?)))
            .collect()
    }
}

/// Takes the directory for this process; the lock goes when the process does.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let of = |e| RegistryError::io(&path, e);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(of)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RegistryError::Locked {
            dir: dir.to_owned(),
        }),
        Err(fs::TryLockError::Error(e)) => Err(of(e)),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
