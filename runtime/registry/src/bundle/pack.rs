//! Making a bundle of a project: the manifest with its paths rewritten, and the files it names.
//! The same files give the same bytes, so building twice and uploading twice makes one version.
//!
//! The tar is compressed in several zstd frames, one after another, which any reader of zstd takes for
//! one stream: a large file has a frame of its own, so a bundle can be kept in pieces of which other
//! versions have the same ones (see [`super::parts`]).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::BundleError;
use crate::{Digest, Digesting, FunctionSection, Manifest};

/// The compression of zstd's own default: models hardly shrink further.
const ZSTD_LEVEL: i32 = 3;

/// A file from this size on has a frame of its own; smaller ones share.
const OWN_FRAME: u64 = 256 << 10;

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// What it holds: path in the bundle, and size.
    pub files: Vec<(String, u64)>,
}

/// Packs a project: `manifest` names files relative to `project`; `component` is what was built of
/// it, where the manifest doesn't name a component itself.
pub fn pack(
    project: &Path,
    manifest: &Manifest,
    component: Option<&Path>,
    writer: impl Write,
) -> Result<Packed, BundleError> {
    let (manifest, files) = lay_out(project, manifest, component)?;
    let manifest = manifest.to_toml()?;
    let written = |error| BundleError::io(Path::new("the bundle"), error);
    let output = Digesting::new(writer);
    let mut tar = tar::Builder::new(Frames::new(output).map_err(written)?);
    let mut listed = vec![(Manifest::FILE.to_owned(), manifest.len() as u64)];
    append(
        &mut tar,
        Manifest::FILE,
        manifest.as_bytes(),
        manifest.len() as u64,
    )
    .map_err(written)?;
    for (name, file) in &files {
        let of = |error| BundleError::io(file, error);
        let mut content = File::open(file).map_err(of)?;
        let bytes = content.metadata().map_err(of)?.len();
        if bytes >= OWN_FRAME {
            tar.get_mut().cut().map_err(written)?;
        }
        append(&mut tar, name, &mut content, bytes).map_err(of)?;
        if bytes >= OWN_FRAME {
            tar.get_mut().cut().map_err(written)?;
        }
        listed.push((name.clone(), bytes));
    }
    let frames = tar.into_inner().map_err(written)?;
    let mut output = frames.finish().map_err(written)?;
    output.flush().map_err(written)?;
    let (digest, bytes) = output.finish();
    Ok(Packed {
        digest,
        bytes,
        files: listed,
    })
}

/// zstd in frames.
struct Frames<W: Write> {
    /// None only after a cut that failed.
    encoder: Option<zstd::Encoder<'static, W>>,
    /// Whether the present frame holds anything.
    begun: bool,
}

impl<W: Write> Frames<W> {
    fn new(output: W) -> io::Result<Self> {
        let encoder = Some(zstd::Encoder::new(output, ZSTD_LEVEL)?);
        Ok(Frames {
            encoder,
            begun: false,
        })
    }

    /// What is written next is in another frame than what was written before.
    fn cut(&mut self) -> io::Result<()> {
        if self.begun {
            let output = self.encoder.take().ok_or_else(broken)?.finish()?;
            self.encoder = Some(zstd::Encoder::new(output, ZSTD_LEVEL)?);
            self.begun = false;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<W> {
        self.encoder.ok_or_else(broken)?.finish()
    }
}

fn broken() -> io::Error {
    io::Error::other("an earlier write failed")
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun = true;
        self.encoder.as_mut().ok_or_else(broken)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.as_mut().ok_or_else(broken)?.flush()
    }
}

/// One entry that tells nothing of who made it, or when.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    content: impl Read,
    bytes: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes);
    tar.append_data(&mut header, name, content.take(bytes))
}

/// Where each file goes in the bundle, sorted, and the manifest that says so.
fn lay_out(
    project: &Path,
    manifest: &Manifest,
    component: Option<&Path>,
) -> Result<(Manifest, BTreeMap<String, PathBuf>), BundleError> {
    let mut manifest = manifest.clone();
    let mut layout = Layout {
        project,
        files: BTreeMap::new(),
    };
    if let Some(function) = &mut manifest.function {
        let named = function.component.as_deref();
        let source = named
            .map(|path| project.join(path))
            .or(component.map(Path::to_owned));
        let source = source.unwrap_or_else(|| project.join(FunctionSection::COMPONENT));
        layout.add("function.component", FunctionSection::COMPONENT, source)?;
        function.component = Some(FunctionSection::COMPONENT.to_owned());
        function.build = None;
    }
    for (name, model) in &mut manifest.models {
        let key = format!("models.{name}.path");
        model.path = layout.place(&key, "models", name, &model.path)?;
    }
    for (guest_path, file) in &mut manifest.assets {
        let stored = format!("assets/{guest_path}");
        layout.add(
            &format!("assets.\"{guest_path}\""),
            &stored,
            project.join(&*file),
        )?;
        *file = stored;
    }
    if let Some(sample) = &mut manifest.sample {
        sample.body = layout.place("sample.body", "samples", "sample", &sample.body)?;
    }
    Ok((manifest, layout.files))
}

struct Layout<'a> {
    project: &'a Path,
    files: BTreeMap<String, PathBuf>,
}

impl Layout<'_> {
    /// Puts a file into a folder under its own name; where another has that name, under `name` too.
    fn place(
        &mut self,
        key: &str,
        folder: &str,
        name: &str,
        file: &str,
    ) -> Result<String, BundleError> {
        let source = self.project.join(file);
        let file_name = source
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let file_name = file_name.unwrap_or_else(|| name.to_owned());
        let mut stored = format!("{folder}/{file_name}");
        if self
            .files
            .get(&stored)
            .is_some_and(|other| *other != source)
        {
            stored = format!("{folder}/{name}/{file_name}");
        }
        self.add(key, &stored, source)?;
        Ok(stored)
    }

    fn add(&mut self, key: &str, stored: &str, source: PathBuf) -> Result<(), BundleError> {
        match fs::metadata(&source) {
            Ok(metadata) if metadata.is_file() => {
                self.files.insert(stored.to_owned(), source);
                Ok(())
            }
            Ok(_) => {
                let kind = "folder";
                Err(BundleError::NotAFile {
                    path: source.display().to_string(),
                    kind,
                })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let path = tidy(&source);
                Err(BundleError::Missing {
                    key: key.to_owned(),
                    path,
                    in_project: true,
                })
            }
            Err(e) => Err(BundleError::io(&source, e)),
        }
    }
}

/// The path without `a/..`, for people.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir
                if matches!(
                    tidy.components().next_back(),
                    Some(std::path::Component::Normal(_))
                ) =>
            {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}
