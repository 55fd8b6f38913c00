//! What puts the elements of windows back into an image.

use rayon::prelude::*;

use super::conv::{output_sizes, pads as window_pads, per_axis};
use super::shape::pad_constant;
use super::taps::{Real, in_real};
use super::{Result, count, index};
use crate::error::OpError;
use crate::graph::{Padding, Update, Window};
use crate::ops::shape;
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Each element put back where a pooling took it from, zeros elsewhere.
pub(super) fn unpool(
    window: &Window,
    x: Value,
    places: &Value,
    given: Option<Vec<i64>>,
) -> Result<Value> {
    let shape = x.shape();
    if places.shape() != shape {
        let places = places.shape();
        return Err(OpError::Shape(format!(
            "{places:?} indices for {shape:?} elements"
        )));
    }
    let [batch, channels, sizes @ ..] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 3 or more, found {shape:?}"
        )));
    };
    let axes = sizes.len();
    let kernel = per_axis(&window.kernel, axes, "sizes of a window")?;
    let strides = per_axis(&window.strides, axes, "strides")?;
    let pads = window_pads(&window.padding, sizes, &kernel, &strides, &vec![1; axes])?;
    let mut inferred = vec![*batch, *channels];
    let each = sizes.iter().zip(&kernel).zip(strides.iter().zip(&pads));
    inferred.extend(each.map(|((&size, &kernel), (&stride, &(begin, end)))| {
        let whole = size
            .saturating_sub(1)
            .saturating_mul(stride)
            .saturating_add(kernel);
        whole.saturating_sub(begin).saturating_sub(end)
    }));
    let made = match given {
        None => inferred.clone(),
        Some(given) => shape::sizes(&given)?,
    };
    let fits = made.len() == inferred.len() && made.iter().zip(&inferred).all(|(a, b)| a >= b);
    if !fits {
        return Err(OpError::Shape(format!(
            "an output of {made:?}, expected {inferred:?} or more"
        )));
    }
    check_size(x.dtype(), &made)?;
    let table = Value::full(x.dtype(), &inferred, 0.0, &x.device())?;
    let flat = [x.len()];
    let table = table.reshape(&[count(&inferred)]);
    let places = places.clone().reshape(&flat);
    let filled = index::scatter_elements(table, &places, &x.reshape(&flat), 0, Update::Assign)?;
    let ends: Vec<_> = made
        .iter()
        .zip(&inferred)
        .map(|(made, old)| (0, made - old))
        .collect();
    pad_constant(filled.reshape(&inferred), &ends, 0.0)
}

/// Blocks of columns `[n, c · block, l]` summed up where they lie in an image.
pub(super) fn col2im(
    x: Value,
    image: &[i64],
    block: &[i64],
    strides: &[usize],
    dilations: &[usize],
    pads: &[usize],
) -> Result<Value> {
    let (image, block) = (shape::sizes(image)?, shape::sizes(block)?);
    let axes = image.len();
    let strides = per_axis(strides, axes, "strides")?;
    let dilations = per_axis(dilations, axes, "dilations")?;
    let padding = Padding::Explicit(pads.to_vec());
    let block = per_axis(&block, axes, "sizes of a block")?;
    if block.contains(&0) || axes == 0 {
        return Err(OpError::Shape(format!(
            "blocks of {block:?} in an image {image:?}"
        )));
    }
    let pads = window_pads(&padding, &image, &block, &strides, &dilations)?;
    let steps = output_sizes(&image, &block, &strides, &dilations, &pads)?;
    let shape = x.shape();
    let product = |sizes: &[usize]| {
        sizes
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size))
    };
    let number = product(&block).unwrap_or(usize::MAX);
    let [batch, columns, length] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
    };
    let channels = columns / number;
    if channels * number != *columns || Some(*length) != product(&steps) {
        return Err(OpError::Shape(format!(
            "columns {shape:?} for blocks {block:?} at {steps:?} places"
        )));
    }
    let made: Vec<_> = [*batch, channels]
        .into_iter()
        .chain(image.iter().copied())
        .collect();
    check_size(DType::F64, &made)?;
    if count(&made) == 0 || x.len() == 0 {
        return Value::full(x.dtype(), &made, 0.0, &x.device());
    }
    // For each element of a column, its place in the image.
    let mut places = Vec::with_capacity(number.saturating_mul(*length));
    for element in 0..number {
        let offsets = positions(element, &block);
        for step in 0..*length {
            let steps = positions(step, &steps);
            let each = offsets
                .iter()
                .zip(steps)
                .zip(strides.iter().zip(&dilations));
            let each = each.zip(pads.iter().zip(&image));
            let place = each.map(|(((offset, step), (stride, dilation)), (pad, size))| {
                let at = (step * stride + offset * dilation).checked_sub(pad.0)?;
                (at < *size).then_some((at, *size))
            });
            let place = place.collect::<Option<Vec<_>>>();
            places.push(place.map(|place| place.into_iter().fold(0, |sum, (at, n)| sum * n + at)));
        }
    }
    in_real!(x.dtype(), collect(x, &places, &made, count(&image)))
}

fn collect<T: Real>(
    x: Value,
    places: &[Option<usize>],
    made: &[usize],
    image: usize,
) -> Result<Value> {
    let (dtype, device) = (x.dtype(), x.device());
    let values = x.elements::<T>()?;
    let mut sums = vec![T::of(0.0); count(made)];
    let planes = sums
        .par_chunks_mut(image)
        .zip(values.par_chunks(places.len()));
    planes.for_each(|(to, from)| {
        for (value, place) in from.iter().zip(places) {
            if let Some(slot) = place.and_then(|place| to.get_mut(place)) {
                *slot = *slot + *value;
            }
        }
    });
    Value::from_vec(sums, made, dtype, &device)
}

/// The positions along each axis of an element of the flat tensor.
fn positions(flat: usize, sizes: &[usize]) -> Vec<usize> {
    let mut found = vec![0; sizes.len()];
    let mut rest = flat;
    for (at, size) in found.iter_mut().zip(sizes).rev() {
        *at = rest % size;
        rest /= size;
    }
    found
}
