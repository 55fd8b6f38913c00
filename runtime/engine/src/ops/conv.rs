//! Convolutions over one, two or three axes.

use burn_backend::ops::{ConvOptions, ConvTransposeOptions, ModuleOps};

use super::shape::pad;
use super::{Result, count, elementwise, wide};
use crate::error::OpError;
use crate::graph::{Conv, PadMode, Padding};
use crate::kernels::{self, F32, Filters, Geometry, spare};
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// A list of one number per axis; empty stands for ones.
pub(super) fn per_axis(given: &[usize], axes: usize, what: &str) -> Result<Vec<usize>> {
    match given.len() {
        0 => Ok(vec![1; axes]),
        n if n == axes => Ok(given.to_vec()),
        n => Err(OpError::Shape(format!("{n} {what} for {axes} axes"))),
    }
}

/// Padding at begin and end of each axis.
pub(super) fn pads(
    padding: &Padding,
    sizes: &[usize],
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
) -> Result<Vec<(usize, usize)>> {
    let axes = sizes.len();
    match padding {
        Padding::Explicit(pads) if pads.is_empty() => Ok(vec![(0, 0); axes]),
        Padding::Explicit(pads) => match pads.split_at_checked(axes) {
            Some((begin, end)) if end.len() == axes => {
                Ok(begin.iter().copied().zip(end.iter().copied()).collect())
            }
            _ => Err(OpError::Shape(format!(
                "{} pads for {axes} axes",
                pads.len()
            ))),
        },
        Padding::Same { upper } => {
            let each = sizes.iter().zip(kernel).zip(strides.iter().zip(dilations));
            Ok(each
                .map(|((&size, &kernel), (&stride, &dilation))| {
                    let reach = span(kernel, dilation);
                    let last = size
                        .div_ceil(stride)
                        .saturating_sub(1)
                        .saturating_mul(stride);
                    let total = last.saturating_add(reach).saturating_sub(size);
                    let (less, more) = (total / 2, total - total / 2);
                    if *upper { (less, more) } else { (more, less) }
                })
                .collect())
        }
    }
}

/// How many elements a window covers, its holes included.
pub(super) fn span(kernel: usize, dilation: usize) -> usize {
    kernel
        .saturating_sub(1)
        .saturating_mul(dilation)
        .saturating_add(1)
}

/// The sizes of what a convolution or pooling gives, rounded down.
pub(super) fn output_sizes(
    sizes: &[usize],
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
    pads: &[(usize, usize)],
) -> Result<Vec<usize>> {
    let each = sizes
        .iter()
        .zip(kernel)
        .zip(strides.iter().zip(dilations))
        .zip(pads);
    each.map(
        |(((&size, &kernel), (&stride, &dilation)), &(begin, end))| {
            let padded = size.saturating_add(begin).saturating_add(end);
            match padded.checked_sub(span(kernel, dilation)) {
                Some(rest) => Ok(rest / stride + 1),
                None => Err(OpError::Shape(format!(
                    "a window of {} doesn't fit into {padded} elements",
                    span(kernel, dilation)
                ))),
            }
        },
    )
    .collect()
}

fn array<const N: usize, T: Copy>(values: &[T]) -> Result<[T; N]> {
    let found = values.len();
    values
        .try_into()
        .map_err(|_| OpError::Shape(format!("expected {N} axes, found {found}")))
}

