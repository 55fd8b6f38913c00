//! An inference request as JSON, alone or with the bytes of tensors behind it, made a question.
//!
//! With the binary tensor data extension, `Inference-Header-Content-Length` says how long the JSON
//! is. The bytes of the inputs that have a `binary_data_size` follow it, in the inputs' order. A
//! length of 0 says that the body is the one input of the function, without any JSON.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use axum::http::HeaderMap;
use bytes::Bytes;
use firebox_engine::{DType, Dim, Signature, Tensor};
use firebox_sandbox::Parameter;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::pieces::Pieces;
use super::skim::{Skimmed, skim};
use crate::gateway::Question;
use crate::problem::Failure;
use crate::protocol::{arrays, header, raw, utf8};

/// Where the length of the JSON stands, both ways.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// What is asked for of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The outputs, in this order; all where there are none.
    pub outputs: Vec<WantedOutput>,
    /// Whether outputs come as bytes where nothing else is said of them.
    pub binary: bool,
}

impl Wanted {
    /// These outputs, or all where there are none, in a protocol that has one form for them.
    ///
    /// # Errors
    /// One that is asked for twice.
    pub fn named(names: Vec<String>) -> Result<Self, Failure> {
        let output = |name| WantedOutput { name, binary: None };
        Self::of(names.into_iter().map(output).collect(), true)
    }

    /// Each output is sent once: a short request must not make a long answer many times longer.
    fn of(outputs: Vec<WantedOutput>, binary: bool) -> Result<Self, Failure> {
        if let Some(name) = asked_twice(&outputs) {
            return Err(Failure::WrongTensor(format!(
                "output `{name}` is asked for twice; name each output once"
            )));
        }
        Ok(Self { outputs, binary })
    }
}

/// One output that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedOutput {
    /// Its name.
    pub name: String,
    /// Whether it comes as bytes, where that is said.
    pub binary: Option<bool>,
}

fn asked_twice(outputs: &[WantedOutput]) -> Option<&str> {
    let mut seen = HashSet::with_capacity(outputs.len());
    let mut names = outputs.iter().map(|output| output.name.as_str());
    names.find(|name| !seen.insert(*name))
}

/// Parameters as they are spelled: their digits tell integers from other numbers.
type Parameters<'a> = BTreeMap<String, &'a RawValue>;

/// Parameters, or the null that some clients send where they have none.
fn or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parameters<'de>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What a parameter's JSON says, where there is one of this name.
fn said<'a>(parameters: &Parameters<'a>, name: &str) -> Option<&'a str> {
    parameters.get(name).map(|value| value.get())
}

#[derive(Deserialize)]
struct Request<'a> {
    id: Option<String>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    parameters: Parameters<'a>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    parameters: Parameters<'a>,
    /// The number of the value that was [cut out](skim).
    data: Option<usize>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    #[serde(borrow, default, deserialize_with = "or_null")]
    parameters: Parameters<'a>,
}

/// Reads a request that is JSON alone.
///
/// # Errors
/// What is wrong with it.
pub fn decode(json: &str) -> Result<(Question, Wanted), Failure> {
    let Skimmed { head, values } = skim(json)?;
    let request = parse(&head)?;
    let inputs = request.inputs.iter().map(|input| {
        if said(&input.parameters, BINARY_SIZE).is_some() {
            return Err(input.wrong(
                &"it has a `binary_data_size`, but the request is JSON alone; put its bytes behind \
                  the JSON, with the length of that in the header Inference-Header-Content-Length",
            ));
        }
        input.tensor(&values)
    });
    let inputs = inputs.collect::<Result<_, Failure>>()?;
    request.asks(inputs)
}

/// Reads a request as its headers say that it is; `signature` is that of the version that answers.
///
/// # Errors
/// What is wrong with it, or that it doesn't come as it should.
pub async fn read(
    headers: &HeaderMap,
    mut body: Pieces,
    signature: &Signature,
) -> Result<(Question, Wanted), Failure> {
    let Some(length) = header_length(headers)? else {
        return decode(utf8(&body.rest().await?)?);
    };
    if length == 0 {
        return whole(body.rest().await?, signature);
    }
    let json = match body.take(length).await? {
        Some(json) => json,
        None => {
            body.drain();
            return Err(Failure::BadBody(format!(
                "header Inference-Header-Content-Length: it says that the JSON has {length} bytes, \
                 but the body is shorter"
            )));
        }
    };
    let json = utf8(&json)?;
    match read_tensors(json, &mut body).await {
        Err(failure) => {
            body.drain();
            Err(failure)
        }
        read => read,
    }
}

