//! What language models add to attention: rotary positions, attention with a state, a
//! convolution with a state. The formulas are those of ONNX's operator pages.

use super::attention::split_heads;
use super::{Args, Result, broadcast_to, elementwise, index, matmul, shape, wide};
use crate::error::OpError;
use crate::graph::{Binary, LinearAttention, Rotary, Unary};
use crate::value::{Value, range};

/// Rotates pairs of elements by the angle of their token's position: `x` `[batch, heads,
/// length, size]` or `[batch, length, heads · size]`; cosines and sines `[positions, half]`
/// beside positions `[batch, length]`, or `[batch, length, half]`.
pub(super) fn rotary(of: &Rotary, args: &mut Args) -> Result<Value> {
    let (x, cosines, sines) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let given = x.shape();
    let x = split_heads(x, of.heads)?;
    let shape = x.shape();
    let [batch, _, length, size] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected heads, found {shape:?}")));
    };
    let (size, rotated) = (*size, of.size.unwrap_or(*size));
    if rotated > size || !rotated.is_multiple_of(2) {
        return Err(OpError::Shape(format!(
            "{rotated} rotated elements of {size}: expected an even number of them"
        )));
    }
    let half = rotated / 2;
    let positions = args.optional(3)?;
    let angles = |table: Value| -> Result<Value> {
        let table = match &positions {
            Some(positions) => index::gather(table, positions, 0)?,
            None => table,
        };
        let found = table.shape();
        if found != [*batch, *length, half] || table.dtype() != x.dtype() {
            return Err(OpError::Shape(format!(
                "angles {found:?} of {}, expected [{batch}, {length}, {half}] of {}",
                table.dtype(),
                x.dtype()
            )));
        }
        Ok(table.reshape(&[*batch, 1, *length, half]))
    };
    let (cosines, sines) = (angles(cosines)?, angles(sines)?);
    if x.len() == 0 {
        return Ok(x.reshape(&given));
    }
    let part = |from: usize, step: usize, end: usize| {
        let mut slices: Vec<_> = shape.iter().map(|&size| range(0, size, 1)).collect();
        slices.pop();
        slices.push(range(from, end, step));
        x.clone().slice(&slices)
    };
    let (first, second) = match of.interleaved {
        true => (part(0, 2, rotated), part(1, 2, rotated)),
        false => (part(0, 1, half), part(half, 1, rotated)),
    };
    let times = |a: &Value, b: &Value| elementwise::binary(Binary::Mul, a.clone(), b.clone());
    let real = elementwise::binary(
        Binary::Sub,
        times(&first, &cosines)?,
        times(&second, &sines)?,
    )?;
    let imaginary = elementwise::binary(
        Binary::Add,
        times(&first, &sines)?,
        times(&second, &cosines)?,
    )?;
    let turned = match of.interleaved {
        true => {
            let pairs = [real, imaginary]
                .into_iter()
                .map(|value| shape::unsqueeze(value, &[-1]));
            let pairs = shape::concat(pairs.collect::<Result<_>>()?, -1)?;
            let mut wide = shape.clone();
            wide.pop();
            wide.push(rotated);
            pairs.reshape(&wide)
        }
        false => shape::concat(vec![real, imaginary], -1)?,
    };
    let turned = match rotated < size {
        true => shape::concat(vec![turned, part(rotated, 1, size)], -1)?,
        false => turned,
    };
    join_heads(turned, given.len())
}

/// `[batch, heads, length, size]` as it was given: with the heads in rows where `rank` is 3.
fn join_heads(x: Value, rank: usize) -> Result<Value> {
    let shape = x.shape();
    match (shape.as_slice(), rank) {
        ([batch, heads, length, size], 3) => {
            Ok(x.permute(&[0, 2, 1, 3])
                .reshape(&[*batch, *length, heads * size]))
        }
        _ => Ok(x),
    }
}

