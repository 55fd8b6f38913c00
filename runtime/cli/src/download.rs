//! `download`: the bundle of a version, as it was uploaded.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use firebox_registry::{Digest, FunctionName, VersionNumber};
use reqwest::header::ETAG;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::failure::{Context, Failure, Result};
use crate::output::{self, Format};

/// `firebox download`
#[derive(Args, Debug)]
#[command(after_help = "\
The file has the digest that `firebox versions` shows; it is checked before the file gets its name.

Examples:
  firebox download file-type 2
  firebox download file-type 2 --output old.firebox")]
pub struct DownloadArgs {
    /// The function
    name: FunctionName,
    /// The version
    version: VersionNumber,
    /// Where to; NAME-VERSION.firebox in this folder where it is not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// What was downloaded.
#[derive(Deserialize)]
struct Downloaded {
    file: String,
    digest: String,
    bytes: u64,
}

/// Downloads a bundle.
pub async fn download(args: DownloadArgs, client: &Client) -> Result {
    let number = args.version.to_string();
    let path = [
        "v1",
        "functions",
        args.name.as_str(),
        "versions",
        &number,
        "bundle",
    ];
    let answer = client.send(client.request(Method::GET, &path)).await?;
    let etag = answer
        .headers()
        .get(ETAG)
        .and_then(|value| value.to_str().ok());
    let digest = etag.and_then(|etag| etag.trim_matches('"').parse::<Digest>().ok());
    let digest =
        digest.ok_or_else(|| Failure::new("the server doesn't say the bundle's digest"))?;

    let target = args
        .output
        .unwrap_or_else(|| format!("{}-{number}.firebox", args.name).into());
    let what = format!("the bundle of {} version {number}", args.name);
    let bytes = save(answer, &target, &what, |part| {
        let unread = || format!("{} can't be read", part.display());
        let (found, bytes) = Digest::of_file(part).context(unread)?;
        if found != digest {
            let what = format!("what came has the digest {found}, and not {digest}");
            return Err(Failure::new(what).hint("download it again"));
        }
        Ok(bytes)
    });
    let bytes = bytes.await?;
    let answer = json!({
        "file": target.display().to_string(),
        "digest": digest.to_string(),
        "bytes": bytes,
    });
    args.format.show(answer, |found: Downloaded| {
        let facts = [
            ("digest", found.digest),
            ("size", output::bytes(found.bytes)),
        ];
        format!("{}\n{}", found.file, output::facts(&facts))
    })
}

/// A file in `folder` for what is on its way. It goes away unless it is given a name, and may be read
/// by those whom the umask lets.
pub(crate) fn part_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".part-");
    builder
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
}

/// Writes an answer's body, which is `what`, into the file `target`, which gets its name when it is
/// whole and `check` has nothing against it; gives what that says.
pub async fn save<T>(
    mut answer: Response,
    target: &Path,
    what: &str,
    check: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let unwritten = || format!("{} can't be written", target.display());
    let part = part_in(folder).context(unwritten)?;
    let handle = part.reopen().context(unwritten)?;
    let mut file = tokio::io::BufWriter::new(tokio::fs::File::from_std(handle));
    let broken = || format!("{what} broke off");
    while let Some(piece) = answer.chunk().await.context(broken)? {
        file.write_all(&piece).await.context(unwritten)?;
    }
    file.flush().await.context(unwritten)?;
    let checked = check(part.path())?;
    part.persist(target)
        .map_err(|error| error.error)
        .context(unwritten)?;
    Ok(checked)
}
