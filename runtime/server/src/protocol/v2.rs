//! The Open Inference Protocol, version 2, over REST with JSON bodies
//! (<https://github.com/open-inference/open-inference-protocol>): functions are
//! its models. Where the protocol has a version, a label is taken too: they are never numbers.
//! The binary tensor extension is not served.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_engine::{Dim, TensorSpec};
use firebox_sandbox::Parameter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{arrays, body, label, open, pin, selector, utf8};
use crate::gateway::{Answer, Call, Question};
use crate::problem::{Failure, V2Problem};
use crate::routing::{Caller, Selector, Version};
use crate::server::App;

/// The server
#[utoipa::path(
    get, path = "/v2", tag = "v2",
    responses(
        (status = 200, body = ServerMetadata, description = "Name, version and extensions"),
    ),
)]
pub async fn server() -> Response {
    Json(ServerMetadata {
        name: "firebox",
        version: env!("CARGO_PKG_VERSION"),
        extensions: [],
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

/// Call a function; its policy says which version answers
#[utoipa::path(
    post, path = "/v2/models/{f}/infer", tag = "v2",
    params(
        ("f" = String, Path, description = "The function"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Timeout-Ms" = Option<u64>, Header, description = "The longest that it may take"),
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Object, example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
    responses(
        (status = 200, body = Object, description = "`model_name`, `model_version` and `outputs`"),
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
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Object, example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
    responses(
        (status = 200, body = Object, description = "`model_name`, `model_version` and `outputs`"),
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
        ("Cache-Control" = Option<String>, Header, description = "`no-store`, `no-cache` or `max-age`, for functions that keep answers"),
    ),
    request_body(content = Object, example = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]})),
    responses(
        (status = 200, body = Object, description = "`model_name`, `model_version` and `outputs`"),
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

/// What the protocol calls a version: clients that can name nothing else can name a label.
pub(super) fn version_or_label(text: &str) -> Result<Selector, Failure> {
    match text.bytes().next() {
        Some(first) if first.is_ascii_lowercase() => label(text),
        _ => pin(text),
    }
}

/// The version that a request without a body would get.
pub(super) fn resolve(
    app: &App,
    function: &str,
    path: Result<Selector, Failure>,
    headers: &HeaderMap,
) -> Result<Arc<Version>, Failure> {
    let caller = Caller {
        id: Uuid::now_v7(),
        headers,
        body: None,
    };
    let selector = selector(path?, headers)?;
    app.routing.table().resolve(function, &selector, &caller)
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
    let platform = if version.is_model() {
        "firebox_onnx"
    } else {
        "firebox_wasm"
    };
    Json(ModelMetadata {
        name: function,
        versions,
        platform,
        inputs: version.signature.inputs.iter().map(spec).collect(),
        outputs: version.signature.outputs.iter().map(spec).collect(),
    })
    .into_response()
}

fn spec(spec: &TensorSpec) -> TensorMetadata<'_> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(-1),
        Dim::Named(_) | Dim::Any => -1,
    };
    let shape = spec
        .shape
        .as_ref()
        .map_or(vec![-1], |dims| dims.iter().map(size).collect());
    TensorMetadata {
        name: &spec.name,
        datatype: arrays::datatype(spec.dtype),
        shape,
    }
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
        if headers.contains_key("inference-header-content-length") {
            return Err(Failure::BadBody(
                "the binary tensor extension is not served; send the tensors as JSON `data` \
                 (tritonclient: binary_data=False)"
                    .into(),
            ));
        }
        let body = body::read(headers, body, app.config.max_body).await?;
        let (question, wanted) = decode(utf8(&body)?)?;
        drop(body);
        let id = question.id.clone();
        let answer = app.gateway.run(&call, question).await?;
        encode(&call, id.as_deref(), select(answer, wanted.as_deref())?)
    });
    let response = answer.await.unwrap_or_else(Failure::into_v2);
    call.close(response)
}

/// The server.
#[derive(Serialize, ToSchema)]
pub struct ServerMetadata {
    #[schema(example = "firebox")]
    name: &'static str,
    version: &'static str,
    #[schema(value_type = Vec<String>)]
    extensions: [&'static str; 0],
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

#[derive(Deserialize)]
struct InferRequest<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    #[serde(borrow)]
    inputs: Vec<InferInput<'a>>,
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize)]
struct InferInput<'a> {
    name: String,
    shape: Vec<usize>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
}

/// A parameter as JSON has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

impl From<Value> for Parameter {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int64(value),
            Value::Double(value) => Self::Double(value),
            Value::Text(value) => Self::Text(value),
        }
    }
}

/// The question, and the outputs that were asked for.
pub fn decode(json: &str) -> Result<(Question, Option<Vec<String>>), Failure> {
    let request: InferRequest = serde_json::from_str(json).map_err(|error| {
        Failure::BadBody(format!(
            "not an inference request of the V2 protocol: {error}"
        ))
    })?;
    let inputs = request.inputs.into_iter().map(|input| {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::WrongTensor(format!("input `{}`: {error}", input.name))
        };
        let dtype = arrays::from_datatype(&input.datatype).map_err(|error| wrong(&error))?;
        let tensor = arrays::shaped(input.data.get(), dtype, input.shape);
        let tensor = tensor.map_err(|error| wrong(&error))?;
        Ok((input.name, tensor))
    });
    let inputs = inputs.collect::<Result<_, Failure>>()?;
    let parameters = request
        .parameters
        .into_iter()
        .map(|(n, v)| (n, v.into()))
        .collect();
    let wanted = request.outputs.filter(|outputs| !outputs.is_empty());
    let wanted = wanted.map(|outputs| outputs.into_iter().map(|output| output.name).collect());
    Ok((
        Question {
            id: request.id,
            inputs,
            parameters,
        },
        wanted,
    ))
}

