//! Pooling over one or two axes, and over all.

use burn_backend::ops::{FloatTensorOps, ModuleOps};

use super::conv::{output_sizes, pads, per_axis, span};
use super::shape::pad_constant;
use super::{Result, reduce};
use crate::error::OpError;
use crate::graph::{Reduce, Window};
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// A window laid over `[n, c, height, width]`.
struct Placed {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Padding that the model asks for.
    pads: [(usize, usize); 2],
    /// Padding at the end with which the last window of a rounded-up size fits.
    extra: [usize; 2],
    /// The result's shape, in the input's rank.
    shape: Vec<usize>,
    /// The input's shape with one axis added where there is one.
    plane: Vec<usize>,
}

fn place(window: &Window, x: &Value) -> Result<Placed> {
    let shape = x.shape();
    let [batch, channels, sizes @ ..] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 3 or 4, found shape {shape:?}"
        )));
    };
    let axes = sizes.len();
    if axes == 0 || axes > 2 || window.kernel.len() != axes || sizes.contains(&0) {
        let kernel = &window.kernel;
        return Err(OpError::Shape(format!(
            "a window {kernel:?} over shape {shape:?}"
        )));
    }
    let strides = per_axis(&window.strides, axes, "strides")?;
    let dilations = per_axis(&window.dilations, axes, "dilations")?;
    let pads = pads(&window.padding, sizes, &window.kernel, &strides, &dilations)?;
    let mut made = output_sizes(sizes, &window.kernel, &strides, &dilations, &pads)?;
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
    let two = |values: &[usize], fill: usize| match values {
        [a, b] => [*a, *b],
        [a] => [*a, fill],
        _ => [fill, fill],
    };
    let pads = match pads.as_slice() {
        [a, b] => [*a, *b],
        [a] => [*a, (0, 0)],
        _ => [(0, 0), (0, 0)],
    };
    let [height, width] = two(sizes, 1);
    let result: Vec<_> = [*batch, *channels].into_iter().chain(made).collect();
    let padded = [
        height + pads[0].0 + pads[0].1,
        width + pads[1].0 + pads[1].1,
    ];
    check_size(x.dtype(), &[*batch, *channels, padded[0], padded[1]])?;
    check_size(x.dtype(), &result)?;
    Ok(Placed {
        kernel: two(&window.kernel, 1),
        strides: two(&strides, 1),
        dilations: two(&dilations, 1),
        pads,
        extra: two(&extra, 0),
        shape: result,
        plane: vec![*batch, *channels, height, width],
    })
}

impl Placed {
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

pub(super) fn max(window: &Window, x: Value) -> Result<Value> {
    let dtype = x.dtype();
    if matches!(x, Value::Int(_)) {
        return max(window, x.cast(DType::F32)?)?.cast(dtype);
    }
    let placed = place(window, &x)?;
    let x = x.reshape(&placed.plane);
    let (x, padding) = match placed.symmetric() {
        Some(padding) => (x, padding),
        None => (placed.padded(x, f64::NEG_INFINITY)?, [0, 0]),
    };
    let Placed {
        kernel,
        strides,
        dilations,
        shape,
        ..
    } = placed;
    if shape.contains(&0) {
        return Value::full(dtype, &shape, 0.0, &x.device());
    }
    let done = B::max_pool2d(x.float()?, kernel, strides, padding, dilations, false);
    Ok(Value::Float(done).reshape(&shape))
}

pub(super) fn average(window: &Window, count_padding: bool, x: Value) -> Result<Value> {
    if window.dilations.iter().any(|&dilation| dilation > 1) {
        return Err(OpError::Value(
            "an average over a dilated window is not supported".into(),
        ));
    }
    let placed = place(window, &x)?;
    if placed.shape.contains(&0) {
        return Value::full(x.dtype(), &placed.shape, 0.0, &x.device());
    }
    let x = x.reshape(&placed.plane);
    let (kernel, strides) = (placed.kernel, placed.strides);
    if let Some(padding) = placed.symmetric() {
        let done = B::avg_pool2d(x.float()?, kernel, strides, padding, count_padding, false);
        return Ok(Value::Float(done).reshape(&placed.shape));
    }
    // The average over zeros and the share of elements that count.
    let [_, _, height, width] = placed.plane.as_slice() else {
        return Ok(x);
    };
    let ones = Value::full(x.dtype(), &[1, 1, *height, *width], 1.0, &x.device())?;
    let counted = if count_padding {
        let [h, w] = placed.pads;
        let ones = pad_constant(ones, &[(0, 0), (0, 0), h, w], 1.0)?;
        let [h, w] = placed.extra;
        pad_constant(ones, &[(0, 0), (0, 0), (0, h), (0, w)], 0.0)?
    } else {
        placed.padded(ones, 0.0)?
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
    let done = B::float_div(mean(placed.padded(x, 0.0)?)?, mean(counted)?);
    Ok(Value::Float(done).reshape(&placed.shape))
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
