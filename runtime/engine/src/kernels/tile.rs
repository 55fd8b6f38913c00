//! The innermost loop of matrix products: a block of C that stays in registers while a row of
//! A's block is multiplied with a panel of B, one instruction set each.

#![allow(unsafe_code, reason = "vector loads and stores through pointers")]

use super::simd::{Isa, isa};

/// What a block of C starts from.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    /// What C holds.
    Held,
    /// One number per row of C.
    Rows(*const f32),
    /// One number per column.
    Columns(*const f32),
}

/// `C[rows, width] = start + A[rows, k] · B[k, width]`; strides are between rows.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub rows: usize,
    pub k: usize,
    /// The block of A, column by column: `[k, rows]`.
    pub a: *const f32,
    pub b: *const f32,
    pub b_stride: usize,
    pub c: *mut f32,
    pub c_stride: usize,
    pub start: Start,
}

/// A way to compute tiles.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Rows of a tile: these numbers, descending to 1.
    pub rows: &'static [usize],
    /// Columns of a tile: the width of a panel.
    pub width: usize,
    /// Computes one.
    ///
    /// # Safety
    ///
    /// The pointers lead to as many rows and columns as the tile says, `width` columns whole.
    pub run: unsafe fn(&Tile),
    /// Computes the left half of one, where the right one isn't needed; as unsafe.
    pub narrow: unsafe fn(&Tile),
}

/// The widest tile of any kernel.
pub(super) const MAX_WIDTH: usize = 32;
/// The most rows of any kernel.
pub(super) const MAX_ROWS: usize = 12;

pub(super) fn kernel() -> Kernel {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Kernel {
            rows: &[12, 8, 4, 2, 1],
            width: 32,
            run: avx512::run,
            narrow: avx512_narrow::run,
        },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Kernel {
            rows: &[6, 4, 2, 1],
            width: 16,
            run: avx2::run,
            narrow: avx2_narrow::run,
        },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Kernel {
            rows: &[12, 8, 4, 2, 1],
            width: 8,
            run: neon::run,
            narrow: neon::run,
        },
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Portable => portable(),
    }
}

/// The kernel of any processor.
#[cfg(any(test, not(target_arch = "aarch64")))]
pub(super) fn portable() -> Kernel {
    Kernel {
        rows: &[4, 2, 1],
        width: 8,
        run: portable::run,
        narrow: portable::run,
    }
}

/// A kernel for one instruction set: the columns of a tile are `$column` registers of `$lanes`
/// numbers. Rows are spelt out so that every sum has a register of its own.
macro_rules! kernel {
    ($name:ident, [$feature:meta], $lanes:literal,
     $splat:ident, $load:ident, $store:ident, $fused:ident,
     $($function:ident = $rows:literal [$($column:ident $place:literal),*]
        [$($row:literal [$($sum:ident $factor:ident $at:literal),*]),*]),*) => {
        mod $name {
            #[cfg(target_arch = "aarch64")]
            #[allow(unused_imports, reason = "the portable kernel needs none")]
            use std::arch::aarch64::*;
            #[cfg(target_arch = "x86_64")]
            #[allow(unused_imports, reason = "the portable kernel needs none")]
            use std::arch::x86_64::*;

            #[allow(unused_imports, reason = "some take their vectors from here")]
            use super::*;

            /// # Safety
            ///
            /// As [`Kernel`](super::Kernel) says, on a processor with these features.
            #[$feature]
            pub unsafe fn run(tile: &Tile) {
                // SAFETY: the same as the caller's.
                unsafe {
                    match tile.rows {
                        $($rows => $function(tile),)*
                        _ => {}
                    }
                }
            }

            $(
                #[$feature]
                unsafe fn $function(tile: &Tile) {
                    // SAFETY: every pointer stays within the rows and columns of the tile.
                    unsafe {
                        let (c, stride) = (tile.c, tile.c_stride);
                        $($(let mut $sum = match tile.start {
                            Start::Zero => $splat(0.0),
                            Start::Held => $load(c.add($row * stride + $at * $lanes)),
                            Start::Rows(bias) => $splat(*bias.add($row)),
                            Start::Columns(bias) => $load(bias.add($at * $lanes)),
                        };)*)*
                        let (mut a, mut b) = (tile.a, tile.b);
                        for _ in 0..tile.k {
                            $(let $column = $load(b.add($place * $lanes));)*
                            $(
                                let factor = $splat(*a.add($row));
                                $($sum = $fused(factor, $factor, $sum);)*
                            )*
                            a = a.add($rows);
                            b = b.add(tile.b_stride);
                        }
                        $($($store(c.add($row * stride + $at * $lanes), $sum);)*)*
                    }
                }
            )*
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512, [target_feature(enable = "avx512f")], 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
    twelve = 12 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1], 4 [l4 first 0, r4 second 1], 5 [l5 first 0, r5 second 1], 6 [l6 first 0, r6 second 1], 7 [l7 first 0, r7 second 1], 8 [l8 first 0, r8 second 1], 9 [l9 first 0, r9 second 1], 10 [l10 first 0, r10 second 1], 11 [l11 first 0, r11 second 1]],
    eight = 8 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1], 4 [l4 first 0, r4 second 1], 5 [l5 first 0, r5 second 1], 6 [l6 first 0, r6 second 1], 7 [l7 first 0, r7 second 1]],
    four = 4 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1]],
    two = 2 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1]],
    one = 1 [first 0, second 1] [0 [l0 first 0, r0 second 1]]
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512_narrow, [target_feature(enable = "avx512f")], 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
    twelve = 12 [first 0] [0 [l0 first 0], 1 [l1 first 0], 2 [l2 first 0], 3 [l3 first 0], 4 [l4 first 0], 5 [l5 first 0], 6 [l6 first 0], 7 [l7 first 0], 8 [l8 first 0], 9 [l9 first 0], 10 [l10 first 0], 11 [l11 first 0]],
    eight = 8 [first 0] [0 [l0 first 0], 1 [l1 first 0], 2 [l2 first 0], 3 [l3 first 0], 4 [l4 first 0], 5 [l5 first 0], 6 [l6 first 0], 7 [l7 first 0]],
    four = 4 [first 0] [0 [l0 first 0], 1 [l1 first 0], 2 [l2 first 0], 3 [l3 first 0]],
    two = 2 [first 0] [0 [l0 first 0], 1 [l1 first 0]],
    one = 1 [first 0] [0 [l0 first 0]]
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx2, [target_feature(enable = "avx2,fma")], 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
    six = 6 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1], 4 [l4 first 0, r4 second 1], 5 [l5 first 0, r5 second 1]],
    four = 4 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1]],
    two = 2 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1]],
    one = 1 [first 0, second 1] [0 [l0 first 0, r0 second 1]]
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx2_narrow, [target_feature(enable = "avx2,fma")], 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
    six = 6 [first 0] [0 [l0 first 0], 1 [l1 first 0], 2 [l2 first 0], 3 [l3 first 0], 4 [l4 first 0], 5 [l5 first 0]],
    four = 4 [first 0] [0 [l0 first 0], 1 [l1 first 0], 2 [l2 first 0], 3 [l3 first 0]],
    two = 2 [first 0] [0 [l0 first 0], 1 [l1 first 0]],
    one = 1 [first 0] [0 [l0 first 0]]
);

