//! From a bundle's bytes to a version: receive ▸ unpack ▸ validate ▸ dry run ▸ commit.
//!
//! Everything happens in a folder below the registry's staging directory that
//! goes away with the upload, however that ends. Blocking steps hold the folder
//! too, so it is not taken from under them when a caller hangs up. Only the
//! commit leaves something behind, and it leaves a whole version.

pub mod dry_run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use firebox_engine::Signature;
use firebox_registry::{
    BundleError, Commit, Digest, FunctionName, Kind, Manifest, NewVersion, StoredFile,
    UnpackLimits, Unpacked, bundle,
};
use firebox_sandbox::Assets;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::code;
use crate::problem::Failure;
use crate::protocol::{author, body};
use crate::realtime;
use crate::residency::{Code, Loaded, Locate, Place, Warm};
use crate::server::App;

/// The longest wait for room in memory for a model.
const ROOM_WAIT: Duration = Duration::from_secs(30);

/// The longest wait for other uploads to be checked.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// A folder that lives as long as somebody works in it.
pub type Folder = Arc<TempDir>;

/// Takes a bundle in as a version of `function`.
pub async fn receive(
    app: &Arc<App>,
    function: &FunctionName,
    headers: &HeaderMap,
    body: Body,
) -> Result<Commit, Failure> {
    let folder = TempDir::with_prefix_in("upload-", app.registry.staging())?;
    let folder = Arc::new(folder);
    let file = folder.path().join("bundle");
    store(headers, body, &file, app.config.max_upload).await?;
    let turn = tokio::time::timeout(MAX_WAIT, app.uploads.acquire()).await;
    let _turn = turn
        .map_err(|_| Failure::Busy("other uploads are being checked".into()))?
        .map_err(|_| Failure::ShuttingDown)?;
    let author = author(headers)?;
    let unpacked = unpack(app, function, &folder, file.clone()).await?;
    if let Some(existing) = existing(app, function, unpacked.digest) {
        return Ok(existing);
    }
    let memory = unpacked.manifest.limits.memory;
    if memory.0 > app.config.max_instance_memory as u64 {
        let most = app.config.max_instance_memory >> 20;
        let reason = format!("limits.memory is {memory}, and this server allows {most}MiB");
        return Err(refused("firebox.toml".into(), reason));
    }
    let mut new = NewVersion::from(unpacked);
    (new.author, new.bundle) = (author, Some(file));
    let (warm, signature) = validate(app, &folder, &mut new).await?;
    let warm = Arc::new(warm);
    new.signature =
        serde_json::to_value(&signature).map_err(|error| Failure::Internal(error.to_string()))?;
    let (is_model, sample) = (new.component.is_none(), new.sample.as_deref());
    let question = dry_run::question(&new.manifest, is_model, sample, &signature).await?;
    dry_run::batching(&new, &warm, question.as_ref()).await?;
    if let Some(question) = question {
        new.reference_latency_us = dry_run::dry_run(app, &new, &warm, &question).await?;
        new.deviation = dry_run::deviation(app, &folder, &new, &warm, question).await;
    }
    realtime::before_first(app, function, &new.manifest, &warm)?;
    let commit = commit(app, function, folder, new).await?;
    realtime::after_first(app, &commit).await;
    Ok(commit)
}

/// Streams the body to a file.
async fn store(headers: &HeaderMap, body: Body, file: &Path, limit: u64) -> Result<(), Failure> {
    if body::announced(headers).is_some_and(|bytes| bytes > limit) {
        return Err(body::refuse(body, limit));
    }
    let mut body = body;
    let mut written = 0;
    let mut out =
        tokio::io::BufWriter::with_capacity(1 << 18, tokio::fs::File::create(file).await?);
    loop {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| body::broke_off("the bundle", &error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        written += data.len() as u64;
        if written > limit {
            return Err(body::refuse(body, limit));
        }
        out.write_all(&data).await?;
    }
    Ok(out.flush().await?)
}

async fn unpack(
    app: &Arc<App>,
    function: &FunctionName,
    folder: &Folder,
    file: PathBuf,
) -> Result<Unpacked, Failure> {
    let limits = UnpackLimits {
        file_bytes: app.config.max_unpacked,
        total_bytes: app.config.max_unpacked,
        ..UnpackLimits::default()
    };
    let (folder, function) = (folder.clone(), function.clone());
    blocking(move || {
        let files = folder.path().join("files");
        std::fs::create_dir(&files)?;
        let reader = std::io::BufReader::new(std::fs::File::open(&file)?);
        Ok(bundle::unpack(reader, &limits, &files, &function)?)
    })
    .await
}

/// The version that this bundle is already, if it is one.
fn existing(app: &App, function: &FunctionName, digest: Digest) -> Option<Commit> {
    let table = app.routing.table();
    let route = table.functions.get(function)?;
    let same = route
        .versions
        .values()
        .find(|version| version.record.digest == digest)?;
    Some(Commit::Existing(same.record.clone()))
}

/// Readies the component and loads the models; what is wrong with either is
/// found here. The result can answer, and knows what it takes and gives.
async fn validate(
    app: &Arc<App>,
    folder: &Folder,
    new: &mut NewVersion,
) -> Result<(Warm, Signature), Failure> {
    let mut warm = Warm::new(None, load(app, folder, new).await?);
    let Some(wasm) = new.component.clone() else {
        let model = warm.models.values().next();
        let model = model.ok_or_else(|| refused("the bundle".into(), "it has no model".into()))?;
        let signature = Signature::clone(&model.signature);
        return Ok((warm, signature));
    };
    let (assets, files, laid_out) = (
        new.assets.clone(),
        folder.clone(),
        folder.path().join("assets"),
    );
    let assets = blocking(move || {
        let _held = files;
        if assets.is_empty() {
            Ok(Assets::none())
        } else {
            Ok(Assets::link(&assets, &laid_out)?)
        }
    });
    let assets = assets.await?;
    let ready = code::ready(app, folder, new, &wasm, &assets).await?;
    new.kind = ready.kind;
    if new.kind == Kind::Http {
        fits_handler(&new.manifest)?;
    }
    new.compiled = Some(ready.file);
    new.snapshot = ready.snapshot;
    keys_of_its_kind(new)?;
    let code = Code::new(&app.residency, &new.manifest, ready.program, assets);
    warm.code = Some(Arc::new(code));
    Ok((warm, ready.signature))
}

/// Refuses what the manifest says of another kind of code than there is: it would have no effect.
fn keys_of_its_kind(new: &NewVersion) -> Result<(), Failure> {
    let function = new.manifest.function.clone().unwrap_or_default();
    let (keys, of) = match new.kind {
        Kind::Command if function.reuse => (vec!["function.reuse"], "functions"),
        Kind::Command => return Ok(()),
        Kind::Function | Kind::Http => (function.command_keys(), "commands"),
    };
    if keys.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused {
        what: "firebox.toml".into(),
        reason: format!(
            "`{}` is for {of}, and the code is of the kind `{}`",
            keys.join("`, `"),
            new.kind
        ),
        hint: Some("Leave it out. docs/command-functions.md has what a command is."),
    })
}

