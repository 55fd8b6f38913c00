//! One call and its answer.

use crate::outputs::{Outputs, Tensors};
use crate::parameters::{Parameter, Parameters};
use crate::tensor::AnyTensor;

/// The name of the input or output that is a raw HTTP body.
pub(crate) const BODY: &str = "body";

/// One call, whole: what a function takes that wants more than typed arguments.
///
/// Unless the attribute declares `inputs`, the one input is the raw body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The caller's id for the request, or the host's prediction id.
    pub id: String,
    /// Named tensors. A raw body is the input `body`; see [`Request::body`].
    pub inputs: Vec<(String, AnyTensor)>,
    /// Named values.
    pub parameters: Parameters,
}

impl Request {
    /// A request as a raw HTTP body makes it.
    pub fn from_body(body: impl AsRef<[u8]>) -> Self {
        let inputs = vec![(BODY.into(), AnyTensor::blob(body.as_ref()))];
        Self {
            inputs,
            ..Self::default()
        }
    }

    /// A request of named tensors.
    pub fn from_tensors(tensors: impl Tensors) -> Self {
        Self {
            inputs: tensors.into_pairs(),
            ..Self::default()
        }
    }

    /// The raw body, where there is one.
    pub fn body(&self) -> Option<&[u8]> {
        self.input(BODY)?.blobs().first().copied()
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&AnyTensor> {
        self.inputs
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, tensor)| tensor)
    }
}

/// The answer to one call: what a function gives that sets its own media type
/// or parameters.
///
/// Unless the attribute declares `outputs`, the one output is the raw body.
///
/// ```
/// use firebox_sdk::{Response, function};
///
/// #[function]
/// fn badge(text: String) -> Response {
///     let svg = format!("<svg xmlns='http://www.w3.org/2000/svg'><text y='1em'>{text}</text></svg>");
///     Response::body(svg, "image/svg+xml")
/// }
/// # assert_eq!(badge("up".into()).parameters.content_type(), Some("image/svg+xml"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Named tensors.
    pub outputs: Outputs,
    /// Named values.
    pub parameters: Parameters,
}

impl Response {
    /// A raw body of this media type.
    pub fn body(body: impl AsRef<[u8]>, content_type: &str) -> Self {
        let outputs = Outputs::new([(BODY, AnyTensor::blob(body.as_ref()))]);
        Self {
            outputs,
            parameters: Parameters::new([("content-type", content_type)]),
        }
    }

    /// Named tensors.
    pub fn tensors(tensors: impl Tensors) -> Self {
        Self {
            outputs: Outputs::new(tensors),
            parameters: Parameters::default(),
        }
    }

    /// The raw body, where the answer is one.
    pub fn as_body(&self) -> Option<&[u8]> {
        self.outputs.get(BODY)?.blobs().first().copied()
    }

    /// This and one more parameter.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Parameter>) -> Self {
        self.parameters.push(name.into(), value.into());
        self
    }
}
