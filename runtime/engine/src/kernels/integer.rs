//! Products of matrices of 8-bit integers with 32-bit sums, as dynamically quantised models
//! need them.
//!
//! The left side is brought to u8 and the right side to i8 by flipping the highest bit, so one
//! kernel serves the four combinations; what the flips and the zero points change is added
//! afterwards from the sums of rows and columns:
//!
//! Σ (a − p)(b − q) = Σ ab − p Σ b − q Σ a + k p q
//!
//! The right side is multiplied panel by panel (`panel`).

pub(super) mod panel;

use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use burn_backend::{DType, TensorData, TensorMetadata};
use burn_dispatch::backends::flex::FlexTensor;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use rayon::prelude::*;

use crate::value::B;
use panel::{COLUMNS, DEPTH, Kernel, Signed};

/// Multiplications for which it pays to ask other threads.
const PARALLEL: usize = 1 << 18;

/// An i8 or u8 tensor on the host.
pub(crate) struct Bytes8 {
    held: Held,
    signed: bool,
}

enum Held {
    Tensor(FlexTensor),
    Copy(TensorData),
}

impl Bytes8 {
    /// The elements of a tensor, shared with it where it lies on the host; nothing for other
    /// types.
    pub fn of(t: &DispatchTensor) -> Option<Self> {
        let signed = match t.dtype() {
            DType::I8 => true,
            DType::U8 => false,
            _ => return None,
        };
        let held = match &t.kind {
            DispatchTensorKind::Flex(BackendTensor::Int(t)) => Held::Tensor(t.to_contiguous()),
            _ => Held::Copy(burn_backend::read_sync(B::int_into_data(t.clone())).ok()?),
        };
        Some(Self { held, signed })
    }

    pub fn matrices(&self) -> Matrices<'_> {
        let bytes = match &self.held {
            Held::Tensor(t) => {
                let start = t.layout().start_offset();
                let all: &[u8] = match self.signed {
                    true => bytemuck::cast_slice(t.storage::<i8>()),
                    false => t.storage::<u8>(),
                };
                all.get(start..start + t.shape().num_elements())
            }
            Held::Copy(data) => Some(data.as_bytes()),
        };
        Matrices {
            bytes: bytes.unwrap_or_default(),
            signed: self.signed,
        }
    }
}

/// The elements of a matrix or of several, one byte each, of i8 where `signed` and else of u8.
#[derive(Clone, Copy)]
pub(crate) struct Matrices<'a> {
    pub bytes: &'a [u8],
    pub signed: bool,
}

impl Matrices<'_> {
    /// What brings an element to the wanted type when it is combined by exclusive or, and how
    /// much a zero point grows by that.
    fn flip(&self, signed: bool) -> (u8, i32) {
        match (self.signed, signed) {
            (false, true) => (0x80, -128),
            (true, false) => (0x80, 128),
            _ => (0, 0),
        }
    }
}

/// Zero points: one for all, or one for each row or column.
#[derive(Clone, Debug)]
pub(crate) struct Zeros(pub Vec<i32>);

impl Zeros {
    fn at(&self, index: usize) -> i32 {
        let one = self.0.first().filter(|_| self.0.len() == 1);
        one.or_else(|| self.0.get(index)).copied().unwrap_or(0)
    }

    fn shift(&mut self, by: i32) {
        if self.0.is_empty() {
            self.0.push(0);
        }
        self.0.iter_mut().for_each(|zero| *zero += by);
    }
}

/// `[m, k] · [k, n]`, as many times as there are pairs of matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

