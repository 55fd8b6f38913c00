//! The server itself: its name and extensions, and whether it lives and takes requests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::App;

/// What is served beyond the protocol, by the names that Triton has for it.
pub const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
];

/// The server.
#[derive(Serialize, ToSchema)]
pub struct ServerMetadata {
    #[schema(example = "firebox")]
    name: &'static str,
    version: &'static str,
    /// What is served beyond the protocol.
    #[schema(value_type = Vec<String>, example = json!(["binary_tensor_data", "model_repository"]))]
    extensions: &'static [&'static str],
}

/// Whether the process answers.
#[derive(Serialize, ToSchema)]
pub struct Live {
    live: bool,
}

/// Whether requests are welcome.
#[derive(Serialize, ToSchema)]
pub struct Ready {
    ready: bool,
}

/// The server
#[utoipa::path(
    get, path = "/v2", tag = "v2", operation_id = "server",
    responses(
        (status = 200, body = ServerMetadata, description = "Name, version and extensions"),
    ),
)]
pub async fn metadata() -> Response {
    Json(ServerMetadata {
        name: "firebox",
        version: env!("CARGO_PKG_VERSION"),
        extensions: EXTENSIONS,
    })
    .into_response()
}

/// Whether the process answers
#[utoipa::path(
    get, path = "/v2/health/live", tag = "v2",
    responses(
        (status = 200, body = Live, description = "It does"),
    ),
)]
pub async fn live() -> Response {
    Json(Live { live: true }).into_response()
}

/// Whether requests are welcome
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "v2",
    responses(
        (status = 200, body = Ready, description = "They are"),
        (status = 503, body = Ready, description = "The server is stopping"),
    ),
)]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = !app.draining.load(Relaxed);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { ready })).into_response()
}
