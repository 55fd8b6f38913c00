//! Quantised operators: products by whole numbers, all else by floats in between.

use super::added;
use crate::error::OpError;
use crate::graph::{Binary, QLinear, Recurrent, Reduce, Scales};
use crate::narrow::Rounding;
use crate::ops::elementwise::{binary, unary};
use crate::ops::quantize::{dequantize, dynamic, matmul_integer, quantize};
use crate::ops::{Args, Result, pool, rnn, shape};
use crate::tensor::DType;
use crate::value::Value;

/// One scale for a whole tensor.
const WHOLE: Scales = Scales { axis: 0, block: 0 };

/// Sums times both scales, plus a bias.
pub(super) fn to_float(
    sums: Value,
    a_scale: Value,
    b_scale: Value,
    bias: Option<Value>,
) -> Result<Value> {
    let one = |scale: Value| match scale.len() {
        1 => scale.reshape(&[]),
        _ => scale,
    };
    let scale = binary(Binary::Mul, one(a_scale), one(b_scale))?;
    let numbers = binary(Binary::Mul, sums.cast(scale.dtype())?, scale)?;
    added(numbers, bias)
}

pub(super) fn dynamic_matmul(args: &mut Args) -> Result<Value> {
    let (a, b, b_scale) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let (b_zero, bias) = (args.optional(3)?, args.optional(4)?);
    let mut quantized = dynamic(a)?.into_iter();
    let mut next = || quantized.next().ok_or(OpError::MissingInput { index: 0 });
    let (a, a_scale, a_zero) = (next()?, next()?, next()?);
    to_float(
        matmul_integer(a, b, Some(a_zero), b_zero)?,
        a_scale,
        b_scale,
        bias,
    )
}

pub(super) fn matmul_to_float(args: &mut Args) -> Result<Value> {
    let (a, b, a_scale, b_scale) = (args.take(0)?, args.take(1)?, args.take(2)?, args.take(3)?);
    let (a_zero, b_zero, bias) = (args.optional(4)?, args.optional(5)?, args.optional(6)?);
    to_float(
        matmul_integer(a, b, a_zero, b_zero)?,
        a_scale,
        b_scale,
        bias,
    )
}

/// With the weights as floats: onnxruntime also rounds the inputs of each product to 8 bits.
pub(super) fn lstm(layer: &Recurrent, args: &mut Args) -> Result<Vec<Value>> {
    let mut weights = |at: usize, scale: usize| -> Result<Value> {
        let (weights, scale, zero) = (args.take(at)?, args.take(scale)?, args.take(scale + 1)?);
        let shape = weights.shape();
        let &[directions, _, gates] = shape.as_slice() else {
            return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
        };
        // One number per direction, or one per direction and column.
        let spread = |value: Value| -> Result<Value> {
            let value = value.cast(DType::F32)?;
            match value.len() {
                1 => Ok(value.reshape(&[1, 1, 1])),
                n if n == directions => Ok(value.reshape(&[directions, 1, 1])),
                n if n == directions * gates => Ok(value.reshape(&[directions, 1, gates])),
                n => Err(OpError::Shape(format!("{n} scales for weights {shape:?}"))),
            }
        };
        let moved = binary(Binary::Sub, weights.cast(DType::F32)?, spread(zero)?)?;
        Ok(binary(Binary::Mul, moved, spread(scale)?)?.permute(&[0, 2, 1]))
    };
    let (w, r) = (weights(1, 8)?, weights(2, 10)?);
    let mut inputs = vec![Some(args.take(0)?), Some(w), Some(r)];
    for at in 3..8 {
        inputs.push(args.optional(at)?);
    }
    let inputs = inputs.into_iter().map(|value| value.map(Into::into));
    rnn::run(layer, &mut Args::new(inputs.collect()))
}

/// The tensor at `index` as floats, by its scale and zero point.
fn floats(args: &mut Args, index: usize) -> Result<Value> {
    let (x, scale, zero) = (
        args.take(index)?,
        args.take(index + 1)?,
        args.optional(index + 2)?,
    );
    dequantize(x, scale, zero, WHOLE, None)
}

/// Floats as the type of the zero point at `index + 1`, by the scale at `index`.
fn as_result(args: &mut Args, index: usize, like: DType, x: Value) -> Result<Value> {
    let (scale, zero) = (args.take(index)?, args.optional(index + 1)?);
    let to = zero.as_ref().map_or(like, Value::dtype);
    quantize(x, scale, zero, WHOLE, to, None, Rounding::default())
}

pub(super) fn run(kind: &QLinear, args: &mut Args) -> Result<Value> {
    if let QLinear::Concat { axis } = kind {
        return concat(args, *axis);
    }
    let first = args.take(0)?;
    let like = first.dtype();
    let (scale, zero) = (args.take(1)?, args.optional(2)?);
    let x = dequantize(first, scale, zero, WHOLE, None)?;
    let (done, result) = match kind {
        QLinear::Binary(kind) => (binary(*kind, x, floats(args, 3)?)?, 6),
        QLinear::Unary(kind) => (unary(*kind, x)?, 3),
        QLinear::AveragePool {
            window,
            count_padding,
            channels_last,
        } => {
            let pooled = |x| pool::average(window, *count_padding, x);
            (channels_first(x, *channels_last, pooled)?, 3)
        }
        QLinear::GlobalAveragePool { channels_last } => {
            let pooled = |x| pool::global(Reduce::Mean, x);
            (channels_first(x, *channels_last, pooled)?, 3)
        }
        QLinear::Concat { .. } => (x, 0),
    };
    as_result(args, result, like, done)
}

/// Calls `f` with channels on axis 1.
fn channels_first(x: Value, last: bool, f: impl FnOnce(Value) -> Result<Value>) -> Result<Value> {
    let rank = x.rank();
    if !last || rank < 3 {
        return f(x);
    }
    let to: Vec<_> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back: Vec<_> = [0].into_iter().chain(2..rank).chain([1]).collect();
    Ok(f(x.permute(&to))?.permute(&back))
}

fn concat(args: &mut Args, axis: i64) -> Result<Value> {
    let (scale, zero) = (args.take(0)?, args.take(1)?);
    let mut rest = args.all_from(2)?.into_iter();
    let mut parts = Vec::new();
    while let Some(x) = rest.next() {
        let scale = rest.next().ok_or(OpError::MissingInput { index: 3 })?;
        parts.push(dequantize(x, scale, rest.next(), WHOLE, None)?);
    }
    let to = zero.dtype();
    let joined = shape::concat(parts, axis)?;
    quantize(
        joined,
        scale,
        Some(zero),
        WHOLE,
        to,
        None,
        Rounding::default(),
    )
}
