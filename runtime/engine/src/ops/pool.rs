//! Pooling over one to three axes, and over all.

use std::borrow::Cow;

use burn_backend::ops::{FloatTensorOps, ModuleOps};
use rayon::prelude::*;

use super::conv::{output_sizes, pads, per_axis, span};
use super::shape::pad_constant;
use super::taps::{Real, Row, along, in_real};
use super::{Result, count, reduce};
use crate::device;
use crate::error::OpError;
use crate::graph::{Binary, Reduce, Unary, Window};
use crate::ops::elementwise;
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// A window laid over `[n, c, …]`: one number per axis behind the channels.
struct Placed {
    /// Batch and channels.
    planes: [usize; 2],
    sizes: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Padding that the model asks for.
    pads: Vec<(usize, usize)>,
    /// Padding at the end with which the last window of a rounded-up size fits.
    extra: Vec<usize>,
    made: Vec<usize>,
    /// The result's shape.
    shape: Vec<usize>,
}

/// `planned`: where each window is written out element by element.
fn place(window: &Window, x: &Value, planned: bool) -> Result<Placed> {
    let shape = x.shape();
    let [batch, channels, sizes @ ..] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 3 to 5, found shape {shape:?}"
        )));
    };
    let axes = sizes.len();
    if axes == 0 || axes > 3 || window.kernel.len() != axes || sizes.contains(&0) {
        let kernel = &window.kernel;
        return Err(OpError::Shape(format!(
            "a window {kernel:?} over shape {shape:?}"
        )));
    }
    let strides = per_axis(&window.strides, axes, "strides")?;
    let dilations = per_axis(&window.dilations, axes, "dilations")?;
    let pads = pads(&window.padding, sizes, &window.kernel, &strides, &dilations)?;
    let mut made = output_sizes(sizes, &window.kernel, &strides, &dilations, &pads)?;
    let mut padded = vec![*batch, *channels];
    let add =
        |(&size, &(a, b)): (&usize, &(usize, usize))| size.saturating_add(a).saturating_add(b);
    padded.extend(sizes.iter().zip(&pads).map(add));
    check_size(x.dtype(), &padded)?;
    let mut extra = vec![0; axes];
    if window.ceil {
        let each = made.iter_mut().zip(&mut extra).zip(sizes.iter().zip(&pads));
        let reach = window.kernel.iter().zip(&dilations).zip(&strides);
        for (((made, extra), (&size, &(begin, end))), ((&kernel, &dilation), &stride)) in
            each.zip(reach)
        {
            let padded = size + begin + end;
            // One more window, unless it would start in the padding at the end.
            if (*made - 1) * stride + span(kernel, dilation) < padded
                && *made * stride < size + begin
            {
                *extra = *made * stride + span(kernel, dilation) - padded;
                *made += 1;
            }
        }
    }
    // What a plan of all windows of an axis takes.
    for (&made, &kernel) in made.iter().zip(&window.kernel) {
        if axes > 2 || planned {
            check_size(DType::F64, &[made, kernel, 2])?;
        }
    }
    let mut result = vec![*batch, *channels];
    result.extend(&made);
    check_size(DType::F64, &result)?;
    Ok(Placed {
        planes: [*batch, *channels],
        sizes: sizes.to_vec(),
        kernel: window.kernel.clone(),
        strides,
        dilations,
        pads,
        extra,
        made,
        shape: result,
    })
}

/// A window over one or two axes as one over two, for burn's kernels.
struct Flat {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [(usize, usize); 2],
    extra: [usize; 2],
    /// The input's shape with one axis added where there is one.
    plane: [usize; 4],
}

impl Placed {
    fn flat(&self) -> Option<Flat> {
        fn two<T: Copy>(values: &[T], fill: T) -> Option<[T; 2]> {
            match values {
                [a, b] => Some([*a, *b]),
                [a] => Some([*a, fill]),
                _ => None,
            }
        }
        let [height, width] = two(&self.sizes, 1)?;
        let [batch, channels] = self.planes;
        Some(Flat {
            kernel: two(&self.kernel, 1)?,
            strides: two(&self.strides, 1)?,
            dilations: two(&self.dilations, 1)?,
            pads: two(&self.pads, (0, 0))?,
            extra: two(&self.extra, 0)?,
            plane: [batch, channels, height, width],
        })
    }

