//! `/v1`: functions, versions, traffic and devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_engine::Signature;
use firebox_registry::{
    BasisPoints, Commit, Digest, FunctionName, Label, Policy, RegistryError, Tier, VersionNumber,
};
use serde::Serialize;
use serde_json::json;

use super::{body, utf8, version_number};
use crate::problem::Failure;
use crate::residency::Warmth;
use crate::routing::{Route, Version};
use crate::server::App;
use crate::upload;

type Result<T> = std::result::Result<T, Failure>;

/// The most bytes of a traffic policy.
const MAX_POLICY: usize = 1 << 20;

/// One function, as the API shows it.
#[derive(Serialize)]
struct FunctionInfo<'a> {
    name: &'a FunctionName,
    description: &'a str,
    versions: Vec<VersionNumber>,
    weights: &'a BTreeMap<VersionNumber, BasisPoints>,
    labels: &'a BTreeMap<Label, VersionNumber>,
}

impl<'a> FunctionInfo<'a> {
    fn new(name: &'a FunctionName, route: &'a Route) -> Self {
        // Versions describe themselves; the newest speaks for the function.
        let newest = route.versions.values().next_back();
        Self {
            name,
            description: newest.map_or("", |version| &version.record.manifest.description),
            versions: route.versions.keys().copied().collect(),
            weights: &route.policy().weights,
            labels: &route.policy().labels,
        }
    }
}

/// One version, as the API shows it.
#[derive(Serialize)]
struct VersionInfo<'a> {
    function: &'a FunctionName,
    version: VersionNumber,
    digest: Digest,
    bundle_bytes: u64,
    created: String,
    kind: &'static str,
    tier: Tier,
    residency: Warmth,
    share_bp: BasisPoints,
    labels: Vec<&'a Label>,
    snapshot: bool,
    reference_latency_ms: Option<f64>,
    signature: &'a Signature,
    models: BTreeMap<&'a str, ModelInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_now: Option<bool>,
}

#[derive(Serialize)]
struct ModelInfo {
    digest: Digest,
    bytes: u64,
    device: firebox_registry::Device,
}

impl<'a> VersionInfo<'a> {
    fn new(version: &'a Version, policy: &'a Policy) -> Self {
        let record = &version.record;
        let created = UNIX_EPOCH + Duration::from_millis(record.created_unix_ms);
        let models = record.models.iter().map(|(name, file)| {
            let section = record.manifest.models.get(name);
            let device = section.map(|section| section.device).unwrap_or_default();
            (
                name.as_str(),
                ModelInfo {
                    digest: file.digest,
                    bytes: file.bytes,
                    device,
                },
            )
        });
        Self {
            function: &record.function,
            version: record.number,
            digest: record.digest,
            bundle_bytes: record.bundle_bytes,
            created: humantime::format_rfc3339_millis(created).to_string(),
            kind: if version.is_model() {
                "model"
            } else {
                "component"
            },
            tier: record.manifest.tier,
            residency: version.slot.warmth(),
            share_bp: policy.share(record.number),
            labels: policy.labels_of(record.number).collect(),
            snapshot: record.snapshot,
            reference_latency_ms: record.reference_latency_us.map(|us| us as f64 / 1e3),
            signature: &version.signature,
            models: models.collect(),
            created_now: None,
        }
    }
}

/// `GET /v1/functions`
pub async fn functions(State(app): State<Arc<App>>) -> Response {
    let table = app.routing.table();
    let mut functions: Vec<_> = table
        .functions
        .iter()
        .map(|(name, route)| FunctionInfo::new(name, route))
        .collect();
    functions.sort_by_key(|function| function.name);
    Json(json!({ "functions": functions })).into_response()
}

/// `GET /v1/functions/{f}`
pub async fn function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (name, route) = table.route(&function)?;
    Ok(Json(FunctionInfo::new(name, route)).into_response())
}

