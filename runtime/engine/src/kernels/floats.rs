//! Memory for weights that stay: large ones in pages of their own, which go back to the system
//! when a model is dropped, whatever else was allocated meanwhile.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Numbers below which pages of their own are not worth it.
const LARGE: usize = 1 << 14;

/// A fixed number of f32.
pub(crate) enum Floats {
    Small(Vec<f32>),
    Large(MmapMut),
}

impl Floats {
    /// So many zeros.
    pub fn zeros(count: usize) -> Self {
        if count >= LARGE
            && let Some(bytes) = count.checked_mul(size_of::<f32>())
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            return Self::Large(pages);
        }
        Self::Small(vec![0.0; count])
    }

    /// A copy.
    pub fn copied(values: &[f32]) -> Self {
        let mut made = Self::zeros(values.len());
        made.copy_from_slice(values);
        made
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Small(values) => values,
            // Pages begin at a multiple of any alignment, and hold whole numbers.
            Self::Large(pages) => bytemuck::try_cast_slice(pages).unwrap_or_default(),
        }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Small(values) => values,
            Self::Large(pages) => bytemuck::try_cast_slice_mut(pages).unwrap_or_default(),
        }
    }
}
