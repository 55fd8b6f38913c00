//! Deformable convolution.

use super::conv::{output_sizes, pads, per_axis};
use super::grid::{Samples, near, push};
use super::taps::{Real, in_real};
use super::{Result, count, elementwise, matmul};
use crate::error::OpError;
use crate::graph::{Binary, Conv, GridSample, Outside, SampleMode};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// A convolution whose window's elements are moved: offsets `[n, groups · k · r, …]`, mask
/// `[n, groups · k, …]` for a window of `k` elements over `r` axes.
pub(super) fn deform_conv(
    conv: &Conv,
    groups: usize,
    [x, weights, offsets]: [Value; 3],
    bias: Option<Value>,
    mask: Option<Value>,
) -> Result<Value> {
    let (x_shape, w_shape) = (x.shape(), weights.shape());
    let misfit = || {
        let (offsets, bias) = (offsets.shape(), bias.as_ref().map(Value::shape));
        let mask = mask.as_ref().map(Value::shape);
        OpError::Shape(format!(
            "weights {w_shape:?}, offsets {offsets:?}, bias {bias:?} and mask {mask:?} don't fit \
             input {x_shape:?}"
        ))
    };
    let ([batch, channels, sizes @ ..], [made, per_group, kernel @ ..]) =
        (x_shape.as_slice(), w_shape.as_slice())
    else {
        return Err(misfit());
    };
    let axes = sizes.len();
    let fits = axes == kernel.len()
        && (1..=3).contains(&axes)
        && !kernel.contains(&0)
        && !sizes.contains(&0)
        && per_group.checked_mul(conv.groups) == Some(*channels)
        && made % conv.groups == 0
        && channels % groups == 0
        && (conv.kernel.is_empty() || conv.kernel == kernel)
        && bias.as_ref().is_none_or(|bias| bias.shape() == [*made]);
    if !fits {
        return Err(misfit());
    }
    let strides = per_axis(&conv.strides, axes, "strides")?;
    let dilations = per_axis(&conv.dilations, axes, "dilations")?;
    let pads = pads(&conv.padding, sizes, kernel, &strides, &dilations)?;
    let steps = output_sizes(sizes, kernel, &strides, &dilations, &pads)?;
    let elements = count(kernel);
    let wanted = |per_element: usize| -> Vec<usize> {
        let columns = groups.saturating_mul(elements).saturating_mul(per_element);
        [*batch, columns]
            .into_iter()
            .chain(steps.iter().copied())
            .collect()
    };
    let masked = mask.as_ref().is_none_or(|mask| mask.shape() == wanted(1));
    if offsets.shape() != wanted(axes) || !masked {
        return Err(misfit());
    }
    check_size(DType::F64, &[elements, count(&steps), 2 << axes])?;
    let columns = [*batch, channels.saturating_mul(elements), count(&steps)];
    check_size(DType::F64, &columns)?;
    let result: Vec<_> = [*batch, *made]
        .into_iter()
        .chain(steps.iter().copied())
        .collect();
    check_size(x.dtype(), &result)?;
    if count(&result) == 0 || *channels == 0 {
        return Value::full(x.dtype(), &result, 0.0, &x.device());
    }
    let window = Moved {
        sizes,
        kernel,
        steps: &steps,
        strides: &strides,
        dilations: &dilations,
        pads: &pads,
        groups,
    };
    let dtype = x.dtype();
    let columns = in_real!(dtype, read_moved(&window, x, &offsets, mask.as_ref()))?;
    let inner = per_group * elements;
    let columns = columns.reshape(&[*batch, conv.groups, inner, count(&steps)]);
    let weights = weights.reshape(&[1, conv.groups, made / conv.groups, inner]);
    let done = matmul::matmul(weights, columns)?.reshape(&result);
    let Some(bias) = bias else { return Ok(done) };
    let spread: Vec<_> = [1, *made].into_iter().chain(vec![1; axes]).collect();
    elementwise::binary(Binary::Add, done, bias.reshape(&spread))
}

fn read_moved<T: Real>(
    window: &Moved,
    x: Value,
    offsets: &Value,
    mask: Option<&Value>,
) -> Result<Value> {
    window.columns::<T>(x, offsets, mask)
}

/// A window whose elements are moved each on their own.
struct Moved<'a> {
    sizes: &'a [usize],
    kernel: &'a [usize],
    steps: &'a [usize],
    strides: &'a [usize],
    dilations: &'a [usize],
    pads: &'a [(usize, usize)],
    groups: usize,
}

impl Moved<'_> {
    /// `[n, c · k, …]`: what each element of the window reads at each of its places.
    fn columns<T: Real>(&self, x: Value, offsets: &Value, mask: Option<&Value>) -> Result<Value> {
        let (dtype, device, shape) = (x.dtype(), x.device(), x.shape());
        let (batch, channels) = (
            shape.first().copied().unwrap_or(1),
            shape.get(1).copied().unwrap_or(1),
        );
        let (size, elements, number) = (count(self.sizes), count(self.kernel), count(self.steps));
        let values = x.elements::<T>()?;
        let offsets = offsets.to_floats()?;
        let mask = mask.map(Value::to_floats).transpose()?;
        let columns = elements * number;
        let mut made = vec![T::of(0.0); batch * channels * columns];
        let share = channels / self.groups;
        let each = values
            .chunks(size * share)
            .zip(made.chunks_mut(columns * share));
        let offsets = offsets.chunks(columns * self.sizes.len());
        for (group, ((values, made), offsets)) in each.zip(offsets).enumerate() {
            let mask = mask.as_ref().and_then(|mask| {
                let start = group * columns;
                mask.get(start..start + columns)
            });
            let samples = self.samples(offsets, mask);
            samples.read(values, size, made);
        }
        Value::from_vec(made, &[batch, channels * elements, number], dtype, &device)
    }

    fn samples<T: Real>(&self, offsets: &[f64], mask: Option<&[f64]>) -> Samples<T> {
        let how = GridSample {
            mode: SampleMode::Linear,
            outside: Outside::Zeros,
            align_corners: true,
        };
        let (elements, number) = (count(self.kernel), count(self.steps));
        let axes = self.sizes.len();
        let mut taps = Vec::with_capacity((elements * number) << axes);
        let mut near_all = Vec::with_capacity(axes);
        for element in 0..elements {
            for step in 0..number {
                near_all.clear();
                let (mut element_rest, mut step_rest) = (element, step);
                for axis in (0..axes).rev() {
                    let at = |list: &[usize]| list.get(axis).copied().unwrap_or(1);
                    let (kernel, steps) = (at(self.kernel), at(self.steps));
                    let begin = self.pads.get(axis).map_or(0, |pad| pad.0);
                    let place = (step_rest % steps) * at(self.strides)
                        + (element_rest % kernel) * at(self.dilations);
                    element_rest /= kernel;
                    step_rest /= steps;
                    let moved = offsets.get((element * axes + axis) * number + step);
                    let x = place as f64 - begin as f64 + moved.copied().unwrap_or(0.0);
                    near_all.push(near(how, x, at(self.sizes)));
                }
                near_all.reverse();
                let scale = mask.and_then(|mask| mask.get(element * number + step));
                push(
                    &mut taps,
                    &near_all,
                    self.sizes,
                    scale.copied().unwrap_or(1.0),
                );
            }
        }
        Samples {
            taps,
            width: 1 << axes,
        }
    }
}
