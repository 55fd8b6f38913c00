//! Normalisation: batch, instance, group, layer, by length, softmax.

use burn_backend::Scalar;
use burn_backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn_dispatch::DispatchTensor;

use super::{Args, Result, axis, broadcast_to, count, elementwise, reduce, wide};
use crate::error::OpError;
use crate::graph::{Binary, Reduce, Unary};
use crate::kernels::{self, F32};
use crate::tensor::DType;
use crate::value::{B, Value, bool_type};

/// A vector with one number per channel, shaped for a tensor `[n, c, …]`.
fn per_channel(value: Value, shape: &[usize]) -> Result<Value> {
    let channels = shape.get(1).copied().unwrap_or(1);
    if value.shape() != [channels] {
        let found = value.shape();
        return Err(OpError::Shape(format!(
            "{found:?} numbers for {channels} channels"
        )));
    }
    let wide: Vec<_> = (0..shape.len())
        .map(|at| if at == 1 { channels } else { 1 })
        .collect();
    Ok(value.reshape(&wide))
}

/// `x · factor + (bias − mean · factor)`, factor = scale / √(variance + ε).
pub(super) fn batch(args: &mut Args, epsilon: f32) -> Result<Value> {
    let x = args.take(0)?;
    let dtype = x.dtype();
    let mut number = |index| args.take(index)?.cast(wide(dtype));
    let (scale, bias) = (number(1)?, number(2)?);
    let (mean, variance) = (number(3)?, number(4)?);
    let factors = batch_factors(scale, bias, mean, variance, epsilon)?;
    scaled(x.cast(wide(dtype))?, factors)?.cast(dtype)
}

/// `x · factor + shift`, each a number per channel.
fn scaled(x: Value, (factor, shift): (Value, Value)) -> Result<Value> {
    let shape = x.shape();
    let scaled = elementwise::binary(Binary::Mul, x, per_channel(factor, &shape)?)?;
    elementwise::binary(Binary::Add, scaled, per_channel(shift, &shape)?)
}

/// By the mean and variance of the batch itself. Gives the result, the running mean and
/// variance moved toward those of the batch, and those of the batch.
pub(super) fn batch_training(args: &mut Args, epsilon: f32, momentum: f32) -> Result<Vec<Value>> {
    let x = args.take(0)?;
    let dtype = x.dtype();
    let over: Vec<_> = (0..x.rank() as i64).filter(|&axis| axis != 1).collect();
    let types = [3, 4].map(|index| args.dtype(index).unwrap_or(dtype));
    let mut number = |index| args.take(index)?.cast(wide(dtype));
    let (scale, bias) = (number(1)?, number(2)?);
    let (running_mean, running_variance) = (number(3)?, number(4)?);
    let x = x.cast(wide(dtype))?;
    let (mean, variance) = moments(x.clone(), &over)?;
    let channels = [x.shape().get(1).copied().unwrap_or(1)];
    let (mean, variance) = (mean.reshape(&channels), variance.reshape(&channels));
    let mixed = |old: Value, new: &Value| -> Result<Value> {
        let share = |value: Value, by: f32| -> Result<Value> {
            let by = Scalar::Float(f64::from(by));
            Ok(Value::Float(B::float_mul_scalar(value.float()?, by)))
        };
        let new = share(new.clone(), 1.0 - momentum)?;
        elementwise::binary(Binary::Add, share(old, momentum)?, new)
    };
    let running_mean = mixed(running_mean, &mean)?;
    let running_variance = mixed(running_variance, &variance)?;
    let factors = batch_factors(scale, bias, mean.clone(), variance.clone(), epsilon)?;
    let [mean_type, variance_type] = types;
    Ok(vec![
        scaled(x, factors)?.cast(dtype)?,
        running_mean.cast(mean_type)?,
        running_variance.cast(variance_type)?,
        mean.cast(mean_type)?,
        variance.cast(variance_type)?,
    ])
}

