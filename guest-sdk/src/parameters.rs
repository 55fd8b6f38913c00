//! Named values beside the tensors.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int64(i64),
    /// A number.
    Double(f64),
    /// Anything else; every parameter of a URL's query is text.
    Text(String),
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int64(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<i64> for Parameter {
    fn from(value: i64) -> Self {
        Self::Int64(value)
    }
}
impl From<f64> for Parameter {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}
impl From<String> for Parameter {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<&str> for Parameter {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

/// A request's parameters: the pairs of the URL's query, or `parameters` in the
/// Open Inference Protocol.
///
/// ```
/// use firebox_sdk::Parameters;
///
/// let given = Parameters::new([("top", "3")]);
/// assert_eq!(given.get_or("top", 5)?, 3);
/// assert_eq!(given.get_or("threshold", 0.5)?, 0.5);
/// assert_eq!(
///     given.get::<bool>("top").unwrap_err().message(),
///     "parameter `top`: expected bool, found `3`"
/// );
/// # Ok::<(), firebox_sdk::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    pairs: Vec<(String, Parameter)>,
}

impl Parameters {
    /// Parameters in this order.
    pub fn new<N: Into<String>, V: Into<Parameter>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let pairs = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self { pairs }
    }

    /// The value of `name`, or `None` where it isn't given.
    ///
    /// # Errors
    /// `invalid-input` where the value doesn't parse as `T`.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some((_, value)) = self.pairs.iter().find(|(given, _)| given == name) else {
            return Ok(None);
        };
        let text = value.to_string();
        let refused = |_| {
            let expected = std::any::type_name::<T>();
            Error::invalid_input(format!(
                "parameter `{name}`: expected {expected}, found `{text}`"
            ))
        };
        text.parse().map(Some).map_err(refused)
    }

    /// The value of `name`, or `default` where it isn't given.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub fn get_or<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// The media type of a raw body.
    pub fn content_type(&self) -> Option<&str> {
        self.iter().find_map(|(name, value)| match value {
            Parameter::Text(text) if name == "content-type" => Some(text.as_str()),
            _ => None,
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn into_pairs(self) -> Vec<(String, Parameter)> {
        self.pairs
    }

    pub(crate) fn push(&mut self, name: String, value: Parameter) {
        self.pairs.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_text_and_from_a_number_alike() {
        let text = Parameters::new([("n", "3")]);
        let number = Parameters::new([("n", 3i64)]);
        let double = Parameters::new([("n", 3.0)]);
        for given in [text, number, double] {
            assert_eq!(given.get::<u8>("n"), Ok(Some(3)));
        }
    }
}
