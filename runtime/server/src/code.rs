//! The compiled code of an uploaded component: that of another version with the
//! same component and assets, or made now.
//!
//! Compiling and snapshotting take hundreds of milliseconds, and what comes out
//! depends on the component, its assets and this build alone. A version that
//! differs in its manifest or models only is ready without.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebox_engine::Signature;
use firebox_registry::{Digest, Kind, NewVersion, VersionRecord};
use firebox_sandbox::{Assets, CompileError, InvokeError};

use crate::problem::Failure;
use crate::residency::Program;
use crate::server::App;
use crate::upload::{Folder, blocking, refused};

/// Code that can be called.
pub struct Ready {
    /// What it is.
    pub kind: Kind,
    /// Its compiled code, in the upload's folder.
    pub file: PathBuf,
    /// The code, mapped.
    pub program: Program,
    /// What it takes and gives.
    pub signature: Signature,
    /// Whether instances start from the memory that `init` left.
    pub snapshot: bool,
}

/// Finds or makes the compiled code of the new version's component, `wasm`.
pub async fn ready(
    app: &Arc<App>,
    folder: &Folder,
    new: &NewVersion,
    wasm: &Path,
    assets: &Assets,
) -> Result<Ready, Failure> {
    let (held, searching) = (folder.clone(), app.clone());
    let (wasm_path, files) = (wasm.to_owned(), new.assets.clone());
    let found = blocking(move || {
        // A name of its own: what is written to a link is written to the blob.
        let link = held.path().join("twin.cwasm");
        Ok(find(&searching, &wasm_path, &files, &link)?)
    });
    if let Some(ready) = found.await? {
        return Ok(ready);
    }
    compile(app, folder, wasm, assets).await
}

/// The code of a version that has the same component and assets. None where
/// there is no such version, or its code is of another build.
fn find(
    app: &App,
    wasm: &Path,
    assets: &BTreeMap<String, PathBuf>,
    link: &Path,
) -> std::io::Result<Option<Ready>> {
    let component = Digest::of_file(wasm)?.0;
    let assets = assets.iter();
    let assets = assets.map(|(seen, path)| Ok((seen.clone(), Digest::of_file(path)?.0)));
    let assets: BTreeMap<String, Digest> = assets.collect::<std::io::Result<_>>()?;
    let same = |record: &VersionRecord| {
        let same_component = record
            .component
            .as_ref()
            .is_some_and(|c| c.digest == component);
        let theirs = record
            .assets
            .iter()
            .map(|(seen, stored)| (seen, &stored.digest));
        same_component && theirs.eq(assets.iter())
    };
    let table = app.routing.table();
    let versions = table
        .functions
        .values()
        .flat_map(|route| route.versions.values());
    for twin in versions.filter(|version| same(&version.record)) {
        let Some(file) = &twin.record.compiled else {
            continue;
        };
        let Ok(blob) = app.registry.blob(file) else {
            continue;
        };
        // A link of the upload's own, so that deleting the twin takes nothing away.
        std::fs::hard_link(&blob, link).or_else(|_| std::fs::copy(&blob, link).map(drop))?;
        let (kind, snapshot) = (twin.record.kind, twin.record.snapshot);
        match Program::link(&app.sandbox, kind, link, snapshot) {
            Ok(program) => {
                return Ok(Some(Ready {
                    kind,
                    file: link.to_owned(),
                    program,
                    signature: twin.signature.clone(),
                    snapshot,
                }));
            }
            Err(_of_another_build) => std::fs::remove_file(link)?,
        }
    }
    Ok(None)
}

async fn compile(
    app: &Arc<App>,
    folder: &Folder,
    wasm: &Path,
    assets: &Assets,
) -> Result<Ready, Failure> {
    let wasm = tokio::fs::read(wasm).await?;
    let compiled = app.sandbox.compile(&wasm, assets).await;
    let compiled = compiled.map_err(|error| match &error {
        CompileError::Start {
            error: InvokeError::Busy { .. },
            ..
        } => Failure::Busy(error.to_string()),
        _ => refused("the component".into(), error.to_string()),
    })?;
    drop(wasm);
    let (held, sandbox) = (folder.clone(), app.sandbox.clone());
    blocking(move || {
        let file = held.path().join("function.cwasm");
        std::fs::write(&file, &compiled.code)?;
        let kind = kind_of(compiled.kind);
        let linked = Program::link(&sandbox, kind, &file, compiled.snapshot);
        let program = linked.map_err(|error| refused("the component".into(), error.to_string()))?;
        let (signature, snapshot) = (compiled.signature, compiled.snapshot);
        Ok(Ready {
            kind,
            file,
            program,
            signature,
            snapshot,
        })
    })
    .await
}

/// A kind as records have it: the registry knows no wasm, and the sandbox no records.
fn kind_of(kind: firebox_sandbox::Kind) -> Kind {
    match kind {
        firebox_sandbox::Kind::Function => Kind::Function,
        firebox_sandbox::Kind::Http => Kind::Http,
        firebox_sandbox::Kind::Command => Kind::Command,
    }
}
