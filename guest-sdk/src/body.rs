//! Raw bodies: bytes, text and JSON.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::request::{BODY, Request, Response};
use crate::{Error, Result};

/// A raw body as it came, or to be sent as `application/octet-stream`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl<B: Into<Vec<u8>>> From<B> for Bytes {
    fn from(bytes: B) -> Self {
        Self(bytes.into())
    }
}

/// A body that is JSON: anything that serde can read as an argument, or write
/// as an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Takes the raw body out of a request.
pub(crate) fn take_bytes(request: &mut Request) -> Result<Vec<u8>> {
    let Some((_, tensor)) = request.inputs.iter_mut().find(|(name, _)| name == BODY) else {
        return Err(Error::invalid_input("expected a body, found none"));
    };
    let mut data = std::mem::take(&mut tensor.data);
    match data.split_first_chunk::<4>() {
        Some((length, rest)) if u32::from_le_bytes(*length) as usize == rest.len() => {
            data.drain(..4);
            Ok(data)
        }
        _ => Err(Error::invalid_input(
            "input `body`: expected one element with its length before it",
        )),
    }
}

pub(crate) fn take_text(request: &mut Request) -> Result<String> {
    String::from_utf8(take_bytes(request)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::invalid_input(format!(
            "expected text in UTF-8, found a byte that isn't at offset {at}"
        ))
    })
}

pub(crate) fn take_json<T: DeserializeOwned>(request: &mut Request) -> Result<T> {
    serde_json::from_slice(&take_bytes(request)?)
        .map_err(|error| Error::invalid_input(format!("the body isn't the expected JSON: {error}")))
}

pub(crate) fn json_response(value: &impl Serialize) -> Result<Response> {
    let text = serde_json::to_vec(value).map_err(|error| {
        Error::internal(format!("the answer can't be written as JSON: {error}"))
    })?;
    Ok(Response::body(text, "application/json"))
}
