//! What functions take and give, and whether they can be called.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use firebox_engine::{Dim, TensorSpec};
use serde::Serialize;
use utoipa::ToSchema;

use super::{resolve, version_or_label};
use crate::problem::{Failure, V2Problem};
use crate::protocol::{Path, arrays, label};
use crate::routing::{Selector, Version};
use crate::server::App;

/// Whether a function or version can be called.
#[derive(Serialize, ToSchema)]
pub struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

/// What a version takes and gives.
#[derive(Serialize, ToSchema)]
pub struct ModelMetadata<'a> {
    /// The function.
    #[schema(example = "file-type")]
    name: &'a str,
    /// The numbers of its versions.
    #[schema(example = json!(["1", "2"]))]
    versions: Vec<String>,
    /// `firebox_onnx` or `firebox_wasm`.
    platform: &'static str,
    /// What it takes.
    inputs: Vec<TensorMetadata<'a>>,
    /// What it gives.
    outputs: Vec<TensorMetadata<'a>>,
}

/// One input or output.
#[derive(Serialize, ToSchema)]
pub struct TensorMetadata<'a> {
    name: &'a str,
    /// As the protocol calls it.
    #[schema(example = "FP32")]
    datatype: &'static str,
    /// -1 where a dimension is open.
    #[schema(example = json!([-1, 2048]))]
    shape: Vec<i64>,
}

/// What a function takes and gives
#[utoipa::path(
    get, path = "/v2/models/{f}", tag = "v2",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = ModelMetadata, description = "Its versions and tensors"),
        V2Problem,
    ),
)]
pub async fn model(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
) -> Response {
    metadata(&app, &function, Ok(Selector::Split), &headers)
}

/// What a version takes and gives
#[utoipa::path(
    get, path = "/v2/models/{f}/versions/{n}", tag = "v2",
    params(("f" = String, Path, description = "The function"), ("n" = String, Path, description = "The version, or a label")),
    responses(
        (status = 200, body = ModelMetadata, description = "Its versions and tensors"),
        V2Problem,
    ),
)]
pub async fn model_version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    metadata(&app, &function, version_or_label(&version), &headers)
}

/// What the version that a label names takes and gives
#[utoipa::path(
    get, path = "/v2/models/{f}/labels/{l}", tag = "v2",
    params(("f" = String, Path, description = "The function"), ("l" = String, Path, description = "The label")),
    responses(
        (status = 200, body = ModelMetadata, description = "Its versions and tensors"),
        V2Problem,
    ),
)]
pub async fn model_label(
    State(app): State<Arc<App>>,
    Path((function, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    metadata(&app, &function, label(&name), &headers)
}

/// Whether a function can be called
///
/// A cold one too, as it loads when it is called.
#[utoipa::path(
    get, path = "/v2/models/{f}/ready", tag = "v2",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = ModelReady, description = "It can"),
        V2Problem,
    ),
)]
pub async fn model_ready(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
) -> Response {
    readiness(&app, &function, Ok(Selector::Split), &headers)
}

/// Whether a version can be called
#[utoipa::path(
    get, path = "/v2/models/{f}/versions/{n}/ready", tag = "v2",
    params(("f" = String, Path, description = "The function"), ("n" = String, Path, description = "The version, or a label")),
    responses(
        (status = 200, body = ModelReady, description = "It can"),
        V2Problem,
    ),
)]
pub async fn model_version_ready(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    readiness(&app, &function, version_or_label(&version), &headers)
}

/// Whether the version that a label names can be called
#[utoipa::path(
    get, path = "/v2/models/{f}/labels/{l}/ready", tag = "v2",
    params(("f" = String, Path, description = "The function"), ("l" = String, Path, description = "The label")),
    responses(
        (status = 200, body = ModelReady, description = "It can"),
        V2Problem,
    ),
)]
pub async fn model_label_ready(
    State(app): State<Arc<App>>,
    Path((function, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    readiness(&app, &function, label(&name), &headers)
}

fn metadata(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
) -> Response {
    let table = app.routing.table();
    let found = || {
        let (_, route) = table.route(function)?;
        Ok((route, resolve(app, function, path, headers)?))
    };
    let (route, version) = match found() {
        Ok(found) => found,
        Err(failure) => return Failure::into_v2(failure),
    };
    let versions: Vec<_> = route.versions.keys().map(ToString::to_string).collect();
    Json(ModelMetadata {
        name: function,
        versions,
        platform: platform(&version),
        inputs: version.signature.inputs.iter().map(spec).collect(),
        outputs: version.signature.outputs.iter().map(spec).collect(),
    })
    .into_response()
}

fn spec(spec: &TensorSpec) -> TensorMetadata<'_> {
    TensorMetadata {
        name: &spec.name,
        datatype: arrays::datatype(spec.dtype),
        shape: sizes(spec),
    }
}

/// What runs a version.
pub fn platform(version: &Version) -> &'static str {
    match version.is_model() {
        true => "firebox_onnx",
        false => "firebox_wasm",
    }
}

/// Sizes of dimensions, -1 where one is open.
pub fn sizes(spec: &TensorSpec) -> Vec<i64> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
        Dim::Named(_) | Dim::Any => -1,
    };
    let dims = spec.shape.as_ref();
    dims.map_or(vec![-1], |dims| dims.iter().map(size).collect())
}

fn readiness(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
) -> Response {
    match resolve(app, function, path, headers) {
        Ok(_) => Json(ModelReady {
            name: function,
            ready: true,
        })
        .into_response(),
        Err(failure) => failure.into_v2(),
    }
}
