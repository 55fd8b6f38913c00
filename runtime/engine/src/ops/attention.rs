//! Attention: softmax(Q · Kᵀ · scale + bias) · V, after ONNX's operator page.
//!
//! Heads are an axis of their own: queries `[batch, heads, queries, size]`, keys `[batch,
//! kv heads, keys, size]`, values `[batch, kv heads, keys, value size]`. Neighbouring query
//! heads share one head of keys and values.

use burn_backend::Scalar;
use burn_backend::ops::{AttentionModuleOptions, BoolTensorOps, FloatTensorOps, ModuleOps};
use burn_dispatch::DispatchDevice;

use super::{
    Args, Result, broadcast, broadcast_to, count, elementwise, matmul, norm, reduce, shape, wide,
    with_rank,
};
use crate::device;
use crate::error::OpError;
use crate::graph::{Attention, Binary, Reduce, Scores, Unary};
use crate::tensor::DType;
use crate::value::{B, Value, bool_type, check_size};

/// Up to so many scores it is faster to hold all of them and to use the kernels for products
/// and softmax, which have vector code.
const FEW_SCORES: usize = 1 << 20;

/// The sizes of everything.
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    size: usize,
    value_size: usize,
    /// Keys that were there before.
    past: usize,
}

/// What stands between queries and keys: shapes broadcast to `[batch, heads, queries, keys]`.
struct Bias {
    /// Where no attention is paid.
    blocked: Option<Value>,
    added: Option<Value>,
    /// Nor to keys after the query's own place, counted from the end of both.
    causal: bool,
}

/// Gives the result, the keys and values with those of the past, and the scores where they
/// are wanted.
pub(super) fn run(of: &Attention, args: &mut Args) -> Result<Vec<Value>> {
    let (q, k, v) = (args.take(0)?, args.take(1)?, args.take(2)?);
    let mask = args.optional(3)?;
    let past = (args.optional(4)?, args.optional(5)?);
    let lengths = args.optional_ints(6)?;
    let packed = q.rank() == 3;
    let q = split_heads(q, of.heads)?;
    let (k, v) = (split_heads(k, of.kv_heads)?, split_heads(v, of.kv_heads)?);
    let past_keys = past.0.as_ref().map_or(0, |past| size_of(past, 2));
    let (k, v) = match past {
        (None, None) => (k, v),
        (Some(keys), Some(values)) => (
            shape::concat(vec![keys, k], 2)?,
            shape::concat(vec![values, v], 2)?,
        ),
        _ => return Err(OpError::Value("past keys without past values".into())),
    };
    let sizes = sizes(&q, &k, &v, past_keys)?;
    let fast = of.scores.is_none()
        && matches!(q.dtype(), DType::F32 | DType::F64)
        && v.dtype() == q.dtype()
        && of.precision.is_none_or(|dtype| dtype == q.dtype())
        && matches!(q.device(), DispatchDevice::Flex(_))
        && count(&[sizes.batch, sizes.heads, sizes.queries, sizes.keys]) > FEW_SCORES;
    let bias = bias(of, &sizes, mask, lengths, &q, fast)?;
    let present = [k.clone(), v.clone()];
    let none = [
        sizes.batch,
        sizes.heads,
        sizes.queries,
        sizes.keys,
        sizes.size,
        sizes.value_size,
    ]
    .contains(&0);
    let (done, scores) = if none {
        nothing(of, &sizes, &q)?
    } else if fast {
        (fused(of, &sizes, q, k, v, bias)?, None)
    } else {
        in_steps(of, &sizes, q, k, v, bias)?
    };
    let done = match packed {
        false => done,
        true => done.permute(&[0, 2, 1, 3]).reshape(&[
            sizes.batch,
            sizes.queries,
            sizes.heads * sizes.value_size,
        ]),
    };
    let mut made = vec![done];
    made.extend(present);
    made.extend(scores);
    Ok(made)
}

fn size_of(value: &Value, axis: usize) -> usize {
    value.shape().get(axis).copied().unwrap_or(0)
}

/// `[batch, length, heads · size]` as `[batch, heads, length, size]`.
pub(super) fn split_heads(x: Value, heads: Option<usize>) -> Result<Value> {
    let shape = x.shape();
    match (shape.as_slice(), heads) {
        ([_, _, _, _], _) => Ok(x),
        ([batch, length, row], Some(heads)) if row % heads == 0 => Ok(x
            .reshape(&[*batch, *length, heads, row / heads])
            .permute(&[0, 2, 1, 3])),
        ([_, _, row], Some(heads)) => Err(OpError::Shape(format!(
            "rows of {row} elements don't divide into {heads} heads"
        ))),
        ([_, _, _], None) => Err(OpError::Shape(format!(
            "{shape:?} without a number of heads"
        ))),
        _ => Err(OpError::Shape(format!(
            "expected rank 3 or 4, found {shape:?}"
        ))),
    }
}

