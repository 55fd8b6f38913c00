//! `POST …/invoke`: a raw body in, a raw answer out; named arrays as JSON where
//! the function or the answer has no raw form.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use firebox_engine::{Signature, SignatureError, Tensor};
use firebox_sandbox::Parameter;
use serde_json::value::RawValue;

use super::{Path, arrays, body, header, label, open, pin, utf8};
use crate::gateway::{Answer, Call, Question};
use crate::problem::{Failure, Problem};
use crate::routing::Selector;
use crate::scheduler::Named;
use crate::server::App;

/// Named values of a query.
pub type Pairs = Vec<(String, String)>;

/// Call a function; its policy says which version answers
#[utoipa::path(
    post, path = "/v1/functions/{f}/invoke", tag = "invoke", operation_id = "invoke",
    params(
        ("f" = String, Path, description = "The function"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What the function takes: any body, or JSON arrays by input name"),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "What the function answers: any body, or JSON arrays by output name",
            headers(
                ("X-Firebox-Version" = u32, description = "The version that answered"),
                ("X-Firebox-Prediction-Id" = String, description = "Names this answer"),
                ("X-Firebox-Cache" = Option<String>, description = "`hit`, `miss` or `bypass`, where the function keeps answers"),
            )),
        Problem,
    ),
)]
pub async fn split(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    invoke(
        &app,
        &function,
        Ok(Selector::Split),
        query.0,
        &headers,
        body,
    )
    .await
}

/// Call a version
#[utoipa::path(
    post, path = "/v1/functions/{f}/versions/{n}/invoke", tag = "invoke", operation_id = "invoke_version",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What the function takes: any body, or JSON arrays by input name"),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "What the function answers: any body, or JSON arrays by output name",
            headers(
                ("X-Firebox-Version" = u32, description = "The version that answered"),
                ("X-Firebox-Prediction-Id" = String, description = "Names this answer"),
                ("X-Firebox-Cache" = Option<String>, description = "`hit`, `miss` or `bypass`, where the function keeps answers"),
            )),
        Problem,
    ),
)]
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    invoke(&app, &function, pin(&version), query.0, &headers, body).await
}

/// Call the version that a label names
#[utoipa::path(
    post, path = "/v1/functions/{f}/labels/{l}/invoke", tag = "invoke", operation_id = "invoke_label",
    params(
        ("f" = String, Path, description = "The function"),
        ("l" = String, Path, description = "The label"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What the function takes: any body, or JSON arrays by input name"),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
            description = "What the function answers: any body, or JSON arrays by output name",
            headers(
                ("X-Firebox-Version" = u32, description = "The version that answered"),
                ("X-Firebox-Prediction-Id" = String, description = "Names this answer"),
                ("X-Firebox-Cache" = Option<String>, description = "`hit`, `miss` or `bypass`, where the function keeps answers"),
            )),
        Problem,
    ),
)]
pub async fn labelled(
    State(app): State<Arc<App>>,
    Path((function, name)): Path<(String, String)>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    invoke(&app, &function, label(&name), query.0, &headers, body).await
}

async fn invoke(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    query: Pairs,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let (call, body) = match open(app, function, path, headers, body).await {
        Ok(opened) => opened,
        Err(failure) => return failure.into_problem(),
    };
    let answer = call.within(async {
        let body = body::read(headers, body, app.config.max_body).await?;
        let question = decode(&call, query, headers, body)?;
        encode(app.gateway.run(&call, question).await?)
    });
    let response = answer.await.unwrap_or_else(Failure::into_problem);
    call.close(response)
}

