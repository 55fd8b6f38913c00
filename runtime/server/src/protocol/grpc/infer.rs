//! `ModelInfer`: one question, one answer. What stands between is the way of any request.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use firebox_sandbox::Parameter;
use serde_json::json;

use super::call::Asked;
use super::message;
use super::status;
use super::tensor;
use super::version;
use super::wire::{
    InferOutputTensor, InferParameter, ModelInferRequest, ModelInferResponse, Parameters, Value,
};
use crate::gateway::{Answer, Asker, Call, Opened, Question};
use crate::problem::Failure;
use crate::protocol::v2::{self, Wanted};
use crate::protocol::{arrays, raw, selector};
use crate::server::App;

/// Answers one call.
pub async fn answer(app: &App, mut asked: Asked) -> Response {
    let compression = asked.compression;
    let opened = async {
        let request = asked.only::<ModelInferRequest>(app).await?;
        let timeout = asked.timeout()?.map(|timeout| timeout.left());
        Ok((open(app, &request, &asked.headers, timeout)?, request))
    };
    let (call, request) = match opened.await {
        Ok(opened) => opened,
        Err(failure) => return status::sent(status::failed(failure)),
    };
    let answer = call.within(ask(app, &call, request)).await;
    let response = match answer {
        Ok(answer) => message::single(answer, compression),
        Err(failure) => status::failed(failure),
    };
    status::sent(call.close(response))
}

/// Begins the call that a message asks for.
pub fn open(
    app: &App,
    request: &ModelInferRequest,
    headers: &HeaderMap,
    timeout: Option<Duration>,
) -> Result<Call, Failure> {
    let selector = selector(version(&request.model_version)?, headers)?;
    let function = &request.model_name;
    let open =
        |asker: &Asker<'_>, early| app.gateway.open(function, &selector, asker, timeout, early);
    let asker = Asker {
        headers,
        body: None,
    };
    let early = match open(&asker, None)? {
        Opened::Call(call) => return Ok(call),
        Opened::Early(early) => early,
    };
    let body = spelled(request);
    let asker = Asker {
        headers,
        body: Some(body.as_bytes()),
    };
    match open(&asker, Some(early))? {
        Opened::Call(call) => Ok(call),
        Opened::Early(_) => Err(Failure::Internal("the message was read already".into())),
    }
}

/// What of a message can tell callers apart, as it would stand in a body over REST: one key gets
/// one version over both.
fn spelled(request: &ModelInferRequest) -> String {
    let parameters = request.parameters.iter().map(|(name, parameter)| {
        let value = match &parameter.value {
            None => json!(null),
            Some(Value::Bool(value)) => json!(value),
            Some(Value::Int64(value)) => json!(value),
            Some(Value::Uint64(value)) => json!(value),
            Some(Value::Double(value)) => json!(value),
            Some(Value::Text(value)) => json!(value),
        };
        (name.clone(), value)
    });
    let parameters: serde_json::Map<_, _> = parameters.collect();
    json!({ "id": request.id, "parameters": parameters }).to_string()
}