/// Linear attention: a state `[batch, kv heads, size, value size]` that each token fades,
/// adds to and reads. Half precision is computed in f32 throughout.
pub(super) fn linear(of: &LinearAttention, args: &mut Args) -> Result<Vec<Value>> {
    let q = args.take(0)?;
    let (dtype, device) = (q.dtype(), q.device());
    let computed = wide(dtype);
    let heads = |value: Value, heads: usize| -> Result<Value> {
        match value.rank() {
            3 => split_heads(value.cast(computed)?, Some(heads)),
            _ => Err(OpError::Shape(format!(
                "expected rank 3, found {:?}",
                value.shape()
            ))),
        }
    };
    let q = heads(q, of.heads)?;
    let k = heads(args.take(1)?, of.kv_heads)?;
    let v = heads(args.take(2)?, of.kv_heads)?;
    let past = args.optional(3)?;
    let decay = args.optional(4)?.map(|decay| heads(decay, of.kv_heads));
    let decay = decay.transpose()?;
    let rate = args.optional(5)?.map(|rate| {
        let own = rate.shape().last().copied().unwrap_or(0);
        heads(rate, if own == 1 { 1 } else { of.kv_heads })
    });
    let rate = rate.transpose()?;
    if decay.is_some() != of.gated || rate.is_some() != of.delta {
        return Err(OpError::Value(
            "a decay belongs to the gated rules and a rate to the delta rules, and to no other"
                .into(),
        ));
    }
    let (qs, ks, vs) = (q.shape(), k.shape(), v.shape());
    let misfit = || OpError::Shape(format!("queries {qs:?}, keys {ks:?} and values {vs:?}"));
    let ([batch, _, length, size], [_, _, _, value_size]) = (qs.as_slice(), vs.as_slice()) else {
        return Err(misfit());
    };
    if ks != [*batch, of.kv_heads, *length, *size]
        || vs != [*batch, of.kv_heads, *length, *value_size]
    {
        return Err(misfit());
    }
    for (gate, width) in [(&decay, *size), (&rate, 1)] {
        let Some(found) = gate.as_ref().map(Value::shape) else {
            continue;
        };
        let fits = matches!(found.as_slice(), [b, h, t, w]
            if b == batch && (*h == of.kv_heads || *h == 1) && t == length && (*w == width || *w == 1));
        if !fits {
            return Err(OpError::Shape(format!(
                "a gate of shape {found:?} for keys {ks:?}"
            )));
        }
    }
    let state_shape = [*batch, of.kv_heads, *size, *value_size];
    let state_type = past.as_ref().map_or(dtype, Value::dtype);
    let mut state = match past {
        None => Value::full(computed, &state_shape, 0.0, &device)?,
        Some(past) if past.shape() == state_shape => past.cast(computed)?,
        Some(past) => {
            return Err(OpError::Shape(format!(
                "a state of shape {:?}, expected {state_shape:?}",
                past.shape()
            )));
        }
    };
    let scale = of
        .scale
        .map_or_else(|| 1.0 / (*size as f64).sqrt(), f64::from);
    let scale = Value::from_floats(vec![scale], &[], computed, &crate::device::cpu())?;
    let group = of.heads / of.kv_heads;
    let decay = decay.map(|decay| elementwise::unary(Unary::Exp, decay));
    let decay = decay.transpose()?;
    let times = |a: Value, b: Value| elementwise::binary(Binary::Mul, a, b);
    let mut rows = Vec::with_capacity(*length);
    for token in 0..*length {
        let at = |value: &Value| value.clone().narrow(2, token, token + 1);
        let (key, mut value) = (at(&k), at(&v));
        if let Some(decay) = &decay {
            state = times(state, at(decay).permute(&[0, 1, 3, 2]))?;
        }
        if let Some(rate) = &rate {
            let known = matmul::matmul(key.clone(), state.clone())?;
            let news = elementwise::binary(Binary::Sub, value, known)?;
            value = times(news, at(rate))?;
        }
        let added = matmul::matmul(key.permute(&[0, 1, 3, 2]), value)?;
        state = elementwise::binary(Binary::Add, state, added)?;
        let query = at(&q).reshape(&[*batch, of.kv_heads, group, *size]);
        let read = matmul::matmul(query, state.clone())?;
        rows.push(read.reshape(&[*batch, of.heads, 1, *value_size]));
    }
    let made = match rows.is_empty() {
        true => Value::full(computed, &[*batch, of.heads, 0, *value_size], 0.0, &device)?,
        false => times(shape::concat(rows, 2)?, scale)?,
    };
    Ok(vec![
        join_heads(made, 3)?.cast(dtype)?,
        state.cast(state_type)?,
    ])
}

