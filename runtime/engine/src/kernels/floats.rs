//! Memory for weights that stay: large ones in pages of their own, which go back to the system
//! when a model is dropped, whatever else was allocated meanwhile.

use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Bytes below which pages of their own are not worth it.
const LARGE: usize = 1 << 16;

/// A fixed number of f32.
pub(crate) type Floats = Numbers<f32>;

/// A fixed number of numbers.
pub(crate) enum Numbers<T> {
    Small(Vec<T>),
    Large(MmapMut),
}

impl<T: Pod> Numbers<T> {
    /// So many zeros.
    pub fn zeros(count: usize) -> Self {
        if let Some(bytes) = count.checked_mul(size_of::<T>())
            && bytes >= LARGE
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            return Self::Large(pages);
        }
        Self::Small(vec![T::zeroed(); count])
    }

    /// A copy.
    pub fn copied(values: &[T]) -> Self {
        let mut made = Self::zeros(values.len());
        made.copy_from_slice(values);
        made
    }
}

impl<T: Pod> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Small(values) => values,
            // Pages begin at a multiple of any alignment, and hold whole numbers.
            Self::Large(pages) => bytemuck::try_cast_slice(pages).unwrap_or_default(),
        }
    }
}

/// So that tensors can share it.
impl AsRef<[u8]> for Numbers<u8> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Pod> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Small(values) => values,
            Self::Large(pages) => bytemuck::try_cast_slice_mut(pages).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::elements;
    use super::*;
    use crate::tensor::{DType, Tensor};
    use crate::value::Value;

    #[test]
    fn a_tensor_reads_the_pages_themselves() {
        let count = LARGE / size_of::<f32>();
        let mut pages = Numbers::<u8>::zeros(LARGE);
        pages.fill(0x40);
        let place = pages.as_ptr();
        let tensor = Tensor::new(DType::F32, vec![count], Bytes::from_owner(pages));
        let value = Value::share(tensor.unwrap()).unwrap();
        let found = elements::<f32>(value.tensor()).unwrap();
        assert_eq!(found.as_ptr().cast(), place);
        assert_eq!(found, vec![f32::from_le_bytes([0x40; 4]); count]);
    }

    #[test]
    fn what_lies_between_words_is_copied() {
        let bytes = [&[0][..], &1.5_f32.to_le_bytes(), &[0; 3]].concat();
        // One of them is not where an f32 can be.
        for bytes in [bytes.clone(), [&[0][..], &bytes].concat()] {
            let from = bytes.len() - 7;
            let data = Bytes::from(bytes).slice(from..from + 4);
            let tensor = Tensor::new(DType::F32, vec![1], data).unwrap();
            let value = Value::share(tensor).unwrap();
            assert_eq!(value.to_floats().unwrap(), [1.5]);
        }
    }
}
