//! Products of matrices of 8-bit integers with 32-bit sums, as dynamically quantised models
//! need them.
//!
//! The left side is brought to u8 and the right side to i8 by flipping the highest bit, so one
//! kernel serves the four combinations; what the flips and the zero points change is added
//! afterwards from the sums of rows and columns:
//!
//! Σ (a − p)(b − q) = Σ ab − p Σ b − q Σ a + k p q
//!
//! The right side is laid out in panels of [`COLUMNS`] columns, in which four elements of a
//! column stand together: what `vpdpbusd` multiplies in one step.

use std::ops::Range;

use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use burn_backend::{DType, TensorData, TensorMetadata};
use burn_dispatch::backends::flex::FlexTensor;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use rayon::prelude::*;

use crate::value::B;

/// Columns of a panel.
const COLUMNS: usize = 32;

/// Rows that are computed together.
const ROWS: usize = 4;

/// Elements of a column that stand together.
const DEPTH: usize = 4;

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
        kernel.panel(&ones, packed, &mut column_sums, groups);
        let mut made = vec![0; m * COLUMNS];
        kernel.panel(a, packed, &mut made, groups);
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

/// A panel of some columns, `[groups, COLUMNS, DEPTH]`; what stands around the matrix is never
/// used.
#[inline(always)]
fn pack(b: &[u8], n: usize, columns: Range<usize>, flip: u8) -> Vec<u32> {
    let groups = (b.len() / n).div_ceil(DEPTH);
    let mut packed = vec![0; groups * COLUMNS];
    let flip = u32::from_ne_bytes([flip; DEPTH]);
    let mut rows = b.chunks_exact(n);
    for group in packed.as_chunks_mut::<COLUMNS>().0 {
        let mut four = [[0u8; COLUMNS]; DEPTH];
        for (line, row) in four.iter_mut().zip(rows.by_ref()) {
            let from = row.get(columns.clone()).unwrap_or_default();
            match <&[u8; COLUMNS]>::try_from(from) {
                Ok(whole) => *line = *whole,
                Err(_) => line.iter_mut().zip(from).for_each(|(to, x)| *to = *x),
            }
        }
        let [r0, r1, r2, r3] = &four;
        let columns = r0.iter().zip(r1).zip(r2.iter().zip(r3));
        for (to, ((a, b), (c, d))) in group.iter_mut().zip(columns) {
            *to = u32::from_ne_bytes([*a, *b, *c, *d]) ^ flip;
        }
    }
    packed
}

/// The ways in which a panel can be multiplied, by what the processor has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernel {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                return Self::Avx512Vnni;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// [`pack`], where the processor has longer vectors with these.
    #[allow(
        unsafe_code,
        reason = "functions for processors that have more instructions"
    )]
    fn pack(self, b: &[u8], n: usize, columns: Range<usize>, flip: u8) -> Vec<u32> {
        match self {
            Self::Portable => pack(b, n, columns, flip),
            // SAFETY: both variants are chosen only where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512Vnni => unsafe { avx2_pack(b, n, columns, flip) },
        }
    }

    /// Rows `[m, groups · DEPTH]` times a panel, added to `[m, COLUMNS]`.
    #[allow(
        unsafe_code,
        reason = "functions for processors that have more instructions"
    )]
    fn panel(self, a: &[u8], packed: &[i8], made: &mut [i32], groups: usize) {
        match self {
            Self::Portable => portable(a, packed, made, groups),
            // SAFETY: this variant is chosen only where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(a, packed, made, groups) },
            // SAFETY: this variant is chosen only where the processor has AVX2 and AVX-512 F,
            // BW and VNNI.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { avx512_vnni(a, packed, made, groups) },
        }
    }
}

fn portable(a: &[u8], packed: &[i8], made: &mut [i32], groups: usize) {
    let rows = a.chunks_exact(groups * DEPTH);
    for (row, line) in rows.zip(made.chunks_exact_mut(COLUMNS)) {
        let four = row.chunks_exact(DEPTH);
        for (four, group) in four.zip(packed.chunks_exact(COLUMNS * DEPTH)) {
            for (out, column) in line.iter_mut().zip(group.chunks_exact(DEPTH)) {
                let products = four.iter().zip(column);
                *out += products
                    .map(|(&a, &b)| i32::from(a) * i32::from(b))
                    .sum::<i32>();
            }
        }
    }
}

/// Up to [`ROWS`] rows at a time, so that what is read of the panel serves them all.
macro_rules! in_rows {
    ($a:ident, $made:ident, $groups:ident, $some:ident, $packed:ident) => {
        let (rows, lines) = (
            $a.chunks($groups * DEPTH * ROWS),
            $made.chunks_mut(COLUMNS * ROWS),
        );
        for (rows, lines) in rows.zip(lines) {
            match lines.len() / COLUMNS {
                ROWS => $some::<ROWS>(rows, $packed, lines, $groups),
                3 => $some::<3>(rows, $packed, lines, $groups),
                2 => $some::<2>(rows, $packed, lines, $groups),
                _ => $some::<1>(rows, $packed, lines, $groups),
            }
        }
    };
}

