//! Products and convolutions of 8-bit integers, with sums of 32 bits.

use std::borrow::Cow;

use burn_backend::ops::IntTensorOps;
use burn_backend::{Shape, TensorData};
use rayon::prelude::*;

use crate::error::OpError;
use crate::graph::{Binary, Conv};
use crate::kernels::integer::{Bytes8, Matrices, Size, Zeros, products};
use crate::ops::conv::{Sizes, misfit};
use crate::ops::elementwise::binary;
use crate::ops::{Result, count, matmul};
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// `(a − its zero point) · (b − its zero point)`, of i8 or u8 to i32. A zero point is one for
/// all, or one for each row of `a` or column of `b`.
pub(crate) fn matmul_integer(
    a: Value,
    b: Value,
    a_zero: Option<Value>,
    b_zero: Option<Value>,
) -> Result<Value> {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let plain = |zero: &Option<Value>| zero.as_ref().is_none_or(|z| z.len() == 1 || z.rank() == 1);
    if !plain(&a_zero) || !plain(&b_zero) {
        let (a, b) = (moved(a, a_zero)?, moved(b, b_zero)?);
        return matmul::matmul(a, b);
    }
    let product = Product::of(&a_shape, &b_shape)?;
    check_size(DType::I32, &product.shape)?;
    let (left, right) = (bytes(&a)?, bytes(&b)?);
    let mut a_zeros = zeros(a_zero, product.rows, &a_shape)?;
    let b_zeros = zeros(b_zero, product.size.n, &b_shape)?;
    if a_zeros.0.len() > 1 {
        // Rows of several matrices that are multiplied as one.
        let each = a_zeros.0.clone();
        a_zeros.0 = each.iter().copied().cycle().take(product.size.m).collect();
    }
    let (left, right) = (left.matrices(), right.matrices());
    let sums = products(left, right, a_zeros, b_zeros, product.size, &product.pairs);
    sums_as_value(sums, product.shape, &a)
}

/// Which matrices are multiplied, and the shape of the result.
struct Product {
    size: Size,
    /// Rows of one matrix of the left side.
    rows: usize,
    pairs: Vec<(usize, usize)>,
    shape: Vec<usize>,
}

impl Product {
    fn of(a: &[usize], b: &[usize]) -> Result<Self> {
        let matmul::Factors {
            sizes: [m, k, n],
            batch,
            batches: [batch_a, batch_b],
            shape,
        } = matmul::Factors::new(a, b)?;
        check_size(DType::I32, &shape)?;
        // A matrix on the right is shared by all rows: one product instead of many.
        let (size, pairs) = if batch_b.is_empty() {
            let m = count(&batch) * m;
            (Size { m, k, n }, vec![(0, 0)])
        } else {
            (Size { m, k, n }, numbers(&batch, batch_a, batch_b))
        };
        Ok(Self {
            size,
            rows: m,
            pairs,
            shape,
        })
    }
}

/// For each matrix of a batch, the numbers of those that it comes from.
fn numbers(batch: &[usize], a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    let from = |shape: &[usize], mut number: usize| {
        let (mut found, mut step) = (0, 1);
        let sizes = shape.iter().rev().map(Some).chain(std::iter::repeat(None));
        for (&whole, size) in batch.iter().rev().zip(sizes) {
            let at = number % whole;
            number /= whole;
            if let Some(&size) = size {
                found += step * if size == 1 { 0 } else { at };
                step *= size;
            }
        }
        found
    };
    (0..count(batch))
        .map(|number| (from(a, number), from(b, number)))
        .collect()
}

fn bytes(value: &Value) -> Result<Bytes8> {
    let misfit = || value.unexpected("i8 or u8");
    match value {
        Value::Int(t) => Bytes8::of(t).ok_or_else(misfit),
        _ => Err(misfit()),
    }
}

