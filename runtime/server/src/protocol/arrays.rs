//! Tensor elements as JSON arrays, flat or nested, both ways.
//!
//! Reading is one pass over the text ([`read`]): it checks its form, finds elements and nesting, and
//! takes each number straight from its digits to the tensor's bytes ([`number`]). Long rows are read and
//! written by several threads ([`slices`]).
//!
//! JSON has no NaN and no infinities. They are written, and read, as the strings
//! `"NaN"`, `"Infinity"` and `"-Infinity"`, as the JSON mapping of Protocol
//! Buffers does; numpy and JavaScript turn these strings into the right numbers.

mod number;
mod read;
mod slices;
mod write;

use std::fmt::Write as _;

use firebox_engine::{DType, MAX_RANK, Tensor, TensorError};

pub use read::blanks_end;
use read::read;
pub use write::{NotText, write_flat, write_nested};

/// A JSON value is not an array of the wanted elements.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArrayError {
    /// Rows of different lengths, or numbers beside arrays.
    #[error("the arrays are ragged: at element {at}, a row differs in length or depth")]
    Ragged {
        /// How many elements stand before the spot.
        at: usize,
    },
    /// Deeper nesting than any tensor has.
    #[error("the arrays nest deeper than {MAX_RANK}")]
    TooDeep,
    /// An element that the dtype can't hold.
    #[error("element {at}: expected {expected}, found {found}")]
    Element {
        /// Its place in row-major order.
        at: usize,
        /// What the dtype can hold.
        expected: &'static str,
        /// The element's JSON, shortened.
        found: String,
    },
    /// An object where an array was wanted.
    #[error("expected an array of {expected}, found an object")]
    Object {
        /// What the dtype can hold.
        expected: &'static str,
    },
    /// Text that is no JSON.
    #[error("the arrays are not well formed: at byte {at}, a comma or a bracket is wrong")]
    Malformed {
        /// How many bytes stand before the spot.
        at: usize,
    },
    /// Text that ends too early.
    #[error("the arrays break off; expected an array of {expected}")]
    BreaksOff {
        /// What the dtype can hold.
        expected: &'static str,
    },
    /// The elements do not fit the shape.
    #[error("shape {shape:?} needs {expected} elements, `data` holds {found}")]
    Count {
        /// The shape that was given beside the data.
        shape: Vec<usize>,
        /// Elements that it needs.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// The nesting contradicts the shape.
    #[error("`shape` is {expected:?}, but `data` is nested as {found:?}")]
    Nesting {
        /// The shape that was given beside the data.
        expected: Vec<usize>,
        /// The shape of the nesting.
        found: Vec<usize>,
    },
    /// The shape is too large.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Reads nested arrays; the nesting gives the shape, and a bare value is a scalar.
pub fn nested(json: &str, dtype: DType) -> Result<Tensor, ArrayError> {
    let elements = read(json, dtype, json.len() / 8)?;
    Ok(Tensor::new(dtype, elements.shape, elements.data)?)
}

/// Reads the elements of a tensor of this `shape`, given flat or nested like it.
pub fn shaped(json: &str, dtype: DType, shape: Vec<usize>) -> Result<Tensor, ArrayError> {
    let expected = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(|| TensorError::TooLarge {
            shape: shape.clone(),
        })?;
    let elements = read(json, dtype, expected)?;
    if elements.shape.len() > 1 && elements.shape != shape && expected != 0 {
        return Err(ArrayError::Nesting {
            expected: shape,
            found: elements.shape,
        });
    }
    if elements.count != expected {
        return Err(ArrayError::Count {
            shape,
            expected,
            found: elements.count,
        });
    }
    Ok(Tensor::new(dtype, shape, elements.data)?)
}

/// The name of a dtype in the Open Inference Protocol.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 | DType::Narrow(_) => "UINT8",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::F16 => "FP16",
        DType::BF16 => "BF16",
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::Bytes => "BYTES",
    }
}

/// Every dtype, in the order in which the protocol lists them.
pub const DTYPES: [DType; 14] = [
    DType::Bool,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::Bytes,
];

/// The dtype with this name in the Open Inference Protocol.
pub fn from_datatype(name: &str) -> Result<DType, String> {
    DTYPES
        .into_iter()
        .find(|&dtype| datatype(dtype) == name)
        .ok_or_else(|| {
            let mut text = format!("unknown datatype `{name}`; expected one of");
            for dtype in DTYPES {
                let _ = write!(text, " {}", datatype(dtype));
            }
            text
        })
}

#[cfg(test)]
mod tests;
