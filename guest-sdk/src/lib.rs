//! What a Firebox function is written with.
//!
//! A function is a `fn` with one attribute. Here is a whole one: it takes any
//! bytes as the body of a request, asks a model of its bundle about them, and
//! answers JSON.
//!
//! ```no_run
//! use firebox_sdk::{Bytes, Error, Json, Result, Tensor, argmax, function, model};
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct Answer {
//!     digit: usize,
//!     confidence: f32,
//! }
//!
//! #[function]
//! fn read_digit(image: Bytes) -> Result<Json<Answer>> {
//!     if image.len() != 28 * 28 {
//!         return Err(Error::invalid_input(format!("expected 784 pixels, found {}", image.len())));
//!     }
//!     let pixels: Vec<f32> = image.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
//!     let input = Tensor::new([1, 1, 28, 28], pixels)?;
//!     let scores = model("digits")?.run([("image", input)])?.take::<f32>("probabilities")?;
//!     let digit = argmax(scores.data()).unwrap_or(0);
//!     Ok(Json(Answer { digit, confidence: scores.data()[digit] }))
//! }
//! ```
//!
//! The crate that holds it is a `cdylib` for `wasm32-wasip2`; `firebox new`
//! makes one, `firebox build` compiles and packs it, `firebox deploy` uploads it.
//!
//! # Arguments
//! | type | is |
//! |---|---|
//! | `&T`, first | the state that `init` made |
//! | [`Bytes`], [`String`], [`Json<T>`] | the body; a body that isn't UTF-8 or isn't the expected JSON is refused with `invalid-input` |
//! | [`Tensor<T>`] | the input of the argument's name; its shape stands before it: `#[shape(1, 3, _, _)] image: Tensor<f32>`, where `_` may differ from call to call |
//! | [`Parameters`] | the URL's query, or `parameters` in the Open Inference Protocol |
//! | [`Request`] | everything |
//!
//! # Answers
//! | type | is |
//! |---|---|
//! | `String`, [`Bytes`], `Vec<u8>`, [`Json<T>`] | the body |
//! | [`Tensor<T>`] | the output `output`, whose shape is declared: `#[function(output = [_, 384])]` |
//! | [`Outputs`] | named tensors, as declared: `#[function(outputs = [label: i64[_], score: f32[_, 4]])]` |
//! | [`Response`] | everything, with a media type of one's own |
//!
//! Or a `Result` of one. `?` turns any standard error into an internal one;
//! [`Error::invalid_input`] blames the caller.
//!
//! What callers see as the function's signature is made of all this, and every
//! request is checked against it before the function runs.
//!
//! # State
//! What is the same for every request is made once, when a version is uploaded:
//!
//! ```
//! use std::collections::BTreeMap;
//! use firebox_sdk::{Json, Result, function};
//!
//! struct Vocabulary(BTreeMap<String, i64>);
//!
//! impl Vocabulary {
//!     fn load() -> Result<Self> {
//!         let text = std::fs::read_to_string("/vocab.txt")?; // under [assets] in firebox.toml
//!         Ok(Self(text.lines().map(String::from).zip(0..).collect()))
//!     }
//! }
//!
//! #[function(init = Vocabulary::load)]
//! fn ids(vocabulary: &Vocabulary, text: String) -> Json<Vec<Option<i64>>> {
//!     Json(text.split_whitespace().map(|word| vocabulary.0.get(word).copied()).collect())
//! }
//! # let small = Vocabulary(BTreeMap::from([("a".into(), 0)]));
//! # assert_eq!(ids(&small, "a b".into()).0, [Some(0), None]);
//! ```
//!
//! Firebox snapshots the memory that `init` leaves behind, and every request
//! starts from a copy. So nothing is kept from one request to the next, and
//! what `init` drew is the same for all of them: random seeds, clocks, the
//! environment. A `HashMap` made in `init` has one seed for good, and so have
//! those made later in the same instance; where the keys come from callers, use a
//! `BTreeMap`. Models can't be reached in `init`. An error of `init` refuses
//! the upload with its message.
//!
//! # Logging
//! `println!` and `eprintln!` go to the server's log with the request's id.
//!
//! # Tests
//! A function is still a `fn`, and its crate compiles for the machine it is
//! written on: call it in a `#[test]`, or [`call`] it with a whole request.
//! Only [`model`] needs Firebox.

#![warn(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]
#![deny(unsafe_code)]

mod body;
mod error;
mod function;
#[cfg_attr(target_family = "wasm", path = "host/wasm.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "host/native.rs")]
mod host;
mod model;
mod outputs;
mod parameters;
mod request;
mod signature;
mod tensor;

pub use body::{Bytes, Json};
pub use error::{Error, ErrorCode, Result};
pub use firebox_sdk_macros::function;
pub use function::{Answer, Argument, Function, call};
pub use model::{Model, model};
pub use outputs::{Outputs, Tensors};
pub use parameters::{Parameter, Parameters};
pub use request::{Request, Response};
pub use signature::{Shape, Signature, TensorSpec};
pub use tensor::{AnyTensor, BF16, DType, Element, F16, Tensor, argmax, softmax};

#[doc(hidden)]
pub use function::{Declared, MakesState};
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod __host {
    pub use crate::host::{Exports, bindings};
}