/// Reads the JSON, and the tensors behind it.
async fn read_tensors(json: &str, body: &mut Pieces) -> Result<(Question, Wanted), Failure> {
    let Skimmed { head, values } = skim(json)?;
    let request = parse(&head)?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        let Some(size) = input.binary_size()? else {
            inputs.push(input.tensor(&values)?);
            continue;
        };
        if input.data(&values).is_some() {
            return Err(input.wrong(&"it has both `data` and a `binary_data_size`; expected one"));
        }
        let (dtype, shape) = (input.dtype()?, input.shape()?);
        // What can't be right is told before so much is waited for.
        if let Some(expected) = byte_count(dtype, &shape)
            && expected != size
        {
            return Err(input.wrong(&format!(
                "{} of shape {shape:?} has {expected} bytes, `binary_data_size` says {size}",
                input.datatype
            )));
        }
        let Some(contents) = body.take(size).await? else {
            return Err(input.wrong(&format!(
                "`binary_data_size` says {size} bytes, but the body ends before"
            )));
        };
        let tensor = raw::read(dtype, shape, contents).map_err(|error| input.wrong(&error))?;
        inputs.push((input.name.clone(), tensor));
    }
    if !body.at_end().await? {
        return Err(Failure::BadBody(format!(
            "at least {} bytes are left behind the last input; the `binary_data_size` of the inputs \
             must add up to what follows the JSON",
            body.left()
        )));
    }
    request.asks(inputs)
}

/// Bytes of a tensor, where its shape alone says how many.
fn byte_count(dtype: DType, shape: &[usize]) -> Option<usize> {
    let elements = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    elements?.checked_mul(dtype.size()?)
}

/// A body that is the one input of a function. Its shape is that of the signature, where at most one
/// dimension is open: its size follows from the number of bytes.
fn whole(body: Bytes, signature: &Signature) -> Result<(Question, Wanted), Failure> {
    let wrong = |why: String| {
        Failure::BadBody(format!(
            "header Inference-Header-Content-Length: 0 says that the body is the only input; {why}"
        ))
    };
    let [spec] = signature.inputs.as_slice() else {
        let count = signature.inputs.len();
        return Err(wrong(format!("the function has {count} inputs")));
    };
    let open = || wrong(format!("the shape of `{}` is not known", spec.name));
    let dims = spec.shape.as_deref().ok_or_else(open)?;
    let (contents, elements) = match spec.dtype.size() {
        Some(size) => (body.clone(), body.len() / size),
        // One element, without a length in front: there is nothing to divide.
        None => {
            let blob = Tensor::from_blob(&body).map_err(|error| wrong(error.to_string()))?;
            (blob.data().clone(), 1)
        }
    };
    let fixed = dims.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Named(_) | Dim::Any => None,
    });
    let known = fixed.fold(1usize, usize::saturating_mul);
    let mut left = Some(elements.checked_div(known).unwrap_or_default());
    let mut shape = Vec::with_capacity(dims.len());
    for dim in dims {
        shape.push(match dim {
            Dim::Fixed(size) => *size,
            Dim::Named(_) | Dim::Any => left.take().ok_or_else(open)?,
        });
    }
    let tensor = raw::read(spec.dtype, shape, contents);
    let tensor = tensor.map_err(|error| wrong(format!("input `{}`: {error}", spec.name)))?;
    let question = Question {
        id: None,
        inputs: vec![(spec.name.clone(), tensor)],
        parameters: vec![],
    };
    let wanted = Wanted {
        outputs: vec![],
        binary: true,
    };
    Ok((question, wanted))
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let Some(text) = header(headers, HEADER_LENGTH)? else {
        return Ok(None);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|_| digits);
    length.map(Some).ok_or_else(|| {
        Failure::BadRequest(format!(
            "header Inference-Header-Content-Length: expected the number of bytes of the JSON, found \
             `{text}`"
        ))
    })
}

fn parse(head: &str) -> Result<Request<'_>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::BadBody(format!(
            "not an inference request of the V2 protocol: {why}"
        ))
    };
    if !head.trim_start().starts_with('{') {
        return Err(wrong(&"expected a JSON object"));
    }
    serde_json::from_str(head).map_err(|error| wrong(&error))
}

const BINARY_SIZE: &str = "binary_data_size";
const BINARY_OUTPUT: &str = "binary_data_output";
const BINARY: &str = "binary_data";

