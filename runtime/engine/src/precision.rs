//! How finely a model computes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How finely a model of f32 computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model says.
    #[default]
    F32,
    /// Large weights of linear layers and convolutions are kept in 8 bits, with a scale for each
    /// output channel, and what they are multiplied by is quantised as it comes: each row of a
    /// linear layer's input, and each image of a convolution, with a scale and a zero point of
    /// its own. Sums are exact, and all else stays f32.
    ///
    /// Faster and a quarter of the memory, and a little off: see
    /// [`Model::deviation`](crate::Model::deviation). A row or an image that holds NaN or an
    /// infinity gives NaN throughout. Only the CPU does it; other devices compute in f32.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// A text that names no precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no precision; expected f32 or int8")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        match text {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownPrecision(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_reads_back_as_it_is_written() {
        for precision in [Precision::F32, Precision::Int8] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("int4".parse::<Precision>().is_err());
    }
}
