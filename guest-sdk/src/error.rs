//! Why a call has no answer, and how other errors become that.

use std::fmt;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault a failed call is; decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The caller's input is at fault; the same request will fail again. 400.
    InvalidInput,
    /// Something the function needs is missing for now; a retry may help. 503.
    Unavailable,
    /// The function is at fault. 500.
    Internal,
}

/// A failed call. The message is shown to the caller.
///
/// `?` turns any standard error into an internal one, with its causes in the
/// message. To blame the caller instead, say so:
///
/// ```
/// use firebox_sdk::{Error, Result};
///
/// fn year(text: &str) -> Result<i32> {
///     text.trim().parse().map_err(Error::invalid_input)
/// }
/// assert_eq!(year("soon").unwrap_err().to_string(), "invalid digit found in string");
/// ```
///
/// Like `anyhow::Error`, this type is not itself a [`std::error::Error`]; that
/// is what makes `?` work on all the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// The caller's input is at fault. Say what was expected and what was found.
    pub fn invalid_input(message: impl fmt::Display) -> Self {
        Self {
            code: ErrorCode::InvalidInput,
            message: message.to_string(),
        }
    }

    /// Something that the function needs is missing for now.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self {
            code: ErrorCode::Unavailable,
            message: message.to_string(),
        }
    }

    /// The function is at fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self {
            code: ErrorCode::Internal,
            message: message.to_string(),
        }
    }

    /// Whose fault it is.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the caller is told.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::internal(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_error_becomes_an_internal_one() {
        let parse = || -> Result<f32> { Ok("abc".parse::<f32>()?) };
        assert_eq!(parse(), Err(Error::internal("invalid float literal")));
    }
}