/// Input `[n, c, …]`, weights `[m, c / groups, …]`, bias `[m]`.
pub(super) fn conv(conv: &Conv, x: Value, weights: Value, bias: Option<Value>) -> Result<Value> {
    let sizes = Sizes::new(conv, &x, &weights.shape(), weights.dtype(), bias.as_ref())?;
    if sizes.are_empty() {
        return Value::full(x.dtype(), &sizes.output, 0.0, &x.device());
    }
    let dtype = x.dtype();
    if wide(dtype) != dtype {
        // One rounding for each result, not one for each product.
        let bias = bias.map(|bias| bias.cast(wide(dtype))).transpose()?;
        let (x, weights) = (x.cast(wide(dtype))?, weights.cast(wide(dtype))?);
        return self::conv(conv, x, weights, bias)?.cast(dtype);
    }
    let (x, weights) = match F32::both(x, weights) {
        Ok((x, weights)) if sizes.kernel.len() <= 2 => {
            let filters = Filters::new(weights.contiguous().slice());
            return sizes.run(conv, x, &filters, bias);
        }
        Ok((x, weights)) => (x.into_value(), weights.into_value()),
        Err(both) => both,
    };
    let (x, weights) = (x.float()?, weights.float()?);
    let bias = bias.map(Value::float).transpose()?;
    let groups = conv.groups;
    let Sizes {
        strides,
        pads,
        dilations,
        ..
    } = &sizes;
    let done = Value::Float(match sizes.kernel.len() {
        1 => {
            let options = options::<1>(strides, pads, dilations, groups)?;
            B::conv1d(x, weights, bias, options)
        }
        2 => {
            let options = options::<2>(strides, pads, dilations, groups)?;
            B::conv2d(x, weights, bias, options)
        }
        3 => {
            let options = options::<3>(strides, pads, dilations, groups)?;
            B::conv3d(x, weights, bias, options)
        }
        axes => return Err(OpError::Shape(format!("{axes} axes, expected 1 to 3"))),
    });
    elementwise::activate(conv.activation, done)
}

/// The same over one or two axes, with f32 weights of this shape that are laid out for it.
pub(super) fn filter(
    conv: &Conv,
    x: Value,
    filters: &Filters,
    shape: &[usize],
    bias: Option<Value>,
) -> Result<Value> {
    let sizes = Sizes::new(conv, &x, shape, DType::F32, bias.as_ref())?;
    if sizes.are_empty() {
        return Value::full(DType::F32, &sizes.output, 0.0, &x.device());
    }
    let x = F32::new(x).map_err(|x| x.unexpected("f32"))?;
    sizes.run(conv, x, filters, bias)
}

/// The error of weights that an input is not made for.
pub(super) fn misfit(conv: &Conv, input: &[usize], weights: &[usize]) -> OpError {
    let groups = conv.groups;
    OpError::Shape(format!(
        "weights {weights:?} don't fit input {input:?}, {groups} groups"
    ))
}

/// All sizes of a convolution, which fit each other.
pub(super) struct Sizes {
    input: Vec<usize>,
    padded: Vec<usize>,
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads: Vec<(usize, usize)>,
    pub output: Vec<usize>,
}

impl Sizes {
    /// Fits a kernel of weights `[m, c / groups, …]` to an input `[n, c, …]`.
    pub fn fit(conv: &Conv, input: &[usize], weights: &[usize]) -> Result<Self> {
        let misfit = || misfit(conv, input, weights);
        let ([batch, channels, sizes @ ..], [made, per_group, kernel @ ..]) = (input, weights)
        else {
            return Err(misfit());
        };
        let fits = sizes.len() == kernel.len()
            && !kernel.contains(&0)
            && per_group.checked_mul(conv.groups) == Some(*channels)
            && made % conv.groups == 0
            && (conv.kernel.is_empty() || conv.kernel == kernel);
        if !fits {
            return Err(misfit());
        }
        let axes = sizes.len();
        let strides = per_axis(&conv.strides, axes, "strides")?;
        let dilations = per_axis(&conv.dilations, axes, "dilations")?;
        let pads = pads(&conv.padding, sizes, kernel, &strides, &dilations)?;
        let padded = sizes
            .iter()
            .zip(&pads)
            .map(|(&s, &(a, b))| s.saturating_add(a).saturating_add(b));
        let padded: Vec<_> = [*batch, *channels].into_iter().chain(padded).collect();
        let mut output = vec![*batch, *made];
        output.extend(output_sizes(sizes, kernel, &strides, &dilations, &pads)?);
        Ok(Self {
            kernel: kernel.to_vec(),
            input: input.to_vec(),
            padded,
            strides,
            dilations,
            pads,
            output,
        })
    }

