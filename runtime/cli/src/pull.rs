//! `pull`: gets a bundle from an OCI registry, as it was pushed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use firebox_registry::bundle::Form;
use firebox_registry::{Digest, FunctionName};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::download;
use crate::failure::{Context, Failure, Result};
use crate::oci::artifact::{self, Content, Found};
use crate::oci::remote::Remote;
use crate::oci::{Access, Address};
use crate::output::{self, Format};
use crate::progress;

/// `firebox pull`
#[derive(Args, Debug)]
#[command(after_help = "\
Every digest on the way is checked, and the file is the one that was pushed, byte for byte. A lone
WebAssembly component that another tool has pushed is pulled as it is. An address with a digest,
oci://HOST/REPOSITORY@sha256:…, always gives the same.

Examples:
  firebox pull oci://ghcr.io/someone/greeter:1
  firebox pull oci://localhost:5000/greeter:1 --output greeter.firebox
  firebox deploy oci://ghcr.io/someone/greeter:1     pulls, and uploads to a server")]
pub struct PullArgs {
    /// Where from: oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    address: Address,
    /// Where to; NAME.firebox in this folder where it is not given, or NAME.onnx or NAME.wasm where
    /// it is such a file alone
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: Format,
}

/// A bundle from a registry, in a file that goes away unless it is kept.
pub struct Pulled {
    /// The bundle.
    pub file: NamedTempFile,
    /// The function's name, as the artifact or else the address tells it.
    pub name: Option<FunctionName>,
    /// Of the bundle.
    pub digest: Digest,
    /// Of the bundle.
    pub bytes: u64,
    /// The digest of the manifest at the address.
    pub manifest: String,
}

/// `firebox pull`
pub async fn pull(args: PullArgs) -> Result {
    let folder = args.output.as_deref().and_then(Path::parent);
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    let address = &args.address;
    let pulled = fetch(address, &args.access, folder.unwrap_or(Path::new("."))).await?;
    let target = match (args.output, &pulled.name) {
        (Some(file), _) => file,
        (None, Some(name)) => {
            let unread = || "what was pulled can't be read".into();
            let extension = extension(pulled.file.path()).context(unread)?;
            format!("{name}.{extension}").into()
        }
        (None, None) => {
            return Err(
                Failure::usage(format!("{address} tells no function's name"))
                    .hint("say where to: --output FILE"),
            );
        }
    };
    let unwritten = || format!("{} can't be written", target.display());
    let file = pulled.file.persist(&target);
    file.map_err(|error| error.error).context(unwritten)?;
    if args.format.json {
        let answer = json!({
            "file": target, "address": address.to_string(), "digest": pulled.manifest,
            "bundle": pulled.digest, "bytes": pulled.bytes,
        });
        return output::print(&format!("{answer:#}"));
    }
    let facts = [
        ("digest", pulled.manifest),
        ("bundle", pulled.digest.to_string()),
        ("size", output::bytes(pulled.bytes)),
    ];
    output::print(&format!("{}\n{}", target.display(), output::facts(&facts)))
}

/// Gets a bundle into a file in `folder`.
pub async fn fetch(address: &Address, access: &Access, folder: &Path) -> Result<Pulled> {
    let remote = Remote::new(address, access)?;
    let (manifest, digest) = remote.manifest().await?;
    let found = match artifact::read(manifest)? {
        Found::ComponentOf(bundle) => artifact::read(remote.manifest_of(bundle).await?)?,
        other => other,
    };
    let content = match found {
        Found::Bundle(content) | Found::Wasm(content) => content,
        Found::ComponentOf(_) => {
            let what = format!("{address} leads to a component, which leads to another one");
            return Err(Failure::new(what).hint("push the bundle again"));
        }
    };
    let file = join(&remote, &content, address, folder).await?;
    Ok(Pulled {
        file,
        name: content.name.or_else(|| address.function_name()),
        digest: content.digest,
        bytes: content.bytes,
        manifest: digest,
    })
}

/// What such a file is called: a model or a component alone has no name in it, so `deploy` must be
/// able to tell by the extension that it is one.
fn extension(file: &Path) -> io::Result<&'static str> {
    let mut beginning = Vec::new();
    let most = Form::BYTES as u64;
    File::open(file)?.take(most).read_to_end(&mut beginning)?;
    Ok(match Form::of(&beginning) {
        Form::Zstd | Form::Tar => "firebox",
        Form::Wasm => "wasm",
        Form::Onnx => "onnx",
    })
}

/// Puts the layers one after another into a file.
async fn join(
    remote: &Remote,
    content: &Content,
    address: &Address,
    folder: &Path,
) -> Result<NamedTempFile> {
    let unwritten = || format!("no file can be written in {}", folder.display());
    let part = download::part_in(folder).context(unwritten)?;
    let mut file = tokio::fs::File::from_std(part.reopen().context(unwritten)?);
    let bar = progress::bar(&format!("pulling {address}"), content.bytes);
    for layer in &content.layers {
        remote.get(layer, &mut file, &bar).await?;
    }
    file.flush().await.context(unwritten)?;
    bar.finish_and_clear();
    let (found, _) = Digest::of_file(part.path()).context(unwritten)?;
    if found != content.digest {
        let what = format!(
            "{address} promises the bundle {}, and its layers make {found}",
            content.digest
        );
        return Err(Failure::new(what).hint("push the bundle again"));
    }
    Ok(part)
}