/// Zero points, one or `size` of them.
fn zeros(zero: Option<Value>, size: usize, shape: &[usize]) -> Result<Zeros> {
    let Some(zero) = zero else {
        return Ok(Zeros(vec![0]));
    };
    let found = zero.len();
    if found != 1 && found != size {
        return Err(OpError::Shape(format!(
            "{found} zero points for a tensor {shape:?}, expected 1 or {size}"
        )));
    }
    let zeros = Value::int(zero).map(Value::Int)?.to_ints()?;
    Ok(Zeros(zeros.into_iter().map(|zero| zero as i32).collect()))
}

/// As i32, without the zero point.
fn moved(x: Value, zero: Option<Value>) -> Result<Value> {
    let x = x.cast(DType::I32)?;
    match zero {
        Some(zero) => binary(Binary::Sub, x, zero.cast(DType::I32)?),
        None => Ok(x),
    }
}

fn sums_as_value(sums: Option<Vec<i32>>, shape: Vec<usize>, like: &Value) -> Result<Value> {
    let sums = sums.ok_or_else(|| OpError::Shape("a tensor is too short".into()))?;
    let data = TensorData::new(sums, Shape::from(shape));
    Ok(Value::Int(B::int_from_data(data, &like.device())))
}

/// A convolution of i8 or u8 to i32: input `[n, c, …]`, weights `[m, c / groups, …]`. The zero
/// point of the weights is one for all or one per output channel.
pub(super) fn conv_integer(
    conv: &Conv,
    x: Value,
    weights: Value,
    x_zero: Option<Value>,
    w_zero: Option<Value>,
) -> Result<Value> {
    let (x_shape, w_shape) = (x.shape(), weights.shape());
    let place = Place::of(conv, &x_shape, &w_shape)?;
    let x_zeros = zeros(x_zero, 1, &x_shape)?;
    let w_zeros = zeros(w_zero, place.made, &w_shape)?;
    let (input, kernel) = (bytes(&x)?, bytes(&weights)?);
    let (input, kernel) = (input.matrices(), kernel.matrices());
    // What is around the input counts as zero.
    let around = x_zeros.0.first().copied().unwrap_or(0) as u8;
    let (rows, depth) = (place.made / conv.groups, place.depth());
    let positions = count(&place.output);
    let size = Size {
        m: rows,
        k: depth,
        n: positions,
    };
    check_size(DType::U8, &[depth, positions])?;
    let one = |number: usize| {
        let group = number % conv.groups;
        let image = place.image(input.bytes, number)?;
        let columns = match place.is_pointwise() {
            true => Cow::Borrowed(image),
            false => place.columns(image, around).into(),
        };
        let from = group * rows;
        let own = kernel.bytes.get(from * depth..(from + rows) * depth)?;
        let zeros = match w_zeros.0.as_slice() {
            [one] => vec![*one],
            many => many.get(from..from + rows)?.to_vec(),
        };
        products(
            Matrices {
                bytes: own,
                signed: kernel.signed,
            },
            Matrices {
                bytes: &columns,
                signed: input.signed,
            },
            Zeros(zeros),
            x_zeros.clone(),
            size,
            &[(0, 0)],
        )
    };
    let tasks = place.batch * conv.groups;
    let sums: Option<Vec<_>> = if tasks > 1 && conv.groups > 1 {
        (0..tasks).into_par_iter().map(one).collect()
    } else {
        (0..tasks).map(one).collect()
    };
    let mut shape = vec![place.batch, place.made];
    shape.extend(&place.sizes);
    sums_as_value(sums.map(|all| all.concat()), shape, &x)
}

/// A kernel laid over an input, with three axes where it has fewer.
struct Place {
    batch: usize,
    made: usize,
    /// Channels of one group.
    channels: usize,
    groups: usize,
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    strides: [usize; 3],
    dilations: [usize; 3],
    /// Before the input.
    pads: [usize; 3],
    /// Of the result, in its own rank.
    sizes: Vec<usize>,
}

