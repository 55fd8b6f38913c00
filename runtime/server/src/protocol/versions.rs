//! `/v1/functions/{f}/versions`: uploaded, shown, compared, downloaded, deleted and retired.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_registry::{Commit, FunctionName, VersionNumber};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

use super::control::{blocking_read, known, write};
use super::info::{VersionInfo, Versions};
use super::{Path, bad_request, body, object, version_number};
use crate::diff::{Difference, difference};
use crate::problem::{Failure, Problem};
use crate::server::App;
use crate::upload;

type Result<T> = std::result::Result<T, Failure>;

/// The most bytes of a retention's body.
const MAX_RETENTION: usize = 4 << 10;

/// The versions of a function
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions", tag = "versions",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Versions, description = "In the order of their numbers"),
        Problem,
    ),
)]
pub async fn versions(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    let versions = route.versions.values();
    let versions = versions
        .map(|version| VersionInfo::new(version, route.policy()))
        .collect();
    Ok(Json(Versions { versions }).into_response())
}

/// One version
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions/{n}", tag = "versions",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
    ),
    responses(
        (status = 200, body = VersionInfo, description = "The version"),
        Problem,
    ),
)]
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    let version = table.version(&function, version_number(&version)?)?;
    Ok(Json(VersionInfo::new(&version, route.policy())).into_response())
}

/// Upload a bundle as a version
#[utoipa::path(
    post, path = "/v1/functions/{f}/versions", tag = "versions",
    params(
        ("f" = String, Path, description = "The function; the first upload makes it"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who uploads it"),
    ),
    request_body(content = Vec<u8>, content_type = "application/x-tar",
        description = "A tar, plain or zstd, with `firebox.toml` at its root; or a bare component or ONNX file"),
    responses(
        (status = 201, body = VersionInfo, description = "A new version"),
        (status = 200, body = VersionInfo, description = "This very bundle is a version already"),
        Problem,
    ),
)]
pub async fn upload(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name: FunctionName = function.parse().map_err(bad_request)?;
    let outcome = upload::receive(&app, &name, &headers, body).await;
    // Compiling and the dry run leave much freed memory behind.
    app.residency.tidy();
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

/// Delete a version that no policy names
#[utoipa::path(
    delete, path = "/v1/functions/{f}/versions/{n}", tag = "versions",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "The policy names it; the detail says by which shares and labels"),
        Problem,
    ),
)]
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
    app.residency.tidy();
    Ok(StatusCode::NO_CONTENT)
}

/// Download a version's bundle
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions/{n}/bundle", tag = "versions",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "The bundle, byte for byte as it was uploaded",
            headers(("ETag" = String, description = "The bundle's digest in quotes"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "The version is from before bundles were kept"),
        Problem,
    ),
)]
pub async fn bundle(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<Response> {
    let number = version_number(&version)?;
    let version = app.routing.table().version(&function, number)?;
    let record = version.record.clone();
    let path = blocking_read(&app, move |app| app.registry.bundle(&record)).await?;
    let file = tokio::fs::File::open(path).await?;
    let (digest, bytes) = (version.record.digest, version.record.bundle_bytes);
    let text = |text: String| HeaderValue::from_str(&text);
    let name = format!(
        "attachment; filename=\"{}-{number}.firebox\"",
        version.record.function
    );
    let mut response = Body::from_stream(ReaderStream::new(file)).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    if let (Ok(etag), Ok(name)) = (text(format!("\"{digest}\"")), text(name)) {
        headers.insert(header::ETAG, etag);
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// What is different between two versions
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions/{n}/diff/{to}", tag = "versions",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The one version"),
        ("to" = u32, Path, description = "The other"),
    ),
    responses(
        (status = 200, body = Difference, description = "Keys of the manifest and files that differ"),
        Problem,
    ),
)]
pub async fn diff(
    State(app): State<Arc<App>>,
    Path((function, from, to)): Path<(String, String, String)>,
) -> Result<Response> {
    let table = app.routing.table();
    let from = table.version(&function, version_number(&from)?)?;
    let to = table.version(&function, version_number(&to)?)?;
    let found = difference(&from.record, &to.record);
    let found = found.map_err(|error| Failure::Internal(error.to_string()))?;
    Ok(Json(found).into_response())
}

/// How many versions are kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The number of newest versions; null keeps all.
    #[schema(value_type = Option<u32>, minimum = 1, example = 5)]
    keep_last: Option<NonZeroU32>,
}

/// What a new retention did.
#[derive(Serialize, ToSchema)]
pub struct Retired {
    /// The number of newest versions that are kept; null where all are.
    #[schema(value_type = Option<u32>, minimum = 1, example = 5)]
    keep_last: Option<NonZeroU32>,
    /// The versions that were deleted.
    deleted: Vec<VersionNumber>,
}

/// Say how many versions are kept
///
/// Older ones are deleted, now and with each upload, but for those that the policy names or the
/// policy before it.
#[utoipa::path(
    put, path = "/v1/functions/{f}/retention", tag = "versions",
    params(("f" = String, Path, description = "The function")),
    request_body(content = Retention, example = json!({"keep_last": 5})),
    responses(
        (status = 200, body = Retired, description = "What was deleted"),
        Problem,
    ),
)]
pub async fn set_retention(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let body = body::read(&headers, body, MAX_RETENTION).await?;
    let form = "{\"keep_last\": 5}, at least 1, or null to keep all";
    let Retention { keep_last } = object(&body, form)?;
    let deleted = write(&app, name, move |app, name| {
        app.registry.set_retention(name, keep_last)
    });
    let deleted = deleted.await?;
    Ok(Json(Retired { keep_last, deleted }).into_response())
}
