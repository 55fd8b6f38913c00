//! Attention as onnxruntime's transformer optimiser writes it.

use super::{added, scaled};
use crate::error::OpError;
use crate::graph::{Binary, Heads};
use crate::ops::elementwise::binary;
use crate::ops::matmul::matmul;
use crate::ops::quantize::matmul_integer;
use crate::ops::{Args, Result, index, norm};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// `[batch, length, heads · size]` as `[batch, heads, length, size]`.
fn split(x: Value, heads: usize) -> Result<Value> {
    let shape = x.shape();
    match shape.as_slice() {
        &[batch, length, all] if all.checked_rem(heads) == Some(0) => {
            let x = x.reshape(&[batch, length, heads, all / heads]);
            Ok(x.permute(&[0, 2, 1, 3]))
        }
        _ => Err(OpError::Shape(format!(
            "expected [batch, length, {heads} heads], found {shape:?}"
        ))),
    }
}

/// What queries see: keys, values and what is added to their scores.
struct Seen {
    keys: Value,
    values: Value,
    bias: Vec<Value>,
}

/// `softmax(q · kᵀ · scale + bias) · v`, all `[batch, heads, length, size]`; gives
/// `[batch, length, heads · size]`.
fn attend(heads: &Heads, q: Value, seen: Seen) -> Result<Value> {
    let shape = q.shape();
    let &[batch, count, length, size] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 4, found {shape:?}")));
    };
    let total = seen.keys.shape().get(2).copied().unwrap_or(0);
    let scale = heads.scale.unwrap_or(1.0 / (size.max(1) as f32).sqrt());
    check_size(q.dtype(), &[batch, count, length, total])?;
    let mut scores = matmul(scaled(q, scale)?, seen.keys.permute(&[0, 1, 3, 2]))?;
    for bias in seen.bias {
        scores = binary(Binary::Add, scores, bias.cast(DType::F32)?)?;
    }
    if heads.causal {
        let past = total.saturating_sub(length);
        let hidden = |row: usize| (0..total).map(move |column| column > row + past);
        let bias = (0..length)
            .flat_map(hidden)
            .map(|hidden| if hidden { f64::from(heads.masked) } else { 0.0 });
        let bias = Value::from_floats(
            bias.collect(),
            &[length, total],
            DType::F32,
            &scores.device(),
        )?;
        scores = binary(Binary::Add, scores, bias)?;
    }
    let shares = norm::softmax(scores, -1, false, false)?;
    let made = matmul(shares, seen.values)?.permute(&[0, 2, 1, 3]);
    let width = made.shape().iter().skip(2).product();
    Ok(made.reshape(&[batch, length, width]))
}

/// What a mask adds to the scores: `[batch, 1, 1 or length, total]`. The mask holds how many
/// keys each row of the batch has, or a number other than zero for each key that is seen.
fn masked(mask: &Value, heads: &Heads, batch: usize, length: usize, total: usize) -> Result<Value> {
    let shape = mask.shape();
    let numbers = mask.clone().cast(DType::I64)?.to_ints()?;
    let (hidden, lines): (Vec<bool>, usize) = match shape.as_slice() {
        [rows] if *rows == batch => {
            let row = |&end: &i64| (0..total as i64).map(move |at| at >= end);
            (numbers.iter().flat_map(row).collect(), 1)
        }
        [rows] if *rows == 2 * batch => {
            let (ends, starts) = numbers.split_at(batch);
            let row = |(&end, &start): (&i64, &i64)| {
                (0..total as i64).map(move |at| at >= end || at < start)
            };
            (ends.iter().zip(starts).flat_map(row).collect(), 1)
        }
        [rows, keys] if (*rows, *keys) == (batch, total) => {
            (numbers.iter().map(|&seen| seen == 0).collect(), 1)
        }
        [rows, lines, keys] if (*rows, *lines, *keys) == (batch, length, total) => {
            (numbers.iter().map(|&seen| seen == 0).collect(), length)
        }
        _ => {
            return Err(OpError::Shape(format!(
                "a mask {shape:?} for {batch} rows of {total} keys"
            )));
        }
    };
    let number = |&hidden: &bool| if hidden { f64::from(heads.masked) } else { 0.0 };
    let bias = hidden.iter().map(number).collect();
    Value::from_floats(bias, &[batch, 1, lines, total], DType::F32, &mask.device())
}

