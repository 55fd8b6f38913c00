//! Taking a bundle apart as it comes in, in one pass and within limits:
//!
//! 1. digest and count the bytes as they were uploaded;
//! 2. undo zstd, where the first bytes say so;
//! 3. write a tar's files into a folder, or the one bare file;
//! 4. read `firebox.toml` and find the files that it names.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{BundleError, Form};
use crate::manifest::is_plain_path;
use crate::{ByteSize, Digest, Digesting, FunctionName, FunctionSection, Manifest};

type Result<T> = std::result::Result<T, BundleError>;

/// How much a bundle may hold, unpacked.
#[derive(Debug, Clone)]
pub struct UnpackLimits {
    /// Files and folders.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> UnpackLimits {
        UnpackLimits {
            entries: 4096,
            file_bytes: 8 << 30,
            total_bytes: 16 << 30,
        }
    }
}

/// A bundle in a folder; every file that its manifest names is there.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// What `firebox.toml` says, or stands for it with a bare file.
    pub manifest: Manifest,
    /// Of the bytes as they were uploaded.
    pub digest: Digest,
    /// How many these were.
    pub bytes: u64,
    /// The component's file.
    pub component: Option<PathBuf>,
    /// ONNX files by the model's name.
    pub models: BTreeMap<String, PathBuf>,
    /// Files by the path that the guest sees.
    pub assets: BTreeMap<String, PathBuf>,
    /// The body of the dry run.
    pub sample: Option<PathBuf>,
}

/// Unpacks a bundle into `dir`, which is empty. A bare file becomes a version of defaults, its
/// manifest named `name`; whether it really is ONNX or a component is for others to find out.
pub fn unpack(
    reader: impl Read,
    limits: &UnpackLimits,
    dir: &Path,
    name: &FunctionName,
) -> Result<Unpacked> {
    let mut upload = Digesting::new(reader);
    let found = match take_apart(&mut upload, limits, dir) {
        Ok(found) => found,
        Err(BundleError::Read(error)) => return Err(name_read_error(error, upload.finish().1)),
        Err(other) => return Err(other),
    };
    // What follows the archive's end mark belongs to the digest too.
    io::copy(&mut upload, &mut io::sink()).map_err(BundleError::Read)?;
    let (digest, bytes) = upload.finish();
    let manifest = match found {
        Found::Tar(names) => read_manifest(dir, &names)?,
        Found::Wasm => Manifest::of_component(name.clone()),
        Found::Onnx => Manifest::of_model(name.clone(), BARE_MODEL),
    };
    gather(manifest, dir, digest, bytes)
}

const BARE_MODEL: &str = "models/model.onnx";

enum Found {
    Tar(BTreeSet<String>),
    Wasm,
    Onnx,
}

/// What a failed read means: the format's readers and the upload itself share one error type.
fn name_read_error(error: io::Error, bytes: u64) -> BundleError {
    let text = error.to_string();
    let from_upload = error.raw_os_error().is_some()
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::TimedOut
        );
    // tar has no kind of its own for an archive that ends within a file.
    let cut_off = error.kind() == io::ErrorKind::UnexpectedEof
        || ["unexpected EOF", "failed to read entire block"]
            .iter()
            .any(|s| text.contains(s));
    if from_upload || error.get_ref().is_some_and(|e| e.is::<UploadFailed>()) {
        BundleError::Read(error)
    } else if cut_off {
        BundleError::Truncated { bytes }
    } else {
        BundleError::Damaged { detail: text }
    }
}

/// Wrap an error of the upload in this, so that it isn't taken for one of the bundle's bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UploadFailed(io::Error);

/// Marks errors of the upload as such.
struct Upload<R>(R);

impl<R: Read> Read for Upload<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(io::Error::new(e.kind(), UploadFailed(e))),
            Ok(count) => Ok(count),
        }
    }
}

