//! Normalisation: batch, instance, layer, by length, softmax.

use burn_backend::Scalar;
use burn_backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};

use super::{Args, Result, axis, broadcast_to, count, elementwise, reduce};
use crate::error::OpError;
use crate::graph::{Binary, Reduce};
use crate::kernels::{self, F32};
use crate::value::{B, Value};

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
    let shape = x.shape();
    let (scale, bias) = (args.take(1)?, args.take(2)?);
    let (mean, variance) = (args.take(3)?, args.take(4)?);
    let (factor, shift) = batch_factors(scale, bias, mean, variance, epsilon)?;
    let scaled = elementwise::binary(Binary::Mul, x, per_channel(factor, &shape)?)?;
    elementwise::binary(Binary::Add, scaled, per_channel(shift, &shape)?)
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
    let size = count(sizes);
    let ones = Value::full(x.dtype(), &[size], 1.0, &x.device())?.float()?;
    let rows = x.reshape(&[batch * channels, size]).float()?;
    let normal = B::layer_norm(rows, ones, None, f64::from(epsilon));
    let scaled = elementwise::binary(Binary::Mul, Value::Float(normal).reshape(&shape), scale)?;
    elementwise::binary(Binary::Add, scaled, bias)
}

/// Over all axes from `from` on.
pub(super) fn layer(args: &mut Args, from: i64, epsilon: f32) -> Result<Value> {
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
    if x.len() == 0 {
        return Ok(x);
    }
    let rows = match F32::new(x) {
        Ok(x) => {
            let own = |row| F32::new(Value::Float(row)).map(F32::contiguous);
            let bias = bias.map(own).transpose();
            let (Ok(scale), Ok(bias)) = (own(scale), bias) else {
                return Err(OpError::Value("a scale or bias lies elsewhere".into()));
            };
            let bias = bias.as_ref().map(F32::slice);
            let done = x.changed(|rows| kernels::layer_norm(rows, scale.slice(), bias, epsilon));
            return Ok(done.into_value());
        }
        Err(x) => x.reshape(&[count(outer), size]).float()?,
    };
    let done = B::layer_norm(rows, scale, bias, f64::from(epsilon));
    Ok(Value::Float(done).reshape(&shape))
}

/// Divided by the sum of absolute values (`p` 1) or the length (2) along an axis.
pub(super) fn lp(x: Value, along: i64, p: i64) -> Result<Value> {
    let kind = if p == 1 { Reduce::L1 } else { Reduce::L2 };
    let length = reduce::reduce(kind, x.clone(), &[along], true)?;
    elementwise::binary(Binary::Div, x, length)
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
    let t = x.float()?;
    let done = if log {
        B::log_softmax(t, at)
    } else {
        B::softmax(t, at)
    };
    Ok(Value::Float(done).reshape(&shape))
}
