//! Matrix products.

use burn_backend::Scalar;
use burn_backend::ops::FloatTensorOps;

use super::{Result, broadcast, broadcast_to, count, elementwise, with_rank};
use crate::error::OpError;
use crate::graph::Binary;
use crate::tensor::DType;
use crate::value::{B, Value, check_size};

/// NumPy's matmul: `[…, m, k] · […, k, n]`, with vectors as a row or a column.
pub(super) fn matmul(left: Value, right: Value) -> Result<Value> {
    if left.dtype() != right.dtype() {
        let expected = format!("{} as on the left side", left.dtype());
        return Err(OpError::DType {
            expected,
            found: right.dtype(),
        });
    }
    if let Value::Int(_) = left {
        // Sums of products of 32-bit integers are exact in f64 up to 2^53.
        let dtype = left.dtype();
        let done = matmul(left.cast(DType::F64)?, right.cast(DType::F64)?)?;
        return done.cast(dtype);
    }
    let (a, b) = (left.shape(), right.shape());
    let misfit = || OpError::Shape(format!("shapes {a:?} and {b:?} don't multiply"));
    let (row, column) = (a.len() == 1, b.len() == 1);
    let (&k, rows) = a.split_last().ok_or_else(misfit)?;
    let (m, batch_a) = rows
        .split_last()
        .map_or((1, rows), |(&m, batch)| (m, batch));
    let (k_b, n, batch_b): (usize, usize, &[usize]) = match b.as_slice() {
        [] => return Err(misfit()),
        [k] => (*k, 1, &[]),
        [batch @ .., k, n] => (*k, *n, batch),
    };
    if k != k_b {
        return Err(misfit());
    }
    let batch = broadcast(batch_a, batch_b)?;
    let full: Vec<_> = batch.iter().copied().chain([m, n]).collect();
    let mut shape = batch.clone();
    shape.extend((!row).then_some(m));
    shape.extend((!column).then_some(n));
    check_size(left.dtype(), &full)?;
    if count(&full) == 0 || k == 0 {
        return Value::full(left.dtype(), &shape, 0.0, &left.device());
    }
    // A matrix on the right is shared by all rows: one product instead of many.
    if batch_b.is_empty() {
        let rows = count(&batch) * m;
        let left = left.reshape(&[rows, k]).float()?;
        let right = right.reshape(&[k, n]).float()?;
        return Ok(Value::Float(B::float_matmul(left, right)).reshape(&shape));
    }
    let left = if row { left.reshape(&[1, k]) } else { left };
    let rank = full.len();
    let left = with_rank(left, rank).float()?;
    let right = with_rank(right, rank).float()?;
    Ok(Value::Float(B::float_matmul(left, right)).reshape(&shape))
}

/// `x · weights + bias`, weights `[k, n]`, bias `[n]`.
pub(super) fn linear(x: Value, weights: Value, bias: Value) -> Result<Value> {
    elementwise::binary(Binary::Add, matmul(x, weights)?, bias)
}

/// `alpha · A · B + beta · C`.
pub(super) fn gemm(
    a: Value,
    b: Value,
    c: Option<Value>,
    alpha: f32,
    beta: f32,
    transpose_a: bool,
    transpose_b: bool,
) -> Result<Value> {
    if a.rank() != 2 || b.rank() != 2 {
        let (a, b) = (a.shape(), b.shape());
        return Err(OpError::Shape(format!(
            "expected two matrices, found {a:?} and {b:?}"
        )));
    }
    let a = if transpose_a { a.permute(&[1, 0]) } else { a };
    let b = if transpose_b { b.permute(&[1, 0]) } else { b };
    let scale = |value: Value, by: f32| -> Result<Value> {
        match value {
            value if by == 1.0 => Ok(value),
            Value::Float(t) => Ok(Value::Float(B::float_mul_scalar(
                t,
                Scalar::Float(f64::from(by)),
            ))),
            other => {
                let dtype = other.dtype();
                let scaled = other.cast(DType::F64)?.float()?;
                let scaled = B::float_mul_scalar(scaled, Scalar::Float(f64::from(by)));
                Value::Float(scaled).cast(dtype)
            }
        }
    };
    let product = scale(matmul(a, b)?, alpha)?;
    let Some(c) = c.filter(|_| beta != 0.0) else {
        return Ok(product);
    };
    let shape = product.shape();
    if broadcast(&shape, &c.shape())? != shape {
        return Err(OpError::Shape(format!(
            "C of shape {:?} is larger than {shape:?}",
            c.shape()
        )));
    }
    let c = scale(c, beta)?;
    if product.len() == 0 {
        return Ok(product);
    }
    let c = broadcast_to(c, &shape);
    elementwise::binary(Binary::Add, product, c)
}