/// The products of the pairs (the number of a left and of a right matrix), one after the other. Zero points of the left side are one for
/// all or one per row, those of the right side one for all or one per column.
///
/// `None` where there are too few elements for the sizes.
pub(crate) fn products(
    left: Matrices,
    right: Matrices,
    mut left_zeros: Zeros,
    mut right_zeros: Zeros,
    size: Size,
    pairs: &[(usize, usize)],
) -> Option<Vec<i32>> {
    let Size { m, k, n } = size;
    let (left_flip, left_shift) = left.flip(false);
    let (right_flip, right_shift) = right.flip(true);
    left_zeros.shift(left_shift);
    right_zeros.shift(right_shift);
    let lefts = pairs.iter().map(|&(left, _)| left + 1).max().unwrap_or(0);
    let rights = pairs.iter().map(|&(_, right)| right + 1).max().unwrap_or(0);
    let rows = left.bytes.get(..lefts * m * k)?;
    let right = right.bytes.get(..rights * k * n)?;
    if m == 0 || n == 0 || pairs.is_empty() {
        return Some(Vec::new());
    }
    if k == 0 {
        return Some(vec![0; pairs.len() * m * n]);
    }

    // Rows whose length is a multiple of DEPTH, and their sums.
    let groups = k.div_ceil(DEPTH);
    let stride = groups * DEPTH;
    let mut padded = vec![0; lefts * m * stride];
    let mut row_sums = vec![0i32; lefts * m];
    for ((to, from), sum) in padded
        .chunks_exact_mut(stride)
        .zip(rows.chunks_exact(k))
        .zip(&mut row_sums)
    {
        to.iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = *from ^ left_flip);
        *sum = to.iter().map(|&x| i32::from(x)).sum();
    }

    let mut ones = vec![1; k];
    ones.resize(stride, 0);
    let mut result = vec![0i32; pairs.len() * m * n];
    let panels = n.div_ceil(COLUMNS);
    let kernel = Kernel::best();
    // A task is a panel of one pair; it gives the columns of its panel, which are then put
    // into their rows.
    let task = |number: usize| -> Option<Vec<i32>> {
        let (pair, panel) = (number / panels, number % panels);
        let &(l, r) = pairs.get(pair)?;
        let b = right.get(r * k * n..(r + 1) * k * n)?;
        let a = padded.get(l * m * stride..(l + 1) * m * stride)?;
        let sums = row_sums.get(l * m..(l + 1) * m)?;
        let first = panel * COLUMNS;
        let width = COLUMNS.min(n - first);
        let packed = kernel.pack(b, n, first..first + width, right_flip);
        let packed = bytemuck::cast_slice(&packed);
        let mut column_sums = [0; COLUMNS];
        kernel.panel(Signed::Right, &ones, packed, &mut column_sums, groups);
        let mut made = vec![0; m * COLUMNS];
        kernel.panel(Signed::Right, a, packed, &mut made, groups);
        for (row, (line, &sum)) in made.chunks_exact_mut(COLUMNS).zip(sums).enumerate() {
            let p = left_zeros.at(row);
            for (at, (out, &column)) in line.iter_mut().zip(&column_sums).enumerate() {
                let q = right_zeros.at(first + at);
                let both = (k as i32).wrapping_mul(p.wrapping_mul(q));
                *out = out
                    .wrapping_sub(p.wrapping_mul(column))
                    .wrapping_sub(q.wrapping_mul(sum))
                    .wrapping_add(both);
            }
        }
        Some(made)
    };
    let mut place = |number: usize, made: Vec<i32>| {
        let (pair, panel) = (number / panels, number % panels);
        let first = panel * COLUMNS;
        let width = COLUMNS.min(n - first);
        let rows = result.chunks_exact_mut(n).skip(pair * m);
        for (to, from) in rows.zip(made.chunks_exact(COLUMNS)) {
            let to = to.iter_mut().skip(first).take(width);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
    };
    let tasks = pairs.len() * panels;
    if tasks == 1 || pairs.len().saturating_mul(m * n).saturating_mul(k) < PARALLEL {
        for number in 0..tasks {
            place(number, task(number)?);
        }
    } else {
        let made: Option<Vec<_>> = (0..tasks).into_par_iter().map(task).collect();
        for (number, made) in made?.into_iter().enumerate() {
            place(number, made);
        }
    }
    Some(result)
}