/// Refuses what a manifest asks of a component that answers HTTP requests and that it can't have.
fn fits_handler(manifest: &Manifest) -> Result<(), Failure> {
    let reuse = manifest.function.as_ref().is_some_and(|f| f.reuse);
    let wrong = [
        (manifest.cache.is_some(), "[cache]", "answers are not kept"),
        (
            reuse,
            "[function] reuse",
            "each request has an instance of its own",
        ),
        (
            manifest.sample.is_some(),
            "[sample]",
            "no request is sent at the upload, an instance is only made",
        ),
    ];
    match wrong.into_iter().find(|(wrong, ..)| *wrong) {
        None => Ok(()),
        Some((_, key, why)) => Err(refused(
            "firebox.toml".into(),
            format!("{key} can't be had by a component that answers HTTP requests: {why}"),
        )),
    }
}

/// Loads the models, all of which must fit into memory together.
async fn load(
    app: &Arc<App>,
    folder: &Folder,
    new: &NewVersion,
) -> Result<BTreeMap<String, Arc<Loaded>>, Failure> {
    let mut files = Vec::with_capacity(new.models.len());
    for (name, path) in &new.models {
        let place = app.residency.place(new.manifest.models.get(name));
        files.push(file(folder, path, place).await?);
    }
    let taken = app.residency.models(files, ROOM_WAIT).await;
    let taken = taken.map_err(|failure| match failure {
        Failure::OverBudget(reason) => Failure::Refused {
            what: "the bundle".into(),
            reason,
            hint: Some("Raise the server's --model-memory, or send smaller models."),
        },
        failure => failure,
    })?;
    let mut models = BTreeMap::new();
    for (name, taken) in new.models.keys().zip(taken) {
        let loaded = taken.landed().await.map_err(|failure| match failure {
            Failure::BadModel { reason, .. } => refused(format!("model `{name}`"), reason),
            failure => failure,
        });
        models.insert(name.clone(), loaded?);
    }
    Ok(models)
}

/// A model's file in the upload's folder, as residency loads it.
async fn file(
    folder: &Folder,
    path: &Path,
    place: Place,
) -> Result<(StoredFile, Place, Locate), Failure> {
    let (held, path) = (folder.clone(), path.to_owned());
    let hashed = path.clone();
    let file = blocking(move || Ok(StoredFile::of(&hashed)?)).await?;
    let find: Locate = Arc::new(move || {
        let _held = &held;
        Ok(path.clone())
    });
    Ok((file, place, find))
}

async fn commit(
    app: &Arc<App>,
    function: &FunctionName,
    folder: Folder,
    new: NewVersion,
) -> Result<Commit, Failure> {
    let (app, function) = (app.clone(), function.clone());
    blocking(move || {
        let _held = folder;
        let commit = app.registry.commit(&function, new)?;
        app.routing.refresh(&function)?;
        Ok(commit)
    })
    .await
}

/// Work on the disk, off the threads that serve requests.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
}

/// What of the bundle is wrong, and how.
pub fn refused(what: String, reason: String) -> Failure {
    Failure::Refused {
        what,
        reason,
        hint: None,
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            BundleError::Io { .. } | BundleError::Read(_) => Self::Internal(error.to_string()),
            error => Self::Refused {
                what: "the bundle".into(),
                hint: error.hint(),
                reason: error.to_string(),
            },
        }
    }
}
