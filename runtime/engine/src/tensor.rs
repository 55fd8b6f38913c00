//! Tensors outside a device: an element type, a shape and bytes.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::narrow::Narrow;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Variable-length elements: a little-endian u32 length, then so many bytes
    /// (`BYTES` in the Open Inference Protocol); ONNX's strings.
    Bytes,
    /// Narrower than a byte, or than its arithmetic: one byte holds the code of each element.
    #[serde(untagged)]
    Narrow(Narrow),
}

impl DType {
    /// Bytes per element; `None` where elements differ in length.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::Narrow(_) => Some(1),
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The lower-case name, `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bytes => "bytes",
            Self::Narrow(narrow) => narrow.name(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The most dimensions that a tensor can have. Shapes come from callers and guests, and cost nothing
/// to write down; what walks through one is bounded by this.
pub const MAX_RANK: usize = 32;

/// A dense tensor in host memory: row-major, little-endian, without padding.
///
/// Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// A tensor whose bytes do not fit its dtype and shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The byte count is not `product(shape) * size`.
    #[error("{dtype} tensor of shape {shape:?} needs {expected} bytes, got {found}")]
    ByteCount {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<usize>,
        /// Bytes that dtype and shape need.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// More than [`MAX_RANK`] dimensions.
    #[error("a tensor has at most {MAX_RANK} dimensions, found {found}")]
    Rank {
        /// Dimensions given.
        found: usize,
    },
    /// The element count of the shape overflows.
    #[error("shape {shape:?} has more elements than can be addressed")]
    TooLarge {
        /// Shape.
        shape: Vec<usize>,
    },
    /// A `bytes` tensor whose length prefixes do not add up.
    #[error(
        "bytes tensor of shape {shape:?} should hold {expected} length-prefixed elements, found {found} whole ones"
    )]
    Elements {
        /// Shape.
        shape: Vec<usize>,
        /// Elements that the shape needs.
        expected: usize,
        /// Whole elements found.
        found: usize,
    },
}

/// Whether a shape of so many dimensions can be a tensor's.
///
/// # Errors
/// [`TensorError::Rank`] where it has more than [`MAX_RANK`].
pub fn check_rank(found: usize) -> Result<(), TensorError> {
    match found {
        ..=MAX_RANK => Ok(()),
        _ => Err(TensorError::Rank { found }),
    }
}

impl Tensor {
    /// Checks that `data` is exactly what `dtype` and `shape` need, and `shape` within
    /// [`MAX_RANK`].
    pub fn new(
        dtype: DType,
        shape: Vec<usize>,
        data: impl Into<Bytes>,
    ) -> Result<Self, TensorError> {
        let data = data.into();
        check_rank(shape.len())?;
        let Some(count) = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) else {
            return Err(TensorError::TooLarge { shape });
        };
        match dtype.size() {
            Some(size) => match count.checked_mul(size) {
                None => return Err(TensorError::TooLarge { shape }),
                Some(expected) if expected != data.len() => {
                    let found = data.len();
                    return Err(TensorError::ByteCount {
                        dtype,
                        shape,
                        expected,
                        found,
                    });
                }
                Some(_) => {}
            },
            None => {
                let (found, rest) = whole_elements(&data);
                if found != count || rest != 0 {
                    return Err(TensorError::Elements {
                        shape,
                        expected: count,
                        found,
                    });
                }
            }
        }
        Ok(Self { dtype, shape, data })
    }

    /// A one-element `bytes` tensor, shape `[1]`.
    pub fn from_blob(blob: &[u8]) -> Result<Self, TensorError> {
        Self::from_blobs(vec![1], &[blob])
    }

    /// A `bytes` tensor of these elements.
    pub fn from_blobs(shape: Vec<usize>, blobs: &[impl AsRef<[u8]>]) -> Result<Self, TensorError> {
        let size: usize = blobs.iter().map(|blob| blob.as_ref().len() + 4).sum();
        let mut data = Vec::with_capacity(size);
        for blob in blobs {
            let Ok(len) = u32::try_from(blob.as_ref().len()) else {
                return Err(TensorError::TooLarge { shape });
            };
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(blob.as_ref());
        }
        Self::new(DType::Bytes, shape, data)
    }

    /// The elements of a `bytes` tensor, in order; nothing for other dtypes.
    pub fn blobs(&self) -> Vec<Bytes> {
        let mut found = Vec::new();
        if self.dtype == DType::Bytes {
            let mut at = 0;
            while let Some(end) = element_end(&self.data, at) {
                found.push(self.data.slice(at + 4..end));
                at = end;
            }
        }
        found
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes of the dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dtype, shape and bytes, without a copy.
    pub fn into_parts(self) -> (DType, Vec<usize>, Bytes) {
        (self.dtype, self.shape, self.data)
    }
}

/// Where the length-prefixed element that starts at `at` ends, if it is whole.
fn element_end(data: &[u8], at: usize) -> Option<usize> {
    let prefix = data.get(at..at.checked_add(4)?)?;
    let len = u32::from_le_bytes(prefix.try_into().ok()?) as usize;
    let end = at.checked_add(4)?.checked_add(len)?;
    (end <= data.len()).then_some(end)
}

/// How many whole elements stand at the front, and how many bytes follow them.
fn whole_elements(data: &[u8]) -> (usize, usize) {
    let (mut count, mut at) = (0, 0);
    while let Some(end) = element_end(data, at) {
        count += 1;
        at = end;
    }
    (count, data.len() - at)
}

macro_rules! typed {
    ($($ty:ty => $dtype:ident, $from:ident, $to:ident;)*) => {$(
        impl Tensor {
            #[doc = concat!("A tensor of `", stringify!($ty), "` values.")]
            pub fn $from(shape: Vec<usize>, values: &[$ty]) -> Result<Self, TensorError> {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                Self::new(DType::$dtype, shape, data)
            }

            #[doc = concat!("The values, where the dtype is `", stringify!($ty), "`.")]
            pub fn $to(&self) -> Option<Vec<$ty>> {
                const SIZE: usize = size_of::<$ty>();
                let (chunks, _) = self.data.as_chunks::<SIZE>();
                (self.dtype == DType::$dtype)
                    .then(|| chunks.iter().map(|c| <$ty>::from_le_bytes(*c)).collect())
            }
        }
    )*};
}

typed! {
    f32 => F32, from_f32, to_f32;
    f64 => F64, from_f64, to_f64;
    i32 => I32, from_i32, to_i32;
    i64 => I64, from_i64, to_i64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_count_names_expected_and_found() {
        let error = Tensor::new(DType::F32, vec![2, 3], vec![0; 20]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "f32 tensor of shape [2, 3] needs 24 bytes, got 20"
        );
    }

    #[test]
    fn an_overflowing_shape_is_refused() {
        let error = Tensor::new(DType::F32, vec![usize::MAX, 2], vec![]).unwrap_err();
        assert!(matches!(error, TensorError::TooLarge { .. }));
    }

    #[test]
    fn a_shape_of_too_many_dimensions_is_refused_whatever_it_holds() {
        for (dtype, data) in [(DType::U8, vec![7]), (DType::Bytes, vec![0; 4])] {
            assert!(Tensor::new(dtype, vec![1; MAX_RANK], data.clone()).is_ok());
            let error = Tensor::new(dtype, vec![1; 100_000], data).unwrap_err();
            assert_eq!(
                error.to_string(),
                "a tensor has at most 32 dimensions, found 100000"
            );
        }
    }

    #[test]
    fn blobs_round_trip_and_truncation_is_refused() {
        let blob = Tensor::from_blob(b"hello").unwrap();
        assert_eq!(blob.blobs(), [Bytes::from_static(b"hello")]);
        let cut = blob.data().slice(..blob.data().len() - 1);
        let error = Tensor::new(DType::Bytes, vec![1], cut).unwrap_err();
        assert!(matches!(
            error,
            TensorError::Elements {
                expected: 1,
                found: 0,
                ..
            }
        ));
    }

    #[test]
    fn typed_values_round_trip() {
        let tensor = Tensor::from_i64(vec![2], &[-1, i64::MAX]).unwrap();
        assert_eq!(tensor.to_i64(), Some(vec![-1, i64::MAX]));
        assert_eq!(tensor.to_f32(), None);
    }
}