/// Parameters of tensors with which Triton's clients ask for what is not served here.
const NOT_SERVED: [&str; 2] = ["shared_memory_region", "classification"];

fn served(of: &str, parameters: &Parameters<'_>) -> Result<(), Failure> {
    let found = NOT_SERVED
        .iter()
        .find(|name| said(parameters, name).is_some());
    found.map_or(Ok(()), |name| {
        Err(Failure::BadRequest(format!(
            "{of}: the parameter `{name}` belongs to an extension that is not served; GET /v2 lists \
             those that are"
        )))
    })
}

/// A parameter that is true or false.
fn flag(of: &str, name: &str, parameters: &Parameters<'_>) -> Result<Option<bool>, Failure> {
    match said(parameters, name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(Failure::BadRequest(format!(
            "{of}: parameter `{name}`: expected true or false, found {other}"
        ))),
    }
}

impl Input<'_> {
    fn wrong(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::WrongTensor(format!("input `{}`: {error}", self.name))
    }

    fn dtype(&self) -> Result<DType, Failure> {
        arrays::from_datatype(&self.datatype).map_err(|error| self.wrong(&error))
    }

    fn shape(&self) -> Result<Vec<usize>, Failure> {
        raw::shape(&self.shape).map_err(|error| self.wrong(&error))
    }

    fn binary_size(&self) -> Result<Option<usize>, Failure> {
        let Some(value) = said(&self.parameters, BINARY_SIZE) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| {
            self.wrong(&format!(
                "`binary_data_size`: expected a number of bytes, found {value}"
            ))
        })
    }

    /// The elements as JSON, where they are given so; null says that they are not.
    fn data<'v>(&self, values: &[&'v str]) -> Option<&'v str> {
        let json = values.get(self.data?).copied();
        json.filter(|json| *json != "null")
    }

    /// The tensor that is given as JSON.
    fn tensor(&self, values: &[&str]) -> Result<(String, Tensor), Failure> {
        served(&format!("input `{}`", self.name), &self.parameters)?;
        let (dtype, shape) = (self.dtype()?, self.shape()?);
        let json = self.data(values).ok_or_else(|| {
            self.wrong(&"it has no `data`, and no bytes behind the JSON with a `binary_data_size`")
        })?;
        let tensor = arrays::shaped(json, dtype, shape).map_err(|error| self.wrong(&error))?;
        Ok((self.name.clone(), tensor))
    }
}

impl Request<'_> {
    /// The question with these inputs, and what is wanted.
    fn asks(self, inputs: Vec<(String, Tensor)>) -> Result<(Question, Wanted), Failure> {
        let of = "the request";
        let binary = flag(of, BINARY_OUTPUT, &self.parameters)?.unwrap_or(false);
        let own = |(name, _): &(String, &RawValue)| name != BINARY_OUTPUT;
        let parameters = self.parameters.into_iter().filter(own);
        let parameters = parameters.map(|(name, value)| parameter(name, value));
        let outputs = self.outputs.unwrap_or_default().into_iter().map(|output| {
            let Output { name, parameters } = output;
            let of = format!("output `{name}`");
            served(&of, &parameters)?;
            let binary = flag(&of, BINARY, &parameters)?;
            Ok(WantedOutput { name, binary })
        });
        let wanted = Wanted::of(outputs.collect::<Result<_, Failure>>()?, binary)?;
        let question = Question {
            id: self.id,
            inputs,
            parameters: parameters.collect::<Result<_, Failure>>()?,
        };
        Ok((question, wanted))
    }
}

fn parameter(name: String, raw: &RawValue) -> Result<(String, Parameter), Failure> {
    let json = raw.get();
    let wrong = |why: String| Failure::BadRequest(format!("parameter `{name}`: {why}"));
    let value: Value = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    let value = match value {
        Value::Bool(value) => Parameter::Bool(value),
        Value::String(value) => Parameter::Text(value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Parameter::Int64(value),
            // As a double it would be another number; -0 alone is the same one.
            (None, Some(value)) if value != 0.0 && !json.contains(['.', 'e', 'E']) => {
                return Err(wrong(format!(
                    "{json} is over the range of 64 signed bits; send it as a string"
                )));
            }
            (None, Some(value)) => Parameter::Double(value),
            (None, None) => Parameter::Text(number.to_string()),
        },
        other => {
            return Err(wrong(format!(
                "expected a string, a number, true or false, found {other}"
            )));
        }
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests;
