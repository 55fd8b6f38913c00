//! `push`: brings a bundle to an OCI registry, where others, and other tools, find it.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use firebox_engine::Model;
use firebox_registry::{Digest, FunctionName, UnpackLimits, Unpacked, bundle};
use serde_json::json;

use crate::deploy;
use crate::failure::{Context, Failure, Result};
use crate::oci::remote::Remote;
use crate::oci::{Access, Address, artifact};
use crate::output::{self, Format};
use crate::progress;

/// The longest tag that a registry takes.
const TAG_BYTES: usize = 128;

/// `firebox push`
#[derive(Args, Debug)]
#[command(after_help = "\
A project folder is built first. What is pushed again is the same, byte for byte, and layers that the
registry has are not sent again: a large model is one. Under the tag lies the component alone, as other
WebAssembly tools expect it, and under TAG.bundle the whole bundle; a model alone is a bundle only.

Examples:
  firebox push greeter oci://ghcr.io/someone/greeter:1
  firebox push greeter.firebox oci://localhost:5000/greeter:1
  printf %s \"$TOKEN\" | firebox push greeter oci://ghcr.io/someone/greeter:1 \\
    --username someone --password-stdin")]
pub struct PushArgs {
    /// A project folder, a bundle, or an ONNX model
    path: PathBuf,
    /// Where to: oci://HOST[:PORT]/REPOSITORY[:TAG]
    address: Address,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: Format,
}

/// `firebox push`
pub async fn push(args: PushArgs) -> Result {
    let address = &args.address;
    if address.is_pinned() {
        return Err(Failure::usage(format!("{address} names a digest"))
            .hint("push to a tag; the digest is what comes of it"));
    }
    let tag = format!("{}{}", address.tag(), artifact::SUFFIX);
    if tag.len() > TAG_BYTES {
        let most = TAG_BYTES - artifact::SUFFIX.len();
        return Err(Failure::usage(format!(
            "the tag is longer than {most} characters"
        )));
    }
    let (path, own_name) = deploy::bundle(&args.path, true)?;
    let name = own_name.or_else(|| address.function_name());
    let name = name.ok_or_else(|| {
        Failure::new(format!(
            "{} does not tell the function's name",
            path.display()
        ))
        .hint("rename the file to the function's name")
    })?;
    let folder = tempfile::tempdir().context(|| "a temporary folder can't be made".into())?;
    let content = unpacked(&path, folder.path(), &name)?;
    check_models(&path, &content)?;
    let unread = || format!("{} can't be read", path.display());
    let parts = bundle::parts(&path).context(unread)?;
    let whole = artifact::of_bundle(&name, &content.manifest, content.digest, &parts)?;
    let wasm = match &content.component {
        Some(file) => Some((file, std::fs::read(file).context(unread)?)),
        None => None,
    };

    let remote = Remote::new(address, &args.access)?;
    remote.log_in().await;
    let wasm_bytes = wasm.as_ref().map_or(0, |(_, wasm)| wasm.len() as u64);
    let bar = progress::bar(&format!("pushing {name}"), content.bytes + wasm_bytes);
    let mut sent = 0;
    for part in &parts {
        let range = (part.offset, part.bytes);
        if remote.put_piece(&path, range, part.digest, &bar).await? {
            sent += part.bytes;
        }
    }
    let top = match wasm {
        None => {
            remote.put(address.tag(), &whole).await?;
            whole
        }
        Some((file, wasm)) => {
            let range = (0, wasm_bytes);
            if remote
                .put_piece(file, range, Digest::of(&wasm), &bar)
                .await?
            {
                sent += wasm_bytes;
            }
            let component = artifact::of_wasm(&name, &content.manifest, &wasm, &whole)?;
            // The bundle first, so that what the tag leads to is there.
            remote.put(&tag, &whole).await?;
            remote.put(address.tag(), &component).await?;
            component
        }
    };
    bar.finish_and_clear();
    let answer = json!({
        "address": address.to_string(),
        "digest": top.digest(),
        "bundle": content.digest,
        "bytes": content.bytes,
        "sent_bytes": sent,
    });
    if args.format.json {
        return output::print(&format!("{answer:#}"));
    }
    let facts = [
        ("digest", top.digest().to_string()),
        ("bundle", content.digest.to_string()),
        ("size", output::bytes(content.bytes)),
        ("sent", output::bytes(sent)),
    ];
    output::print(&format!(
        "{address}\n{}\nOn any machine: firebox deploy {address}",
        output::facts(&facts)
    ))
}

/// Takes a bundle apart, so that one that no server would take is not pushed.
fn unpacked(path: &Path, folder: &Path, name: &FunctionName) -> Result<Unpacked> {
    let file = File::open(path).context(|| format!("{} can't be read", path.display()))?;
    bundle::unpack(file, &UnpackLimits::default(), folder, name).map_err(|error| {
        let failure = Failure::new(format!("{}: {error}", path.display()));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// Whatever is neither an archive nor WebAssembly is taken for a model: it must be one.
fn check_models(path: &Path, content: &Unpacked) -> Result {
    for model in content.models.values() {
        Model::check(model).map_err(|error| {
            Failure::new(format!("{}: {error}", path.display())).hint(
                "push takes a project folder, a bundle (tar, also with zstd), an ONNX model or a \
                 component",
            )
        })?;
    }
    Ok(())
}