/// Whole numbers `round(x / scale) + zero` within bounds, as the bytes of i8 or u8; halves go
/// to the even side.
pub(crate) fn quantized(values: &[f32], scale: f32, zero: i32, (low, high): (i32, i32)) -> Vec<u8> {
    // Adding 3 · 2²² leaves no bits behind the point, and the number in the lowest bits: unlike
    // a call that rounds, every processor does it to a vector.
    const SHIFT: f32 = 12_582_912.0;
    let one = |x: f32| {
        let shifted = (x / scale).clamp(-1024.0, 1024.0) + SHIFT;
        let whole = shifted
            .to_bits()
            .wrapping_sub(SHIFT.to_bits())
            .cast_signed();
        whole.wrapping_add(zero).clamp(low, high) as u8
    };
    let mut made = vec![0u8; values.len()];
    let part = |(to, from): (&mut [u8], &[f32])| {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = one(*x));
    };
    if values.len() <= super::PART {
        part((&mut made, values));
    } else {
        let parts = made.par_chunks_mut(super::PART);
        parts.zip(values.par_chunks(super::PART)).for_each(part);
    }
    made
}

/// The smallest and the largest element, zero included.
pub(crate) fn bounds(values: &[f32]) -> (f32, f32) {
    let part = |part: &[f32]| {
        // Eight of each, so that the compiler compares vectors.
        let mut low = [0.0f32; 8];
        let mut high = [0.0f32; 8];
        let (eights, rest) = part.as_chunks::<8>();
        for eight in eights {
            for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(eight) {
                *low = if x < *low { x } else { *low };
                *high = if x > *high { x } else { *high };
            }
        }
        let all =
            |both: [f32; 8], f: fn(f32, f32) -> f32| both.iter().chain(rest).copied().fold(0.0, f);
        (all(low, f32::min), all(high, f32::max))
    };
    let join = |a: (f32, f32), b: (f32, f32)| (a.0.min(b.0), a.1.max(b.1));
    if values.len() <= super::PART {
        return part(values);
    }
    let parts = values.par_chunks(super::PART).map(part);
    parts.reduce(|| (0.0, 0.0), join)
}

/// Reads the elements of an f32 tensor in place; nothing for other types.
pub(crate) fn with_floats<R>(t: &DispatchTensor, f: impl FnOnce(&[f32]) -> R) -> Option<R> {
    if t.dtype() != DType::F32 {
        return None;
    }
    match &t.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t)) => {
            let (t, count) = (t.to_contiguous(), t.shape().num_elements());
            let start = t.layout().start_offset();
            t.storage::<f32>()
                .get(start..start.checked_add(count)?)
                .map(f)
        }
        _ => {
            let data = burn_backend::read_sync(B::float_into_data(t.clone())).ok()?;
            data.as_slice::<f32>().ok().map(f)
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
pub(super) mod tests {
    use super::*;

    /// Bytes that differ, and all of which occur.
    pub(super) fn noise(count: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(next).collect()
    }

    fn value(byte: u8, signed: bool) -> i32 {
        if signed {
            i32::from(byte.cast_signed())
        } else {
            i32::from(byte)
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        let sizes = [
            (1, 1, 1),
            (4, 4, 32),
            (5, 7, 33),
            (3, 130, 65),
            (9, 64, 31),
            (70, 300, 80),
        ];
        for (m, k, n) in sizes {
            for signs in 0..4 {
                let (left_signed, right_signed) = (signs & 1 != 0, signs & 2 != 0);
                let (a, b) = (noise(2 * m * k, 1), noise(2 * k * n, 2));
                let left_zeros: Vec<_> = (0..m as i32).map(|i| i % 100 - 20).collect();
                let right_zeros: Vec<_> = (0..n as i32).map(|i| 40 - i % 90).collect();
                let pairs = [(0, 0), (1, 1), (0, 1)];
                let found = products(
                    Matrices {
                        bytes: &a,
                        signed: left_signed,
                    },
                    Matrices {
                        bytes: &b,
                        signed: right_signed,
                    },
                    Zeros(left_zeros.clone()),
                    Zeros(right_zeros.clone()),
                    Size { m, k, n },
                    &pairs,
                );
                let mut expected = Vec::new();
                for (l, r) in pairs {
                    for i in 0..m {
                        for j in 0..n {
                            let term = |at: usize| {
                                let x = value(a[(l * m + i) * k + at], left_signed);
                                let y = value(b[(r * k + at) * n + j], right_signed);
                                (x - left_zeros[i]) * (y - right_zeros[j])
                            };
                            expected.push((0..k).map(term).sum::<i32>());
                        }
                    }
                }
                assert_eq!(found, Some(expected), "{m} {k} {n} {signs}");
            }
        }
    }
}