    /// The same for tensors of one type, which must not become too large.
    fn new(
        conv: &Conv,
        x: &Value,
        weights: &[usize],
        dtype: DType,
        bias: Option<&Value>,
    ) -> Result<Self> {
        let sizes = Self::fit(conv, &x.shape(), weights)?;
        if x.dtype() != dtype {
            return Err(misfit(conv, &sizes.input, weights));
        }
        let made = sizes.output.get(1).copied().unwrap_or(0);
        if let Some(bias) = bias
            && (bias.shape() != [made] || bias.dtype() != dtype)
        {
            return Err(OpError::Shape(format!(
                "bias {:?} for {made} channels",
                bias.shape()
            )));
        }
        check_size(dtype, &sizes.padded)?;
        check_size(dtype, &sizes.output)?;
        Ok(sizes)
    }

    /// Nothing is made, or of nothing but padding.
    fn are_empty(&self) -> bool {
        self.output.contains(&0) || self.padded.contains(&0)
    }

    /// On the CPU.
    fn run(self, conv: &Conv, x: F32, filters: &Filters, bias: Option<Value>) -> Result<Value> {
        let misfit = || OpError::Shape(format!("{} axes, expected 1 or 2", self.kernel.len()));
        let plane = |sizes: &[usize], one: usize| match *sizes {
            [width] => Ok([one, width]),
            [height, width] => Ok([height, width]),
            _ => Err(misfit()),
        };
        let begin: Vec<_> = self.pads.iter().map(|&(begin, _)| begin).collect();
        let ([batch, channels, image @ ..], [_, made, output @ ..]) =
            (self.input.as_slice(), self.output.as_slice())
        else {
            return Err(misfit());
        };
        let geometry = Geometry {
            batch: *batch,
            channels: *channels,
            made: *made,
            groups: conv.groups,
            image: plane(image, 1)?,
            kernel: plane(&self.kernel, 1)?,
            strides: plane(&self.strides, 1)?,
            dilations: plane(&self.dilations, 1)?,
            begin: plane(&begin, 0)?,
            output: plane(output, 1)?,
        };
        let bias = bias.map(F32::new).transpose();
        let bias = bias.map_err(|bias| bias.unexpected("f32"))?;
        let bias = bias.map(F32::contiguous);
        let bias = bias.as_ref().map(F32::slice);
        let x = x.contiguous();
        let mut done = spare::take(count(&self.output));
        let (image, activation) = (x.slice(), conv.activation);
        kernels::conv(&geometry, image, filters, bias, activation, &mut done).ok_or_else(misfit)?;
        x.give();
        Ok(F32::from_vec(done, &self.output).into_value())
    }
}

fn options<const N: usize>(
    strides: &[usize],
    pads: &[(usize, usize)],
    dilations: &[usize],
    groups: usize,
) -> Result<ConvOptions<N>> {
    let (strides, dilations) = (array(strides)?, array(dilations)?);
    Ok(ConvOptions::new_with_padding(
        strides,
        array(pads)?,
        dilations,
        groups,
    ))
}