/// Queries, keys and values from one product `[batch, length, 3 · …]`.
fn projected(
    heads: &Heads,
    product: Value,
    past: Option<Value>,
    mask: Option<Value>,
    bias: Option<Value>,
) -> Result<Vec<Value>> {
    let shape = product.shape();
    let &[batch, length, width] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
    };
    let (q, k) = match heads.sizes.as_slice() {
        [] if width % 3 == 0 => (width / 3, width / 3),
        &[q, k, v] if q.saturating_add(k).saturating_add(v) == width => (q, k),
        sizes => {
            return Err(OpError::Shape(format!(
                "head sizes {sizes:?} for {width} columns"
            )));
        }
    };
    let part = |from: usize, to: usize| split(product.clone().narrow(2, from, to), heads.count);
    let (q, mut keys, mut values) = (part(0, q)?, part(q, q + k)?, part(q + k, width)?);
    if let Some(past) = past {
        // [2, batch, heads, length, size]: keys, then values.
        let found = past.shape();
        let &[2, ref each @ ..] = found.as_slice() else {
            return Err(OpError::Shape(format!("past {found:?}")));
        };
        let of = |at: usize| past.clone().narrow(0, at, at + 1).reshape(each);
        keys = joined(Some(of(0)), keys)?;
        values = joined(Some(of(1)), values)?;
    }
    let total = length_of(&keys);
    let present = stacked(&keys, &values)?;
    let mut all: Vec<Value> = bias.into_iter().collect();
    if let Some(mask) = mask {
        all.push(masked(&mask, heads, batch, length, total)?);
    }
    let seen = Seen {
        keys,
        values,
        bias: all,
    };
    Ok(vec![attend(heads, q, seen)?, present])
}

/// `[2, batch, heads, length, size]`, or nothing where keys and values differ in size.
fn stacked(keys: &Value, values: &Value) -> Result<Value> {
    if keys.shape() != values.shape() {
        return Ok(keys.clone());
    }
    let mut wide = vec![1];
    wide.extend(keys.shape());
    Value::concat(
        vec![keys.clone().reshape(&wide), values.clone().reshape(&wide)],
        0,
    )
}

fn length_of(keys: &Value) -> usize {
    keys.shape().get(2).copied().unwrap_or(0)
}

/// What was seen before, then what is new, along the axis of positions.
fn joined(past: Option<Value>, new: Value) -> Result<Value> {
    match past {
        Some(past) => crate::ops::shape::concat(vec![past, new], 2),
        None => Ok(new),
    }
}

pub(super) fn attention(heads: &Heads, args: &mut Args) -> Result<Vec<Value>> {
    let (x, weights, bias) = (args.take(0)?, args.take(1)?, args.optional(2)?);
    let (mask, past, scores) = (args.optional(3)?, args.optional(4)?, args.optional(5)?);
    let product = added(matmul(x, weights)?, bias)?;
    projected(heads, product, past, mask, scores)
}

pub(super) fn quantized(heads: &Heads, args: &mut Args) -> Result<Vec<Value>> {
    let (x, weights, bias) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let (x_scale, w_scale, mask) = (args.take(3)?, args.take(4)?, args.optional(5)?);
    let (x_zero, w_zero, past) = (args.optional(6)?, args.optional(7)?, args.optional(8)?);
    let sums = matmul_integer(x, weights, x_zero, w_zero)?;
    let product = super::quantized::to_float(sums, x_scale, w_scale, Some(bias))?;
    projected(heads, product, past, mask, None)
}

pub(super) fn multi_head(heads: &Heads, args: &mut Args) -> Result<Vec<Value>> {
    let (q, keys, values) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let (bias, mask, scores) = (args.optional(3)?, args.optional(4)?, args.optional(5)?);
    let (past_keys, past_values) = (args.optional(6)?, args.optional(7)?);
    let shape = q.shape();
    let &[batch, length, width] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected a query [batch, length, size], found {shape:?}: packed ones are not supported"
        )));
    };
    // One bias for all three, side by side.
    let (mut from, sizes) = (0, [width, last(&keys), last(&values)]);
    let mut biased = |x: Value, size: usize| -> Result<Value> {
        let part = match &bias {
            Some(bias) if x.rank() == 3 => {
                if bias.rank() != 1 || bias.len() < from + size {
                    return Err(OpError::Shape(format!(
                        "bias {:?} for {sizes:?}",
                        bias.shape()
                    )));
                }
                Some(bias.clone().narrow(0, from, from + size))
            }
            _ => None,
        };
        from += size;
        let x = added(x, part)?;
        // Keys and values of another sequence come with their heads apart.
        if x.rank() == 4 {
            Ok(x)
        } else {
            split(x, heads.count)
        }
    };
    let q = biased(q, sizes[0])?;
    let keys = joined(past_keys, biased(keys, sizes[1])?)?;
    let values = joined(past_values, biased(values, sizes[2])?)?;
    let mut all: Vec<Value> = scores.into_iter().collect();
    if let Some(mask) = mask {
        all.push(masked(&mask, heads, batch, length, length_of(&keys))?);
    }
    let seen = Seen {
        keys: keys.clone(),
        values: values.clone(),
        bias: all,
    };
    Ok(vec![attend(heads, q, seen)?, keys, values])
}

