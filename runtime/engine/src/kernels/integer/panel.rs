//! Panels of a matrix, and the ways in which processors multiply by them.
//!
//! In a panel of [`COLUMNS`] columns four elements of a column stand together: what
//! `vpdpbusd` multiplies in one step.

use std::ops::Range;

/// Columns of a panel.
pub(in crate::kernels) const COLUMNS: usize = 32;

/// Elements of a column that stand together.
pub(in crate::kernels) const DEPTH: usize = 4;

/// The side of a product whose elements are i8; those of the other one are u8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::kernels) enum Signed {
    Left,
    Right,
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
pub(in crate::kernels) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Kernel {
    pub fn best() -> Self {
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
    pub fn pack(self, b: &[u8], n: usize, columns: Range<usize>, flip: u8) -> Vec<u32> {
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
    pub fn panel(self, signed: Signed, a: &[u8], packed: &[u8], made: &mut [i32], groups: usize) {
        match (self, signed) {
            (Self::Portable, Signed::Left) => portable::<true>(a, packed, made, groups),
            (Self::Portable, Signed::Right) => portable::<false>(a, packed, made, groups),
            // SAFETY: this variant is chosen only where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Signed::Left) => unsafe { avx2::<true>(a, packed, made, groups) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, Signed::Right) => unsafe { avx2::<false>(a, packed, made, groups) },
            // SAFETY: this variant is chosen only where the processor has AVX2 and AVX-512 F,
            // BW and VNNI.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Vnni, Signed::Left) => unsafe {
                avx512_vnni::<true>(a, packed, made, groups);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Vnni, Signed::Right) => unsafe {
                avx512_vnni::<false>(a, packed, made, groups);
            },
        }
    }
}

fn portable<const LEFT: bool>(a: &[u8], packed: &[u8], made: &mut [i32], groups: usize) {
    let value = |byte: u8, signed: bool| match signed {
        true => i32::from(byte.cast_signed()),
        false => i32::from(byte),
    };
    let rows = a.chunks_exact(groups * DEPTH);
    for (row, line) in rows.zip(made.chunks_exact_mut(COLUMNS)) {
        let four = row.chunks_exact(DEPTH);
        for (four, group) in four.zip(packed.chunks_exact(COLUMNS * DEPTH)) {
            for (out, column) in line.iter_mut().zip(group.chunks_exact(DEPTH)) {
                let products = four.iter().zip(column);
                *out += products
                    .map(|(&a, &b)| value(a, LEFT) * value(b, !LEFT))
                    .sum::<i32>();
            }
        }
    }
}

/// As many rows at a time as the first number says, so that what is read of the panel serves
/// them all; at the end one of the other numbers.
macro_rules! in_rows {
    ($a:ident, $made:ident, $groups:ident, $some:ident::<$left:ident>, $packed:ident,
        $most:literal $($fewer:literal)*) => {
        let (rows, lines) = (
            $a.chunks($groups * DEPTH * $most),
            $made.chunks_mut(COLUMNS * $most),
        );
        for (rows, lines) in rows.zip(lines) {
            match lines.len() / COLUMNS {
                $most => $some::<$most, $left>(rows, $packed, lines, $groups),
                $($fewer => $some::<$fewer, $left>(rows, $packed, lines, $groups),)*
                _ => {}
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
fn avx2<const LEFT: bool>(a: &[u8], packed: &[u8], made: &mut [i32], groups: usize) {
    in_rows!(a, made, groups, avx2_rows::<LEFT>, packed, 4 3 2 1);
}

/// Products of 16-bit pairs, half a panel at a time: sums of 32 bits per pair, put together at
/// the end.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn avx2_rows<const R: usize, const LEFT: bool>(
    rows: &[u8],
    packed: &[u8],
    lines: &mut [i32],
    groups: usize,
) {
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
            let wide = |x: &[u8; 8], y: &[u8; 8]| {
                let pair = _mm_set_epi64x(i64::from_le_bytes(*y), i64::from_le_bytes(*x));
                if LEFT {
                    _mm256_cvtepu8_epi16(pair)
                } else {
                    _mm256_cvtepi8_epi16(pair)
                }
            };
            let (low, high) = (wide(b0, b1), wide(b2, b3));
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let four = row.get(group).copied().unwrap_or_default();
                let four = _mm_set1_epi32(i32::from_le_bytes(four));
                let four = if LEFT {
                    _mm256_cvtepi8_epi16(four)
                } else {
                    _mm256_cvtepu8_epi16(four)
                };
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
fn avx512_vnni<const LEFT: bool>(a: &[u8], packed: &[u8], made: &mut [i32], groups: usize) {
    in_rows!(a, made, groups, avx512_vnni_rows::<LEFT>, packed, 8 7 6 5 4 3 2 1);
}

/// Four products and their sum in one instruction, sixteen columns at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
#[allow(
    unsafe_code,
    reason = "loads of whole registers, and without checks in the innermost loop"
)]
fn avx512_vnni_rows<const R: usize, const LEFT: bool>(
    rows: &[u8],
    packed: &[u8],
    lines: &mut [i32],
    groups: usize,
) {
    use std::arch::x86_64::*;
    let rows = fours::<R>(rows, groups);
    let columns = packed.as_chunks::<128>().0;
    if rows.iter().any(|row| row.len() < columns.len()) {
        return;
    }
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    for (group, columns) in columns.iter().enumerate() {
        let [low, high] = [0, 64].map(|at| {
            // SAFETY: 64 bytes from 0 or 64 on lie within the 128 of the array.
            unsafe { _mm512_loadu_si512(columns.as_ptr().add(at).cast()) }
        });
        for (sums, row) in sums.iter_mut().zip(&rows) {
            // SAFETY: all rows have as many, as was checked above.
            let four = unsafe { *row.get_unchecked(group) };
            let four = _mm512_set1_epi32(i32::from_le_bytes(four));
            for (sum, part) in sums.iter_mut().zip([low, high]) {
                *sum = if LEFT {
                    _mm512_dpbusd_epi32(*sum, part, four)
                } else {
                    _mm512_dpbusd_epi32(*sum, four, part)
                };
            }
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

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn all_kernels_agree_also_at_the_ends_of_the_range() {
        let (m, groups) = (7, 19);
        for (signed, extreme) in [Signed::Left, Signed::Right]
            .into_iter()
            .flat_map(|signed| [None, Some((255, 128)), Some((128, 255))].map(|e| (signed, e)))
        {
            let mut a = noise(m * groups * DEPTH, 3);
            let mut packed = noise(groups * COLUMNS * DEPTH, 4);
            if let Some((left, right)) = extreme {
                a.fill(left);
                packed.fill(right);
            }
            let run = |kernel: Kernel| {
                let mut made = vec![0; m * COLUMNS];
                kernel.panel(signed, &a, &packed, &mut made, groups);
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