fn sizes(q: &Value, k: &Value, v: &Value, past: usize) -> Result<Sizes> {
    let (qs, ks, vs) = (q.shape(), k.shape(), v.shape());
    let misfit = || OpError::Shape(format!("queries {qs:?}, keys {ks:?} and values {vs:?}"));
    if k.dtype() != q.dtype() {
        return Err(OpError::DType {
            expected: format!("keys of {}", q.dtype()),
            found: k.dtype(),
        });
    }
    let (
        [batch, heads, queries, size],
        [kb, kv_heads, keys, ksize],
        [vb, v_heads, values, value_size],
    ) = (qs.as_slice(), ks.as_slice(), vs.as_slice())
    else {
        return Err(misfit());
    };
    let fits = batch == kb && batch == vb && size == ksize && kv_heads == v_heads && keys == values;
    if !fits || *kv_heads == 0 || heads % kv_heads != 0 {
        return Err(misfit());
    }
    let sizes = Sizes {
        batch: *batch,
        heads: *heads,
        kv_heads: *kv_heads,
        queries: *queries,
        keys: *keys,
        size: *size,
        value_size: *value_size,
        past,
    };
    check_size(q.dtype(), &[*batch, *heads, *queries, *keys])?;
    check_size(q.dtype(), &[*batch, *heads, *queries, *value_size])?;
    Ok(sizes)
}

fn nothing(of: &Attention, sizes: &Sizes, q: &Value) -> Result<(Value, Option<Value>)> {
    let zeros = |last| {
        let shape = [sizes.batch, sizes.heads, sizes.queries, last];
        Value::full(q.dtype(), &shape, 0.0, &q.device())
    };
    let scores = of.scores.map(|_| zeros(sizes.keys)).transpose()?;
    Ok((zeros(sizes.value_size)?, scores))
}

fn bias(
    of: &Attention,
    sizes: &Sizes,
    mask: Option<Value>,
    lengths: Option<Vec<i64>>,
    q: &Value,
    fast: bool,
) -> Result<Bias> {
    // What the kernel's own causal mask means.
    let causal = fast
        && of.causal
        && of.before.is_none()
        && of.after.is_none()
        && lengths.is_none()
        && sizes.past + sizes.queries == sizes.keys;
    let mut blocked = match causal {
        true => None,
        false => unseen(of, sizes, lengths, &q.device())?,
    };
    let mut added = None;
    match mask.map(|mask| pad_mask(mask, sizes)).transpose()? {
        None => {}
        Some(Value::Bool(mask)) => {
            let hidden = Value::Bool(B::bool_not(mask));
            blocked = Some(match blocked {
                None => hidden,
                Some(unseen) => {
                    let shape = broadcast(&hidden.shape(), &unseen.shape())?;
                    let (a, b) = (broadcast_to(hidden, &shape), broadcast_to(unseen, &shape));
                    Value::Bool(B::bool_or(a.bool()?, b.bool()?))
                }
            });
        }
        Some(mask) if mask.dtype() == q.dtype() => added = Some(mask),
        Some(mask) => {
            return Err(mask.unexpected(&format!("a mask of bools or {}", q.dtype())));
        }
    }
    Ok(Bias {
        blocked,
        added,
        causal,
    })
}

/// The mask as rank 4, with what it lacks of the keys hidden.
fn pad_mask(mask: Value, sizes: &Sizes) -> Result<Value> {
    let given = mask.shape();
    let mask = with_rank(mask, 4);
    let last = size_of(&mask, 3);
    let mask = match sizes.keys.checked_sub(last) {
        None | Some(0) => mask,
        Some(missing) => {
            let fill = match mask.dtype() {
                DType::Bool => 0.0,
                _ => f64::NEG_INFINITY,
            };
            shape::pad_constant(mask, &[(0, 0), (0, 0), (0, 0), (0, missing)], fill)?
        }
    };
    let whole = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
    if broadcast(&mask.shape(), &whole).is_ok_and(|shape| shape == whole) {
        return Ok(mask);
    }
    Err(OpError::Shape(format!(
        "a mask of shape {given:?} for scores of {whole:?}"
    )))
}

/// Keys that a query does not see because of where they stand: `[batch or 1, 1, queries,
/// keys]`. A query's place is counted over all keys: after the past ones, or such that the
/// last query stands at the last of `lengths` keys.
fn unseen(
    of: &Attention,
    sizes: &Sizes,
    lengths: Option<Vec<i64>>,
    device: &DispatchDevice,
) -> Result<Option<Value>> {
    if !of.causal && of.before.is_none() && of.after.is_none() && lengths.is_none() {
        return Ok(None);
    }
    let rows: Vec<(i64, i64)> = match lengths {
        None => vec![(sizes.past as i64, sizes.keys as i64)],
        Some(_) if sizes.past > 0 => {
            return Err(OpError::Value("lengths beside past keys".into()));
        }
        Some(lengths) if lengths.len() == sizes.batch => {
            let offset = |length: i64| length.saturating_sub(sizes.queries as i64);
            lengths.into_iter().map(|n| (offset(n), n)).collect()
        }
        Some(lengths) => {
            return Err(OpError::Shape(format!(
                "{} lengths for a batch of {}",
                lengths.len(),
                sizes.batch
            )));
        }
    };
    let shape = [rows.len(), 1, sizes.queries, sizes.keys];
    check_size(DType::Bool, &shape)?;
    let reach = |size: Option<usize>| size.map_or(i64::MAX, |size| size as i64);
    let (before, after) = (reach(of.before), reach(of.after));
    let after = if of.causal { 0 } else { after };
    let mut hidden = Vec::with_capacity(count(&shape));
    for (offset, end) in rows {
        for query in 0..sizes.queries as i64 {
            let place = offset.saturating_add(query);
            let first = place.saturating_sub(before);
            let last = place.saturating_add(after).min(end.saturating_sub(1));
            hidden.extend((0..sizes.keys as i64).map(|key| key < first || key > last));
        }
    }
    Ok(Some(Value::from_bools(hidden, &shape, device)))
}

