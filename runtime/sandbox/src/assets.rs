//! The read-only files of a function, as one directory that becomes its `/`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The files that a guest sees below `/`, read-only. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    root: Option<Arc<Path>>,
}

impl Assets {
    /// No files: the guest has no file system at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything below an existing directory.
    pub fn directory(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Some(root.into().into()),
        }
    }

    /// Lays files out below `root`, which is made anew: guest path to host
    /// file, linked where the file system can, else copied.
    ///
    /// # Errors
    /// A guest path that is not relative and plain (`InvalidInput`), or what
    /// the file system says.
    pub fn link(files: &BTreeMap<String, PathBuf>, root: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(root)?,
        }
        for (guest, host) in files {
            let plain = |part| matches!(part, Component::Normal(_));
            if guest.is_empty() || !Path::new(guest).components().all(plain) {
                let problem = format!("asset `{guest}`: expected a relative path without `..`");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
            let target = root.join(guest);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            if std::fs::hard_link(host, &target).is_err() {
                std::fs::copy(host, &target)?;
            }
        }
        Ok(Self::directory(root))
    }

    /// The directory, if there is one.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linked_files_stand_below_the_root_and_escapes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        std::fs::write(&blob, "hello").unwrap();
        let root = dir.path().join("assets");
        let files = BTreeMap::from([("deep/vocab.txt".to_string(), blob.clone())]);
        let assets = Assets::link(&files, &root).unwrap();
        let found = assets.root().unwrap().join("deep/vocab.txt");
        assert_eq!(std::fs::read_to_string(found).unwrap(), "hello");

        for bad in ["../x", "/x", "a/../../x", ""] {
            let files = BTreeMap::from([(bad.to_string(), blob.clone())]);
            let error = Assets::link(&files, &root).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }
}
