//! What `#[function]` builds on: arguments, answers, state, and the call that
//! puts them together.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body::{self, Bytes, Json};
use crate::outputs::Outputs;
use crate::parameters::Parameters;
use crate::request::{Request, Response};
use crate::signature::{Shape, Signature, TensorSpec};
use crate::tensor::{Element, Tensor};
use crate::{Error, Result};

/// What a function can take.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an argument of a function",
    label = "not something that a request holds",
    note = "take `Tensor<T>`, `Bytes`, `String`, `Json<T>`, `Parameters` or `Request`; for `Json<T>`, derive `serde::Deserialize` for `T`"
)]
pub trait Argument: Sized {
    /// The input that this argument is, if it is one.
    fn describe(name: &str, shape: Option<Shape>) -> Option<TensorSpec>;

    /// Takes it out of a request that fits the signature.
    fn take(name: &str, request: &mut Request) -> Result<Self>;
}

impl<T: Element> Argument for Tensor<T> {
    /// # Panics
    /// Where the argument has no `#[shape(..)]`: the upload is refused with this.
    fn describe(name: &str, shape: Option<Shape>) -> Option<TensorSpec> {
        let Some(shape) = shape else {
            panic!("argument `{name}` is a tensor: put `#[shape(..)]` before it");
        };
        Some(TensorSpec {
            name: name.into(),
            dtype: T::DTYPE,
            shape,
        })
    }

    fn take(name: &str, request: &mut Request) -> Result<Self> {
        let Some(at) = request.inputs.iter().position(|(given, _)| given == name) else {
            return Err(Error::invalid_input(format!("input `{name}` is missing")));
        };
        let (_, tensor) = request.inputs.swap_remove(at);
        tensor
            .typed()
            .map_err(|why| Error::invalid_input(format!("input `{name}`: {why}")))
    }
}

impl Argument for Bytes {
    fn describe(_: &str, _: Option<Shape>) -> Option<TensorSpec> {
        Some(TensorSpec::body())
    }
    fn take(_: &str, request: &mut Request) -> Result<Self> {
        body::take_bytes(request).map(Self)
    }
}

impl Argument for String {
    fn describe(_: &str, _: Option<Shape>) -> Option<TensorSpec> {
        Some(TensorSpec::body())
    }
    fn take(_: &str, request: &mut Request) -> Result<Self> {
        body::take_text(request)
    }
}

impl<T: DeserializeOwned> Argument for Json<T> {
    fn describe(_: &str, _: Option<Shape>) -> Option<TensorSpec> {
        Some(TensorSpec::body())
    }
    fn take(_: &str, request: &mut Request) -> Result<Self> {
        body::take_json(request).map(Self)
    }
}

impl Argument for Parameters {
    fn describe(_: &str, _: Option<Shape>) -> Option<TensorSpec> {
        None
    }
    fn take(_: &str, request: &mut Request) -> Result<Self> {
        Ok(std::mem::take(&mut request.parameters))
    }
}

impl Argument for Request {
    fn describe(_: &str, _: Option<Shape>) -> Option<TensorSpec> {
        Some(TensorSpec::body())
    }
    fn take(_: &str, request: &mut Request) -> Result<Self> {
        Ok(std::mem::take(request))
    }
}

/// What the attribute says about a function's outputs.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// `output = [..]`: the shape of the one tensor.
    pub output: Option<Shape>,
    /// `outputs = [..]`: named tensors.
    pub outputs: Option<Vec<TensorSpec>>,
}

/// What a function can answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the answer of a function",
    label = "not something that a response holds",
    note = "answer `Tensor<T>`, `Outputs`, `String`, `Bytes`, `Vec<u8>`, `Json<T>` or `Response`, or a `Result` of one; for `Json<T>`, derive `serde::Serialize` for `T`"
)]
pub trait Answer {
    /// The outputs that this answer has.
    fn describe(declared: Declared) -> Vec<TensorSpec>;

    /// The answer as the host takes it.
    fn into_response(self) -> Result<Response>;
}

impl<A: Answer, E: Into<Error>> Answer for Result<A, E> {
    fn describe(declared: Declared) -> Vec<TensorSpec> {
        A::describe(declared)
    }
    fn into_response(self) -> Result<Response> {
        self.map_err(Into::into)?.into_response()
    }
}

