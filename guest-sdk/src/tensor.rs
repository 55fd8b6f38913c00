//! Tensors with an element type known to the compiler, and those without.

use std::fmt;

use crate::{Error, Result};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Variable-length elements: a little-endian u32 length, then so many bytes.
    Bytes,
}

impl DType {
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
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A half-precision float as its bits; `half::f16::from_bits` computes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F16(pub u16);

/// A bfloat16 as its bits; `half::bf16::from_bits` computes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BF16(pub u16);

mod sealed {
    /// How one element is written: little-endian, without padding.
    pub trait Encoding: Sized {
        const SIZE: usize;
        fn write(self, out: &mut Vec<u8>);
        /// `bytes` is `SIZE` long.
        fn read(bytes: &[u8]) -> Self;
    }
}
use sealed::Encoding;

/// What a [`Tensor`] can hold: the number types, `bool`, [`F16`] and [`BF16`].
#[diagnostic::on_unimplemented(
    message = "a tensor can't hold `{Self}`",
    label = "not an element type",
    note = "elements are f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, bool, F16 or BF16"
)]
pub trait Element: Copy + Encoding {
    /// The element type's name to the host.
    const DTYPE: DType;
}

macro_rules! numbers {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        }
        impl Encoding for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                bytes.try_into().map(<$ty>::from_le_bytes).unwrap_or_default()
            }
        }
    )*};
}
numbers! {
    f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
}
impl Encoding for bool {
    const SIZE: usize = 1;
    fn write(self, out: &mut Vec<u8>) {
        out.push(self.into());
    }
    fn read(bytes: &[u8]) -> Self {
        bytes != [0]
    }
}

macro_rules! halves {
    ($($ty:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$ty;
        }
        impl Encoding for $ty {
            const SIZE: usize = 2;
            fn write(self, out: &mut Vec<u8>) {
                self.0.write(out);
            }
            fn read(bytes: &[u8]) -> Self {
                Self(u16::read(bytes))
            }
        }
    )*};
}
halves!(F16, BF16);

/// A dense tensor in row-major order.
///
/// ```
/// use firebox_sdk::Tensor;
///
/// let scores = Tensor::new([2, 3], vec![0.1, 0.7, 0.2, 0.5, 0.2, 0.3])?;
/// let best: Vec<_> = scores.rows().map(firebox_sdk::argmax).collect();
/// assert_eq!(best, [Some(1), Some(0)]);
/// # Ok::<(), firebox_sdk::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    shape: Vec<usize>,
    data: Vec<T>,
}

impl<T: Element> Tensor<T> {
    /// A tensor of these sizes, outermost first, holding `data` in row-major order.
    ///
    /// # Errors
    /// An internal one where `data` is not `product(shape)` long.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Vec<T>>) -> Result<Self> {
        let (shape, data) = (shape.into(), data.into());
        match element_count(&shape) {
            Some(count) if count == data.len() => Ok(Self { shape, data }),
            count => Err(Error::internal(format!(
                "a {} tensor of shape {shape:?} holds {} elements, got {}",
                T::DTYPE,
                count.map_or("too many".into(), |n| n.to_string()),
                data.len()
            ))),
        }
    }

    /// One value, with no dimensions.
    pub fn scalar(value: T) -> Self {
        Self {
            shape: vec![],
            data: vec![value],
        }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// An internal one where the shapes differ in their number of elements.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        Self::new(shape, self.data)
    }

    /// Sizes of the dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The elements, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The elements in row-major order, without a copy.
    pub fn into_data(self) -> Vec<T> {
        self.data
    }

    /// The element at `index`, one number per dimension; `None` outside.
    pub fn get(&self, index: &[usize]) -> Option<T> {
        if index.len() != self.shape.len() {
            return None;
        }
        let mut at = 0usize;
        for (&i, &size) in index.iter().zip(&self.shape) {
            if i >= size {
                return None;
            }
            at = at * size + i;
        }
        self.data.get(at).copied()
    }

    /// The rows along the last dimension, in order; a scalar is one row of one.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[T]> {
        let width = self.shape.last().copied().unwrap_or(1);
        self.data.chunks_exact(width.max(1))
    }
}

/// The number of elements of a shape, where it can be addressed.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |count, &size| count.checked_mul(size))
}

/// Where the largest value stands, the first of equals; `None` where there is
/// none. NaN is never the largest.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (at, &value) in values.iter().enumerate() {
        if !value.is_nan() && best.is_none_or(|(_, most)| value > most) {
            best = Some((at, value));
        }
    }
    best.map(|(at, _)| at)
}

/// Turns scores into probabilities that sum to 1.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// A tensor whose element type is known only at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyTensor {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major, little-endian, without padding.
    pub data: Vec<u8>,
}

