//! Weighted sums along one axis, computed on the host: what resizing, averages over windows
//! and sums over neighbouring channels are made of.

use std::borrow::Cow;
use std::iter::Sum;
use std::ops::{Add, Div, Mul, Sub};

use burn_backend::Element;
use bytemuck::Pod;
use rayon::prelude::*;

use super::{Result, count};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Elements for which it pays to ask other threads.
const PART: usize = 1 << 14;

/// A type that is computed in.
pub(super) trait Real:
    Element
    + Pod
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Sum
{
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn power(self, exponent: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }

    fn wide(self) -> f64 {
        self.into()
    }

    fn power(self, exponent: f64) -> Self {
        self.powf(exponent as Self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn power(self, exponent: f64) -> Self {
        self.powf(exponent)
    }
}

/// Runs a function for the type in which elements of this one are computed: f64 for f64 and
/// integers, else f32.
macro_rules! in_real {
    ($dtype:expr, $run:ident ( $($arg:expr),* $(,)? )) => {
        match $dtype {
            $crate::tensor::DType::F32
            | $crate::tensor::DType::F16
            | $crate::tensor::DType::BF16 => $run::<f32>($($arg),*),
            _ => $run::<f64>($($arg),*),
        }
    };
}
pub(super) use in_real;

/// What an element of a result is made of: `constant + Σ weight · source[place]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub taps: Vec<(usize, f64)>,
    pub constant: f64,
}

impl Row {
    /// One element, as it is.
    pub fn of(place: usize) -> Self {
        Self {
            taps: vec![(place, 1.0)],
            constant: 0.0,
        }
    }
}

/// The rows of each axis that changes, from `[…]` to the shape that the rows make.
pub(super) fn along(x: Value, axes: &[(usize, Vec<Row>)]) -> Result<Value> {
    let (dtype, device) = (x.dtype(), x.device());
    let mut shape = x.shape();
    for (at, rows) in axes {
        shape
            .iter_mut()
            .skip(*at)
            .take(1)
            .for_each(|size| *size = rows.len());
        check_size(DType::F64, &shape)?;
    }
    if count(&shape) == 0 || x.len() == 0 {
        return Value::full(dtype, &shape, 0.0, &device);
    }
    if matches!(x, Value::Bool(_) | Value::Code(..) | Value::Text(..)) {
        return Err(x.unexpected("numbers"));
    }
    in_real!(dtype, all(x, axes))
}

fn all<T: Real>(x: Value, axes: &[(usize, Vec<Row>)]) -> Result<Value> {
    let (dtype, device, mut shape) = (x.dtype(), x.device(), x.shape());
    let mut values = x.elements::<T>()?;
    for (at, rows) in axes {
        let outer = shape.iter().take(*at).product();
        let inner = shape.iter().skip(at + 1).product();
        let size = shape.get(*at).copied().unwrap_or(1);
        values = Cow::Owned(sums(&values, [outer, size, inner], rows));
        shape
            .iter_mut()
            .skip(*at)
            .take(1)
            .for_each(|size| *size = rows.len());
    }
    let values = values.into_owned();
    Value::from_vec(values, &shape, dtype, &device)
}

/// Sums along the middle axis of three.
pub(super) fn sums<T: Real>(
    values: &[T],
    [outer, size, inner]: [usize; 3],
    rows: &[Row],
) -> Vec<T> {
    let mut made = vec![T::of(0.0); outer * rows.len() * inner];
    if made.is_empty() || size == 0 {
        return made;
    }
    if inner > 1 {
        let least = (PART / inner).max(1);
        let row = |(at, to): (usize, &mut [T])| {
            let (block, row) = (at / rows.len(), at % rows.len());
            let start = block * size * inner;
            let source = |place: usize| {
                let from = start + place * inner;
                values.get(from..from + inner).unwrap_or_default()
            };
            if let Some(row) = rows.get(row) {
                weighted(to, row, source);
            }
        };
        made.par_chunks_mut(inner)
            .with_min_len(least)
            .enumerate()
            .for_each(row);
        return made;
    }
    let width = rows.iter().map(|row| row.taps.len()).max().unwrap_or(0);
    let least = (PART / rows.len() / width.max(1)).max(1);
    let lines = made
        .par_chunks_mut(rows.len())
        .zip(values.par_chunks(size))
        .with_min_len(least);
    match width {
        1 => lines.for_each(fixed::<T, 1>(rows)),
        2 => lines.for_each(fixed::<T, 2>(rows)),
        4 => lines.for_each(fixed::<T, 4>(rows)),
        _ => lines.for_each(|(to, from)| {
            for (to, row) in to.iter_mut().zip(rows) {
                let value = |&(place, weight): &(usize, f64)| {
                    from.get(place).copied().unwrap_or_default() * T::of(weight)
                };
                *to = T::of(row.constant) + row.taps.iter().map(value).sum();
            }
        }),
    }
    made
}

/// One row of `inner` elements each.
fn weighted<'a, T: Real>(to: &mut [T], row: &Row, source: impl Fn(usize) -> &'a [T]) {
    let constant = T::of(row.constant);
    match row.taps.as_slice() {
        [(a, 1.0)] if row.constant == 0.0 => {
            for (to, a) in to.iter_mut().zip(source(*a)) {
                *to = *a;
            }
        }
        [(a, first), (b, second)] => {
            let (first, second) = (T::of(*first), T::of(*second));
            for ((to, a), b) in to.iter_mut().zip(source(*a)).zip(source(*b)) {
                *to = constant + *a * first + *b * second;
            }
        }
        taps => {
            to.fill(constant);
            for (place, weight) in taps {
                let weight = T::of(*weight);
                for (to, from) in to.iter_mut().zip(source(*place)) {
                    *to = *to + *from * weight;
                }
            }
        }
    }
}

/// Rows of at most `N` taps over one line of elements.
fn fixed<T: Real, const N: usize>(rows: &[Row]) -> impl Fn((&mut [T], &[T])) + Sync + Send {
    let packed: Vec<([(usize, T); N], T)> = rows
        .iter()
        .map(|row| {
            // A missing tap repeats the first place with no weight.
            let first = row.taps.first().map_or(0, |tap| tap.0);
            let mut taps = [(first, T::of(0.0)); N];
            for (to, (place, weight)) in taps.iter_mut().zip(&row.taps) {
                *to = (*place, T::of(*weight));
            }
            (taps, T::of(row.constant))
        })
        .collect();
    move |(to, from): (&mut [T], &[T])| {
        for (to, (taps, constant)) in to.iter_mut().zip(&packed) {
            let value =
                |(place, weight): (usize, T)| from.get(place).copied().unwrap_or_default() * weight;
            *to = *constant + taps.map(value).into_iter().sum();
        }
    }
}
