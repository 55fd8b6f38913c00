//! What can be wrong with a bundle.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::is_disk_full;
use crate::{ByteSize, ManifestError};

/// Why a bundle can't be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Nothing was uploaded.
    #[error("the bundle is empty: expected a tar with firebox.toml, an ONNX file or a component")]
    Empty,
    /// It ends too early.
    #[error("the bundle is cut off after {bytes} bytes")]
    Truncated {
        /// How many bytes came.
        bytes: u64,
    },
    /// Neither tar nor zstd can make sense of it.
    #[error("the bundle is damaged: {detail}")]
    Damaged {
        /// What the reader said.
        detail: String,
    },
    /// No `firebox.toml` at the root.
    #[error("the bundle has no firebox.toml at its root{}", found(.names))]
    NoManifest {
        /// Some of the files that it does have.
        names: Vec<String>,
    },
    /// The manifest can't be taken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An absolute path, or one that leaves the bundle.
    #[error("the bundle has the path {path:?}: paths in a bundle are relative, without ..")]
    BadPath {
        /// The path.
        path: String,
    },
    /// A link, a device, a pipe.
    #[error("{path:?} in the bundle is a {kind}: a bundle has plain files and folders alone")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Two files of one name.
    #[error("the bundle has {path:?} twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// More files than allowed.
    #[error("the bundle has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// A file that is larger than allowed.
    #[error("{path:?} in the bundle is larger than {limit}")]
    FileTooLarge {
        /// The path.
        path: String,
        /// The limit.
        limit: ByteSize,
    },
    /// All files together are larger than allowed.
    #[error("the bundle unpacks to more than {limit}")]
    TooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// A file that the manifest names isn't there.
    #[error("firebox.toml: `{key}` names {}, which {}", .path.display(),
        if *.in_project { "isn't there" } else { "isn't in the bundle" })]
    Missing {
        /// The manifest's key.
        key: String,
        /// What it names.
        path: PathBuf,
        /// Whether a project or a bundle lacks it.
        in_project: bool,
    },
    /// No room to unpack it.
    #[error("the disk that holds {} is full", .path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The upload itself broke off.
    #[error("reading the bundle: {0}")]
    Read(io::Error),
}

impl BundleError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Truncated { .. } | Self::Damaged { .. } => {
                "make the bundle again and upload it anew"
            }
            Self::NoManifest { .. } => {
                "make bundles with `firebox build`, or run tar in the folder that has firebox.toml"
            }
            Self::BadPath { .. } | Self::NotAFile { .. } | Self::Duplicate { .. } => {
                "make bundles with `firebox build`"
            }
            Self::Missing { .. } => "add the file, or change firebox.toml",
            Self::DiskFull { .. } => "free some space, for instance by deleting old versions",
            Self::Manifest(_) => "every key of firebox.toml is described in docs/manifest.md",
            Self::Empty
            | Self::TooManyEntries { .. }
            | Self::FileTooLarge { .. }
            | Self::TooLarge { .. }
            | Self::Io { .. }
            | Self::Read(_) => return None,
        })
    }

    pub(super) fn io(path: &Path, source: io::Error) -> BundleError {
        if is_disk_full(&source) {
            BundleError::DiskFull {
                path: path.to_owned(),
            }
        } else {
            BundleError::Io {
                path: path.to_owned(),
                source,
            }
        }
    }
}

fn found(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; it has {}", names.join(", "))
    }
}