/// `DELETE /v1/functions/{f}`
pub async fn delete_function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<StatusCode> {
    let name = known(&app, &function)?;
    write(&app, name, |app, name| app.registry.delete_function(name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/functions/{f}/versions`
pub async fn versions(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    let versions: Vec<_> = route
        .versions
        .values()
        .map(|version| VersionInfo::new(version, route.policy()))
        .collect();
    Ok(Json(json!({ "versions": versions })).into_response())
}

/// `GET /v1/functions/{f}/versions/{n}`
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    let version = table.version(&function, version_number(&version)?)?;
    Ok(Json(VersionInfo::new(&version, route.policy())).into_response())
}

/// `DELETE /v1/functions/{f}/versions/{n}`
pub async fn delete_version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<StatusCode> {
    let number = version_number(&version)?;
    let name = known(&app, &function)?;
    write(&app, name, move |app, name| {
        app.registry.delete_version(name, number)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/functions/{f}/traffic`
pub async fn traffic(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    Ok(Json(route.policy()).into_response())
}

/// `PUT /v1/functions/{f}/traffic`
pub async fn set_traffic(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let body = body::read(&headers, body, MAX_POLICY).await?;
    let policy: Policy = serde_json::from_str(utf8(&body)?).map_err(|error| {
        Failure::BadBody(format!(
            "expected a traffic policy like {{\"weights\": {{\"1\": 9000, \"2\": 1000}}, \
             \"labels\": {{\"stable\": 1}}}}: {error}"
        ))
    })?;
    let change = firebox_registry::Change::default();
    write(&app, name, move |app, name| {
        app.registry.set_policy(name, policy, change, None)
    })
    .await?;
    traffic(State(app), Path(function)).await
}

/// `POST /v1/functions/{f}/versions`
pub async fn upload(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name: FunctionName = function
        .parse()
        .map_err(|error| Failure::BadRequest(format!("{error}")))?;
    let outcome = upload::receive(&app, &name, &headers, body).await;
    // Compiling and the dry run leave much freed memory behind.
    let residency = app.residency.clone();
    tokio::task::spawn_blocking(move || residency.free(vec![]));
    match &outcome {
        Ok(_) => app.metrics.uploads_accepted.increment(1),
        Err(failure) => {
            app.metrics.uploads_refused.increment(1);
            tracing::info!(function = %name, %failure, "upload refused");
        }
    }
    let (status, created, record) = match outcome? {
        Commit::Created(record) => (StatusCode::CREATED, true, record),
        Commit::Existing(record) => (StatusCode::OK, false, record),
    };
    let table = app.routing.table();
    let (_, route) = table.route(name.as_str())?;
    let version = table.version(name.as_str(), record.number)?;
    let mut info = VersionInfo::new(&version, route.policy());
    info.created_now = Some(created);
    let location = format!("/v1/functions/{name}/versions/{}", record.number);
    Ok((status, [(header::LOCATION, location)], Json(info)).into_response())
}

/// `GET /v1/devices`
pub async fn devices() -> Response {
    let devices = tokio::task::spawn_blocking(firebox_engine::devices).await;
    Json(json!({ "devices": devices.unwrap_or_default() })).into_response()
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.observe();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

/// The name of a function that exists.
fn known(app: &App, function: &str) -> Result<FunctionName> {
    app.routing
        .table()
        .route(function)
        .map(|(name, _)| name.clone())
}

/// Changes the registry and then the routing table, so that the answer to a
/// change comes when it holds.
async fn write<T: Send + 'static>(
    app: &Arc<App>,
    name: FunctionName,
    change: impl FnOnce(&App, &FunctionName) -> std::result::Result<T, RegistryError> + Send + 'static,
) -> Result<()> {
    let app = app.clone();
    let changed = tokio::task::spawn_blocking(move || {
        let changed = change(&app, &name);
        app.routing.refresh(&name)?;
        changed.map(|_| ())
    });
    match changed.await {
        Ok(changed) => Ok(changed?),
        Err(error) => Err(Failure::Internal(error.to_string())),
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::FunctionNotFound { name, nearest } => Self::UnknownFunction {
                name: name.to_string(),
                nearest: nearest.map(|name| name.to_string()),
            },
            RegistryError::VersionNotFound {
                function,
                number,
                known,
            } => Self::UnknownVersion {
                function: function.to_string(),
                version: number.to_string(),
                known: known
                    .iter()
                    .rev()
                    .take(5)
                    .map(|number| number.get())
                    .collect(),
            },
            RegistryError::VersionInUse { .. } | RegistryError::NumbersUsedUp { .. } => {
                Self::Conflict(error.to_string())
            }
            RegistryError::Policy(error) => Self::Refused {
                what: "the traffic policy".into(),
                reason: error.to_string(),
                hint: Some(error.hint()),
            },
            RegistryError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            RegistryError::BlobDamaged { .. } | RegistryError::BlobMissing { .. } => {
                Self::Load(error.to_string())
            }
            error => Self::Internal(error.to_string()),
        }
    }
}