impl Place {
    fn of(conv: &Conv, x: &[usize], w: &[usize]) -> Result<Self> {
        let laid = Sizes::fit(conv, x, w)?;
        let ([batch, _, sizes @ ..], [_, made, output @ ..], Some(per_group), 1..=3) =
            (x, laid.output.as_slice(), w.get(1), laid.kernel.len())
        else {
            return Err(misfit(conv, x, w));
        };
        check_size(DType::I32, &laid.output)?;
        let three = |values: &[usize], fill: usize| {
            let mut wide = [fill; 3];
            let last = wide.iter_mut().rev().zip(values.iter().rev());
            last.for_each(|(to, from)| *to = *from);
            wide
        };
        let before: Vec<_> = laid.pads.iter().map(|&(begin, _)| begin).collect();
        Ok(Self {
            batch: *batch,
            made: *made,
            channels: *per_group,
            groups: conv.groups,
            input: three(sizes, 1),
            kernel: three(&laid.kernel, 1),
            output: three(output, 1),
            strides: three(&laid.strides, 1),
            dilations: three(&laid.dilations, 1),
            pads: three(&before, 0),
            sizes: output.to_vec(),
        })
    }

    /// Multiplications for one element.
    fn depth(&self) -> usize {
        self.channels * count(&self.kernel)
    }

    /// The channels of one group of one input, by the number of both.
    fn image<'a>(&self, input: &'a [u8], number: usize) -> Option<&'a [u8]> {
        let size = self.channels * count(&self.input);
        debug_assert!(number < self.batch * self.groups);
        input.get(number * size..(number + 1) * size)
    }

    /// Whether each element of the result meets just the one at its own place.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.strides == [1; 3] && self.input == self.output
    }

    /// For each element of the kernel, what it meets at each position: `[depth, positions]`.
    fn columns(&self, image: &[u8], around: u8) -> Vec<u8> {
        let positions = count(&self.output);
        let mut columns = vec![around; self.depth() * positions];
        if positions == 0 {
            return columns;
        }
        let [_, height, width] = self.input;
        let [k_depth, k_height, k_width] = self.kernel;
        let [_, o_height, o_width] = self.output;
        let taps = (0..k_depth)
            .flat_map(|z| (0..k_height).flat_map(move |y| (0..k_width).map(move |x| [z, y, x])));
        let planes = image.chunks_exact(count(&self.input).max(1));
        let rows = planes.flat_map(|plane| taps.clone().map(move |tap| (plane, tap)));
        for (column, (plane, tap)) in columns.chunks_exact_mut(positions).zip(rows) {
            for (number, line) in column.chunks_exact_mut(o_width).enumerate() {
                let (z, y) = (number / o_height, number % o_height);
                let (Some(z), Some(y)) = (self.reads(0, tap, z), self.reads(1, tap, y)) else {
                    continue;
                };
                let start = (z * height + y) * width;
                let from = plane.get(start..start + width).unwrap_or_default();
                let [.., step] = self.strides;
                // Elements that still read in the padding before the row.
                let [.., pad] = self.pads;
                let offset = tap
                    .last()
                    .zip(self.dilations.last())
                    .map_or(0, |(t, d)| t * d);
                let skipped = pad.saturating_sub(offset).div_ceil(step);
                let first = (skipped * step + offset).saturating_sub(pad);
                let to = line.iter_mut().skip(skipped);
                let from = from.get(first..).unwrap_or_default();
                if step == 1 {
                    to.zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.zip(from.iter().step_by(step))
                        .for_each(|(to, from)| *to = *from);
                }
            }
        }
        columns
    }

    /// Where a tap of the kernel reads along an axis for an element of the result; nothing in
    /// the padding.
    #[inline]
    fn reads(&self, axis: usize, tap: [usize; 3], position: usize) -> Option<usize> {
        let of = |values: &[usize; 3]| values.get(axis).copied().unwrap_or(0);
        let at = position * of(&self.strides) + of(&tap) * of(&self.dilations);
        at.checked_sub(of(&self.pads))
            .filter(|&at| at < of(&self.input))
    }
}
