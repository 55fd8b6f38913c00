//! `/openapi.json`: the description of every path, gathered from the handlers themselves.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use crate::problem::{Problem, V2Problem};

/// What stands above the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Firebox",
        description = "Functions in WebAssembly that run machine-learning models, and who takes their traffic.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem, V2Problem)),
    tags(
        (name = "functions", description = "What there is"),
        (name = "versions", description = "Uploaded bundles"),
        (name = "traffic", description = "Which versions answer"),
        (name = "rollouts", description = "Traffic that moves under guards, and traffic that is copied"),
        (name = "invoke", description = "Calls"),
        (name = "jobs", description = "Many inputs, answered when there is room"),
        (name = "v2", description = "Calls by the Open Inference Protocol, version 2"),
        (name = "server", description = "The server itself"),
    ),
)]
pub struct Head;

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", operation_id = "openapi",
    responses((status = 200, body = Object, description = "OpenAPI 3.1")),
)]
pub async fn document(Extension(document): Extension<Arc<Document>>) -> Response {
    Json(document.as_ref()).into_response()
}
