//! Matrix products.

use burn_backend::Scalar;
use burn_backend::ops::FloatTensorOps;

use rayon::prelude::*;

use super::{Result, broadcast, broadcast_to, count, elementwise, with_rank};
use crate::error::OpError;
use crate::graph::Binary;
use crate::kernels::{
    Activation, Bias, F32, Int8, Left, Matrix, Packed, Right, gemm as multiply_add,
};
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
    let Factors {
        sizes: [m, k, n],
        batch,
        batches: [_, batch_b],
        shape,
    } = Factors::new(&a, &b)?;
    let (row, column) = (a.len() == 1, b.len() == 1);
    let full: Vec<_> = batch.iter().copied().chain([m, n]).collect();
    check_size(left.dtype(), &full)?;
    if count(&full) == 0 || k == 0 {
        return Value::full(left.dtype(), &shape, 0.0, &left.device());
    }
    let (left, right) = match F32::both(left, right) {
        Ok((left, right)) => {
            let done = multiply(left, right, (row, column), &batch, [m, k, n])?;
            return Ok(done.reshape(&shape));
        }
        Err(both) => both,
    };
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

/// Two shapes that multiply as NumPy's matmul has it.
pub(super) struct Factors<'a> {
    /// Rows of the left side, its columns, columns of the right side.
    pub sizes: [usize; 3],
    /// What both batches are repeated to.
    pub batch: Vec<usize>,
    /// The batch of each side.
    pub batches: [&'a [usize]; 2],
    /// Of the result.
    pub shape: Vec<usize>,
}

impl<'a> Factors<'a> {
    pub fn new(a: &'a [usize], b: &'a [usize]) -> Result<Self> {
        let misfit = || OpError::Shape(format!("shapes {a:?} and {b:?} don't multiply"));
        let (&k, rows) = a.split_last().ok_or_else(misfit)?;
        let (&m, batch_a) = rows.split_last().unwrap_or((&1, rows));
        let (k_b, n, batch_b): (usize, usize, &[usize]) = match b {
            [] => return Err(misfit()),
            [k] => (*k, 1, &[]),
            [batch @ .., k, n] => (*k, *n, batch),
        };
        if k != k_b {
            return Err(misfit());
        }
        let batch = broadcast(batch_a, batch_b)?;
        let mut shape = batch.clone();
        shape.extend((a.len() > 1).then_some(m));
        shape.extend((b.len() > 1).then_some(n));
        Ok(Self {
            sizes: [m, k, n],
            batch,
            batches: [batch_a, batch_b],
            shape,
        })
    }
}

/// The same on the CPU, where transposed sides are read as they lie. `vectors` says whether
/// the left side is a row and the right side a column.
fn multiply(
    left: F32,
    right: F32,
    vectors: (bool, bool),
    batch: &[usize],
    [m, k, n]: [usize; 3],
) -> Result<Value> {
    let lost = || OpError::Shape("a matrix ends before its last element".into());
    let left = match left.strided() {
        Some((_, strides)) if strides.last() == Some(&1) => left,
        _ => left.contiguous(),
    };
    let right = match right.strided() {
        Some(_) => right,
        None => right.contiguous(),
    };
    let (a, a_strides) = left.strided().ok_or_else(lost)?;
    let (b, b_strides) = right.strided().ok_or_else(lost)?;
    // A row is a matrix of one row, and a column one of one column.
    let (a_batch, a_row) = match (vectors.0, a_strides.as_slice()) {
        (false, [batch @ .., row, _]) => (batch, *row),
        _ => (&[][..], k),
    };
    let (b_batch, b_row, b_column) = match (vectors.1, b_strides.as_slice()) {
        (false, [batch @ .., row, column]) => (batch, *row, *column),
        (_, [.., row]) => (&[][..], *row, 1),
        _ => (&[][..], 1, 1),
    };
    let a_sizes = left.shape();
    let b_sizes = right.shape();
    let mut done = vec![0.0; count(batch) * m * n];
    if b_batch.is_empty() && is_dense(&a_sizes, &a_strides) {
        // All rows of the left side meet one matrix.
        let rows = count(batch) * m;
        let a = Matrix::new(a, [rows, k], [k, 1]).ok_or_else(lost)?;
        let b = Matrix::new(b, [k, n], [b_row, b_column]).ok_or_else(lost)?;
        multiply_add(
            Left::Matrix(a),
            Right::Matrix(b),
            Bias::None,
            Activation::None,
            &mut done,
        )
        .ok_or_else(lost)?;
    } else {
        let one = |at: usize, done: &mut [f32]| {
            let a = a.get(offset(at, batch, &a_sizes, a_batch)..)?;
            let b = b.get(offset(at, batch, &b_sizes, b_batch)..)?;
            let a = Matrix::new(a, [m, k], [a_row, 1])?;
            let b = Matrix::new(b, [k, n], [b_row, b_column])?;
            multiply_add(
                Left::Matrix(a),
                Right::Matrix(b),
                Bias::None,
                Activation::None,
                done,
            )
        };
        each_part(&mut done, m * n, k, one).ok_or_else(lost)?;
    }
    let full: Vec<_> = batch.iter().copied().chain([m, n]).collect();
    Ok(F32::from_vec(done, &full).into_value())
}

