//! `deploy`: brings a bundle to a server, made from whatever the path holds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use firebox_registry::bundle::Form;
use firebox_registry::{FunctionName, Manifest};
use futures::StreamExt;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::api::VersionInfo;
use crate::build;
use crate::client::Client;
use crate::failure::{Context, Failure, Result};
use crate::oci::{Access, Address};
use crate::output::{self, Format, percent};
use crate::{progress, pull};

/// `firebox deploy`
#[derive(Args, Debug)]
#[command(after_help = "\
A project folder is built first. An .onnx file becomes a function of that model alone, a .wasm file
one of that component alone, named after the file. A bundle in an OCI registry is pulled first. The
first version of a function takes all traffic, later ones none until told.

Examples:
  firebox deploy greeter
  firebox deploy greeter/greeter.firebox --name welcome
  firebox deploy adder.onnx
  firebox deploy hello.wasm
  firebox deploy oci://ghcr.io/someone/greeter:1")]
pub struct DeployArgs {
    /// A project folder, a bundle, an ONNX model, a component, or an address:
    /// oci://HOST/REPOSITORY:TAG
    path: PathBuf,
    /// The function's name, where it is not to be the manifest's or the model's
    #[arg(long)]
    name: Option<FunctionName>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: Format,
}

/// `firebox deploy`
pub async fn deploy(args: DeployArgs, client: &Client) -> Result {
    if let Some(address) = Address::in_path(&args.path) {
        return deploy_from(&address?, args, client).await;
    }
    let (bundle, own_name) = bundle(&args.path, args.name.is_none())?;
    let no_name = || {
        Failure::usage(format!(
            "{} does not tell the function's name",
            bundle.display()
        ))
        .hint("give one: --name NAME")
    };
    let name = args.name.or(own_name).ok_or_else(no_name)?;
    let answer = upload(client, name.as_str(), &bundle).await?;
    args.format
        .show(answer, |version: VersionInfo| account(&version))
}

/// Pulls a bundle from a registry and uploads it.
async fn deploy_from(address: &Address, args: DeployArgs, client: &Client) -> Result {
    let folder = tempfile::tempdir().context(|| "a temporary folder can't be made".into())?;
    let pulled = pull::fetch(address, &args.access, folder.path()).await?;
    let no_name = || {
        Failure::usage(format!("{address} does not tell the function's name"))
            .hint("give one: --name NAME")
    };
    let name = args.name.or(pulled.name).ok_or_else(no_name)?;
    let answer = upload(client, name.as_str(), pulled.file.path()).await?;
    args.format
        .show(answer, |version: VersionInfo| account(&version))
}

/// What the path holds, as a file to upload, and the name that it has by itself.
pub(crate) fn bundle(
    path: &Path,
    named_by_itself: bool,
) -> Result<(PathBuf, Option<FunctionName>)> {
    if path.is_dir() {
        let built = build::build(path, None)?;
        return Ok((built.path, Some(built.name)));
    }
    if !path.exists() {
        return Err(Failure::new(format!("{} is not there", path.display()))
            .hint("deploy takes a project folder, a bundle, an .onnx or a .wasm file"));
    }
    let name = match path.extension().and_then(|extension| extension.to_str()) {
        _ if !named_by_itself => None,
        Some("onnx" | "wasm") => name_of_file(path),
        _ => name_in_bundle(path)?,
    };
    Ok((path.to_owned(), name))
}

/// `Text_Direction.onnx` is `text-direction`.
fn name_of_file(path: &Path) -> Option<FunctionName> {
    let stem = path.file_stem()?.to_str()?.to_lowercase();
    stem.replace(['_', ' ', '.'], "-").parse().ok()
}

/// The name in a bundle's manifest; none where there is no manifest to read. Whether the bundle is
/// sound is the server's to say.
fn name_in_bundle(path: &Path) -> Result<Option<FunctionName>> {
    let what = || format!("{} can't be read", path.display());
    let mut file = BufReader::new(File::open(path).context(what)?);
    let compressed = Form::of(file.fill_buf().context(what)?) == Form::Zstd;
    let manifest = match compressed {
        true => manifest_in(zstd::Decoder::with_buffer(file).context(what)?),
        false => manifest_in(file),
    };
    let manifest = manifest.map(|text| Manifest::parse(&text)).transpose();
    let manifest =
        manifest.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(manifest.map(|manifest| manifest.name))
}

fn manifest_in(tar: impl Read) -> Option<String> {
    const LONGEST: u64 = 1 << 20;
    let mut archive = tar::Archive::new(tar);
    let is_manifest = |entry: &tar::Entry<'_, _>| {
        entry
            .path()
            .is_ok_and(|path| path.strip_prefix(".").unwrap_or(&path) == Path::new(Manifest::FILE))
    };
    let entry = archive
        .entries()
        .ok()?
        .map_while(std::result::Result::ok)
        .find(is_manifest)?;
    let mut text = String::new();
    entry.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Uploads a bundle file, showing how far it is where someone watches. Returns the version.