/// Asks the function of an opened call.
pub async fn ask(
    app: &App,
    call: &Call,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Failure> {
    let (question, wanted) = decode(request)?;
    let id = question.id.clone();
    let answer = app.gateway.run(call, question).await?;
    encode(call, id, v2::select(answer, &wanted)?)
}

/// Parameters with which Triton's clients ask for what is not served here.
const NOT_SERVED: [&str; 2] = ["shared_memory_region", "classification"];

fn served(of: &str, name: &str, parameters: &Parameters) -> Result<(), Failure> {
    let found = NOT_SERVED
        .iter()
        .find(|name| parameters.contains_key(**name));
    found.map_or(Ok(()), |parameter| {
        Err(Failure::BadRequest(format!(
            "{of} `{name}`: the parameter `{parameter}` belongs to an extension that is not served; \
             ServerMetadata lists those that are"
        )))
    })
}

/// The question, and the outputs that were asked for.
fn decode(request: ModelInferRequest) -> Result<(Question, Wanted), Failure> {
    let ModelInferRequest {
        id,
        parameters,
        inputs,
        outputs,
        raw_input_contents: contents,
        ..
    } = request;
    let is_raw = !contents.is_empty();
    if is_raw && contents.len() != inputs.len() {
        return Err(Failure::BadBody(format!(
            "`raw_input_contents` holds {} tensors for {} inputs; expected one for each, in their \
             order",
            contents.len(),
            inputs.len()
        )));
    }
    let mut contents = contents.into_iter();
    let inputs = inputs.into_iter().map(|input| {
        served("input", &input.name, &input.parameters)?;
        if is_raw && input.contents.is_some() {
            return Err(Failure::BadBody(format!(
                "input `{}` has `contents`, but its bytes are in `raw_input_contents`; send one of \
                 both",
                input.name
            )));
        }
        tensor::read(input, contents.next())
    });
    let inputs = inputs.collect::<Result<_, Failure>>()?;
    let outputs = outputs.into_iter().map(|output| {
        served("output", &output.name, &output.parameters)?;
        Ok(output.name)
    });
    let outputs = outputs.collect::<Result<Vec<_>, Failure>>()?;
    let parameters = parameters.into_iter().map(parameter);
    let question = Question {
        id: (!id.is_empty()).then_some(id),
        inputs,
        parameters: parameters.collect::<Result<_, Failure>>()?,
    };
    Ok((question, Wanted::named(outputs)?))
}

fn parameter((name, parameter): (String, InferParameter)) -> Result<(String, Parameter), Failure> {
    let wrong = |what: &str| Failure::BadRequest(format!("parameter `{name}` {what}"));
    let value = match parameter.value {
        None => return Err(wrong("has no value")),
        Some(Value::Bool(value)) => Parameter::Bool(value),
        Some(Value::Int64(value)) => Parameter::Int64(value),
        Some(Value::Double(value)) => Parameter::Double(value),
        Some(Value::Text(value)) => Parameter::Text(value),
        Some(Value::Uint64(value)) => {
            let value = i64::try_from(value);
            Parameter::Int64(value.map_err(|_| wrong("is over the range of 64 signed bits"))?)
        }
    };
    Ok((name, value))
}

/// The answer, its outputs as raw bytes.
fn encode(call: &Call, id: Option<String>, answer: Answer) -> Result<ModelInferResponse, Failure> {
    let mut response = ModelInferResponse {
        model_name: call.version.record.function.to_string(),
        model_version: call.version.record.number.to_string(),
        id: id.unwrap_or_else(|| call.id.to_string()),
        ..ModelInferResponse::default()
    };
    for (name, parameter) in answer.parameters {
        let value = match parameter {
            Parameter::Bool(value) => Value::Bool(value),
            Parameter::Int64(value) => Value::Int64(value),
            Parameter::Double(value) => Value::Double(value),
            Parameter::Text(value) => Value::Text(value),
        };
        let value = InferParameter { value: Some(value) };
        response.parameters.insert(name, value);
    }
    for (name, tensor) in answer.outputs {
        let shape = tensor.shape().iter().map(|&size| i64::try_from(size));
        let shape = shape.collect::<Result<_, _>>();
        let shape = shape.map_err(|_| {
            Failure::NotAcceptable(format!(
                "output `{name}`: a dimension is over 64 signed bits"
            ))
        })?;
        response.raw_output_contents.push(raw::write(&tensor));
        response.outputs.push(InferOutputTensor {
            name,
            datatype: arrays::datatype(tensor.dtype()).into(),
            shape,
        });
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::super::wire::{InferInputTensor, InferRequestedOutputTensor, InferTensorContents};
    use super::*;

    fn input(name: &str) -> InferInputTensor {
        InferInputTensor {
            name: name.into(),
            datatype: "INT32".into(),
            shape: vec![1],
            ..InferInputTensor::default()
        }
    }

    fn raw_request(contents: usize) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![input("a"), input("b")],
            raw_input_contents: vec![Bytes::from_static(&[1, 0, 0, 0]); contents],
            ..ModelInferRequest::default()
        }
    }

    fn of(value: Value) -> InferParameter {
        InferParameter { value: Some(value) }
    }

    fn said(request: ModelInferRequest) -> String {
        let failure = decode(request).unwrap_err();
        assert_eq!(failure.status(), 400);
        failure.to_string()
    }

    #[test]
    fn raw_contents_belong_to_the_inputs_in_their_order() {
        let mut request = raw_request(2);
        request.raw_input_contents[1] = Bytes::from_static(&[2, 0, 0, 0]);
        request
            .parameters
            .insert("priority".into(), of(Value::Uint64(7)));
        let (question, wanted) = decode(request).unwrap();
        assert_eq!(question.inputs[0].1.to_i32(), Some(vec![1]));
        assert_eq!(question.inputs[1].1.to_i32(), Some(vec![2]));
        assert_eq!(
            question.parameters,
            [("priority".into(), Parameter::Int64(7))]
        );
        assert_eq!((question.id, wanted.outputs), (None, vec![]));
    }

    #[test]
    fn raw_and_typed_contents_do_not_mix() {
        let mut both = raw_request(2);
        both.inputs[1].contents = Some(InferTensorContents::default());
        assert!(said(both).starts_with("input `b` has `contents`"));
        assert!(said(raw_request(1)).starts_with("`raw_input_contents` holds 1 tensors for 2"));
        assert!(said(raw_request(3)).starts_with("`raw_input_contents` holds 3 tensors for 2"));
    }

    #[test]
    fn an_output_is_asked_for_once_and_a_shape_has_only_so_many_dimensions() {
        let output = |name: &str| InferRequestedOutputTensor {
            name: name.into(),
            ..InferRequestedOutputTensor::default()
        };
        let mut twice = raw_request(2);
        twice.outputs = vec![output("y"), output("z"), output("y")];
        assert!(said(twice).starts_with("output `y` is asked for twice"));
        let mut deep = raw_request(2);
        deep.inputs[1].shape = vec![1; 100_000];
        let expected = "input `b`: a tensor has at most 32 dimensions, found 100000";
        assert_eq!(said(deep), expected);
    }

    #[test]
    fn what_is_not_served_is_said() {
        let mut shared = raw_request(2);
        let region = of(Value::Text("region".into()));
        shared.inputs[0]
            .parameters
            .insert("shared_memory_region".into(), region);
        assert!(said(shared).starts_with("input `a`: the parameter `shared_memory_region`"));
        let mut classes = raw_request(2);
        let mut output = InferRequestedOutputTensor::default();
        output
            .parameters
            .insert("classification".into(), of(Value::Int64(3)));
        classes.outputs.push(output);
        assert!(said(classes).contains("`classification`"));
        let mut empty = raw_request(2);
        empty
            .parameters
            .insert("p".into(), InferParameter { value: None });
        assert_eq!(said(empty), "parameter `p` has no value");
        let mut large = raw_request(2);
        large
            .parameters
            .insert("p".into(), of(Value::Uint64(u64::MAX)));
        assert!(said(large).contains("64 signed bits"));
    }

    #[test]
    fn a_key_is_found_where_it_stands_in_a_body_over_rest() {
        let mut request = raw_request(2);
        request.id = "7".into();
        request
            .parameters
            .insert("user".into(), of(Value::Text("a\"b".into())));
        request.parameters.insert("n".into(), of(Value::Int64(3)));
        let expected = json!({"id": "7", "parameters": {"user": "a\"b", "n": 3}});
        let spelled: serde_json::Value = serde_json::from_str(&spelled(&request)).unwrap();
        assert_eq!(spelled, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = ModelInferRequest::decode(bytes.as_slice())
                && let Err(failure) = decode(request)
            {
                prop_assert_eq!(failure.status(), 400);
            }
        }

        #[test]
        fn any_shapes_and_contents_are_read_or_refused(
            shape in proptest::collection::vec(any::<i64>(), 0..4),
            datatype in "(FP32|FP16|BYTES|BOOL|INT8|FP64|X)",
            raw in proptest::option::of(proptest::collection::vec(0u8..3, 0..40)),
            ints in proptest::collection::vec(any::<i32>(), 0..4),
        ) {
            let contents = InferTensorContents { int_contents: ints, ..Default::default() };
            let mut x = InferInputTensor { datatype, shape, ..input("x") };
            x.contents = raw.is_none().then_some(contents);
            let request = ModelInferRequest {
                inputs: vec![x],
                raw_input_contents: raw.into_iter().map(Bytes::from).collect(),
                ..ModelInferRequest::default()
            };
            if let Err(failure) = decode(request) {
                prop_assert_eq!(failure.status(), 400);
            }
        }
    }
}