fn scale(of: &Attention, sizes: &Sizes) -> f64 {
    of.scale
        .map_or_else(|| 1.0 / (sizes.size as f64).sqrt(), f64::from)
}

/// burn's kernel, which keeps the scores of one head, or of a part of it, at a time.
fn fused(of: &Attention, sizes: &Sizes, q: Value, k: Value, v: Value, bias: Bias) -> Result<Value> {
    let options = AttentionModuleOptions {
        scale: Some(scale(of, sizes)),
        softcap: of.soft_cap.map(f64::from),
        is_causal: bias.causal,
    };
    let blocked = bias.blocked.map(Value::bool).transpose()?;
    let added = bias.added.map(Value::float).transpose()?;
    let done = B::attention(q.float()?, k.float()?, v.float()?, blocked, added, options);
    Ok(Value::Float(done))
}

/// The same with every step rounded to the queries' type, as ONNX composes the operator of
/// others, and with the scores of all heads at once.
fn in_steps(
    of: &Attention,
    sizes: &Sizes,
    q: Value,
    k: Value,
    v: Value,
    bias: Bias,
) -> Result<(Value, Option<Value>)> {
    let dtype = q.dtype();
    let whole = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
    // Query heads with the same keys stand one below the other.
    let rows = sizes.heads / sizes.kv_heads * sizes.queries;
    let factor = scale(of, sizes);
    // Half precision overflows if one side has the whole scale.
    let shared = wide(dtype) != dtype;
    let factor = if shared { factor.sqrt() } else { factor };
    let factor = Value::from_floats(vec![factor], &[], dtype, &device::cpu())?;
    let q = elementwise::binary(Binary::Mul, q, factor.clone())?;
    let q = q.reshape(&[sizes.batch, sizes.kv_heads, rows, sizes.size]);
    let k = match shared {
        true => elementwise::binary(Binary::Mul, k, factor)?,
        false => k,
    };
    let k = k.permute(&[0, 1, 3, 2]);
    let product = matmul::matmul(q, k)?.reshape(&whole);
    let capped = match of.soft_cap {
        None => product.clone(),
        Some(cap) => {
            let cap = Value::from_floats(vec![f64::from(cap)], &[], dtype, &device::cpu())?;
            let bent = elementwise::binary(Binary::Div, product.clone(), cap.clone())?;
            elementwise::binary(Binary::Mul, elementwise::unary(Unary::Tanh, bent)?, cap)?
        }
    };
    let masked = bias.blocked.is_some() || bias.added.is_some();
    let mut biased = capped.clone();
    if let Some(added) = bias.added {
        biased = elementwise::binary(Binary::Add, biased, added)?;
    }
    if let Some(blocked) = bias.blocked {
        biased = fill(biased, blocked, f64::NEG_INFINITY)?;
    }
    let rounded = biased.clone().cast(of.precision.unwrap_or(dtype))?;
    let mut weights = norm::softmax(rounded, -1, false, false)?;
    if masked {
        // A query that sees nothing gets zeros.
        let largest = reduce::reduce(Reduce::Max, biased.clone(), &[-1], true)?.float()?;
        let out = bool_type(&biased.device());
        let none = B::float_equal_elem(largest, Scalar::Float(f64::NEG_INFINITY), out);
        weights = fill(weights, Value::Bool(none), 0.0)?;
    }
    let weights = weights.cast(dtype)?;
    let rows = weights
        .clone()
        .reshape(&[sizes.batch, sizes.kv_heads, rows, sizes.keys]);
    let done = matmul::matmul(rows, v.cast(dtype)?)?;
    let done = done.reshape(&[sizes.batch, sizes.heads, sizes.queries, sizes.value_size]);
    let scores = of.scores.map(|scores| match scores {
        Scores::Product => product,
        Scores::Capped => capped,
        Scores::Biased => biased,
        Scores::Softmax => weights,
    });
    Ok((done, scores))
}

/// `x` with `value` where the mask, which broadcasts to it, holds.
fn fill(x: Value, mask: Value, value: f64) -> Result<Value> {
    let mask = broadcast_to(mask, &x.shape()).bool()?;
    let filled = B::float_mask_fill(x.float()?, mask, Scalar::Float(value));
    Ok(Value::Float(filled))
}