/// Mean and variance over axes, which stay with size 1.
fn moments(x: Value, over: &[i64]) -> Result<(Value, Value)> {
    let mean = reduce::reduce(Reduce::Mean, x.clone(), over, true)?;
    let centred = elementwise::binary(Binary::Sub, x, mean.clone())?;
    let square = elementwise::binary(Binary::Mul, centred.clone(), centred)?;
    Ok((mean, reduce::reduce(Reduce::Mean, square, over, true)?))
}

/// `(x − mean) / √variance` over axes.
pub(super) fn mean_variance(x: Value, over: &[i64]) -> Result<Value> {
    let dtype = x.dtype();
    let x = x.cast(wide(dtype))?;
    let (mean, variance) = moments(x.clone(), over)?;
    let deviation = elementwise::unary(Unary::Sqrt, variance)?.float()?;
    // What the operator's definition adds against division by zero.
    let deviation = Value::Float(B::float_add_scalar(deviation, Scalar::Float(1e-9)));
    let centred = elementwise::binary(Binary::Sub, x, mean)?;
    elementwise::binary(Binary::Div, centred, deviation)?.cast(dtype)
}

/// A convolution's weights and bias with the batch normalisation that follows it; its numbers
/// are scale, bias, mean and variance.
pub(crate) fn fold_batch_norm(
    weights: Value,
    bias: Option<Value>,
    [scale, shift, mean, variance]: [Value; 4],
    epsilon: f32,
) -> Result<(Value, Value)> {
    let (factor, shift) = batch_factors(scale, shift, mean, variance, epsilon)?;
    let shape = weights.shape();
    let channels = shape.first().copied().unwrap_or(0);
    if factor.shape() != [channels] || weights.dtype() != factor.dtype() {
        return Err(OpError::Shape(format!(
            "{:?} numbers for {shape:?}",
            factor.shape()
        )));
    }
    let rows: Vec<_> = (0..shape.len())
        .map(|at| if at == 0 { channels } else { 1 })
        .collect();
    let weights = elementwise::binary(Binary::Mul, weights, factor.clone().reshape(&rows))?;
    let bias = match bias {
        Some(bias) => elementwise::binary(
            Binary::Add,
            elementwise::binary(Binary::Mul, bias, factor)?,
            shift,
        )?,
        None => shift,
    };
    Ok((weights, bias))
}

/// What batch normalisation multiplies by and adds.
fn batch_factors(
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    epsilon: f32,
) -> Result<(Value, Value)> {
    let shape = scale.shape();
    if [&bias, &mean, &variance]
        .iter()
        .any(|value| value.shape() != shape)
    {
        return Err(OpError::Shape(
            "scale, bias, mean and variance differ in shape".into(),
        ));
    }
    let (scale, bias) = (scale.float()?, bias.float()?);
    let deviation = B::float_add_scalar(variance.float()?, Scalar::Float(f64::from(epsilon)));
    let factor = B::float_div(scale, B::float_sqrt(deviation));
    let shift = B::float_sub(bias, B::float_mul(mean.float()?, factor.clone()));
    Ok((Value::Float(factor), Value::Float(shift)))
}

/// Over all axes but the first two, then scaled per channel.
pub(super) fn instance(args: &mut Args, epsilon: f32) -> Result<Value> {
    let x = args.take(0)?;
    let shape = x.shape();
    let [batch, channels, sizes @ ..] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 3 or more, found {shape:?}"
        )));
    };
    let (scale, bias) = (args.take(1)?, args.take(2)?);
    let scale = per_channel(scale, &shape)?;
    let bias = per_channel(bias, &shape)?;
    if x.len() == 0 {
        return Ok(x);
    }
    let normal = standard(x, batch * channels, count(sizes), epsilon)?.reshape(&shape);
    let scaled = elementwise::binary(Binary::Mul, normal, scale)?;
    elementwise::binary(Binary::Add, scaled, bias)
}

/// Rows with mean 0 and variance 1.
fn standard(x: Value, rows: usize, size: usize, epsilon: f32) -> Result<Value> {
    let ones = Value::full(x.dtype(), &[size], 1.0, &x.device())?.float()?;
    let rows = x.reshape(&[rows, size]).float()?;
    let normal = B::layer_norm(rows, ones, None, f64::from(epsilon));
    Ok(Value::Float(normal))
}

