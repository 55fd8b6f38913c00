//! Files by their digest: `blobs/sha256/ab/cdef…`. A file is complete and on the disk before it
//! gets its name, so a name that is there is a whole file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::{Checksum, Digest, RegistryError, StoredFile};

type Result<T> = std::result::Result<T, RegistryError>;

/// The blob store. Clones share it.
#[derive(Clone)]
pub(crate) struct Blobs {
    root: PathBuf,
    staging: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Held for reading from a file's storing until the record that names it is written; a sweep
    /// holds it for writing, and so never sees a file whose record is about to come.
    storing: RwLock<()>,
    /// Digests that this process has checked.
    checked: Mutex<HashSet<Digest>>,
}

impl Blobs {
    /// Opens the store below `dir`.
    pub(crate) fn open(dir: &Path, staging: &Path) -> Result<Blobs> {
        let root = dir.join("blobs").join("sha256");
        fs::create_dir_all(&root).map_err(|e| RegistryError::io(&root, e))?;
        sync_dir(dir)?;
        sync_dir(&dir.join("blobs"))?;
        Ok(Blobs {
            root,
            staging: staging.to_owned(),
            shared: Arc::default(),
        })
    }

    /// Keeps sweeps away while files are stored and their record isn't written.
    pub(crate) fn storing(&self) -> RwLockReadGuard<'_, ()> {
        self.shared
            .storing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn checked(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.shared
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (folder, name) = hex.split_at(2);
        self.root.join(folder).join(name)
    }

    /// Stores a file: moves it where it lies in staging, copies it otherwise. The guard is that of
    /// [`storing`](Self::storing).
    pub(crate) fn store(&self, file: &Path, _: &RwLockReadGuard<'_, ()>) -> Result<StoredFile> {
        let of = |e| RegistryError::io(file, e);
        let stored = StoredFile::of(file).map_err(of)?;
        if self.read(&stored).is_ok() {
            return Ok(stored);
        }
        let path = self.path(&stored.digest);
        let staged = if file.starts_with(&self.staging) {
            tempfile::TempPath::try_from_path(file).map_err(of)?
        } else {
            let mut copy = self.temporary()?;
            let copied = File::open(file).and_then(|mut f| io::copy(&mut f, copy.as_file_mut()));
            copied.map_err(|e| RegistryError::io(&path, e))?;
            copy.into_temp_path()
        };
        File::open(&staged)
            .and_then(|f| f.sync_all())
            .map_err(|e| RegistryError::io(&path, e))?;
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|e| RegistryError::io(folder, e))?;
        staged
            .persist(&path)
            .map_err(|e| RegistryError::io(&path, e.error))?;
        sync_dir(folder)?;
        sync_dir(&self.root)?;
        self.checked().insert(stored.digest);
        Ok(stored)
    }

    fn temporary(&self) -> Result<tempfile::NamedTempFile> {
        tempfile::NamedTempFile::new_in(&self.staging)
            .map_err(|e| RegistryError::io(&self.staging, e))
    }

    /// Where a file lies. The first time that this process asks, what it holds is checked, by its
    /// checksum where there is one that holds, by its digest otherwise.
    pub(crate) fn read(&self, file: &StoredFile) -> Result<PathBuf> {
        let path = self.path(&file.digest);
        if self.checked().contains(&file.digest) && path.exists() {
            return Ok(path);
        }
        let sum = |expected| Checksum::of_file(&path).is_ok_and(|found| found == expected);
        if file.checksum.is_some_and(sum) {
            self.checked().insert(file.digest);
            return Ok(path);
        }
        match Digest::of_file(&path) {
            Ok((found, _)) if found == file.digest => {
                self.checked().insert(file.digest);
                Ok(path)
            }
            Ok((found, _)) => Err(RegistryError::BlobDamaged { path, found }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(RegistryError::BlobMissing { path })
            }
            Err(e) => Err(RegistryError::io(&path, e)),
        }
    }

    /// Removes every file that no record names. `named` is asked while nothing is being stored.
    /// Says how many were removed.
    pub(crate) fn sweep(&self, named: impl FnOnce() -> Result<HashSet<Digest>>) -> Result<usize> {
        let _alone = self
            .shared
            .storing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let named = named()?;
        let mut swept = 0;
        for folder in entries(&self.root)? {
            let prefix = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            for file in entries(&folder)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let digest = format!("sha256:{prefix}{name}").parse::<Digest>().ok();
                if digest.is_some_and(|digest| named.contains(&digest)) {
                    continue;
                }
                fs::remove_file(&file).map_err(|e| RegistryError::io(&file, e))?;
                swept += 1;
                if let Some(digest) = digest {
                    self.checked().remove(&digest);
                }
            }
        }
        Ok(swept)
    }
}

/// The paths of what is in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let of = |e| RegistryError::io(folder, e);
    fs::read_dir(folder)
        .map_err(of)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(of))
        .collect()
}

/// Puts a directory's names on the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| RegistryError::io(dir, e))
}
