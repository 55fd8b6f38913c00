//! Normalisations that are joined with what stands before them.

use super::added;
use crate::error::OpError;
use crate::graph::{Binary, Reduce};
use crate::ops::elementwise::binary;
use crate::ops::{Args, Result, index, norm, reduce};
use crate::tensor::DType;
use crate::value::Value;

/// Over the last axis.
fn layer(x: Value, scale: Value, shift: Option<Value>, epsilon: f32) -> Result<Value> {
    let inputs = [Some(x), Some(scale), shift].map(|value| value.map(Into::into));
    let made = norm::layer(&mut Args::new(inputs.into()), -1, epsilon, false)?;
    made.into_iter()
        .next()
        .ok_or(OpError::MissingInput { index: 0 })
}

/// The sum of two tensors and of a bias, normalised, and the sum itself.
pub(super) fn skip(args: &mut Args, epsilon: f32, simple: bool) -> Result<Vec<Value>> {
    let (x, skip, scale) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let (shift, bias) = if simple {
        (None, args.optional(3)?)
    } else {
        (args.optional(3)?, args.optional(4)?)
    };
    let shape = x.shape();
    let sum = added(binary(Binary::Add, x, skip)?, bias)?;
    if sum.shape() != shape {
        let found = sum.shape();
        return Err(OpError::Shape(format!(
            "a sum {found:?} for an input {shape:?}"
        )));
    }
    let done = if simple {
        norm::rms(sum.clone(), scale, -1, epsilon)?
    } else {
        layer(sum.clone(), scale, shift, epsilon)?
    };
    // Mean and deviation are refused where something reads them.
    Ok(vec![done, sum.clone(), sum.clone(), sum])
}

/// Rows of tables for words, positions and segments, added and normalised.
pub(super) fn embed(args: &mut Args, epsilon: f32) -> Result<Vec<Value>> {
    let (words, segments) = (args.take(0)?, args.optional(1)?);
    let (word_table, position_table) = (args.take(2)?, args.take(3)?);
    let (segment_table, scale) = (args.optional(4)?, args.take(5)?);
    let (shift, mask, positions) = (args.take(6)?, args.optional(7)?, args.optional(8)?);
    let device = word_table.device();
    let shape = words.shape();
    let &[batch, length] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected [batch, length], found {shape:?}"
        )));
    };
    let positions = match positions {
        Some(positions) => positions,
        None => {
            let numbers: Vec<_> = (0..length as i64).collect();
            Value::from_ints(&numbers, &[1, length], &device)
        }
    };
    let words = index::gather(word_table, &words, 0)?;
    let sum = binary(
        Binary::Add,
        words,
        index::gather(position_table, &positions, 0)?,
    )?;
    let segments = match (segment_table, segments) {
        (Some(table), Some(segments)) => Some(index::gather(table, &segments, 0)?),
        _ => None,
    };
    let sum = added(sum, segments)?;
    let lengths = match mask {
        Some(mask) => {
            if mask.shape() != shape {
                let found = mask.shape();
                return Err(OpError::Shape(format!(
                    "a mask {found:?} for words {shape:?}"
                )));
            }
            reduce::reduce(Reduce::Sum, mask.cast(DType::I32)?, &[1], false)?
        }
        None => Value::full(DType::I32, &[batch], 0.0, &device)?,
    };
    Ok(vec![
        layer(sum.clone(), scale, Some(shift), epsilon)?,
        lengths,
        sum,
    ])
}

/// Over the channels of each group and all positions.
pub(super) fn group(
    args: &mut Args,
    groups: usize,
    epsilon: f32,
    channels_last: bool,
) -> Result<Value> {
    let (x, scale, shift) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let dtype = x.dtype();
    let x = match (channels_last, x.rank()) {
        (true, 4) => x.permute(&[0, 3, 1, 2]),
        (false, 4) => x,
        _ => {
            return Err(OpError::Shape(format!(
                "expected rank 4, found {:?}",
                x.shape()
            )));
        }
    };
    let shape = x.shape();
    let &[batch, channels, height, width] = shape.as_slice() else {
        return Ok(x);
    };
    if channels % groups != 0 || x.len() == 0 {
        return Err(OpError::Shape(format!(
            "{groups} groups for a tensor {shape:?}"
        )));
    }
    let size = channels / groups * height * width;
    let rows = x.cast(DType::F32)?.reshape(&[batch, groups, size]);
    let ones = Value::full(DType::F32, &[size], 1.0, &rows.device())?;
    let done = layer(rows, ones, None, epsilon)?.reshape(&shape);
    let per_channel = |value: Value| -> Result<Value> {
        match value.len() {
            n if n == channels => Ok(value.cast(DType::F32)?.reshape(&[1, channels, 1, 1])),
            n => Err(OpError::Shape(format!(
                "{n} numbers for {channels} channels"
            ))),
        }
    };
    let done = binary(Binary::Mul, done, per_channel(scale)?)?;
    let done = binary(Binary::Add, done, per_channel(shift)?)?.cast(dtype)?;
    Ok(if channels_last {
        done.permute(&[0, 2, 3, 1])
    } else {
        done
    })
}
