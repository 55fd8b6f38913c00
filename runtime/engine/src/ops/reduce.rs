//! Reductions, positions of extremes, running sums, the largest k.

use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use burn_backend::{IntDType, Scalar};

use super::{Result, axes, axis, count, index};
use crate::error::OpError;
use crate::graph::Reduce;
use crate::kernels::{self, F32};
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// Over the given axes, or all where none is given.
pub(super) fn reduce(kind: Reduce, x: Value, over: &[i64], keep_dims: bool) -> Result<Value> {
    let shape = x.shape();
    let rank = shape.len();
    let over = if over.is_empty() {
        (0..rank).collect()
    } else {
        axes(over, rank)?
    };
    let gone = |at: &usize| over.contains(at);
    let result: Vec<_> = (0..rank)
        .zip(&shape)
        .filter(|(at, _)| keep_dims || !gone(at))
        .map(|(at, &size)| if gone(&at) { 1 } else { size })
        .collect();
    if x.len() == 0 {
        return nothing(kind, x, &result);
    }
    let [outer, size, inner] = grouped(&shape, &over);
    let neighbours = outer * size * inner == x.len();
    let x = if neighbours {
        x.reshape(&[outer, size, inner])
    } else {
        let order: Vec<_> = (0..rank)
            .filter(|at| !gone(at))
            .chain(over.iter().copied())
            .collect();
        let size: usize = shape
            .iter()
            .enumerate()
            .filter(|(at, _)| gone(at))
            .map(|(_, n)| n)
            .product();
        let kept = x.len() / size;
        x.permute(&order).reshape(&[kept, size, 1])
    };
    let done = match F32::new(x) {
        Ok(x) if kernels::reduces(kind) => {
            let shape = x.shape();
            let &[outer, size, inner] = shape.as_slice() else {
                return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
            };
            let x = x.contiguous();
            let done = match inner {
                1 => kernels::reduce(kind, x.slice(), size),
                _ => kernels::reduce_columns(kind, x.slice(), size, inner),
            };
            F32::from_vec(done, &[outer, 1, inner]).into_value()
        }
        Ok(x) => middle(kind, x.into_value())?,
        Err(x) => middle(kind, x)?,
    };
    Ok(done.reshape(&result))
}

/// Sizes before, within and after the axes, where these are neighbours; else zeros.
fn grouped(shape: &[usize], over: &[usize]) -> [usize; 3] {
    let (Some(&first), Some(&last)) = (over.first(), over.last()) else {
        return [count(shape), 1, 1];
    };
    if last - first + 1 != over.len() {
        return [0; 3];
    }
    let part = |from: usize, to: usize| shape.iter().take(to).skip(from).product();
    [
        part(0, first),
        part(first, last + 1),
        part(last + 1, shape.len()),
    ]
}

/// Over the middle axis of three.
fn middle(kind: Reduce, x: Value) -> Result<Value> {
    match x {
        Value::Float(t) => {
            let square = |t: &burn_dispatch::DispatchTensor| B::float_mul(t.clone(), t.clone());
            Ok(Value::Float(match kind {
                Reduce::Sum => B::float_sum_dim(t, 1),
                Reduce::Mean => B::float_mean_dim(t, 1),
                Reduce::Max => B::float_max_dim(t, 1),
                Reduce::Min => B::float_min_dim(t, 1),
                Reduce::Prod => B::float_prod_dim(t, 1),
                Reduce::L1 => B::float_sum_dim(B::float_abs(t), 1),
                Reduce::L2 => B::float_sqrt(B::float_sum_dim(square(&t), 1)),
                Reduce::SumSquare => B::float_sum_dim(square(&t), 1),
                Reduce::LogSum => B::float_log(B::float_sum_dim(t, 1)),
                Reduce::LogSumExp => {
                    let largest = B::float_max_dim(t.clone(), 1);
                    // An infinite largest element would make NaN of its own difference.
                    let bound = Scalar::Float(f64::from(f32::MAX));
                    let low = Scalar::Float(f64::from(f32::MIN));
                    let largest = B::float_clamp(largest, low, bound);
                    let rest = B::float_exp(B::float_sub(t, largest.clone()));
                    B::float_add(B::float_log(B::float_sum_dim(rest, 1)), largest)
                }
            }))
        }
        Value::Int(t) => match kind {
            Reduce::Sum => Ok(Value::Int(B::int_sum_dim(t, 1))),
            Reduce::Max => Ok(Value::Int(B::int_max_dim(t, 1))),
            Reduce::Min => Ok(Value::Int(B::int_min_dim(t, 1))),
            Reduce::Prod => Ok(Value::Int(B::int_prod_dim(t, 1))),
            _ => {
                let x = Value::Int(t);
                let dtype = x.dtype();
                middle(kind, x.cast(DType::F64)?)?.cast(dtype)
            }
        },
        Value::Bool(_) if matches!(kind, Reduce::Max | Reduce::Min) => {
            middle(kind, x.cast(DType::I32)?)?.cast(DType::Bool)
        }
        other => Err(OpError::DType {
            expected: "numbers".into(),
            found: other.dtype(),
        }),
    }
}