    /// For each axis and each window along it, the places inside of the input and how many
    /// lie inside of it or its padding.
    fn windows(&self) -> Vec<Vec<(Vec<usize>, usize)>> {
        let window = |at: usize, to: usize| -> Option<(Vec<usize>, usize)> {
            let (size, (begin, end)) = (*self.sizes.get(at)?, *self.pads.get(at)?);
            let (stride, dilation) = (*self.strides.get(at)?, *self.dilations.get(at)?);
            let padded = (0..*self.kernel.get(at)?)
                .map(|i| to * stride + i * dilation)
                .filter(|&place| place < begin + size + end);
            let inside = padded.clone().filter_map(|place| place.checked_sub(begin));
            Some((
                inside.filter(|&place| place < size).collect(),
                padded.count(),
            ))
        };
        let axis =
            |(at, &made): (usize, &usize)| (0..made).filter_map(|to| window(at, to)).collect();
        self.made.iter().enumerate().map(axis).collect()
    }

    /// Sums along each axis, the elements of a window weighted by a function of how many lie
    /// inside of the input and how many inside of its padding too.
    fn rows(&self, weight: impl Fn(usize, usize) -> f64) -> Vec<(usize, Vec<Row>)> {
        let row = |(places, padded): (Vec<usize>, usize)| {
            let weight = weight(places.len(), padded);
            Row {
                taps: places.into_iter().map(|place| (place, weight)).collect(),
                constant: 0.0,
            }
        };
        let axes = self.windows().into_iter().enumerate();
        // From the last axis on, so that the long rows of the others come last.
        axes.rev()
            .map(|(at, axis)| (at + 2, axis.into_iter().map(row).collect()))
            .collect()
    }
}

impl Flat {
    /// Whether burn's own padding says it: the same on both sides, smaller than the window.
    fn symmetric(&self) -> Option<[usize; 2]> {
        let [height, width] = self.pads;
        let plain = height.0 == height.1 && width.0 == width.1 && self.extra == [0, 0];
        let [k_height, k_width] = self.kernel;
        let small = height.0 <= k_height / 2 && width.0 <= k_width / 2;
        (plain && small).then_some([height.0, width.0])
    }

    fn padded(&self, x: Value, fill: f64) -> Result<Value> {
        let [height, width] = self.pads;
        let [e_height, e_width] = self.extra;
        let pads = [
            (0, 0),
            (0, 0),
            (height.0, height.1 + e_height),
            (width.0, width.1 + e_width),
        ];
        pad_constant(x, &pads, fill)
    }
}

/// The largest elements and, where they are asked for, their places in the flat tensor; with
/// `column_major`, places within a plane count its first axis fastest.
pub(super) fn max(
    window: &Window,
    indices: bool,
    column_major: bool,
    x: Value,
) -> Result<Vec<Value>> {
    let placed = place(window, &x, indices)?;
    if placed.shape.contains(&0) {
        let empty = |dtype| Value::full(dtype, &placed.shape, 0.0, &x.device());
        return Ok(vec![empty(x.dtype())?, empty(DType::I64)?]);
    }
    match placed.flat() {
        Some(flat) if !indices => Ok(vec![plain_max(&placed, &flat, x)?]),
        None if !indices => Ok(vec![in_real!(x.dtype(), max_without_places(&placed, x))?]),
        _ => in_real!(x.dtype(), max_with_places(&placed, column_major, x)),
    }
}