/// Over groups of channels and all axes behind them; scale and bias are one number for each
/// channel or, before opset 21, for each group.
pub(super) fn group(args: &mut Args, groups: usize, epsilon: f32) -> Result<Value> {
    let (x, scale, bias) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let shape = x.shape();
    let [batch, channels, sizes @ ..] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 2 or more, found {shape:?}"
        )));
    };
    if channels % groups != 0 {
        return Err(OpError::Shape(format!(
            "{channels} channels don't divide into {groups} groups"
        )));
    }
    let size = channels / groups;
    let each = |value: Value| match value.shape() == [groups] {
        true => broadcast_to(value.reshape(&[groups, 1]), &[groups, size]).reshape(&[*channels]),
        false => value,
    };
    let (scale, bias) = (each(scale), each(bias));
    let (scale, bias) = (per_channel(scale, &shape)?, per_channel(bias, &shape)?);
    if x.len() == 0 {
        return Ok(x);
    }
    let normal = standard(x, batch * groups, size * count(sizes), epsilon)?.reshape(&shape);
    let scaled = elementwise::binary(Binary::Mul, normal, scale)?;
    elementwise::binary(Binary::Add, scaled, bias)
}

/// Divided by the root of the mean of squares over all axes from `from` on, then scaled. The
/// result has the type of the scale.
pub(super) fn rms(x: Value, scale: Value, from: i64, epsilon: f32) -> Result<Value> {
    let shape = x.shape();
    let dtype = x.dtype();
    let (outer, inner) = shape.split_at(axis(from, shape.len())?);
    let found = scale.shape();
    if super::broadcast(&found, &shape)? != shape {
        return Err(OpError::Shape(format!(
            "{found:?} numbers for {inner:?} elements"
        )));
    }
    if x.len() == 0 {
        return x.cast(scale.dtype());
    }
    let rows = x
        .cast(wide(dtype))?
        .reshape(&[count(outer), count(inner)])
        .float()?;
    let square = B::float_mul(rows.clone(), rows.clone());
    let mean = B::float_mean_dim(square, 1);
    let root = B::float_add_scalar(mean, Scalar::Float(f64::from(epsilon)));
    let normal = B::float_div(rows, B::float_sqrt(root));
    let normal = Value::Float(normal).reshape(&shape).cast(dtype)?;
    let normal = normal.cast(scale.dtype())?;
    elementwise::binary(Binary::Mul, normal, scale)
}

/// Over all axes from `from` on. With `statistics` also the means and one over the
/// deviations, whose normalised axes have size 1.
pub(super) fn layer(
    args: &mut Args,
    from: i64,
    epsilon: f32,
    statistics: bool,
) -> Result<Vec<Value>> {
    let (x, scale, bias) = (args.take(0)?, args.take(1)?, args.optional(2)?);
    let shape = x.shape();
    let from = axis(from, shape.len())?;
    let (outer, inner) = shape.split_at(from);
    let size = count(inner);
    let row = |value: Value| -> Result<_> {
        let found = value.shape();
        if super::broadcast(&found, inner)? != inner || value.dtype() != x.dtype() {
            return Err(OpError::Shape(format!(
                "{found:?} numbers for {inner:?} elements"
            )));
        }
        broadcast_to(value, inner).reshape(&[size]).float()
    };
    let scale = row(scale)?;
    let bias = bias.map(row).transpose()?;
    let mut made = Vec::new();
    if statistics {
        let single: Vec<_> = (0..shape.len())
            .zip(&shape)
            .map(|(at, &size)| if at < from { size } else { 1 })
            .collect();
        let rows = x.clone().cast(DType::F32)?.reshape(&[count(outer), size]);
        let (mean, variance) = moments(rows, &[1])?;
        let deviation = B::float_add_scalar(variance.float()?, Scalar::Float(f64::from(epsilon)));
        let inverse = B::float_recip(B::float_sqrt(deviation));
        made = vec![
            mean.reshape(&single),
            Value::Float(inverse).reshape(&single),
        ];
    }
    if x.len() == 0 {
        made.insert(0, x);
        return Ok(made);
    }
    let done = match F32::new(x) {
        Ok(x) => {
            let own = |row| match F32::new(Value::Float(row)) {
                Ok(row) => Ok(row.contiguous()),
                Err(row) => Err(row.unexpected("f32")),
            };
            let (scale, bias) = (own(scale)?, bias.map(own).transpose()?);
            let bias = bias.as_ref().map(F32::slice);
            let done = x.changed(|rows| kernels::layer_norm(rows, scale.slice(), bias, epsilon));
            done.into_value()
        }
        Err(x) => {
            let rows = x.reshape(&[count(outer), size]).float()?;
            let done = B::layer_norm(rows, scale, bias, f64::from(epsilon));
            Value::Float(done).reshape(&shape)
        }
    };
    made.insert(0, done);
    Ok(made)
}