/// What a reduction of no elements gives.
fn nothing(kind: Reduce, x: Value, shape: &[usize]) -> Result<Value> {
    let float = matches!(x, Value::Float(_));
    let value = match kind {
        Reduce::Sum | Reduce::L1 | Reduce::L2 | Reduce::SumSquare => 0.0,
        Reduce::Prod => 1.0,
        Reduce::Mean if float => f64::NAN,
        Reduce::Max | Reduce::LogSum | Reduce::LogSumExp if float => f64::NEG_INFINITY,
        Reduce::Min if float => f64::INFINITY,
        Reduce::Max | Reduce::Min => return bound(kind, x.dtype(), shape, &x.device()),
        _ => return Err(OpError::Value("no elements to reduce".into())),
    };
    Value::full(x.dtype(), shape, value, &x.device())
}

/// The least element of a type that is not float, or the largest.
fn bound(
    kind: Reduce,
    dtype: DType,
    shape: &[usize],
    device: &burn_dispatch::DispatchDevice,
) -> Result<Value> {
    let largest = kind == Reduce::Min;
    if dtype == DType::Bool {
        return Value::full(dtype, shape, f64::from(u8::from(largest)), device);
    }
    check_size(dtype, shape)?;
    // Infinity is cut to what the type holds.
    let value = if largest {
        f64::INFINITY
    } else {
        f64::NEG_INFINITY
    };
    Value::from_vec(vec![value; count(shape)], shape, dtype, device)
}

/// The position of the largest or smallest element along an axis.
pub(super) fn arg_extreme(
    x: Value,
    largest: bool,
    along: i64,
    keep_dims: bool,
    last: bool,
) -> Result<Value> {
    let mut shape = x.shape();
    let at = axis(along, shape.len())?;
    let size = shape.get(at).copied().unwrap_or(1);
    if size == 0 {
        return Err(OpError::Value("no elements to choose from".into()));
    }
    if keep_dims {
        shape.iter_mut().skip(at).take(1).for_each(|size| *size = 1);
    } else {
        shape.remove(at);
    }
    if x.len() == 0 {
        return Value::full(DType::I64, &shape, 0.0, &x.device());
    }
    let x = if last { x.flip(&[at]) } else { x };
    let found = Value::Int(match (x, largest) {
        (Value::Float(t), true) => B::float_argmax(t, at, IntDType::I64),
        (Value::Float(t), false) => B::float_argmin(t, at, IntDType::I64),
        (Value::Int(t), true) => B::int_argmax(t, at),
        (Value::Int(t), false) => B::int_argmin(t, at),
        (other, _) => {
            return Err(OpError::DType {
                expected: "numbers".into(),
                found: other.dtype(),
            });
        }
    })
    .cast(DType::I64)?
    .reshape(&shape);
    if !last {
        return Ok(found);
    }
    let from_end = B::int_add_scalar(B::int_neg(found.int()?), Scalar::Int(size as i64 - 1));
    Ok(Value::Int(from_end))
}

/// Running sums or products.
pub(super) fn cumulative(
    kind: Reduce,
    x: Value,
    along: &[i64],
    exclusive: bool,
    reverse: bool,
) -> Result<Value> {
    let [along] = along else {
        return Err(OpError::Shape(format!(
            "expected one axis, found {}",
            along.len()
        )));
    };
    let at = axis(*along, x.rank())?;
    if x.len() == 0 {
        return Ok(x);
    }
    let x = if reverse { x.flip(&[at]) } else { x };
    let x = if exclusive { shifted(kind, x, at)? } else { x };
    let done = match (x, kind) {
        (Value::Float(t), Reduce::Prod) => Value::Float(B::float_cumprod(t, at)),
        (Value::Int(t), Reduce::Prod) => Value::Int(B::int_cumprod(t, at)),
        (Value::Float(t), _) => Value::Float(B::float_cumsum(t, at)),
        (Value::Int(t), _) => Value::Int(B::int_cumsum(t, at)),
        (other, _) => return Err(other.unexpected("numbers")),
    };
    Ok(if reverse { done.flip(&[at]) } else { done })
}