fn plain_max(placed: &Placed, flat: &Flat, x: Value) -> Result<Value> {
    let dtype = x.dtype();
    if matches!(x, Value::Int(_)) {
        return plain_max(placed, flat, x.cast(DType::F32)?)?.cast(dtype);
    }
    let x = x.reshape(&flat.plane);
    let (x, padding) = match flat.symmetric() {
        Some(padding) => (x, padding),
        None => (flat.padded(x, f64::NEG_INFINITY)?, [0, 0]),
    };
    let (kernel, strides, dilations) = (flat.kernel, flat.strides, flat.dilations);
    let done = B::max_pool2d(x.float()?, kernel, strides, padding, dilations, false);
    Ok(Value::Float(done).reshape(&placed.shape))
}

/// Along one axis after the other.
fn max_without_places<T: Real>(placed: &Placed, x: Value) -> Result<Value> {
    let (dtype, device) = (x.dtype(), x.device());
    let mut values = x.elements::<T>()?;
    let mut sizes = placed.sizes.clone();
    for (axis, windows) in placed.windows().iter().enumerate() {
        let inner = sizes.iter().skip(axis + 1).product();
        let size = sizes.get(axis).copied().unwrap_or(1);
        values = Cow::Owned(maxima(&values, size, inner, windows));
        sizes
            .iter_mut()
            .skip(axis)
            .take(1)
            .for_each(|size| *size = windows.len());
    }
    Value::from_vec(values.into_owned(), &placed.shape, dtype, &device)
}

/// The largest of each window along the middle axis of three.
fn maxima<T: Real>(
    values: &[T],
    size: usize,
    inner: usize,
    windows: &[(Vec<usize>, usize)],
) -> Vec<T> {
    let least = T::of(f64::NEG_INFINITY);
    let mut made = vec![least; values.len() / size * windows.len()];
    let blocks = made
        .par_chunks_mut(windows.len() * inner)
        .zip(values.par_chunks(size * inner));
    blocks
        .with_min_len((4096 / inner).max(1))
        .for_each(|(to, from)| {
            for (to, (places, _)) in to.chunks_mut(inner).zip(windows) {
                for place in places {
                    let from = from.get(place * inner..).unwrap_or_default();
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = if *from > *to { *from } else { *to };
                    }
                }
            }
        });
    made
}

/// Along one axis after the other, from the last one on: so the first of equal elements wins.
fn max_with_places<T: Real>(placed: &Placed, column_major: bool, x: Value) -> Result<Vec<Value>> {
    let (dtype, device) = (x.dtype(), x.device());
    let values = x.elements::<T>()?;
    let windows = placed.windows();
    let size = count(&placed.sizes);
    let made = count(&placed.made);
    let mut largest = vec![T::of(0.0); values.len() / size * made];
    let mut places = vec![0i64; largest.len()];
    let planes = values.par_chunks(size).enumerate();
    let results = largest
        .par_chunks_mut(made)
        .zip(places.par_chunks_mut(made));
    planes.zip(results).for_each(|((plane, values), (to, at))| {
        let mut best: Vec<_> = values.iter().copied().zip(0..).collect();
        let mut shape = placed.sizes.clone();
        for (axis, windows) in windows.iter().enumerate().rev() {
            best = extremes(&best, &shape, axis, windows);
            shape
                .iter_mut()
                .skip(axis)
                .take(1)
                .for_each(|size| *size = windows.len());
        }
        for ((to, at), (value, place)) in to.iter_mut().zip(at).zip(best) {
            let place = if column_major {
                transposed(place, &placed.sizes)
            } else {
                place
            };
            (*to, *at) = (value, (plane * size + place) as i64);
        }
    });
    Ok(vec![
        Value::from_vec(largest, &placed.shape, dtype, &device)?,
        Value::from_ints(&places, &placed.shape, &device),
    ])
}

/// The largest of each window along an axis, with the place it had.
fn extremes<T: Real>(
    values: &[(T, usize)],
    shape: &[usize],
    axis: usize,
    windows: &[(Vec<usize>, usize)],
) -> Vec<(T, usize)> {
    let inner: usize = shape.iter().skip(axis + 1).product();
    let size = shape.get(axis).copied().unwrap_or(1);
    let mut made = Vec::with_capacity(values.len() / size.max(1) * windows.len());
    for block in values.chunks(size * inner) {
        for (places, _) in windows {
            made.extend((0..inner).map(|i| {
                let each = places
                    .iter()
                    .filter_map(|place| block.get(place * inner + i));
                let best = each
                    .copied()
                    .reduce(|best, next| if next.0 > best.0 { next } else { best });
                best.unwrap_or((T::of(f64::NEG_INFINITY), 0))
            }));
        }
    }
    made
}