/// Runs `work` on each part of `done`, on several threads where there is much to multiply.
fn each_part(
    done: &mut [f32],
    size: usize,
    depth: usize,
    work: impl Fn(usize, &mut [f32]) -> Option<()> + Sync,
) -> Option<()> {
    let threads = rayon::current_num_threads();
    if threads > 1 && done.len() * depth > (1 << 19) && done.len() / size >= threads {
        let parts = done.par_chunks_exact_mut(size).enumerate();
        return parts.map(|(at, part)| work(at, part)).collect();
    }
    let mut parts = done.chunks_exact_mut(size).enumerate();
    parts.try_for_each(|(at, part)| work(at, part))
}

/// Whether the elements lie row-major without gaps.
fn is_dense(sizes: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    sizes.iter().zip(strides).rev().all(|(&size, &stride)| {
        let dense = size == 1 || stride == expected;
        expected *= size;
        dense
    })
}

/// Where matrix number `at` of a batch starts, in a tensor whose own batch is repeated to it.
fn offset(mut at: usize, batch: &[usize], sizes: &[usize], strides: &[usize]) -> usize {
    let mut offset = 0;
    let own = sizes.iter().zip(strides).take(strides.len()).rev();
    let mut own = own.map(|(&size, &stride)| if size == 1 { 0 } else { stride });
    for &size in batch.iter().rev() {
        offset += at % size * own.next().unwrap_or(0);
        at /= size;
    }
    offset
}

/// `activation(x · weights + bias)`, weights `[k, n]`, bias `[n]`.
pub(super) fn linear(
    x: Value,
    weights: Value,
    bias: Option<Value>,
    activation: Activation,
) -> Result<Value> {
    let product = matmul(x, weights)?;
    let sum = match bias {
        Some(bias) => elementwise::binary(Binary::Add, product, bias)?,
        None => product,
    };
    elementwise::activate(activation, sum)
}

/// Weights that were laid out.
#[derive(Clone, Copy)]
pub(super) enum Laid<'a> {
    F32(&'a Packed),
    Int8(&'a Int8),
}

impl Laid<'_> {
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::F32(weights) => weights.shape(),
            Self::Int8(weights) => weights.shape(),
        }
    }

    fn product(
        &self,
        x: Matrix,
        bias: Option<&[f32]>,
        activation: Activation,
        done: &mut [f32],
    ) -> Option<()> {
        match self {
            Self::F32(weights) => {
                let bias = bias.map_or(Bias::None, Bias::Columns);
                let (left, right) = (Left::Matrix(x), Right::Packed(weights));
                multiply_add(left, right, bias, activation, done)
            }
            Self::Int8(weights) => weights.product(&x, bias, activation, done),
        }
    }
}

/// The same with weights that were laid out for it.
pub(super) fn packed(
    x: Value,
    weights: Laid,
    bias: Option<Value>,
    activation: Activation,
    matrix: bool,
) -> Result<Value> {
    let [k, n] = weights.shape();
    let x = F32::new(x).map_err(|x| x.unexpected("f32"))?;
    let mut shape = x.shape();
    let misfit = OpError::Shape(format!("shapes {shape:?} and [{k}, {n}] don't multiply"));
    if shape.last() != Some(&k) || (matrix && shape.len() != 2) {
        return Err(misfit);
    }
    shape.pop();
    let rows = count(&shape);
    shape.push(n);
    check_size(DType::F32, &shape)?;
    let bias = bias.map(F32::new).transpose();
    let bias = bias
        .map_err(|bias| bias.unexpected("f32"))?
        .map(F32::contiguous);
    let mut done = vec![0.0; rows * n];
    if !done.is_empty() && k == 0 {
        return Err(misfit);
    }
    if !done.is_empty() {
        // Rows may lie apart, as those of a part of a tensor do.
        let own = match x.strided() {
            Some((_, strides)) => match (x.shape().len(), strides.as_slice()) {
                (2, &[row, 1]) => Some(row),
                _ => None,
            },
            None => None,
        };
        let x = if own.is_some() { x } else { x.contiguous() };
        let (data, _) = x.strided().ok_or_else(|| misfit.clone())?;
        let x = Matrix::new(data, [rows, k], [own.unwrap_or(k), 1]);
        let bias = bias.as_ref().map(F32::slice);
        x.and_then(|x| weights.product(x, bias, activation, &mut done))
            .ok_or(misfit)?;
    }
    Ok(F32::from_vec(done, &shape).into_value())
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