/// The elements moved on by one along an axis, behind what changes nothing.
fn shifted(kind: Reduce, x: Value, at: usize) -> Result<Value> {
    let neutral = if kind == Reduce::Prod { 1.0 } else { 0.0 };
    let mut first = x.shape();
    let size = first.get(at).copied().unwrap_or(1);
    first.iter_mut().skip(at).take(1).for_each(|size| *size = 1);
    let first = Value::full(x.dtype(), &first, neutral, &x.device())?;
    if size == 1 {
        return Ok(first);
    }
    Value::concat(vec![first, x.narrow(at, 0, size - 1)], at)
}

/// One at the first largest element along an axis, else zero.
pub(super) fn hardmax(x: Value, along: i64, flat: bool) -> Result<Value> {
    let shape = x.shape();
    if flat {
        let rows = super::shape::flatten(x, along)?;
        return Ok(hardmax(rows, 1, false)?.reshape(&shape));
    }
    let at = axis(along, shape.len())?;
    if x.len() == 0 {
        return Ok(x);
    }
    let (dtype, device) = (x.dtype(), x.device());
    let size = shape.get(at).copied().unwrap_or(1) as i64;
    let places = arg_extreme(x, true, along, false, false)?;
    let values = Value::from_ints(&[0, 1], &[2], &device).cast(dtype)?;
    let depth = Value::from_ints(&[size], &[], &device);
    index::one_hot(places, &depth, values, at as i64)
}

/// Of each of the matrices `[…, n, n]`, by elimination with pivots.
pub(super) fn determinant(x: Value) -> Result<Value> {
    let shape = x.shape();
    let [batch @ .., rows, columns] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected matrices, found {shape:?}"
        )));
    };
    if rows != columns {
        return Err(OpError::Shape(format!(
            "expected square matrices, found {shape:?}"
        )));
    }
    let (dtype, device) = (x.dtype(), x.device());
    if *rows == 0 {
        return Value::full(dtype, batch, 1.0, &device);
    }
    let mut values = x.elements::<f64>()?.into_owned();
    let all = values.chunks_mut(rows * columns).map(|matrix| {
        let mut rows: Vec<_> = matrix.chunks_mut(*columns).collect();
        eliminated(&mut rows)
    });
    Value::from_vec(all.collect(), batch, dtype, &device)
}

/// The product of the pivots, with a sign for each swap of rows.
fn eliminated(rows: &mut [&mut [f64]]) -> f64 {
    let mut product = 1.0;
    for at in 0..rows.len() {
        let size = |row: &&mut [f64]| row.get(at).copied().unwrap_or(0.0).abs();
        let rest = rows.iter().enumerate().skip(at);
        let largest = rest.max_by(|a, b| size(a.1).total_cmp(&size(b.1)));
        let largest = largest.map_or(at, |(largest, _)| largest);
        if largest != at {
            rows.swap(at, largest);
            product = -product;
        }
        let Some((pivot_row, below)) = rows.get_mut(at..).and_then(<[_]>::split_first_mut) else {
            break;
        };
        let pivot = pivot_row.get(at).copied().unwrap_or(0.0);
        product *= pivot;
        if pivot == 0.0 {
            break;
        }
        for row in below {
            let times = row.get(at).copied().unwrap_or(0.0) / pivot;
            for (x, p) in row.iter_mut().zip(pivot_row.iter()).skip(at) {
                *x -= times * p;
            }
        }
    }
    product
}

/// Values and positions, ordered.
pub(super) fn top_k(x: Value, k: &[i64], along: i64, largest: bool) -> Result<Vec<Value>> {
    let at = axis(along, x.rank())?;
    let size = x.shape().get(at).copied().unwrap_or(0);
    let k = match k {
        [k] => usize::try_from(*k).ok().filter(|&k| k <= size),
        _ => None,
    };
    let Some(k) = k else {
        return Err(OpError::Value(format!("k is not between 0 and {size}")));
    };
    let mut shape = x.shape();
    shape.iter_mut().skip(at).take(1).for_each(|size| *size = k);
    if count(&shape) == 0 {
        let values = Value::full(x.dtype(), &shape, 0.0, &x.device())?;
        let places = Value::full(DType::I64, &shape, 0.0, &x.device())?;
        return Ok(vec![values, places]);
    }
    let (values, places) = match x {
        Value::Float(t) => {
            let (values, places) = B::float_sort_with_indices(t, at, largest, IntDType::I64);
            (Value::Float(values), Value::Int(places))
        }
        Value::Int(t) => {
            let (values, places) = B::int_sort_with_indices(t, at, largest);
            (Value::Int(values), Value::Int(places))
        }
        other => {
            return Err(OpError::DType {
                expected: "numbers".into(),
                found: other.dtype(),
            });
        }
    };
    Ok(vec![
        values.narrow(at, 0, k),
        places.cast(DType::I64)?.narrow(at, 0, k),
    ])
}
