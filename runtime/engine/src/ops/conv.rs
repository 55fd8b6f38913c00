//! Convolutions over one, two or three axes.

use burn_backend::ops::{ConvOptions, ConvTransposeOptions, ModuleOps};

use super::shape::pad_constant;
use super::{Result, wide};
use crate::error::OpError;
use crate::graph::{Conv, Padding};
use crate::value::{B, Value, check_size, range};

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
    let (x_shape, w_shape) = (x.shape(), weights.shape());
    let misfit = || {
        let groups = conv.groups;
        OpError::Shape(format!(
            "weights {w_shape:?} don't fit input {x_shape:?}, {groups} groups"
        ))
    };
    let ([batch, channels, sizes @ ..], [made, per_group, kernel @ ..]) =
        (x_shape.as_slice(), w_shape.as_slice())
    else {
        return Err(misfit());
    };
    let fits = sizes.len() == kernel.len()
        && !kernel.contains(&0)
        && per_group.checked_mul(conv.groups) == Some(*channels)
        && made % conv.groups == 0
        && (conv.kernel.is_empty() || conv.kernel == kernel);
    if !fits || x.dtype() != weights.dtype() {
        return Err(misfit());
    }
    if let Some(bias) = &bias
        && (bias.shape() != [*made] || bias.dtype() != x.dtype())
    {
        return Err(OpError::Shape(format!(
            "bias {:?} for {made} channels",
            bias.shape()
        )));
    }
    let dtype = x.dtype();
    if wide(dtype) != dtype {
        // One rounding for each result, not one for each product.
        let bias = bias.map(|bias| bias.cast(wide(dtype))).transpose()?;
        let (x, weights) = (x.cast(wide(dtype))?, weights.cast(wide(dtype))?);
        return self::conv(conv, x, weights, bias)?.cast(dtype);
    }
    let axes = sizes.len();
    let strides = per_axis(&conv.strides, axes, "strides")?;
    let dilations = per_axis(&conv.dilations, axes, "dilations")?;
    let pads = pads(&conv.padding, sizes, kernel, &strides, &dilations)?;
    let padded: Vec<_> = [*batch, *channels]
        .into_iter()
        .chain(
            sizes
                .iter()
                .zip(&pads)
                .map(|(&s, &(a, b))| s.saturating_add(a).saturating_add(b)),
        )
        .collect();
    check_size(x.dtype(), &padded)?;
    let mut shape = vec![*batch, *made];
    shape.extend(output_sizes(sizes, kernel, &strides, &dilations, &pads)?);
    check_size(x.dtype(), &shape)?;
    if shape.contains(&0) || padded.contains(&0) {
        return Value::full(x.dtype(), &shape, 0.0, &x.device());
    }
    let (x, weights) = (x.float()?, weights.float()?);
    let bias = bias.map(Value::float).transpose()?;
    let groups = conv.groups;
    Ok(Value::Float(match axes {
        1 => {
            let options = options::<1>(&strides, &pads, &dilations, groups)?;
            B::conv1d(x, weights, bias, options)
        }
        2 => {
            let options = options::<2>(&strides, &pads, &dilations, groups)?;
            B::conv2d(x, weights, bias, options)
        }
        3 => {
            let options = options::<3>(&strides, &pads, &dilations, groups)?;
            B::conv3d(x, weights, bias, options)
        }
        _ => return Err(OpError::Shape(format!("{axes} axes, expected 1 to 3"))),
    }))
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
    let cut: Vec<(usize, usize)> = if output_shape.is_empty() {
        match &conv.padding {
            Padding::Explicit(_) => pads(&conv.padding, sizes, kernel, &strides, &dilations)?,
            Padding::Same { upper } => whole
                .iter()
                .zip(sizes.iter().zip(&strides))
                .zip(&extra)
                .map(|((&whole, (&size, &stride)), &extra)| {
                    share(
                        (whole + extra).saturating_sub(size.saturating_mul(stride)),
                        *upper,
                    )
                })
                .collect(),
        }
    } else {
        let upper = conv.padding == Padding::Same { upper: true };
        let wanted = per_axis(output_shape, axes, "output sizes")?;
        let total = whole.iter().zip(&extra).zip(&wanted);
        total
            .map(|((&whole, &extra), &n)| share((whole + extra).saturating_sub(n), upper))
            .collect()
    };
    let mut full = vec![*batch, made];
    full.extend(
        whole
            .iter()
            .zip(&extra)
            .map(|(&whole, &extra)| whole.saturating_add(extra)),
    );
    check_size(x.dtype(), &full)?;
    for (&size, &(begin, end)) in full.iter().skip(2).zip(&cut) {
        if begin.saturating_add(end) >= size {
            return Err(OpError::Shape(format!(
                "padding {begin} + {end} leaves nothing of {size}"
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
    let added: Vec<_> = [0, 0]
        .into_iter()
        .chain(extra)
        .map(|extra| (0, extra))
        .collect();
    let done = pad_constant(done, &added, 0.0)?;
    let slices: Vec<_> = full
        .iter()
        .zip([(0, 0), (0, 0)].iter().chain(&cut))
        .map(|(&size, &(begin, end))| range(begin, size - end, 1))
        .collect();
    let done = done.slice(&slices);
    match bias {
        None => Ok(done),
        Some(bias) => {
            let bias = bias.reshape(&bias_shape);
            super::elementwise::binary(crate::graph::Binary::Add, done, bias)
        }
    }
}

/// Padding shared between begin and end as auto_pad says.
fn share(total: usize, upper: bool) -> (usize, usize) {
    let (less, more) = (total / 2, total - total / 2);
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