/// Four bytes of each of `R` rows.
#[inline(always)]
fn fours<const R: usize>(rows: &[u8], groups: usize) -> [&[[u8; DEPTH]]; R] {
    let mut rows = rows.chunks_exact(groups * DEPTH);
    std::array::from_fn(|_| rows.next().unwrap_or_default().as_chunks().0)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2_pack(b: &[u8], n: usize, columns: Range<usize>, flip: u8) -> Vec<u32> {
    pack(b, n, columns, flip)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(a: &[u8], packed: &[i8], made: &mut [i32], groups: usize) {
    in_rows!(a, made, groups, avx2_rows, packed);
}

/// Products of 16-bit pairs, half a panel at a time: sums of 32 bits per pair, put together at
/// the end.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn avx2_rows<const R: usize>(rows: &[u8], packed: &[i8], lines: &mut [i32], groups: usize) {
    use std::arch::x86_64::*;
    let rows = fours::<R>(rows, groups);
    let parts = packed.as_chunks::<8>().0;
    for part in 0..COLUMNS / 8 {
        // Four columns, of which each has two sums.
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for group in 0..groups {
            let at = group * COLUMNS / 2 + part * 4;
            let Some([b0, b1, b2, b3]) = parts.get(at..at + 4) else {
                return;
            };
            let wide = |x: &[i8; 8], y: &[i8; 8]| {
                let pair = _mm_set_epi64x(
                    i64::from_le_bytes(y.map(i8::cast_unsigned)),
                    i64::from_le_bytes(x.map(i8::cast_unsigned)),
                );
                _mm256_cvtepi8_epi16(pair)
            };
            let (low, high) = (wide(b0, b1), wide(b2, b3));
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let four = row.get(group).copied().unwrap_or_default();
                let four = _mm256_cvtepu8_epi16(_mm_set1_epi32(i32::from_le_bytes(four)));
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(four, low));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(four, high));
            }
        }
        for (line, [low, high]) in lines.chunks_exact_mut(COLUMNS).zip(sums) {
            // Pairs are added within halves of 128 bits, so the middle columns change places.
            let both = _mm256_hadd_epi32(low, high);
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
            let both: [i32; 8] = bytemuck::cast(both);
            let line = line.iter_mut().skip(part * 8);
            line.zip(both).for_each(|(out, sum)| *out += sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_vnni(a: &[u8], packed: &[i8], made: &mut [i32], groups: usize) {
    in_rows!(a, made, groups, avx512_vnni_rows, packed);
}

/// Four products and their sum in one instruction, sixteen columns at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
#[allow(unsafe_code, reason = "loads of whole registers")]
fn avx512_vnni_rows<const R: usize>(rows: &[u8], packed: &[i8], lines: &mut [i32], groups: usize) {
    use std::arch::x86_64::*;
    let rows = fours::<R>(rows, groups);
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    for (group, columns) in packed.as_chunks::<128>().0.iter().enumerate() {
        let [low, high] = [0, 64].map(|at| {
            // SAFETY: 64 bytes from 0 or 64 on lie within the 128 of the array.
            unsafe { _mm512_loadu_si512(columns.as_ptr().add(at).cast()) }
        });
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let four = row.get(group).copied().unwrap_or_default();
            let four = _mm512_set1_epi32(i32::from_le_bytes(four));
            sums[0] = _mm512_dpbusd_epi32(sums[0], four, low);
            sums[1] = _mm512_dpbusd_epi32(sums[1], four, high);
        }
    }
    for (line, [low, high]) in lines.chunks_exact_mut(COLUMNS).zip(sums) {
        let (first, second) = line.split_at_mut(COLUMNS / 2);
        for (line, sum) in [(first, low), (second, high)] {
            let mut made = [0i32; 16];
            // SAFETY: the array has the 64 bytes that are written.
            unsafe { _mm512_storeu_si512(made.as_mut_ptr().cast(), sum) };
            line.iter_mut().zip(made).for_each(|(out, sum)| *out += sum);
        }
    }
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
mod tests {
    use super::*;

    /// Bytes that differ, and all of which occur.
    fn noise(count: usize, seed: u32) -> Vec<u8> {
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

    #[test]
    fn all_kernels_agree_also_at_the_ends_of_the_range() {
        let (m, groups) = (7, 19);
        for extreme in [false, true] {
            let mut a = noise(m * groups * DEPTH, 3);
            let mut packed: Vec<_> = noise(groups * COLUMNS * DEPTH, 4)
                .into_iter()
                .map(u8::cast_signed)
                .collect();
            if extreme {
                a.fill(255);
                packed.fill(-128);
            }
            let run = |kernel: Kernel| {
                let mut made = vec![0; m * COLUMNS];
                kernel.panel(&a, &packed, &mut made, groups);
                made
            };
            let expected = run(Kernel::Portable);
            assert_eq!(run(Kernel::best()), expected);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                assert_eq!(run(Kernel::Avx2), expected);
            }
        }
    }
}