/// A place counted along the last axis first, counted along the first one first.
fn transposed(place: usize, sizes: &[usize]) -> usize {
    let each = sizes.iter().rev().scan(place, |rest, size| {
        let at = *rest % size;
        *rest /= size;
        Some((at, *size))
    });
    // Outermost is now the last axis.
    each.fold(0, |sum, (at, size)| sum * size + at)
}

pub(super) fn average(window: &Window, count_padding: bool, x: Value) -> Result<Value> {
    let dilated = window.dilations.iter().any(|&dilation| dilation > 1);
    let placed = place(window, &x, dilated)?;
    if placed.shape.contains(&0) {
        return Value::full(x.dtype(), &placed.shape, 0.0, &x.device());
    }
    match placed.flat() {
        Some(flat) if !dilated => flat_average(&placed, &flat, count_padding, x),
        _ => {
            let share = |inside: usize, padded: usize| {
                let counted = if count_padding { padded } else { inside };
                1.0 / counted.max(1) as f64
            };
            along(x, &placed.rows(share))
        }
    }
}

fn flat_average(placed: &Placed, flat: &Flat, count_padding: bool, x: Value) -> Result<Value> {
    let x = x.reshape(&flat.plane);
    let (kernel, strides) = (flat.kernel, flat.strides);
    if let Some(padding) = flat.symmetric() {
        let done = B::avg_pool2d(x.float()?, kernel, strides, padding, count_padding, false);
        return Ok(Value::Float(done).reshape(&placed.shape));
    }
    // The average over zeros and the share of elements that count.
    let [_, _, height, width] = flat.plane;
    let ones = Value::full(x.dtype(), &[1, 1, height, width], 1.0, &x.device())?;
    let counted = if count_padding {
        let [h, w] = flat.pads;
        let ones = pad_constant(ones, &[(0, 0), (0, 0), h, w], 1.0)?;
        let [h, w] = flat.extra;
        pad_constant(ones, &[(0, 0), (0, 0), (0, h), (0, w)], 0.0)?
    } else {
        flat.padded(ones, 0.0)?
    };
    let mean = |x: Value| -> Result<_> {
        Ok(B::avg_pool2d(
            x.float()?,
            kernel,
            strides,
            [0, 0],
            true,
            false,
        ))
    };
    let done = B::float_div(mean(flat.padded(x, 0.0)?)?, mean(counted)?);
    Ok(Value::Float(done).reshape(&placed.shape))
}

/// `|x|^p`, or the p-th root of what is positive.
fn power(x: Value, p: f64) -> Result<Value> {
    let x = elementwise::unary(Unary::Abs, x)?;
    let by = Value::full(x.dtype(), &[], p, &device::cpu())?;
    elementwise::binary(Binary::Pow, x, by)
}

/// The p-norm of each window.
pub(super) fn lp(window: &Window, p: f32, x: Value) -> Result<Value> {
    let placed = place(window, &x, true)?;
    let p = f64::from(p);
    let sums = along(power(x, p)?, &placed.rows(|_, _| 1.0))?;
    power(sums, 1.0 / p)
}

/// The p-norm over all axes but the first two.
pub(super) fn global_lp(p: f32, x: Value) -> Result<Value> {
    let p = f64::from(p);
    power(global(Reduce::Sum, power(x, p)?)?, 1.0 / p)
}

/// Over all axes but the first two.
pub(super) fn global(kind: Reduce, x: Value) -> Result<Value> {
    let axes: Vec<_> = (2..x.rank() as i64).collect();
    if axes.is_empty() {
        return Err(OpError::Shape(format!(
            "expected rank 3 or more, found {:?}",
            x.shape()
        )));
    }
    reduce::reduce(kind, x, &axes, true)
}