impl AnyTensor {
    /// One element of dtype `bytes`, shape `[1]`: how a raw body travels.
    pub fn blob(bytes: &[u8]) -> Self {
        let mut data = Vec::with_capacity(bytes.len() + 4);
        data.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        data.extend_from_slice(bytes);
        Self {
            dtype: DType::Bytes,
            shape: vec![1],
            data,
        }
    }

    /// The elements of a `bytes` tensor, in order; nothing for other dtypes.
    pub fn blobs(&self) -> Vec<&[u8]> {
        let mut found = Vec::new();
        let mut rest = if self.dtype == DType::Bytes {
            self.data.as_slice()
        } else {
            &[]
        };
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let Some((blob, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
            else {
                break;
            };
            found.push(blob);
            rest = after;
        }
        found
    }

    /// The typed tensor.
    ///
    /// # Errors
    /// What was expected and what was found, where the dtype is another one or
    /// the bytes don't fit the shape.
    pub(crate) fn typed<T: Element>(self) -> std::result::Result<Tensor<T>, String> {
        let Self { dtype, shape, data } = self;
        if dtype != T::DTYPE {
            return Err(format!("expected dtype {}, found {dtype}", T::DTYPE));
        }
        let expected = element_count(&shape).and_then(|count| count.checked_mul(T::SIZE));
        if expected != Some(data.len()) {
            return Err(format!(
                "{} bytes don't fit {dtype} of shape {shape:?}",
                data.len()
            ));
        }
        let data = data.chunks_exact(T::SIZE).map(T::read).collect();
        Ok(Tensor { shape, data })
    }
}

impl<T: Element> From<Tensor<T>> for AnyTensor {
    fn from(tensor: Tensor<T>) -> Self {
        let mut data = Vec::with_capacity(tensor.data.len() * T::SIZE);
        for value in tensor.data {
            value.write(&mut data);
        }
        Self {
            dtype: T::DTYPE,
            shape: tensor.shape,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_count_names_expected_and_found() {
        let error = Tensor::new([2, 3], vec![0f32; 5]).unwrap_err();
        assert_eq!(
            error.message(),
            "a f32 tensor of shape [2, 3] holds 6 elements, got 5"
        );
        let error = Tensor::new([usize::MAX, 2], vec![0u8; 5]).unwrap_err();
        assert!(error.message().contains("too many elements"), "{error}");
    }

    #[test]
    fn elements_are_found_by_index_and_by_row() {
        let tensor = Tensor::new([2, 3], vec![1i64, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(tensor.get(&[1, 0]), Some(4));
        assert_eq!(tensor.get(&[0, 3]), None);
        assert_eq!(tensor.get(&[0]), None);
        assert_eq!(tensor.rows().collect::<Vec<_>>(), [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(Tensor::scalar(7i32).rows().collect::<Vec<_>>(), [[7]]);
    }

    #[test]
    fn every_element_type_survives_the_way_to_the_host_and_back() {
        fn round_trip<T: Element + PartialEq + fmt::Debug>(values: Vec<T>) {
            let tensor = Tensor::new([values.len()], values).unwrap();
            assert_eq!(AnyTensor::from(tensor.clone()).typed(), Ok(tensor));
        }
        round_trip(vec![f32::MIN, -0.5]);
        round_trip(vec![f64::MAX, 0.25]);
        round_trip(vec![i8::MIN, 1]);
        round_trip(vec![i16::MIN, 1]);
        round_trip(vec![i32::MIN, 1]);
        round_trip(vec![i64::MIN, 1]);
        round_trip(vec![u8::MAX, 1]);
        round_trip(vec![u16::MAX, 1]);
        round_trip(vec![u32::MAX, 1]);
        round_trip(vec![u64::MAX, 1]);
        round_trip(vec![true, false]);
        round_trip(vec![F16(0x3c00), F16(1)]);
        round_trip(vec![BF16(0x3f80), BF16(1)]);
    }

    #[test]
    fn another_dtype_is_refused_by_name() {
        let tensor = AnyTensor::from(Tensor::scalar(1i64));
        assert_eq!(
            tensor.typed::<f32>(),
            Err("expected dtype f32, found i64".into())
        );
    }

    #[test]
    fn blobs_stop_where_the_lengths_do_not_add_up() {
        let mut tensor = AnyTensor::blob(b"hello");
        assert_eq!(tensor.blobs(), [b"hello"]);
        tensor.data.extend_from_slice(&[9, 0, 0, 0, 1]);
        assert_eq!(tensor.blobs(), [b"hello"]);
    }

    #[test]
    fn argmax_skips_nan_and_softmax_sums_to_one() {
        assert_eq!(argmax(&[f32::NAN, 1.0, 3.0, 3.0]), Some(2));
        assert_eq!(argmax(&[]), None);
        let shares = softmax(&[1000.0, 1000.0, 990.0]);
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(shares[0] == shares[1] && shares[2] < 1e-4);
    }
}
