//! What is computed of each row by itself: sums and extremes, softmax, layer normalisation.

use rayon::prelude::*;

use super::PART;
use super::activation::exp;
use super::simd::vectorised;
use crate::graph::Reduce;

/// Sums that run side by side, so that they become vectors.
const LANES: usize = 32;

/// Combines all elements of a row: first lane by lane, then the lanes.
#[inline(always)]
fn combine(row: &[f32], start: f32, each: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [start; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = each(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = each(*lane, *x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut()
            .zip(high)
            .for_each(|(low, high)| *low += *high);
        width /= 2;
    }
    lanes[0]
}

/// The same where lanes meet as elements do.
#[inline(always)]
fn extreme(row: &[f32], better: impl Fn(f32, f32) -> bool) -> f32 {
    let Some(&first) = row.first() else {
        return f32::NAN;
    };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let choose = |a: f32, b: f32| if better(b, a) || b.is_nan() { b } else { a };
    let mut lanes = [first; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = choose(*lane, *x);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(first, |a, &b| choose(a, b))
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    combine(row, 0.0, |sum, x| sum + x)
}

/// Whether [`reduce`] knows this reduction.
pub(crate) fn reduces(kind: Reduce) -> bool {
    use Reduce::{L1, L2, Max, Mean, Min, Sum, SumSquare};
    matches!(kind, Sum | Mean | Max | Min | SumSquare | L1 | L2)
}

/// Rows of `size` elements to one number each.
pub(crate) fn reduce(kind: Reduce, rows: &[f32], size: usize) -> Vec<f32> {
    if rows.len() <= PART || rayon::current_num_threads() == 1 {
        return reduce_part(kind, rows, size);
    }
    let share = (PART / size).max(1) * size;
    let parts = rows.par_chunks(share);
    let parts: Vec<_> = parts.map(|part| reduce_part(kind, part, size)).collect();
    parts.concat()
}

vectorised! {
    fn reduce_part(kind: Reduce, rows: &[f32], size: usize) -> Vec<f32> {
        let rows = rows.chunks_exact(size);
        let square = |sum: f32, x: f32| sum + x * x;
        match kind {
            Reduce::Mean => rows.map(|row| sum(row) / size as f32).collect(),
            Reduce::Max => rows.map(|row| extreme(row, |a, b| a > b)).collect(),
            Reduce::Min => rows.map(|row| extreme(row, |a, b| a < b)).collect(),
            Reduce::SumSquare => rows.map(|row| combine(row, 0.0, square)).collect(),
            Reduce::L2 => rows.map(|row| combine(row, 0.0, square).sqrt()).collect(),
            Reduce::L1 => rows.map(|row| combine(row, 0.0, |sum, x| sum + x.abs())).collect(),
            _ => rows.map(sum).collect(),
        }
    }
}

/// Planes of `size` rows of `inner` elements to one row each.
pub(crate) fn reduce_columns(kind: Reduce, planes: &[f32], size: usize, inner: usize) -> Vec<f32> {
    let mut made = Vec::with_capacity(planes.len() / size.max(1));
    for plane in planes.chunks_exact(size * inner) {
        let start = made.len();
        let (first, rows) = plane.split_at(inner);
        match kind {
            Reduce::SumSquare | Reduce::L2 => made.extend(first.iter().map(|x| x * x)),
            Reduce::L1 => made.extend(first.iter().map(|x| x.abs())),
            _ => made.extend_from_slice(first),
        }
        let held = made.get_mut(start..).unwrap_or_default();
        reduce_plane(kind, held, rows, size);
    }
    made
}

vectorised! {
    /// Adds rows to the one that is held.
    fn reduce_plane(kind: Reduce, held: &mut [f32], rows: &[f32], size: usize) {
        for row in rows.chunks_exact(held.len()) {
            let each = held.iter_mut().zip(row);
            match kind {
                Reduce::Max => each.for_each(|(a, &b)| {
                    *a = if b > *a || b.is_nan() { b } else { *a };
                }),
                Reduce::Min => each.for_each(|(a, &b)| {
                    *a = if b < *a || b.is_nan() { b } else { *a };
                }),
                Reduce::SumSquare | Reduce::L2 => each.for_each(|(a, &b)| *a += b * b),
                Reduce::L1 => each.for_each(|(a, &b)| *a += b.abs()),
                _ => each.for_each(|(a, &b)| *a += b),
            }
        }
        match kind {
            Reduce::Mean => held.iter_mut().for_each(|a| *a /= size as f32),
            Reduce::L2 => held.iter_mut().for_each(|a| *a = a.sqrt()),
            _ => {}
        }
    }
}

/// Runs `work` on parts of whole rows, on several threads where there are many elements.
fn each_part(rows: &mut [f32], size: usize, work: impl Fn(&mut [f32]) + Sync + Send) {
    if rows.len() <= PART || rayon::current_num_threads() == 1 {
        work(rows);
    } else {
        let share = (PART / size).max(1) * size;
        rows.par_chunks_mut(share).for_each(work);
    }
}

/// Each row becomes `exp(x) / Σ exp(x)`.
pub(crate) fn softmax(rows: &mut [f32], size: usize) {
    each_part(rows, size, |rows| softmax_part(rows, size));
}

vectorised! {
    fn softmax_part(rows: &mut [f32], size: usize) {
        for row in rows.chunks_exact_mut(size) {
            let largest = extreme(row, |a, b| a > b);
            row.iter_mut().for_each(|x| *x = exp(*x - largest));
            // A row of nothing but negative infinities has no answer but NaN.
            let scale = if largest == f32::NEG_INFINITY {
                f32::NAN
            } else {
                1.0 / sum(row)
            };
            row.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// Each row becomes `(x − mean) / √(variance + ε) · scale + bias`.
pub(crate) fn layer_norm(rows: &mut [f32], scale: &[f32], bias: Option<&[f32]>, epsilon: f32) {
    each_part(rows, scale.len(), |rows| {
        layer_norm_part(rows, scale, bias, epsilon);
    });
}

vectorised! {
    fn layer_norm_part(rows: &mut [f32], scale: &[f32], bias: Option<&[f32]>, epsilon: f32) {
        let size = scale.len();
        for row in rows.chunks_exact_mut(size) {
            let mean = sum(row) / size as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            let variance = combine(row, 0.0, |sum, x| sum + x * x) / size as f32;
            let factor = 1.0 / (variance + epsilon).sqrt();
            match bias {
                Some(bias) => {
                    let each = row.iter_mut().zip(scale.iter().zip(bias));
                    each.for_each(|(x, (scale, bias))| *x = *x * factor * scale + bias);
                }
                None => {
                    let each = row.iter_mut().zip(scale);
                    each.for_each(|(x, scale)| *x *= factor * scale);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(size: usize) -> Vec<f32> {
        (0..size)
            .map(|i| ((i * 37) % 101) as f32 * 0.1 - 4.0)
            .collect()
    }

    #[test]
    fn reductions_are_those_of_the_formula() {
        for size in [1, 3, 31, 32, 33, 200] {
            let x = [row(size), row(size).iter().map(|x| -x * 0.5).collect()].concat();
            for kind in [
                Reduce::Sum,
                Reduce::Mean,
                Reduce::Max,
                Reduce::Min,
                Reduce::SumSquare,
                Reduce::L1,
                Reduce::L2,
            ] {
                let expected = |row: &[f32]| match kind {
                    Reduce::Sum => row.iter().sum::<f32>(),
                    Reduce::Mean => row.iter().sum::<f32>() / size as f32,
                    Reduce::Max => row.iter().copied().fold(f32::MIN, f32::max),
                    Reduce::Min => row.iter().copied().fold(f32::MAX, f32::min),
                    Reduce::L1 => row.iter().map(|x| x.abs()).sum(),
                    Reduce::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
                    _ => row.iter().map(|x| x * x).sum(),
                };
                let expected: Vec<f32> = x.chunks(size).map(expected).collect();
                // The same elements, turned so that rows are columns.
                let turned: Vec<f32> = (0..2 * size).map(|i| x[i % 2 * size + i / 2]).collect();
                for found in [
                    reduce(kind, &x, size),
                    reduce_columns(kind, &turned, size, 2),
                ] {
                    for (found, expected) in found.iter().zip(&expected) {
                        let near = (found - expected).abs() <= 1e-3 * (1.0 + expected.abs());
                        assert!(near, "{kind:?} of {size}: {found}, expected {expected}");
                    }
                }
            }
        }
        assert!(reduce(Reduce::Max, &[1.0, f32::NAN, 2.0], 3)[0].is_nan());
    }

    #[test]
    fn softmax_adds_up_to_one_whatever_the_range() {
        for size in [1, 5, 32, 77] {
            let mut x = row(size);
            x[0] = 1000.0;
            softmax(&mut x, size);
            assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6 && x[0] > 0.999);
        }
        let mut masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        softmax(&mut masked, 3);
        assert_eq!(masked[1], 1.0);
        assert!(masked[0] < 1e-37);
    }
}