fn take_apart(upload: impl Read, limits: &UnpackLimits, dir: &Path) -> Result<Found> {
    let mut upload = BufReader::new(Upload(upload));
    let start = upload.fill_buf().map_err(BundleError::Read)?;
    if start.is_empty() {
        return Err(BundleError::Empty);
    }
    // The buffer may hold less than the four bytes on a slow upload.
    let mut magic = Vec::new();
    upload
        .by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(BundleError::Read)?;
    let zstd = Form::of(&magic) == Form::Zstd;
    let whole = io::Cursor::new(magic).chain(upload);
    if zstd {
        let decoder =
            zstd::Decoder::with_buffer(BufReader::new(whole)).map_err(BundleError::Read)?;
        write_content(decoder, limits, dir)
    } else {
        write_content(whole, limits, dir)
    }
}

/// Writes what is no longer compressed: the files of a tar, or one bare file.
fn write_content(mut content: impl Read, limits: &UnpackLimits, dir: &Path) -> Result<Found> {
    let mut start = Vec::new();
    content
        .by_ref()
        .take(Form::BYTES as u64)
        .read_to_end(&mut start)
        .map_err(BundleError::Read)?;
    let form = Form::of(&start);
    let whole = io::Cursor::new(start).chain(content);
    let (name, found) = match form {
        Form::Tar => return write_tar(whole, limits, dir).map(Found::Tar),
        Form::Wasm => (FunctionSection::COMPONENT, Found::Wasm),
        Form::Zstd | Form::Onnx => (BARE_MODEL, Found::Onnx),
    };
    let mut room = Room {
        limits,
        left: limits.total_bytes,
    };
    room.write(name, whole, dir)?;
    Ok(found)
}

fn write_tar(content: impl Read, limits: &UnpackLimits, dir: &Path) -> Result<BTreeSet<String>> {
    let budget = Cell::new(HEADER_BYTES);
    let mut archive = tar::Archive::new(Budgeted {
        inner: content,
        left: &budget,
    });
    let mut names = BTreeSet::new();
    let mut room = Room {
        limits,
        left: limits.total_bytes,
    };
    let mut entries = archive.entries().map_err(BundleError::Read)?;
    let mut count = 0;
    loop {
        budget.set(HEADER_BYTES);
        let Some(entry) = entries.next() else {
            return Ok(names);
        };
        let entry = entry.map_err(BundleError::Read)?;
        count += 1;
        if count > limits.entries {
            return Err(BundleError::TooManyEntries {
                limit: limits.entries,
            });
        }
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            check_path(&raw)?;
            continue;
        }
        if kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        let path = check_path(&raw)?;
        if !matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous) {
            return Err(BundleError::NotAFile {
                path,
                kind: name_of(kind),
            });
        }
        let in_a_file = Path::new(&path).ancestors().filter_map(Path::to_str);
        if in_a_file.into_iter().any(|p| names.contains(p)) || dir.join(&path).exists() {
            return Err(BundleError::Duplicate { path });
        }
        budget.set(u64::MAX);
        room.write(&path, entry, dir)?;
        names.insert(path);
    }
}

/// What a header may take, with the extensions before it that hold long names: tar reads these into
/// memory whole.
const HEADER_BYTES: u64 = 64 << 10;

/// Reads no more than it is given leave to.
struct Budgeted<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Budgeted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 && !buffer.is_empty() {
            return Err(io::Error::other(
                "a header in the tar is larger than 64 KiB",
            ));
        }
        let count = self.inner.by_ref().take(self.left.get()).read(buffer)?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

fn check_path(raw: &str) -> Result<String> {
    let path = raw.strip_prefix("./").unwrap_or(raw).trim_end_matches('/');
    let root_itself = matches!(raw, "." | "./");
    if root_itself || (is_plain_path(path) && !raw.contains('\u{fffd}')) {
        Ok(path.to_owned())
    } else {
        Err(BundleError::BadPath {
            path: raw.to_owned(),
        })
    }
}