pub async fn upload(client: &Client, function: &str, bundle: &Path) -> Result<Value> {
    let what = || format!("{} can't be read", bundle.display());
    let file = File::open(bundle).context(what)?;
    let bytes = file.metadata().context(what)?.len();
    let progress = Progress::new(function, bytes);
    let counted = progress.clone();
    let pieces = ReaderStream::new(tokio::fs::File::from_std(file))
        .inspect(move |piece| counted.sent(piece.as_ref().map_or(0, |piece| piece.len() as u64)));
    let answer = client.upload(function, pieces, bytes).await;
    progress.done();
    answer
}

/// An upload's bar; then, until the server answers, a sign that it is at work.
#[derive(Clone)]
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(function: &str, bytes: u64) -> Progress {
        let bar = progress::bar(&format!("uploading {function}"), bytes);
        Progress { bar }
    }

    fn sent(&self, bytes: u64) {
        self.bar.inc(bytes);
        if Some(self.bar.position()) == self.bar.length() {
            progress::spin(&self.bar, "the server compiles and tries it");
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}

/// What has become of an upload.
fn account(version: &VersionInfo) -> String {
    let (name, number) = (&version.function, version.version);
    let known = match version.created_now {
        Some(false) => " (this very bundle was a version already)",
        _ => "",
    };
    let latency = version.reference_latency_ms.map(output::milliseconds);
    let mut facts = vec![
        ("kind", version.kind.clone()),
        ("digest", version.digest.clone()),
        ("size", output::bytes(version.bundle_bytes)),
        ("traffic", percent(version.share_bp)),
        (
            "reference latency",
            latency.unwrap_or_else(|| "not measured".into()),
        ),
    ];
    facts.extend(version.deviation.iter().map(|off| {
        let most = match off.max_relative {
            Some(most) => format!("by {most:.4} of the largest number at most"),
            None => "beyond all bounds".into(),
        };
        let cosine = match off.cosine {
            Some(cosine) => format!(", cosine {cosine:.4}"),
            None => String::new(),
        };
        ("off from f32", format!("{}: {most}{cosine}", off.output))
    }));
    let facts = output::facts(&facts);
    let way = match &*version.kind {
        "http" => format!("\nIt answers requests of its own: below /f/{name}/"),
        _ => String::new(),
    };
    let next = match version.share_bp {
        0 => format!("\nIt takes no traffic yet: firebox traffic {name} {number}=100"),
        _ => String::new(),
    };
    format!("{name} version {number}{known}\n{facts}{way}{next}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_is_named_after_its_file() {
        let name = |path: &str| name_of_file(Path::new(path)).map(|name| name.to_string());
        assert_eq!(
            name("models/Text_Direction.v2.onnx").as_deref(),
            Some("text-direction-v2")
        );
        assert_eq!(name("3.onnx"), None);
    }

    #[test]
    fn a_bundle_is_named_by_its_manifest_however_it_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in [
            ("./models/adder.onnx", "graph"),
            ("./firebox.toml", MANIFEST),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let plain = tar.into_inner().unwrap();
        let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for bytes in [plain, packed] {
            let path = folder.path().join("some.firebox");
            std::fs::write(&path, bytes).unwrap();
            let name = name_in_bundle(&path).unwrap().map(|name| name.to_string());
            assert_eq!(name.as_deref(), Some("adder"));
        }
    }

    #[test]
    fn what_is_no_bundle_has_no_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a tar").unwrap();
        assert_eq!(name_in_bundle(&path), Ok(None));
    }

    const MANIFEST: &str = "name = \"adder\"\n[models.model]\npath = \"models/adder.onnx\"\n";

    #[test]
    fn a_version_without_traffic_is_told_how_to_get_some() {
        let version: VersionInfo = serde_json::from_value(json!({
            "function": "adder", "version": 2, "digest": "sha256:ab", "bundle_bytes": 2048,
            "created": "2024-01-01T00:00:00Z", "kind": "model", "tier": "on-demand",
            "residency": "cold", "share_bp": 0, "labels": [], "snapshot": false,
            "reference_latency_ms": 1.5, "created_now": true,
        }))
        .unwrap();
        assert_eq!(
            account(&version),
            "adder version 2\n  kind               model\n  digest             sha256:ab\n  size               2.00 KiB\n  \
             traffic            0%\n  reference latency  1.50 ms\n\
             It takes no traffic yet: firebox traffic adder 2=100"
        );
    }

    #[test]
    fn a_model_of_less_precision_is_told_how_far_it_is_off() {
        let version: VersionInfo = serde_json::from_value(json!({
            "function": "adder", "version": 1, "digest": "sha256:ab", "bundle_bytes": 2048,
            "created": "2024-01-01T00:00:00Z", "kind": "model", "tier": "on-demand",
            "residency": "cold", "share_bp": 10000, "snapshot": false,
            "reference_latency_ms": 1.5, "deviation": [{
                "output": "y", "max_absolute": null, "max_relative": null,
                "mean_absolute": null, "cosine": 0.99951,
            }],
        }))
        .unwrap();
        let said = account(&version);
        let off = "off from f32       y: beyond all bounds, cosine 0.9995";
        assert!(said.ends_with(off), "{said}");
    }
}
