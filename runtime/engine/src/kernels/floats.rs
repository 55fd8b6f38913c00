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

impl<T: Pod> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Small(values) => values,
            Self::Large(pages) => bytemuck::try_cast_slice_mut(pages).unwrap_or_default(),
        }
    }
}