fn name_of(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Symlink => "symbolic link",
        tar::EntryType::Link => "hard link",
        tar::EntryType::Fifo => "pipe",
        tar::EntryType::Block | tar::EntryType::Char => "device",
        _ => "special entry",
    }
}

/// What is left of the limits.
struct Room<'a> {
    limits: &'a UnpackLimits,
    left: u64,
}

impl Room<'_> {
    fn write(&mut self, name: &str, content: impl Read, dir: &Path) -> Result<()> {
        let target = dir.join(name);
        let of = |e| BundleError::io(&target, e);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(of)?;
        }
        let mut file = File::create_new(&target).map_err(of)?;
        let most = self.left.min(self.limits.file_bytes);
        let written = copy(
            &mut content.take(most.saturating_add(1)),
            &mut file,
            &target,
        )?;
        if written > self.limits.file_bytes {
            let limit = ByteSize(self.limits.file_bytes);
            return Err(BundleError::FileTooLarge {
                path: name.to_owned(),
                limit,
            });
        }
        let limit = ByteSize(self.limits.total_bytes);
        self.left = self
            .left
            .checked_sub(written)
            .ok_or(BundleError::TooLarge { limit })?;
        Ok(())
    }
}

/// Like `io::copy`, but tells a failed read from a failed write.
fn copy(from: &mut impl Read, to: &mut File, target: &Path) -> Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(BundleError::Read(e)),
        };
        let read = buffer.get(..count).unwrap_or_default();
        io::Write::write_all(to, read).map_err(|e| BundleError::io(target, e))?;
        total += count as u64;
    }
}

fn read_manifest(dir: &Path, names: &BTreeSet<String>) -> Result<Manifest> {
    if !names.contains(Manifest::FILE) {
        let names = names.iter().take(8).cloned().collect();
        return Err(BundleError::NoManifest { names });
    }
    let path = dir.join(Manifest::FILE);
    let size = fs::metadata(&path)
        .map_err(|e| BundleError::io(&path, e))?
        .len();
    let limit = ByteSize(1 << 20);
    if size > limit.0 {
        return Err(BundleError::FileTooLarge {
            path: Manifest::FILE.to_owned(),
            limit,
        });
    }
    let bytes = fs::read(&path).map_err(|e| BundleError::io(&path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let message = format!("it isn't UTF-8 text: {e}");
        crate::ManifestError::Syntax { message }
    })?;
    Ok(Manifest::parse(&text)?)
}

/// Finds the files that the manifest names.
fn gather(mut manifest: Manifest, dir: &Path, digest: Digest, bytes: u64) -> Result<Unpacked> {
    let find = |key: String, file: &str| {
        if !is_plain_path(file) {
            return Err(BundleError::BadPath {
                path: file.to_owned(),
            });
        }
        let path = dir.join(file);
        if path.is_file() {
            return Ok(path);
        }
        Err(BundleError::Missing {
            key,
            path: PathBuf::from(file),
            in_project: false,
        })
    };
    let component = match &mut manifest.function {
        None => None,
        Some(function) => {
            let file = function
                .component
                .get_or_insert_with(|| FunctionSection::COMPONENT.to_owned());
            Some(find("function.component".to_owned(), file)?)
        }
    };
    let models = manifest.models.iter().map(|(name, model)| {
        Ok((
            name.clone(),
            find(format!("models.{name}.path"), &model.path)?,
        ))
    });
    let models = models.collect::<Result<_>>()?;
    let assets = manifest.assets.iter().map(|(guest_path, file)| {
        Ok((
            guest_path.clone(),
            find(format!("assets.\"{guest_path}\""), file)?,
        ))
    });
    let assets = assets.collect::<Result<_>>()?;
    let sample = manifest.sample.as_ref();
    let sample = sample
        .map(|s| find("sample.body".to_owned(), &s.body))
        .transpose()?;
    Ok(Unpacked {
        manifest,
        digest,
        bytes,
        component,
        models,
        assets,
        sample,
    })
}