impl<T: Element> Answer for Tensor<T> {
    /// # Panics
    /// Where the shape isn't declared: the upload is refused with this.
    fn describe(declared: Declared) -> Vec<TensorSpec> {
        let Some(shape) = declared.output else {
            panic!("the answer is a tensor: write `#[function(output = [..])]` with its shape");
        };
        vec![TensorSpec {
            name: "output".into(),
            dtype: T::DTYPE,
            shape,
        }]
    }
    fn into_response(self) -> Result<Response> {
        Ok(Response::tensors([("output", self)]))
    }
}

impl Answer for Outputs {
    /// # Panics
    /// Where the outputs aren't declared: the upload is refused with this.
    fn describe(declared: Declared) -> Vec<TensorSpec> {
        let Some(outputs) = declared.outputs else {
            panic!("the answer is named tensors: declare them in `#[function(outputs = [..])]`");
        };
        outputs
    }
    fn into_response(self) -> Result<Response> {
        Ok(Response::tensors(self))
    }
}

impl Answer for Response {
    fn describe(declared: Declared) -> Vec<TensorSpec> {
        declared.outputs.unwrap_or_else(|| vec![TensorSpec::body()])
    }
    fn into_response(self) -> Result<Response> {
        Ok(self)
    }
}

impl Answer for String {
    fn describe(_: Declared) -> Vec<TensorSpec> {
        vec![TensorSpec::body()]
    }
    fn into_response(self) -> Result<Response> {
        Ok(Response::body(self, "text/plain; charset=utf-8"))
    }
}

impl Answer for Bytes {
    fn describe(_: Declared) -> Vec<TensorSpec> {
        vec![TensorSpec::body()]
    }
    fn into_response(self) -> Result<Response> {
        self.0.into_response()
    }
}

impl Answer for Vec<u8> {
    fn describe(_: Declared) -> Vec<TensorSpec> {
        vec![TensorSpec::body()]
    }
    fn into_response(self) -> Result<Response> {
        Ok(Response::body(self, "application/octet-stream"))
    }
}

impl<T: Serialize> Answer for Json<T> {
    fn describe(_: Declared) -> Vec<TensorSpec> {
        vec![TensorSpec::body()]
    }
    fn into_response(self) -> Result<Response> {
        body::json_response(&self.0)
    }
}

/// What the function named in `init` may return: the state, or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "`init` makes `{Self}`, but the function takes `&{S}`",
    label = "makes something else than the function's state"
)]
pub trait MakesState<S> {
    /// The state.
    ///
    /// # Panics
    /// Where it can't be made: the upload is refused with the message.
    fn state(self) -> S;
}

impl<S> MakesState<S> for S {
    fn state(self) -> S {
        self
    }
}

impl<S, E: fmt::Display> MakesState<S> for Result<S, E> {
    fn state(self) -> S {
        match self {
            Ok(state) => state,
            Err(error) => panic!("init failed: {error}"),
        }
    }
}

/// What `#[function]` makes of a `fn`.
pub trait Function {
    /// Makes the state, if there is one and it isn't made yet.
    fn init();
    /// What the function takes and gives.
    fn signature() -> Signature;
    /// Takes the arguments out of a request and calls the `fn`.
    fn infer(request: Request) -> Result<Response>;
}

/// Calls a function as the host does: the request is checked against the
/// signature, the arguments are taken from it, the answer is checked too. For tests.
///
/// ```
/// use firebox_sdk::{ErrorCode, Request, call, function};
///
/// #[function]
/// fn shout(text: String) -> String {
///     text.to_uppercase()
/// }
///
/// let answer = call::<shout>(Request::from_body("hello"))?;
/// assert_eq!(answer.as_body(), Some(&b"HELLO"[..]));
/// let refused = call::<shout>(Request::from_body([0xff])).unwrap_err();
/// assert_eq!(refused.code(), ErrorCode::InvalidInput);
/// # Ok::<(), firebox_sdk::Error>(())
/// ```
///
/// # Errors
/// The function's own, and `invalid-input` where the request doesn't fit.
pub fn call<F: Function>(request: Request) -> Result<Response> {
    let signature = F::signature();
    signature.check_inputs(&request.inputs)?;
    let response = F::infer(request)?;
    signature.check_outputs(response.outputs.pairs())?;
    Ok(response)
}
