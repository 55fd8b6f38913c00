//! An answer as JSON, with the bytes of those outputs behind it that are wanted so.
//!
//! The bytes of a tensor are sent as they are, from where they are: see [`Parts`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use firebox_engine::Tensor;
use firebox_sandbox::Parameter;
use http_body::{Frame, SizeHint};

use super::coding::Coding;
use super::request::{HEADER_LENGTH, Wanted};
use super::string;
use crate::gateway::{Answer, Call};
use crate::problem::Failure;
use crate::protocol::{arrays, raw};
use crate::routing::Version;

/// Keeps the outputs that are wanted, in that order.
///
/// # Errors
/// An output that there isn't.
pub fn select(mut answer: Answer, wanted: &Wanted) -> Result<Answer, Failure> {
    if wanted.outputs.is_empty() {
        return Ok(answer);
    }
    let chosen = wanted.outputs.iter().map(|output| {
        let name = &output.name;
        let found = answer.outputs.iter().find(|(known, _)| known == name);
        found.cloned().ok_or_else(|| {
            let known = answer.outputs.iter().map(|(n, _)| format!("`{n}`"));
            let known: Vec<_> = known.collect();
            Failure::WrongTensor(format!(
                "there is no output `{name}`; the outputs are {}",
                known.join(", ")
            ))
        })
    });
    answer.outputs = chosen.collect::<Result<_, _>>()?;
    Ok(answer)
}

/// The answer's JSON, all outputs in it.
///
/// # Errors
/// An output that JSON can't carry.
pub fn write(version: &Version, id: &str, answer: &Answer) -> Result<Vec<u8>, Failure> {
    write_beside(version, id, answer, |_| false).map(|(json, _)| json)
}

/// The answer's JSON without the outputs that `binary` picks by their places; and those.
fn write_beside(
    version: &Version,
    id: &str,
    answer: &Answer,
    binary: impl Fn(usize) -> bool,
) -> Result<(Vec<u8>, Vec<Bytes>), Failure> {
    let outputs = answer.outputs.iter().enumerate();
    let sizes = outputs.map(|(at, (_, tensor))| match binary(at) {
        true => 160,
        false => tensor.data().len() * 3 + 128,
    });
    let mut out = Vec::with_capacity(sizes.sum::<usize>() + 256);
    let mut beside = Vec::new();
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
        let (datatype, shape) = (arrays::datatype(tensor.dtype()), tensor.shape());
        let head = format!(",\"datatype\":\"{datatype}\",\"shape\":{shape:?}");
        out.extend_from_slice(head.as_bytes());
        if binary(at) {
            let contents = raw::write(tensor);
            let size = format!(
                ",\"parameters\":{{\"binary_data_size\":{}}}}}",
                contents.len()
            );
            out.extend_from_slice(size.as_bytes());
            beside.push(contents);
        } else {
            out.extend_from_slice(b",\"data\":");
            flat(&mut out, name, tensor)?;
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"]}");
    Ok((out, beside))
}

fn flat(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), Failure> {
    arrays::write_flat(out, tensor).map_err(|error| {
        Failure::NotAcceptable(format!(
            "output `{name}`: {error}; ask for it with the parameter `binary_data`"
        ))
    })
}

fn json_of(parameter: &Parameter) -> serde_json::Value {
    match parameter {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int64(value) => (*value).into(),
        Parameter::Double(value) => (*value).into(),
        Parameter::Text(value) => value.as_str().into(),
    }
}

/// The whole answer of a call, compressed where its caller takes that.
///
/// # Errors
/// An output that there isn't, or that can't be sent as it is wanted.
pub async fn encode(
    call: &Call,
    id: Option<&str>,
    answer: Answer,
    wanted: &Wanted,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let answer = select(answer, wanted)?;
    let binary = |at: usize| {
        let output = wanted.outputs.get(at);
        let said = output.and_then(|output| output.binary);
        said.unwrap_or(wanted.binary)
    };
    let own = call.id.to_string();
    let (json, beside) = write_beside(&call.version, id.unwrap_or(&own), &answer, binary)?;
    drop(answer);
    let mut answer_headers = HeaderMap::new();
    let media_type = match beside.is_empty() {
        true => "application/json",
        false => {
            answer_headers.insert(HEADER_LENGTH, json.len().into());
            "application/octet-stream"
        }
    };
    answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let mut parts = vec![Bytes::from(json)];
    parts.extend(beside.into_iter().filter(|part| !part.is_empty()));
    let size = parts.iter().map(Bytes::len).sum();
    if let Some(coding) = Coding::wanted(headers, size) {
        let compress = move || coding.compress(&parts);
        let packed = tokio::task::spawn_blocking(compress).await;
        let packed = packed.map_err(|error| Failure::Internal(error.to_string()))??;
        parts = vec![packed.into()];
        let name = HeaderValue::from_static(coding.name());
        answer_headers.insert(header::CONTENT_ENCODING, name);
        answer_headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok((answer_headers, Body::new(Parts(parts.into()))).into_response())
}

/// A body of several parts, sent one after another without being put together first.
struct Parts(VecDeque<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::request::WantedOutput;
    use super::*;

    fn outputs() -> Answer {
        let tensor = |values: &[f32]| Tensor::from_f32(vec![values.len()], values).unwrap();
        Answer {
            outputs: vec![
                ("a".into(), tensor(&[1.0])),
                ("b".into(), tensor(&[2.0, 3.0])),
            ],
            parameters: vec![],
        }
    }

    fn asked(names: &[&str]) -> Wanted {
        let output = |name: &&str| WantedOutput {
            name: (*name).into(),
            binary: None,
        };
        Wanted {
            outputs: names.iter().map(output).collect(),
            binary: false,
        }
    }

    #[test]
    fn outputs_come_as_asked_and_unknown_ones_are_refused() {
        let names = |wanted: &Wanted| {
            let chosen = select(outputs(), wanted).unwrap().outputs;
            chosen.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&asked(&[])), ["a", "b"]);
        assert_eq!(names(&asked(&["b", "a"])), ["b", "a"]);
        assert_eq!(names(&asked(&["b"])), ["b"]);
        let error = select(outputs(), &asked(&["c"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no output `c`; the outputs are `a`, `b`"
        );
    }

    #[tokio::test]
    async fn a_body_of_parts_says_its_length_and_shares_them() {
        let parts = [Bytes::from_static(b"{}"), Bytes::from(vec![1, 2, 3])];
        let mut body = Body::new(Parts(parts.to_vec().into()));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        for part in parts {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.as_ptr_range(), part.as_ptr_range());
        }
        assert!(body.frame().await.is_none());
    }
}