fn last(value: &Value) -> usize {
    value.shape().last().copied().unwrap_or(0)
}

/// Pairs of numbers turned by angles that grow with the position. Input `[batch, length, …]`
/// with `heads` in its last axis, or `[batch, heads, length, size]`; tables `[positions, half
/// of what is turned]`.
pub(super) fn rotary(
    args: &mut Args,
    interleaved: bool,
    heads: usize,
    dim: usize,
) -> Result<Value> {
    let (x, positions) = (args.take(0)?, args.take(1)?);
    let (cosines, sines) = (args.take(2)?, args.take(3)?);
    let shape = x.shape();
    let half = last(&cosines);
    let x = match (x.rank(), heads) {
        (4, _) => x,
        (3, 0) if dim == 0 => {
            let size = (2 * half).max(1);
            split(x, last_of(&shape) / size.min(last_of(&shape).max(1)))?
        }
        (3, 0) => return Err(OpError::Value("the number of heads is missing".into())),
        _ => split(x, heads)?,
    };
    let apart = x.shape();
    let &[batch, count, length, size] = apart.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 3 or 4, found {shape:?}"
        )));
    };
    let turned = if dim == 0 { size } else { dim };
    if turned > size
        || turned != 2 * half
        || sines.shape() != cosines.shape()
        || cosines.rank() != 2
    {
        let tables = cosines.shape();
        return Err(OpError::Shape(format!(
            "tables {tables:?} to turn {turned} of {size}"
        )));
    }
    let positions = match positions.len() {
        // The position of the first element.
        1 => {
            let first = positions.to_ints()?.first().copied().unwrap_or(0);
            let all: Vec<_> = (0..length as i64)
                .map(|at| first.saturating_add(at))
                .collect();
            Value::from_ints(&all, &[1, length], &positions.device())
        }
        n if n == batch * length => positions.reshape(&[batch, length]),
        n => {
            return Err(OpError::Shape(format!(
                "{n} positions for [{batch}, {length}]"
            )));
        }
    };
    let rows = |table: Value| -> Result<Value> {
        let rows = index::gather(table, &positions, 0)?;
        let batch = positions.shape().first().copied().unwrap_or(1);
        Ok(rows.reshape(&[batch, 1, length, half]))
    };
    let (cosines, sines) = (rows(cosines)?, rows(sines)?);
    let part = x.clone().narrow(3, 0, turned);
    let (a, b) = if interleaved {
        let pairs = part.reshape(&[batch, count, length, half, 2]);
        let of = |at: usize| {
            pairs
                .clone()
                .narrow(4, at, at + 1)
                .reshape(&[batch, count, length, half])
        };
        (of(0), of(1))
    } else {
        (
            part.clone().narrow(3, 0, half),
            part.narrow(3, half, turned),
        )
    };
    let product = |x: &Value, y: &Value| binary(Binary::Mul, x.clone(), y.clone());
    let real = binary(Binary::Sub, product(&a, &cosines)?, product(&b, &sines)?)?;
    let imaginary = binary(Binary::Add, product(&a, &sines)?, product(&b, &cosines)?)?;
    let done = if interleaved {
        let wide = [batch, count, length, half, 1];
        let pairs = vec![real.reshape(&wide), imaginary.reshape(&wide)];
        Value::concat(pairs, 4)?.reshape(&[batch, count, length, turned])
    } else {
        Value::concat(vec![real, imaginary], 3)?
    };
    let done = if turned < size {
        Value::concat(vec![done, x.narrow(3, turned, size)], 3)?
    } else {
        done
    };
    Ok(if shape.len() == 3 {
        done.permute(&[0, 2, 1, 3]).reshape(&shape)
    } else {
        done
    })
}

fn last_of(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(0)
}