/// A convolution of each channel with its own kernel over what came before: `x` `[batch,
/// channels, length]`, weights `[channels, 1, k]`, state `[batch, channels, k - 1]`. Gives
/// the result and the next state.
pub(super) fn causal_conv(silu: bool, args: &mut Args) -> Result<Vec<Value>> {
    let (x, weights) = (args.take(0)?, args.take(1)?);
    let (bias, past) = (args.optional(2)?, args.optional(3)?);
    let (xs, ws) = (x.shape(), weights.shape());
    let misfit = || OpError::Shape(format!("weights {ws:?} for {xs:?}"));
    let ([batch, channels, length], [kernels, 1, taps]) = (xs.as_slice(), ws.as_slice()) else {
        return Err(misfit());
    };
    if kernels != channels || *taps == 0 || weights.dtype() != x.dtype() {
        return Err(misfit());
    }
    let kept = taps - 1;
    let (dtype, device) = (x.dtype(), x.device());
    let computed = wide(dtype);
    let past = match past {
        None => Value::full(dtype, &[*batch, *channels, kept], 0.0, &device)?,
        Some(past) if past.shape() == [*batch, *channels, kept] => past,
        Some(past) => {
            return Err(OpError::Shape(format!(
                "a state of shape {:?}, expected [{batch}, {channels}, {kept}]",
                past.shape()
            )));
        }
    };
    let all = shape::concat(vec![past, x], 2)?;
    let state = match kept {
        0 => Value::full(dtype, &[*batch, *channels, 0], 0.0, &device)?,
        _ => all.clone().narrow(2, *length, *length + kept),
    };
    if xs.contains(&0) {
        return Ok(vec![Value::full(dtype, &xs, 0.0, &device)?, state]);
    }
    // A kernel has few taps: each is one product with the whole length.
    let all = all.cast(computed)?;
    let weights = weights.cast(computed)?;
    let mut sum = match bias {
        None => Value::full(computed, &xs, 0.0, &device)?,
        Some(bias) if bias.shape() == [*channels] => {
            let bias = bias.cast(computed)?.reshape(&[1, *channels, 1]);
            broadcast_to(bias, &xs)
        }
        Some(bias) => {
            return Err(OpError::Shape(format!(
                "a bias of shape {:?}, expected [{channels}]",
                bias.shape()
            )));
        }
    };
    for tap in 0..*taps {
        let weight = weights.clone().narrow(2, tap, tap + 1);
        let weight = weight.reshape(&[1, *channels, 1]);
        let part = all.clone().narrow(2, tap, tap + length);
        let part = elementwise::binary(Binary::Mul, part, weight)?;
        sum = elementwise::binary(Binary::Add, sum, part)?;
    }
    let mut made = sum.cast(dtype)?;
    if silu {
        made = elementwise::unary(Unary::Silu, made)?;
    }
    Ok(vec![made, state])
}

/// `a · sigmoid(alpha · a) · b`, both of one shape.
pub(super) fn gated(alpha: f32, a: Value, b: Value) -> Result<Value> {
    let (left, right) = (a.shape(), b.shape());
    if left != right {
        return Err(OpError::Shape(format!(
            "a gate of shape {left:?} for {right:?}"
        )));
    }
    let gate = elementwise::unary(Unary::Swish { alpha }, a)?;
    elementwise::binary(Binary::Mul, gate, b)
}