fn decode(
    call: &Call,
    query: Pairs,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Question, Failure> {
    let inputs = if call.version.takes_raw() {
        raw(&body)?
    } else {
        named_arrays(utf8(&body)?, &call.version.signature)?
    };
    let mut parameters: Vec<_> = query
        .into_iter()
        .map(|(name, value)| (name, Parameter::Text(value)))
        .collect();
    if let Some(media_type) = header(headers, "content-type")? {
        parameters.retain(|(name, _)| name != "content-type");
        parameters.push(("content-type".into(), Parameter::Text(media_type.into())));
    }
    Ok(Question {
        id: None,
        inputs,
        parameters,
    })
}

/// A body as the input that a component gets.
pub fn raw(body: &[u8]) -> Result<Named, Failure> {
    let tensor = Tensor::from_blob(body).map_err(|error| Failure::BadBody(error.to_string()))?;
    Ok(vec![("body".into(), tensor)])
}

/// Reads `{name: nested arrays}`; the signature says of what type each is.
pub fn named_arrays(json: &str, signature: &Signature) -> Result<Named, Failure> {
    let arrays: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(|error| {
        Failure::BadBody(format!(
            "expected a JSON object of arrays by input name: {error}"
        ))
    })?;
    let read = arrays.into_iter().map(|(name, array)| {
        let Some(spec) = signature.inputs.iter().find(|spec| spec.name == name) else {
            let expected: Vec<_> = signature
                .inputs
                .iter()
                .map(|spec| format!("`{}`", spec.name))
                .collect();
            let error = SignatureError::Unknown {
                name,
                expected: expected.join(", "),
            };
            return Err(Failure::WrongTensor(error.to_string()));
        };
        let tensor = arrays::nested(array.get(), spec.dtype)
            .map_err(|error| Failure::WrongTensor(format!("input `{name}`: {error}")))?;
        Ok((name, tensor))
    });
    read.collect()
}

fn encode(answer: Answer) -> Result<Response, Failure> {
    let (media_type, body) = body_of(answer)?;
    Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

/// An answer's media type and body: its single output `body` as it is, any other as JSON.
pub fn body_of(answer: Answer) -> Result<(HeaderValue, Bytes), Failure> {
    if let [(name, tensor)] = answer.outputs.as_slice()
        && name == "body"
        && let [blob] = tensor.blobs().as_slice()
    {
        let media_type = answer
            .parameters
            .iter()
            .find(|(name, _)| name == "content-type");
        let media_type = match media_type {
            Some((_, Parameter::Text(text))) => HeaderValue::from_str(text).ok(),
            _ => None,
        };
        let media_type = media_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        return Ok((media_type, blob.clone()));
    }
    let json = write_named(&answer.outputs)?;
    let media_type = HeaderValue::from_static("application/json");
    Ok((media_type, json.into()))
}

/// Writes `{name: nested arrays}`.
fn write_named(outputs: &Named) -> Result<Vec<u8>, Failure> {
    let size: usize = outputs
        .iter()
        .map(|(name, tensor)| name.len() + tensor.data().len())
        .sum();
    let mut out = Vec::with_capacity(size * 3 + 16);
    out.push(b'{');
    for (at, (name, tensor)) in outputs.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        super::v2::string(&mut out, name);
        out.push(b':');
        arrays::write_nested(&mut out, tensor)
            .map_err(|error| Failure::NotAcceptable(format!("output `{name}`: {error}")))?;
    }
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use firebox_engine::{DType, Dim, TensorSpec};

    use super::*;

    fn signature() -> Signature {
        let shape = Some(vec![Dim::Any, Dim::Fixed(2)]);
        let spec = TensorSpec {
            name: "x".into(),
            dtype: DType::F32,
            shape,
        };
        Signature {
            inputs: vec![spec],
            outputs: vec![],
        }
    }

    #[test]
    fn arrays_take_their_type_from_the_signature() {
        let inputs = named_arrays(r#"{"x": [[1, 2.5]]}"#, &signature()).unwrap();
        assert_eq!(
            inputs,
            [(
                "x".into(),
                Tensor::from_f32(vec![1, 2], &[1.0, 2.5]).unwrap()
            )]
        );
    }

    #[test]
    fn what_is_wrong_with_an_array_names_the_input() {
        let said = |json| named_arrays(json, &signature()).unwrap_err().to_string();
        assert_eq!(said(r#"{"y": [1]}"#), "there is no input `y`; expected `x`");
        assert!(said(r#"{"x": ["a"]}"#).starts_with("input `x`: element 0: expected numbers"));
        assert!(said("[1]").starts_with("expected a JSON object of arrays by input name"));
        assert!(matches!(
            named_arrays("{", &signature()),
            Err(Failure::BadBody(_))
        ));
    }

    #[tokio::test]
    async fn a_single_body_is_sent_raw_and_anything_else_as_arrays() {
        let body = ("body".to_owned(), Tensor::from_blob(b"hi").unwrap());
        let kind = (
            "content-type".to_owned(),
            Parameter::Text("text/plain".into()),
        );
        let answer = Answer {
            outputs: vec![body.clone()],
            parameters: vec![kind],
        };
        let response = encode(answer).unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain");
        let bytes = axum::body::to_bytes(response.into_body(), 99)
            .await
            .unwrap();
        assert_eq!(bytes, "hi");

        let scores = (
            "scores".to_owned(),
            Tensor::from_f32(vec![1, 2], &[0.5, 1.0]).unwrap(),
        );
        let answer = Answer {
            outputs: vec![body, scores],
            parameters: vec![],
        };
        let response = encode(answer).unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let bytes = axum::body::to_bytes(response.into_body(), 99)
            .await
            .unwrap();
        assert_eq!(bytes, r#"{"body":["hi"],"scores":[[0.5,1.0]]}"#);
    }
}
