//! The model repository extension: what there is, loading it into memory and dropping it again.
//!
//! What is served is what was deployed, so nothing is polled and no file is taken from here. A
//! function that was unloaded loads again when it is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::problem::{Failure, V2Problem};
use crate::protocol::{Path, body, object_or_default};
use crate::residency::{Cause, Warmth};
use crate::routing::{Route, Version};
use crate::server::App;

/// The most bytes of a body here.
const MAX_BODY: usize = 64 << 10;

/// Which versions to list.
#[derive(Default, Deserialize, ToSchema)]
pub struct IndexRequest {
    /// Whether those alone that are in memory.
    #[serde(default)]
    ready: bool,
}

/// One version.
#[derive(Serialize, ToSchema)]
pub struct IndexEntry {
    /// The function.
    #[schema(example = "file-type")]
    pub(crate) name: String,
    /// The version's number.
    #[schema(example = "1")]
    pub(crate) version: String,
    /// `READY` in memory, `LOADING`, or `UNAVAILABLE`: not in memory, and loaded by the next call.
    #[schema(example = "READY")]
    pub(crate) state: &'static str,
    /// Why it is not ready.
    #[schema(example = "unloaded")]
    pub(crate) reason: String,
}

/// A load or unload.
#[derive(Default, Deserialize, ToSchema)]
pub struct ChangeRequest {
    /// What clients say beside it.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: BTreeMap<String, Value>,
}

/// What there is, and what of it is in memory
#[utoipa::path(
    post, path = "/v2/repository/index", tag = "v2", operation_id = "repository_index",
    request_body(content = Option<IndexRequest>, description = "May be absent"),
    responses(
        (status = 200, body = Vec<IndexEntry>, description = "All versions, by name and number"),
        V2Problem,
    ),
)]
pub async fn index(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let request: Result<IndexRequest, Failure> = read(&headers, body, r#"{"ready": true}"#).await;
    let ready = match request {
        Ok(request) => request.ready,
        Err(failure) => return failure.into_v2(),
    };
    Json(entries(&app, ready)).into_response()
}

/// All versions, or those alone that are in memory, by name and number.
pub fn entries(app: &App, ready: bool) -> Vec<IndexEntry> {
    let table = app.routing.table();
    let mut versions: Vec<_> = table.versions().collect();
    versions.sort_by_key(|version| (&version.record.function, version.record.number));
    let entries = versions.into_iter().map(|version| entry(version));
    entries
        .filter(|entry| !ready || entry.state == READY)
        .collect()
}

const READY: &str = "READY";

fn entry(version: &Version) -> IndexEntry {
    let standing = version.slot.standing();
    let (state, reason) = match standing.warmth {
        Warmth::Resident => (READY, String::new()),
        _ if standing.loading => ("LOADING", String::new()),
        _ => {
            let reason = match standing.moves.last().map(|last| &last.cause) {
                Some(failed @ Cause::Failed(_)) => failed.to_string(),
                _ => "unloaded".to_owned(),
            };
            ("UNAVAILABLE", reason)
        }
    };
    IndexEntry {
        name: version.record.function.to_string(),
        version: version.record.number.to_string(),
        state,
        reason,
    }
}

/// Load the versions of a function that take traffic
#[utoipa::path(
    post, path = "/v2/repository/models/{f}/load", tag = "v2", operation_id = "repository_load",
    params(("f" = String, Path, description = "The function")),
    request_body(content = Option<ChangeRequest>, description = "May be absent"),
    responses(
        (status = 200, description = "They are in memory, for `keep_alive` at least"),
        V2Problem,
    ),
)]
pub async fn load(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request: Result<ChangeRequest, Failure> = read(&headers, body, CHANGE).await;
    let loaded = match request {
        Ok(request) => load_all(&app, &function, request.parameters.keys()).await,
        Err(failure) => Err(failure),
    };
    loaded.map_or_else(Failure::into_v2, |()| StatusCode::OK.into_response())
}

/// Loads the versions of a function that take traffic. `parameters` are those beside the name of
/// the function.
pub async fn load_all(
    app: &App,
    function: &str,
    mut parameters: impl Iterator<Item = &String>,
) -> Result<(), Failure> {
    let is_override = |name: &&String| *name == "config" || name.starts_with("file:");
    if let Some(name) = parameters.find(is_override) {
        return Err(Failure::BadRequest(format!(
            "parameter `{name}`: a load changes nothing of a function; deploy another version \
             instead: POST /v1/functions/{function}/versions"
        )));
    }
    let versions = {
        let table = app.routing.table();
        let (_, route) = table.route(function)?;
        in_traffic(route)
    };
    for version in versions {
        let patience = version.record.manifest.limits.deadline;
        let loading = app.residency.warm_within(&version, patience, Cause::Asked);
        drop(loading.await?);
    }
    Ok(())
}

/// The versions with a share of the traffic; the newest one where there are none.
fn in_traffic(route: &Route) -> Vec<Arc<Version>> {
    let weights = route.policy().weights.keys();
    let found = weights.filter_map(|number| route.versions.get(number));
    let mut found: Vec<_> = found.cloned().collect();
    if found.is_empty() {
        found.extend(route.versions.values().next_back().cloned());
    }
    found
}

/// Drop a function from memory
#[utoipa::path(
    post, path = "/v2/repository/models/{f}/unload", tag = "v2", operation_id = "repository_unload",
    params(("f" = String, Path, description = "The function")),
    request_body(content = Option<ChangeRequest>, description = "May be absent"),
    responses(
        (status = 200, description = "None of its versions is in memory"),
        V2Problem,
    ),
)]
pub async fn unload(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Nothing here depends on another function, so `unload_dependents` changes nothing.
    let request: Result<ChangeRequest, Failure> = read(&headers, body, CHANGE).await;
    let unloaded = match request {
        Ok(_) => unload_all(&app, &function).await,
        Err(failure) => Err(failure),
    };
    unloaded.map_or_else(Failure::into_v2, |()| StatusCode::OK.into_response())
}

/// Drops all versions of a function from memory.
pub async fn unload_all(app: &App, function: &str) -> Result<(), Failure> {
    let versions: Vec<_> = {
        let table = app.routing.table();
        let (_, route) = table.route(function)?;
        route.versions.values().cloned().collect()
    };
    if let Some(pinned) = versions.iter().find(|version| version.slot.is_pinned()) {
        return Err(Failure::Conflict(format!(
            "{} can't be unloaded: it is of the realtime tier, and the policy names it; take it out \
             of the policy first: PUT /v1/functions/{function}/traffic",
            pinned.title()
        )));
    }
    for version in versions {
        app.residency.unload(&version).await?;
    }
    Ok(())
}

const CHANGE: &str = r#"an object like {"parameters": {}}"#;

async fn read<T: serde::de::DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
    form: &str,
) -> Result<T, Failure> {
    let body = body::read(headers, body, MAX_BODY).await?;
    object_or_default(&body, form)
}