/// Divided by the sum of absolute values (`p` 1) or the length (2) along an axis; zeros stay.
pub(super) fn lp(x: Value, along: i64, p: i64) -> Result<Value> {
    let kind = if p == 1 { Reduce::L1 } else { Reduce::L2 };
    let length = reduce::reduce(kind, x.clone(), &[along], true)?.float()?;
    let out = bool_type(&x.device());
    let zero = B::float_equal_elem(length.clone(), Scalar::Float(0.0), out);
    let length = B::float_mask_fill(length, zero, Scalar::Float(1.0));
    elementwise::binary(Binary::Div, x, Value::Float(length))
}

pub(super) fn softmax(x: Value, along: i64, flat: bool, log: bool) -> Result<Value> {
    let shape = x.shape();
    let at = axis(along, shape.len())?;
    if x.len() == 0 {
        return Ok(x);
    }
    let (x, at) = match flat {
        true => {
            let (outer, inner) = shape.split_at(at);
            (x.reshape(&[count(outer), count(inner)]), 1)
        }
        false => (x, at),
    };
    let x = match F32::new(x) {
        Ok(x) if !log && at + 1 == x.shape().len() => {
            let size = x.shape().last().copied().unwrap_or(1);
            let done = x.changed(|rows| kernels::softmax(rows, size));
            return Ok(done.into_value().reshape(&shape));
        }
        Ok(x) => x.into_value(),
        Err(x) => x,
    };
    let narrow = wide(x.dtype()) != x.dtype();
    let t = x.float()?;
    let done = match (log, narrow) {
        (true, _) => B::log_softmax(t, at),
        (false, false) => B::softmax(t, at),
        (false, true) => softmax_in_steps(t, at)?,
    };
    Ok(Value::Float(done).reshape(&shape))
}

/// Rows up to this length are summed in their own type.
const SHORT_ROW: usize = 8;

/// Softmax with each step rounded to the type of the tensor, f16 or bf16, as ONNX composes
/// it of other operators.
fn softmax_in_steps(t: DispatchTensor, at: usize) -> Result<DispatchTensor> {
    let largest = B::float_max_dim(t.clone(), at);
    let powers = Value::Float(B::float_exp(B::float_sub(t, largest)));
    let size = powers.shape().get(at).copied().unwrap_or(0);
    // A sum that is rounded to bf16 at each step stops growing at 256; f16 is summed in f32
    // in NumPy too.
    let sum = match powers.dtype() {
        DType::BF16 if size <= SHORT_ROW => {
            let mut columns = (0..size).map(|i| powers.clone().narrow(at, i, i + 1));
            let first = columns.next().ok_or(OpError::MissingInput { index: 0 })?;
            columns.try_fold(first, |sum, next| {
                elementwise::binary(Binary::Add, sum, next)
            })?
        }
        _ => reduce::reduce(Reduce::Sum, powers.clone(), &[at as i64], true)?,
    };
    Ok(B::float_div(powers.float()?, sum.float()?))
}