/// Input `[n, c, …]`, weights `[c, m / groups, …]`, bias `[m]`.
pub(super) fn conv_transpose(
    conv: &Conv,
    output_padding: &[usize],
    output_shape: &[usize],
    x: Value,
    weights: Value,
    bias: Option<Value>,
) -> Result<Value> {
    let (x_shape, w_shape) = (x.shape(), weights.shape());
    let misfit = || OpError::Shape(format!("weights {w_shape:?} don't fit input {x_shape:?}"));
    let ([batch, channels, sizes @ ..], [taken, per_group, kernel @ ..]) =
        (x_shape.as_slice(), w_shape.as_slice())
    else {
        return Err(misfit());
    };
    let made = per_group.checked_mul(conv.groups).ok_or_else(misfit)?;
    let fits = sizes.len() == kernel.len() && channels == taken && channels % conv.groups == 0;
    if !fits || x.dtype() != weights.dtype() || kernel.contains(&0) || sizes.contains(&0) {
        return Err(misfit());
    }
    if bias.as_ref().is_some_and(|bias| bias.shape() != [made]) {
        return Err(misfit());
    }
    let axes = sizes.len();
    let strides = per_axis(&conv.strides, axes, "strides")?;
    let dilations = per_axis(&conv.dilations, axes, "dilations")?;
    let extra = match output_padding {
        [] => vec![0; axes],
        given => per_axis(given, axes, "output_padding")?,
    };
    // The whole result, from which the padding is cut.
    let whole: Vec<_> = sizes
        .iter()
        .zip(kernel)
        .zip(strides.iter().zip(&dilations))
        .map(|((&size, &kernel), (&stride, &dilation))| {
            (size - 1)
                .saturating_mul(stride)
                .saturating_add(span(kernel, dilation))
        })
        .collect();
    let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let total = whole
        .iter()
        .zip(&extra)
        .map(|(&whole, &extra)| whole.saturating_add(extra));
    // What doesn't fit into the wanted sizes is cut off; what they miss is added.
    let cut: Vec<(i64, i64)> = match (&conv.padding, output_shape) {
        (Padding::Explicit(_), []) => {
            let pads = pads(&conv.padding, sizes, kernel, &strides, &dilations)?;
            pads.into_iter()
                .map(|(begin, end)| (signed(begin), signed(end)))
                .collect()
        }
        (padding, _) => {
            let upper = *padding == Padding::Same { upper: true };
            let wanted = match output_shape {
                [] => {
                    let each = sizes.iter().zip(&strides);
                    each.map(|(&size, &stride)| size.saturating_mul(stride))
                        .collect()
                }
                given => per_axis(given, axes, "output sizes")?,
            };
            let over = total.clone().zip(&wanted);
            let over = over.map(|(total, &wanted)| signed(total).saturating_sub(signed(wanted)));
            // Same padding never adds.
            let least = if output_shape.is_empty() { 0 } else { i64::MIN };
            over.map(|over| share(over.max(least), upper)).collect()
        }
    };
    let mut full = vec![*batch, made];
    full.extend(total.clone());
    check_size(x.dtype(), &full)?;
    for (total, &(begin, end)) in total.zip(&cut) {
        if begin.saturating_add(end) >= signed(total) {
            return Err(OpError::Shape(format!(
                "padding {begin} + {end} leaves nothing of {total}"
            )));
        }
    }
    let (x, weights) = (x.float()?, weights.float()?);
    let bias_shape: Vec<_> = [1, made].into_iter().chain(vec![1; axes]).collect();
    let zeros = vec![0; axes];
    let groups = conv.groups;
    let done = Value::Float(match axes {
        1 => {
            let options = transpose_options::<1>(&strides, &zeros, &zeros, &dilations, groups)?;
            B::conv_transpose1d(x, weights, None, options)
        }
        2 => {
            let options = transpose_options::<2>(&strides, &zeros, &zeros, &dilations, groups)?;
            B::conv_transpose2d(x, weights, None, options)
        }
        3 => {
            let options = transpose_options::<3>(&strides, &zeros, &zeros, &dilations, groups)?;
            B::conv_transpose3d(x, weights, None, options)
        }
        _ => return Err(OpError::Shape(format!("{axes} axes, expected 1 to 3"))),
    });
    let begin = cut.iter().map(|cut| cut.0.saturating_neg());
    let end = cut
        .iter()
        .zip(&extra)
        .map(|(cut, &extra)| signed(extra).saturating_sub(cut.1));
    let planes = || [0, 0].into_iter();
    let around: Vec<_> = planes().chain(begin).chain(planes()).chain(end).collect();
    let done = pad(done, PadMode::Constant, &around, None, None)?;
    match bias {
        None => Ok(done),
        Some(bias) => {
            let bias = bias.reshape(&bias_shape);
            super::elementwise::binary(crate::graph::Binary::Add, done, bias)
        }
    }
}

/// What is cut off shared between begin and end as auto_pad says.
fn share(total: i64, upper: bool) -> (i64, i64) {
    let less = total.div_euclid(2);
    let more = total.saturating_sub(less);
    if upper { (less, more) } else { (more, less) }
}

fn transpose_options<const N: usize>(
    strides: &[usize],
    padding: &[usize],
    extra: &[usize],
    dilations: &[usize],
    groups: usize,
) -> Result<ConvTransposeOptions<N>> {
    Ok(ConvTransposeOptions {
        stride: array(strides)?,
        padding: array(padding)?,
        padding_out: array(extra)?,
        dilation: array(dilations)?,
        groups,
    })
}
