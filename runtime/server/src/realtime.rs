//! The realtime tier: versions that a policy names are loaded and tried before they take traffic,
//! and pinned, so that none of their callers meets a cold start.
//!
//! [`Route`](crate::routing::Route) pins them, [`before`] makes them ready for a policy that is
//! about to come, and [`keep`] loads those that a start of the server, a rollback or a failure has
//! left cold. A rollback doesn't wait: it is the way out of a bad version.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firebox_registry::{Commit, FunctionName, Manifest, Policy, Tier, VersionNumber};

use crate::problem::Failure;
use crate::residency::{Cause, Lease, Warm, size};
use crate::routing::{Route, Version};
use crate::server::App;
use crate::upload::dry_run;

/// The longest time that a policy waits for its versions.
const PATIENCE: Duration = Duration::from_secs(60);

const HINT: &str =
    "Raise the server's --model-memory, or take traffic from other realtime versions.";

/// What keeps the versions of a coming policy loaded until it holds.
pub struct Ready(#[allow(dead_code, reason = "held, never read")] Vec<Lease>);

/// Makes ready the realtime versions that `policy` names, before it holds. Versions that don't
/// exist are left to the registry to refuse.
///
/// # Errors
/// [`Failure::Refused`] where the budget can't hold them beside all others that are pinned, or one
/// can't be loaded; [`Failure::NoRoom`] where callers in flight leave no room for now.
pub async fn before(
    app: &Arc<App>,
    function: &FunctionName,
    policy: &Policy,
) -> Result<Ready, Failure> {
    let named: BTreeSet<VersionNumber> = policy.versions().collect();
    let wanted: Vec<_> = {
        let table = app.routing.table();
        let route = table.functions.get(function);
        let versions = route.iter().flat_map(|route| route.versions.values());
        let wanted = versions.filter(|v| v.is_realtime() && named.contains(&v.record.number));
        wanted.cloned().collect()
    };
    if wanted.is_empty() {
        return Ok(Ready(Vec::new()));
    }
    fit(app, "the traffic policy", &wanted, None)?;
    let mut leases = Vec::new();
    let until = tokio::time::Instant::now() + PATIENCE;
    for version in &wanted {
        let warming = tokio::time::timeout_at(until, warm(app, version)).await;
        let warmed = warming.unwrap_or(Err(Failure::Deadline { limit: PATIENCE }));
        leases.push(warmed.map_err(|failure| match failure {
            Failure::NoRoom(_) | Failure::ShuttingDown => failure,
            failure => refused(format!(
                "{} is of the realtime tier and can't be made ready: {failure}",
                version.title()
            )),
        })?);
    }
    Ok(Ready(leases))
}

/// The same for the first version of a function, which gets all traffic when it is committed.
pub fn before_first(
    app: &App,
    function: &FunctionName,
    manifest: &Manifest,
    warm: &Warm,
) -> Result<(), Failure> {
    let table = app.routing.table();
    let is_first = table.functions.get(function).is_none_or(takes_none);
    if manifest.tier != Tier::Realtime || !is_first {
        return Ok(());
    }
    fit(app, "the bundle", &[], Some(warm))
}

fn takes_none(route: &Arc<Route>) -> bool {
    route.policy().weights.is_empty()
}

/// Makes a committed version ready, if it is of the realtime tier and has got traffic.
pub async fn after_first(app: &Arc<App>, commit: &Commit) {
    let Commit::Created(record) = commit else {
        return;
    };
    let version = {
        let table = app.routing.table();
        table.version(record.function.as_str(), record.number)
    };
    if let Ok(version) = version
        && version.slot.is_pinned()
        && let Err(failure) = warm(app, &version).await
    {
        tracing::warn!(version = version.title(), %failure, "can't be made ready");
    }
}

/// Loads what is pinned and cold, in the background; also the one way in which a start of the
/// server loads anything.
pub fn keep(app: &Arc<App>) {
    let due: Vec<_> = {
        let table = app.routing.table();
        let due = table.versions().filter(|version| version.slot.is_due());
        due.cloned().collect()
    };
    for version in due {
        let app = app.clone();
        tokio::spawn(async move {
            // A failure stands in the version's moves and in the log.
            let _ = warm(&app, &version).await;
        });
    }
}

/// Loads a version and runs it once, so that its plans are made.
async fn warm(app: &App, version: &Arc<Version>) -> Result<Lease, Failure> {
    let patience = version.record.manifest.limits.deadline.max(PATIENCE / 2);
    let loading = app
        .residency
        .warm_within(version, patience, Cause::Realtime);
    let lease = loading.await?;
    let tried = lease
        .warm
        .tried
        .get_or_init(|| attempt(app, version, &lease.warm));
    tried.await;
    Ok(lease)
}

/// One run on the sample, or zeros. The upload's dry run has succeeded, so a failure now says
/// nothing about the version; it is noted, and a caller's request makes the plans.
async fn attempt(app: &App, version: &Version, warm: &Arc<Warm>) {
    let (record, manifest) = (&version.record, &version.record.manifest);
    let run = async {
        let registry = app.registry.clone();
        let sample = record.sample;
        let find = move || sample.map(|file| registry.blob(&file)).transpose();
        let path = tokio::task::spawn_blocking(find).await;
        let path = path.map_err(|_| Failure::ShuttingDown)??;
        let (is_model, signature) = (version.is_model(), &version.signature);
        let question = dry_run::question(manifest, is_model, path.as_deref(), signature);
        match question.await? {
            Some(question) => dry_run::run_once(app, manifest, warm, &question).await,
            None => Ok(()),
        }
    };
    let limit = manifest.limits.deadline;
    let ran = tokio::time::timeout(limit, run).await;
    if let Err(failure) = ran.unwrap_or(Err(Failure::Deadline { limit })) {
        tracing::info!(version = version.title(), %failure, "did not run on its sample");
    }
}

/// Whether the budget holds all that is pinned, and what comes with `what`: versions, or one that
/// isn't one yet. Versions that lose their traffic stay until the others are there.
fn fit(app: &App, what: &str, wanted: &[Arc<Version>], new: Option<&Warm>) -> Result<(), Failure> {
    let table = app.routing.table();
    let pinned = table.versions().filter(|version| version.slot.is_pinned());
    let need = app.residency.need(pinned.chain(wanted), new);
    let limit = app.residency.budget().0.models;
    match need <= limit {
        true => Ok(()),
        false => Err(over(what, need, limit)),
    }
}

fn over(what: &str, need: u64, limit: u64) -> Failure {
    Failure::Refused {
        what: what.into(),
        reason: format!(
            "with it, versions of the realtime tier that are never dropped would need {} for \
             their models, and the server's budget for models is {}",
            size(need),
            size(limit)
        ),
        hint: Some(HINT),
    }
}

fn refused(reason: String) -> Failure {
    Failure::Refused {
        what: "the traffic policy".into(),
        reason,
        hint: Some("See GET /v1/functions/{function}/versions/{version}/residency."),
    }
}
