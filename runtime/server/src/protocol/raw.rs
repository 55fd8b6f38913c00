//! Tensors as raw bytes, both ways: what the binary tensor extension carries behind its JSON, and
//! gRPC in `raw_input_contents` and `raw_output_contents`. Elements are little-endian and
//! row-major without padding; BOOL is a byte of 0 or 1; each element of BYTES is a length in four
//! bytes, then so many bytes (<https://github.com/kserve/open-inference-protocol>).
//!
//! A tensor's own bytes are of this form, so nothing is copied: a tensor that is read shares the
//! buffer that it came in, and what is written shares the tensor's.

use bytes::Bytes;
use firebox_engine::{DType, Tensor, TensorError, check_rank};

/// Bytes that are not the tensor that they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// A size below zero, which only metadata may have.
    #[error("dimension {at} of `shape` is {size}; expected 0 or more")]
    Negative {
        /// Which dimension, from 0.
        at: usize,
        /// The size given.
        size: i64,
    },
    /// A BOOL that is neither.
    #[error("element {at} of BOOL: expected a byte of 0 or 1, found {found}")]
    Bool {
        /// Its place in row-major order.
        at: usize,
        /// The byte given.
        found: u8,
    },
    /// A length in front of an element of BYTES that says more than there is.
    #[error(
        "element {at} of BYTES, at byte {offset}: its length of {length} bytes reaches past the \
         end of the tensor; {left} bytes are left"
    )]
    Length {
        /// Its place in row-major order.
        at: usize,
        /// Where it starts.
        offset: usize,
        /// What its length says.
        length: u32,
        /// What there is behind the length.
        left: usize,
    },
    /// The start of a length, and then the end.
    #[error(
        "element {at} of BYTES, at byte {offset}: expected a length in 4 bytes, found the end of \
         the tensor after {left}"
    )]
    NoLength {
        /// Its place in row-major order.
        at: usize,
        /// Where it starts.
        offset: usize,
        /// How many bytes of the length there are.
        left: usize,
    },
    /// Bytes that do not fit the shape, or a shape that is too large.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The shape that signed sizes spell.
///
/// # Errors
/// [`RawError::Negative`]; [`RawError::Tensor`] for sizes that can't be addressed, and for more of
/// them than a tensor has dimensions.
pub fn shape(sizes: &[i64]) -> Result<Vec<usize>, RawError> {
    check_rank(sizes.len())?;
    let dims = sizes.iter().enumerate().map(|(at, &size)| match size {
        ..0 => Err(RawError::Negative { at, size }),
        size => usize::try_from(size).map_err(|_| {
            let shape = vec![usize::MAX];
            RawError::Tensor(TensorError::TooLarge { shape })
        }),
    });
    dims.collect()
}

/// The tensor that `contents` holds, and holds nothing beside. It shares the bytes.
///
/// # Errors
/// Where bytes, dtype and shape do not fit each other.
pub fn read(dtype: DType, shape: Vec<usize>, contents: Bytes) -> Result<Tensor, RawError> {
    if dtype == DType::Bool
        && let Some(at) = contents.iter().position(|&byte| byte > 1)
    {
        let found = contents.get(at).copied().unwrap_or_default();
        return Err(RawError::Bool { at, found });
    }
    // What exactly is wrong with lengths is looked for only where something is.
    let elements = contents.clone();
    Tensor::new(dtype, shape, contents).map_err(|error| match error {
        TensorError::Elements { .. } => torn(&elements).unwrap_or(RawError::Tensor(error)),
        error => RawError::Tensor(error),
    })
}

/// The first element of BYTES that is not whole.
fn torn(contents: &[u8]) -> Option<RawError> {
    let (mut at, mut offset) = (0, 0);
    loop {
        let rest = contents.get(offset..)?;
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            let left = rest.len();
            return (left > 0).then_some(RawError::NoLength { at, offset, left });
        };
        let length = u32::from_le_bytes(*length);
        let left = rest.len();
        if length as usize > left {
            return Some(RawError::Length {
                at,
                offset,
                length,
                left,
            });
        }
        at += 1;
        offset += 4 + length as usize;
    }
}

/// The raw bytes of a tensor. They are shared, not copied.
pub fn write(tensor: &Tensor) -> Bytes {
    tensor.data().clone()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::arrays::DTYPES;

    #[test]
    fn neither_way_copies_a_byte() {
        let body = Bytes::from(vec![7u8; 4 * 1000 + 3]);
        // Not aligned to its elements, as a header of any length may stand before it.
        let tensor = read(DType::F32, vec![1000], body.slice(3..)).unwrap();
        assert_eq!(tensor.data().as_ptr(), body[3..].as_ptr());
        assert_eq!(write(&tensor).as_ptr(), body[3..].as_ptr());
    }

    #[test]
    fn what_is_wrong_with_lengths_names_the_element() {
        let said = |shape, bytes: &[u8]| {
            read(DType::Bytes, shape, Bytes::copy_from_slice(bytes))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said(vec![2], &[1, 0, 0, 0, b'a', 9, 0, 0, 0, b'b']),
            "element 1 of BYTES, at byte 5: its length of 9 bytes reaches past the end of the \
             tensor; 1 bytes are left"
        );
        assert_eq!(
            said(vec![1], &[255, 255, 255, 255]),
            "element 0 of BYTES, at byte 0: its length of 4294967295 bytes reaches past the end \
             of the tensor; 0 bytes are left"
        );
        assert_eq!(
            said(vec![2], &[0, 0, 0, 0, 1, 0]),
            "element 1 of BYTES, at byte 4: expected a length in 4 bytes, found the end of the \
             tensor after 2"
        );
        assert_eq!(
            said(vec![3], &[0, 0, 0, 0]),
            "bytes tensor of shape [3] should hold 3 length-prefixed elements, found 1 whole ones"
        );
    }

    #[test]
    fn sizes_below_zero_and_bytes_beside_zero_and_one_are_refused() {
        assert_eq!(shape(&[2, 0, 3]), Ok(vec![2, 0, 3]));
        assert_eq!(shape(&[2, -1]), Err(RawError::Negative { at: 1, size: -1 }));
        let found = 100_000;
        let error = RawError::Tensor(TensorError::Rank { found });
        assert_eq!(shape(&vec![1; found]), Err(error));
        let bools = Bytes::from_static(&[1, 0, 2]);
        let error = read(DType::Bool, vec![3], bools).unwrap_err();
        assert_eq!(error, RawError::Bool { at: 2, found: 2 });
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        for shape in [vec![usize::MAX, 2], vec![1 << 62, 4], vec![usize::MAX]] {
            for dtype in [DType::F32, DType::Bytes, DType::Bool] {
                assert!(read(dtype, shape.clone(), Bytes::new()).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_whole_or_refused(
            dtype in 0..DTYPES.len(),
            shape in proptest::collection::vec(0usize..5, 0..4),
            bytes in proptest::collection::vec(0u8..4, 0..64),
        ) {
            let contents = Bytes::from(bytes);
            if let Ok(tensor) = read(DTYPES[dtype], shape.clone(), contents.clone()) {
                prop_assert_eq!(tensor.shape(), shape);
                prop_assert_eq!(write(&tensor), contents);
            }
        }
    }
}
