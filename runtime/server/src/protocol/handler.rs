//! `/f/{function}/…`: requests that functions of the kind `http` answer themselves.
//!
//! A function sees the path below `/f/{function}`, as it was sent, and its own headers; bodies
//! stream both ways. Versions and labels are named by headers, as every path is the function's.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use axum::response::Response;
use utoipa::OpenApi;

use super::{header, open};
use crate::gateway::drop_one_hop;
use crate::problem::{Failure, Problem};
use crate::routing::Selector;
use crate::server::App;

/// What precedes the function's name in a path.
const PREFIX: &str = "/f/";

/// Tells a function below which path it is served.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Tells a function which prediction its answer is.
const PREDICTION_ID: HeaderName = HeaderName::from_static("x-firebox-prediction-id");

/// The authority of a request that names none, as HTTP/1.0 allows.
const NOBODY: &str = "localhost";

/// The description of paths that take any method.
#[derive(OpenApi)]
#[openapi(paths(get, post))]
pub struct Described;

/// Send a request to a function that answers HTTP itself
///
/// Any method and any path below `/f/{f}` are the function's own, and so is the answer.
#[utoipa::path(
    get, path = "/f/{f}/{path}", tag = "invoke", operation_id = "handle_get",
    params(
        ("f" = String, Path, description = "The function, of the kind `http`"),
        ("path" = String, Path, description = "What the function sees as the path, with further segments and a query"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that the head of the answer may take"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "What the function answers: any status, headers and body",
            headers(
                ("X-Firebox-Version" = u32, description = "The version that answered"),
                ("X-Firebox-Prediction-Id" = String, description = "Names this answer"),
            )),
        Problem,
    ),
)]
#[allow(dead_code, reason = "carries the description")]
fn get() {}

/// Send a request with a body to a function that answers HTTP itself
///
/// Any method and any path below `/f/{f}` are the function's own, and so is the answer.
#[utoipa::path(
    post, path = "/f/{f}/{path}", tag = "invoke", operation_id = "handle_post",
    params(
        ("f" = String, Path, description = "The function, of the kind `http`"),
        ("path" = String, Path, description = "What the function sees as the path, with further segments and a query"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that the head of the answer may take"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What the function takes; it is passed on as it comes"),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "What the function answers: any status, headers and body",
            headers(
                ("X-Firebox-Version" = u32, description = "The version that answered"),
                ("X-Firebox-Prediction-Id" = String, description = "Names this answer"),
            )),
        Problem,
    ),
)]
#[allow(dead_code, reason = "carries the description")]
fn post() {}

/// Answers a request of any method.
pub async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let (mut head, body) = request.into_parts();
    let (function, uri) = match seen(&head.uri, &head.headers) {
        Ok(seen) => seen,
        Err(failure) => return failure.into_problem(),
    };
    let opened = open(&app, function, Ok(Selector::Split), &head.headers, body).await;
    let (call, body) = match opened {
        Ok(opened) => opened,
        Err(failure) => return failure.into_problem(),
    };
    let prefix = HeaderValue::from_str(&format!("{PREFIX}{function}"));
    let id = HeaderValue::from_str(&call.id.to_string());
    head.uri = uri;
    drop_one_hop(&mut head.headers);
    for (name, value) in [(FORWARDED_PREFIX, prefix), (PREDICTION_ID, id)] {
        if let Ok(value) = value {
            head.headers.insert(name, value);
        }
    }
    app.gateway
        .handle(call, Request::from_parts(head, body))
        .await
}

/// The function that a path names, and the URI that it sees: `/f/echo/a?b` is `/a?b` of `echo`.
fn seen<'a>(uri: &'a Uri, headers: &HeaderMap) -> Result<(&'a str, Uri), Failure> {
    let path = uri.path();
    let below = path
        .strip_prefix(PREFIX)
        .ok_or_else(|| Failure::UnknownPath(path.chars().take(200).collect()))?;
    let (function, path) = match below.find('/') {
        Some(at) => below.split_at(at),
        None => (below, "/"),
    };
    let own = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let own: PathAndQuery = own
        .parse()
        .map_err(|error| Failure::BadRequest(format!("the path can't be passed on: {error}")))?;
    // HTTP/2 has it in the target, and so has HTTP/1.1 where the target is a whole URI: it goes
    // before `Host` then (RFC 9113, section 8.3.1; RFC 9112, section 3.2.2).
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => host(headers)?,
    };
    let mut parts = axum::http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(own);
    let seen = Uri::from_parts(parts)
        .map_err(|error| Failure::BadRequest(format!("the path can't be passed on: {error}")))?;
    Ok((function, seen))
}

/// The authority that the header `Host` names.
fn host(headers: &HeaderMap) -> Result<Authority, Failure> {
    let host = header(headers, "host")?;
    let host = host.filter(|host| !host.is_empty()).unwrap_or(NOBODY);
    host.parse().map_err(|_| {
        Failure::BadRequest(format!(
            "header Host: expected a host and maybe a port, found `{}`",
            host.chars().take(100).collect::<String>()
        ))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    fn of(uri: &str, host: Option<&'static str>) -> Result<(String, String), Failure> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        let uri = uri.parse().unwrap();
        let (function, seen) = seen(&uri, &headers)?;
        Ok((function.to_owned(), seen.to_string()))
    }

    #[test]
    fn a_function_sees_what_is_below_its_name_as_it_was_sent() {
        for (sent, function, sees) in [
            ("/f/echo", "echo", "/"),
            ("/f/echo/", "echo", "/"),
            ("/f/echo?x=1", "echo", "/?x=1"),
            ("/f/echo/a%2Fb/../c?q=%20", "echo", "/a%2Fb/../c?q=%20"),
            ("/f/echo//double", "echo", "//double"),
        ] {
            let (name, uri) = of(sent, Some("example.com:81")).unwrap();
            assert_eq!(name, function);
            assert_eq!(uri, format!("http://example.com:81{sees}"));
        }
        assert_eq!(of("/f/echo/a", None).unwrap().1, "http://localhost/a");
        let whole = "http://example.com:81/f/echo/a";
        for host in [None, Some("other.example")] {
            assert_eq!(of(whole, host).unwrap().1, "http://example.com:81/a");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let error = of("/f/echo", Some("a b")).unwrap_err();
        assert!(matches!(error, Failure::BadRequest(_)), "{error}");
    }
}
