//! Sampling of images at any place between their elements.

use rayon::prelude::*;

use super::resize::cubic;
use super::taps::{Real, in_real};
use super::{Result, count};
use crate::error::OpError;
use crate::graph::{GridSample, Outside, SampleMode};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Places of an image and their weights, as many for each sample.
pub(super) struct Samples<T> {
    pub taps: Vec<(usize, T)>,
    /// For each sample.
    pub width: usize,
}

impl<T: Real> Samples<T> {
    /// All samples of each of some planes of `size` elements.
    pub fn read(&self, planes: &[T], size: usize, made: &mut [T]) {
        let number = self.taps.len() / self.width.max(1);
        if number == 0 || size == 0 {
            return;
        }
        let planes = planes.par_chunks(size).zip(made.par_chunks_mut(number));
        planes.for_each(|(from, to)| {
            for (to, taps) in to.iter_mut().zip(self.taps.chunks_exact(self.width)) {
                let value = |&(place, weight): &(usize, T)| {
                    from.get(place).copied().unwrap_or_default() * weight
                };
                *to = taps.iter().map(value).sum();
            }
        });
    }
}

/// Up to four places along an axis.
pub(super) type Near = ([(usize, f64); 4], usize);

/// The places that are read for coordinate `x` of an axis of `size` elements.
pub(super) fn near(how: GridSample, x: f64, size: usize) -> Near {
    let last = size as f64 - 1.0;
    let (low, high) = if how.align_corners {
        (0.0, last)
    } else {
        (-0.5, last + 0.5)
    };
    let x = match how.mode {
        SampleMode::Nearest => x.round_ties_even(),
        _ => x,
    };
    let inside = |x: f64| match how.outside {
        Outside::Zeros => x,
        Outside::Border => x.clamp(0.0, last),
        Outside::Reflection => reflect(x, low, high),
    };
    // A cubic filter reads beyond the border from where it is.
    let x = match how.mode {
        SampleMode::Cubic => x,
        _ if x < low || x > high => inside(x),
        _ => x,
    };
    let floor = x.floor();
    let (first, number) = match how.mode {
        SampleMode::Nearest => (x.round_ties_even(), 1),
        SampleMode::Linear => (floor, 2),
        SampleMode::Cubic => (floor - 1.0, 4),
    };
    let mut taps = [(0, 0.0); 4];
    for (i, tap) in taps.iter_mut().take(number).enumerate() {
        let at = first + i as f64;
        let weight = match how.mode {
            SampleMode::Nearest => 1.0,
            SampleMode::Linear => 1.0 - (at - x).abs(),
            SampleMode::Cubic => cubic(-0.75, at - x),
        };
        let at = inside(at);
        if how.outside != Outside::Zeros {
            *tap = (at.clamp(0.0, last) as usize, weight);
        } else if (0.0..=last).contains(&at) {
            *tap = (at as usize, weight);
        }
    }
    (taps, number)
}

/// Mirrors a coordinate at the borders until it lies between them.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let beyond = if x < low { low - x } else { x - low };
    let rest = beyond.rem_euclid(2.0 * range);
    low + rest.min(2.0 * range - rest)
}

/// Adds the places and weights of a sample: the product of those along each axis.
pub(super) fn push<T: Real>(
    taps: &mut Vec<(usize, T)>,
    axes: &[Near],
    sizes: &[usize],
    scale: f64,
) {
    let width: usize = axes.iter().map(|(_, number)| number).product();
    for i in 0..width {
        let mut rest = i;
        let mut place = 0;
        let mut weight = scale;
        let mut step = 1;
        for ((near, number), size) in axes.iter().zip(sizes).rev() {
            let (at, share) = near.get(rest % number).copied().unwrap_or_default();
            rest /= number;
            place += at * step;
            step *= size;
            weight *= share;
        }
        taps.push((place, T::of(weight)));
    }
}

