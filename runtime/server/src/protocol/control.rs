//! `/v1`: functions and devices, and how all of `/v1` reads and changes what is kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_registry::{FunctionName, RegistryError};
use serde_json::json;

use super::info::{FunctionInfo, Functions};
use crate::problem::{Failure, Problem};
use crate::protocol::Path;
use crate::server::App;

type Result<T> = std::result::Result<T, Failure>;

/// All functions
#[utoipa::path(
    get, path = "/v1/functions", tag = "functions",
    responses((status = 200, body = Functions, description = "In the order of their names")),
)]
pub async fn functions(State(app): State<Arc<App>>) -> Response {
    let table = app.routing.table();
    let mut functions: Vec<_> = table
        .functions
        .iter()
        .map(|(name, route)| FunctionInfo::new(name, route))
        .collect();
    functions.sort_by_key(|function| function.name);
    Json(Functions { functions }).into_response()
}

/// One function
#[utoipa::path(
    get, path = "/v1/functions/{f}", tag = "functions",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = FunctionInfo, description = "The function"),
        Problem,
    ),
)]
pub async fn function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (name, route) = table.route(&function)?;
    Ok(Json(FunctionInfo::new(name, route)).into_response())
}

/// Delete a function with all its versions
#[utoipa::path(
    delete, path = "/v1/functions/{f}", tag = "functions",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 204, description = "It is gone"),
        Problem,
    ),
)]
pub async fn delete_function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<StatusCode> {
    let name = known(&app, &function)?;
    write(&app, name, |app, name| app.registry.delete_function(name)).await?;
    app.residency.tidy();
    Ok(StatusCode::NO_CONTENT)
}

/// What models can run on
#[utoipa::path(
    get, path = "/v1/devices", tag = "server",
    responses((status = 200, body = Object, description = "`devices`: each with `device`, `name`, `available` and `note`")),
)]
pub async fn devices() -> Response {
    let devices = tokio::task::spawn_blocking(firebox_engine::devices).await;
    Json(json!({ "devices": devices.unwrap_or_default() })).into_response()
}

/// Figures in Prometheus' text format
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, body = String, content_type = "text/plain", description = "All series")),
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.observe();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = app.metrics.render() + &app.costs.render();
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The name of a function that exists.
pub fn known(app: &App, function: &str) -> Result<FunctionName> {
    app.routing
        .table()
        .route(function)
        .map(|(name, _)| name.clone())
}

/// Reads the registry, off the threads that serve requests.
pub async fn blocking_read<T: Send + 'static>(
    app: &Arc<App>,
    read: impl FnOnce(&App) -> std::result::Result<T, RegistryError> + Send + 'static,
) -> Result<T> {
    let app = app.clone();
    match tokio::task::spawn_blocking(move || read(&app)).await {
        Ok(found) => Ok(found?),
        Err(error) => Err(Failure::Internal(error.to_string())),
    }
}

/// Changes the registry and then the routing table, so that the answer to a
/// change comes when it holds.
pub async fn write<T: Send + 'static>(
    app: &Arc<App>,
    name: FunctionName,
    change: impl FnOnce(&App, &FunctionName) -> std::result::Result<T, RegistryError> + Send + 'static,
) -> Result<T> {
    blocking_read(app, move |app| {
        let changed = change(app, &name);
        app.routing.refresh(&name)?;
        app.rollouts.refresh(&name)?;
        changed
    })
    .await
}
