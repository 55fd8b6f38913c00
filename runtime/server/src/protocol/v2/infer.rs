//! An inference: read, answered, written.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::answer::encode;
use super::coding::{ACCEPTED, Coding};
use super::pieces::Pieces;
use super::schema::{InferenceRequest, InferenceResponse};
use super::{request, version_or_label};
use crate::problem::{Failure, V2Problem};
use crate::protocol::{Path, body, label, open};
use crate::routing::Selector;
use crate::server::App;

/// Call a function; its policy says which version answers
#[utoipa::path(
    post, path = "/v2/models/{f}/infer", tag = "v2",
    params(
        ("f" = String, Path, description = "The function"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Bytes of JSON, where those of tensors follow"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(
        content(
            (InferenceRequest = "application/json", example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
            (Vec<u8> = "application/octet-stream"),
        ),
        description = "The bytes of tensors may follow the JSON, as Inference-Header-Content-Length says",
    ),
    responses(
        (
            status = 200,
            content((InferenceResponse = "application/json"), (Vec<u8> = "application/octet-stream")),
            description = "The bytes of outputs follow the JSON where they are wanted so",
        ),
        V2Problem,
    ),
)]
pub async fn infer(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    run(&app, &function, Ok(Selector::Split), &headers, body).await
}

/// Call a version
#[utoipa::path(
    post, path = "/v2/models/{f}/versions/{n}/infer", tag = "v2",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = String, Path, description = "The version, or a label"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Bytes of JSON, where those of tensors follow"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(
        content(
            (InferenceRequest = "application/json", example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
            (Vec<u8> = "application/octet-stream"),
        ),
        description = "The bytes of tensors may follow the JSON, as Inference-Header-Content-Length says",
    ),
    responses(
        (
            status = 200,
            content((InferenceResponse = "application/json"), (Vec<u8> = "application/octet-stream")),
            description = "The bytes of outputs follow the JSON where they are wanted so",
        ),
        V2Problem,
    ),
)]
pub async fn infer_version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    run(&app, &function, version_or_label(&version), &headers, body).await
}

/// Call the version that a label names
#[utoipa::path(
    post, path = "/v2/models/{f}/labels/{l}/infer", tag = "v2",
    params(
        ("f" = String, Path, description = "The function"),
        ("l" = String, Path, description = "The label"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Bytes of JSON, where those of tensors follow"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(
        content(
            (InferenceRequest = "application/json", example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
            (Vec<u8> = "application/octet-stream"),
        ),
        description = "The bytes of tensors may follow the JSON, as Inference-Header-Content-Length says",
    ),
    responses(
        (
            status = 200,
            content((InferenceResponse = "application/json"), (Vec<u8> = "application/octet-stream")),
            description = "The bytes of outputs follow the JSON where they are wanted so",
        ),
        V2Problem,
    ),
)]
pub async fn infer_label(
    State(app): State<Arc<App>>,
    Path((function, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    run(&app, &function, label(&name), &headers, body).await
}

async fn run(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let (call, body) = match open(app, function, path, headers, body).await {
        Ok(opened) => opened,
        Err(failure) => return failure.into_v2(),
    };
    let answer = call.within(async {
        let body = pieces(app, headers, body).await?;
        let (question, wanted) = request::read(headers, body, &call.version.signature).await?;
        let id = question.id.clone();
        let answer = app.gateway.run(&call, question).await?;
        encode(&call, id.as_deref(), answer, &wanted, headers).await
    });
    let mut response = answer.await.unwrap_or_else(Failure::into_v2);
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, ACCEPTED);
    }
    call.close(response)
}

/// The body, inflated where it is compressed.
async fn pieces(app: &App, headers: &HeaderMap, body: Body) -> Result<Pieces, Failure> {
    let limit = app.config.max_body;
    let Some(coding) = Coding::of(headers)? else {
        return Pieces::new(headers, body, limit);
    };
    let packed = body::read(headers, body, limit).await?;
    let inflate = move || coding.inflate(&packed, limit);
    let whole = tokio::task::spawn_blocking(inflate).await;
    let whole = whole.map_err(|error| Failure::Internal(error.to_string()))??;
    Ok(Pieces::of(whole))
}