/// `[n, c, …]` sampled at `[n, …, r]` places between -1 and 1, the last axis first.
pub(super) fn sample(how: GridSample, x: Value, grid: &Value) -> Result<Value> {
    let (shape, places) = (x.shape(), grid.shape());
    let misfit = || OpError::Shape(format!("a grid {places:?} for an image {shape:?}"));
    let ([batch, channels, sizes @ ..], [grids, made @ .., axes]) =
        (shape.as_slice(), places.as_slice())
    else {
        return Err(misfit());
    };
    let fits = batch == grids && made.len() == sizes.len() && *axes == sizes.len();
    if !fits || sizes.is_empty() || sizes.len() > 3 {
        return Err(misfit());
    }
    let result: Vec<_> = [*batch, *channels]
        .into_iter()
        .chain(made.iter().copied())
        .collect();
    check_size(DType::F64, &result)?;
    if count(&result) == 0 {
        return Value::full(x.dtype(), &result, 0.0, &x.device());
    }
    if count(sizes) == 0 {
        return Err(misfit());
    }
    let near: usize = match how.mode {
        SampleMode::Nearest => 1,
        SampleMode::Linear => 2,
        SampleMode::Cubic => 4,
    };
    check_size(DType::F64, &[count(made), near.pow(sizes.len() as u32), 2])?;
    in_real!(x.dtype(), sample_all(how, x, grid, sizes, &result))
}

fn sample_all<T: Real>(
    how: GridSample,
    x: Value,
    grid: &Value,
    sizes: &[usize],
    result: &[usize],
) -> Result<Value> {
    let (dtype, device) = (x.dtype(), x.device());
    let channels = result.get(1).copied().unwrap_or(1);
    let (size, number) = (count(sizes), count(result.get(2..).unwrap_or_default()));
    let values = x.elements::<T>()?;
    let grid = grid.elements::<T>()?;
    let mut made = vec![T::of(0.0); count(result)];
    let each = grid
        .chunks(number * sizes.len())
        .zip(values.chunks(size * channels));
    for ((grid, values), made) in each.zip(made.chunks_mut(number * channels)) {
        let mut taps = Vec::new();
        let mut axes = Vec::new();
        for place in grid.chunks(sizes.len()) {
            axes.clear();
            axes.extend(
                place.iter().rev().zip(sizes).map(|(&at, &size)| {
                    near(how, denormal(at, size, how.align_corners).wide(), size)
                }),
            );
            push(&mut taps, &axes, sizes, 1.0);
        }
        let width = taps.len() / number;
        Samples { taps, width }.read(values, size, made);
    }
    if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        // Integers are cut toward zero.
        made.iter_mut()
            .for_each(|value| *value = T::of(value.wide().trunc()));
    }
    Value::from_vec(made, result, dtype, &device)
}

/// From -1 and 1 to the places of the first and the last element, or their outer borders.
fn denormal<T: Real>(at: T, size: usize, align_corners: bool) -> T {
    let (size, one, two) = (T::of(size as f64), T::of(1.0), T::of(2.0));
    if align_corners {
        (at + one) / two * (size - one)
    } else {
        ((at + one) * size - one) / two
    }
}

/// The grid that matrices `[n, r, r + 1]` make of the places of an image `[n, c, …]`.
pub(super) fn affine(theta: Value, size: &[i64], align_corners: bool) -> Result<Value> {
    let size = super::shape::sizes(size)?;
    let shape = theta.shape();
    let misfit = || OpError::Shape(format!("matrices {shape:?} for an image {size:?}"));
    let [batch, _, sizes @ ..] = size.as_slice() else {
        return Err(misfit());
    };
    let axes = sizes.len();
    if shape != [*batch, axes, axes + 1] || !(2..=3).contains(&axes) {
        return Err(misfit());
    }
    let made: Vec<_> = [*batch]
        .into_iter()
        .chain(sizes.iter().copied())
        .chain([axes])
        .collect();
    check_size(DType::F64, &made)?;
    let (dtype, device) = (theta.dtype(), theta.device());
    let theta = theta.to_floats()?;
    let along = |at: usize, size: usize| {
        let (at, size) = (at as f64, size as f64);
        match align_corners {
            true if size > 1.0 => 2.0 * at / (size - 1.0) - 1.0,
            true => -1.0,
            false => (2.0 * at + 1.0) / size - 1.0,
        }
    };
    let mut grid = Vec::with_capacity(count(&made));
    for matrix in theta.chunks(axes * (axes + 1)) {
        for flat in 0..count(sizes) {
            let mut rest = flat;
            // The last axis is the first coordinate.
            let place = sizes.iter().rev().map(|&size| {
                let at = rest % size;
                rest /= size;
                along(at, size)
            });
            let place: Vec<_> = place.chain([1.0]).collect();
            let row = |row: &[f64]| row.iter().zip(&place).map(|(a, b)| a * b).sum::<f64>();
            grid.extend(matrix.chunks(axes + 1).map(row));
        }
    }
    Value::from_vec(grid, &made, dtype, &device)
}