/// Keeps the outputs that were asked for, in that order.
pub fn select(mut answer: Answer, wanted: Option<&[String]>) -> Result<Answer, Failure> {
    let Some(wanted) = wanted else {
        return Ok(answer);
    };
    let chosen = wanted.iter().map(|name| {
        let found = answer.outputs.iter().find(|(known, _)| known == name);
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = answer
                .outputs
                .iter()
                .map(|(n, _)| format!("`{n}`"))
                .collect();
            Failure::WrongTensor(format!(
                "there is no output `{name}`; the outputs are {}",
                known.join(", ")
            ))
        })
    });
    answer.outputs = chosen.collect::<Result<_, _>>()?;
    Ok(answer)
}

fn encode(call: &Call, id: Option<&str>, answer: Answer) -> Result<Response, Failure> {
    let out = write(&call.version, id.unwrap_or(&call.id.to_string()), &answer)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], out).into_response())
}

/// The protocol's answer.
pub fn write(version: &Version, id: &str, answer: &Answer) -> Result<Vec<u8>, Failure> {
    let size: usize = answer
        .outputs
        .iter()
        .map(|(_, tensor)| tensor.data().len() * 3 + 128)
        .sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(b"{\"model_name\":");
    string(&mut out, version.record.function.as_str());
    out.extend_from_slice(format!(",\"model_version\":\"{}\"", version.record.number).as_bytes());
    out.extend_from_slice(b",\"id\":");
    string(&mut out, id);
    if !answer.parameters.is_empty() {
        out.extend_from_slice(b",\"parameters\":");
        let parameters: serde_json::Map<_, _> = answer
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), json_of(value)))
            .collect();
        out.extend_from_slice(serde_json::Value::Object(parameters).to_string().as_bytes());
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (at, (name, tensor)) in answer.outputs.iter().enumerate() {
        out.extend_from_slice(if at > 0 {
            b",{\"name\":"
        } else {
            b"{\"name\":"
        });
        string(&mut out, name);
        let datatype = arrays::datatype(tensor.dtype());
        let head = format!(
            ",\"datatype\":\"{datatype}\",\"shape\":{:?},\"data\":",
            tensor.shape()
        );
        out.extend_from_slice(head.as_bytes());
        arrays::write_flat(&mut out, tensor)
            .map_err(|error| Failure::NotAcceptable(format!("output `{name}`: {error}")))?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn json_of(parameter: &Parameter) -> serde_json::Value {
    match parameter {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int64(value) => (*value).into(),
        Parameter::Double(value) => (*value).into(),
        Parameter::Text(value) => value.as_str().into(),
    }
}

/// Writes a JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(
        written.is_ok(),
        "a string always serialises, and a Vec takes it"
    );
}

#[cfg(test)]
mod tests {
    use firebox_engine::Tensor;

    use super::*;

    #[test]
    fn members_come_in_any_order_and_data_flat_or_nested() {
        let (question, wanted) = decode(
            r#"{"outputs": [{"name": "y", "parameters": {"binary_data": false}}],
                "parameters": {"a": true, "b": 3, "c": 0.5, "d": "x"},
                "inputs": [
                  {"data": [[1, 2], [3, 4]], "datatype": "INT64", "shape": [2, 2], "name": "ids"},
                  {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b\u00e9"]}],
                "id": "42"}"#,
        )
        .unwrap();
        assert_eq!(wanted.unwrap(), ["y"]);
        assert_eq!(question.id.as_deref(), Some("42"));
        let parameters: Vec<_> = question
            .parameters
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        let text = Parameter::Text("x".into());
        let (flag, int) = (Parameter::Bool(true), Parameter::Int64(3));
        assert_eq!(parameters, [flag, int, Parameter::Double(0.5), text]);
        assert_eq!(
            question.inputs[0].1,
            Tensor::from_i64(vec![2, 2], &[1, 2, 3, 4]).unwrap()
        );
        assert_eq!(
            question.inputs[1].1.blobs(),
            ["a".as_bytes(), "bé".as_bytes()]
        );
    }

    #[test]
    fn what_is_wrong_with_an_input_names_it() {
        let said = |shape, datatype, data| {
            let input = format!(
                r#"{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}"#
            );
            decode(&format!(r#"{{"inputs": [{input}]}}"#))
                .unwrap_err()
                .to_string()
        };
        let counted = said("[1, 3]", "FP32", "[1, 2]");
        assert_eq!(
            counted,
            "input `x`: shape [1, 3] needs 3 elements, `data` holds 2"
        );
        let named = said("[1]", "FLOAT", "[1]");
        assert!(named.starts_with("input `x`: unknown datatype `FLOAT`; expected one of BOOL"));
        assert!(decode(r#"{"inputs": 3}"#).is_err_and(|f| f.status() == 400));
    }

    #[test]
    fn only_the_outputs_that_were_asked_for_are_sent() {
        let tensor = Tensor::from_f32(vec![1], &[1.0]).unwrap();
        let outputs = vec![
            ("a".to_owned(), tensor.clone()),
            ("b".to_owned(), tensor.clone()),
        ];
        let answer = || Answer {
            outputs: outputs.clone(),
            parameters: vec![],
        };
        let chosen = select(answer(), Some(&["b".into()])).unwrap().outputs;
        assert_eq!(chosen, [("b".into(), tensor)]);
        let error = select(answer(), Some(&["c".into()])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no output `c`; the outputs are `a`, `b`"
        );
    }
}