#[cfg(target_arch = "aarch64")]
kernel!(
    neon, [target_feature(enable = "neon")], 4, vdupq_n_f32, vld1q_f32, vst1q_f32, fused,
    twelve = 12 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1], 4 [l4 first 0, r4 second 1], 5 [l5 first 0, r5 second 1], 6 [l6 first 0, r6 second 1], 7 [l7 first 0, r7 second 1], 8 [l8 first 0, r8 second 1], 9 [l9 first 0, r9 second 1], 10 [l10 first 0, r10 second 1], 11 [l11 first 0, r11 second 1]],
    eight = 8 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1], 4 [l4 first 0, r4 second 1], 5 [l5 first 0, r5 second 1], 6 [l6 first 0, r6 second 1], 7 [l7 first 0, r7 second 1]],
    four = 4 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1]],
    two = 2 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1]],
    one = 1 [first 0, second 1] [0 [l0 first 0, r0 second 1]]
);

/// `a · b + sum`, in the order of the arguments on x86.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn fused(
    a: std::arch::aarch64::float32x4_t,
    b: std::arch::aarch64::float32x4_t,
    sum: std::arch::aarch64::float32x4_t,
) -> std::arch::aarch64::float32x4_t {
    std::arch::aarch64::vfmaq_f32(sum, a, b)
}

#[cfg(any(test, not(target_arch = "aarch64")))]
kernel!(
    portable, [inline(never)], 4, splat, load, store, multiply_add,
    four = 4 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1], 2 [l2 first 0, r2 second 1], 3 [l3 first 0, r3 second 1]],
    two = 2 [first 0, second 1] [0 [l0 first 0, r0 second 1], 1 [l1 first 0, r1 second 1]],
    one = 1 [first 0, second 1] [0 [l0 first 0, r0 second 1]]
);

/// Four numbers side by side, for the compiler to make a vector of.
#[cfg(any(test, not(target_arch = "aarch64")))]
type Four = [f32; 4];

#[cfg(any(test, not(target_arch = "aarch64")))]
#[inline(always)]
fn splat(value: f32) -> Four {
    [value; 4]
}

/// # Safety
///
/// Four numbers lie there.
#[cfg(any(test, not(target_arch = "aarch64")))]
#[inline(always)]
unsafe fn load(from: *const f32) -> Four {
    // SAFETY: as the caller promises.
    unsafe { from.cast::<Four>().read_unaligned() }
}

/// # Safety
///
/// There is room for four numbers.
#[cfg(any(test, not(target_arch = "aarch64")))]
#[inline(always)]
unsafe fn store(to: *mut f32, value: Four) {
    // SAFETY: as the caller promises.
    unsafe { to.cast::<Four>().write_unaligned(value) }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
#[inline(always)]
fn multiply_add(a: Four, b: Four, sum: Four) -> Four {
    let mut sum = sum;
    let each = sum.iter_mut().zip(a.iter().zip(&b));
    each.for_each(|(sum, (a, b))| *sum += a * b);
    sum
}
