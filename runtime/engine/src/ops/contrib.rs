//! Operators of the domain `com.microsoft`, put together from those of ONNX.
//!
//! Source: onnxruntime's page of contrib operators.

mod attention;
mod norms;
mod quantized;

use super::elementwise::{activate, binary, unary};
use super::{Args, Result, conv, count, matmul};
use crate::device;
use crate::error::OpError;
use crate::graph::{Binary, Contrib, Turned, Unary};
use crate::tensor::DType;
use crate::value::{Value, check_size};

pub(super) fn run(kind: &Contrib, args: &mut Args) -> Result<Vec<Value>> {
    let one = match kind {
        Contrib::FusedMatMul { alpha, a, b } => {
            let (a, b) = (turned(args.take(0)?, *a)?, turned(args.take(1)?, *b)?);
            scaled(matmul::matmul(a, b)?, *alpha)?
        }
        Contrib::FusedGemm {
            alpha,
            beta,
            transpose_a,
            transpose_b,
            activation,
        } => {
            let (a, b, c) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            let done = matmul::gemm(a, b, c, *alpha, *beta, *transpose_a, *transpose_b)?;
            activate(*activation, done)?
        }
        Contrib::FusedConv {
            conv: attributes,
            activation,
        } => {
            let (x, weights, bias) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            let done = conv::conv(attributes, x, weights, bias)?;
            activate(*activation, added(done, args.optional(3)?)?)?
        }
        Contrib::BiasGelu { tanh } => {
            let x = added(args.take(0)?, args.optional(1)?)?;
            unary(Unary::Gelu { tanh: *tanh }, x)?
        }
        Contrib::QuickGelu { alpha } => {
            let x = args.take(0)?;
            let gate = unary(Unary::Sigmoid, scaled(x.clone(), *alpha)?)?;
            binary(Binary::Mul, x, gate)?
        }
        Contrib::SkipLayerNorm {
            epsilon,
            simplified,
        } => return norms::skip(args, *epsilon, *simplified),
        Contrib::EmbedLayerNorm { epsilon } => return norms::embed(args, *epsilon),
        Contrib::GroupNorm {
            groups,
            epsilon,
            channels_last,
            silu,
        } => {
            let done = norms::group(args, *groups, *epsilon, *channels_last)?;
            if *silu {
                unary(Unary::Silu, done)?
            } else {
                done
            }
        }
        Contrib::DynamicQuantizeMatMul => quantized::dynamic_matmul(args)?,
        Contrib::MatMulIntegerToFloat => quantized::matmul_to_float(args)?,
        Contrib::DynamicQuantizeLstm(layer) => return quantized::lstm(layer, args),
        Contrib::QLinear(kind) => quantized::run(kind, args)?,
        Contrib::Attention(heads) => return attention::attention(heads, args),
        Contrib::QAttention(heads) => return attention::quantized(heads, args),
        Contrib::MultiHeadAttention(heads) => return attention::multi_head(heads, args),
        Contrib::RotaryEmbedding {
            interleaved,
            heads,
            dim,
        } => attention::rotary(args, *interleaved, *heads, *dim)?,
        Contrib::Inverse => inverse(args.take(0)?)?,
    };
    Ok(vec![one])
}

/// `x + y`, where there is a y.
fn added(x: Value, y: Option<Value>) -> Result<Value> {
    match y {
        Some(y) => binary(Binary::Add, x, y),
        None => Ok(x),
    }
}

fn scaled(x: Value, by: f32) -> Result<Value> {
    if by == 1.0 {
        return Ok(x);
    }
    let factor = Value::full(x.dtype(), &[], f64::from(by), &device::cpu())?;
    binary(Binary::Mul, x, factor)
}

/// A matrix, or several, as the product needs them.
fn turned(x: Value, how: Turned) -> Result<Value> {
    let rank = x.rank();
    if rank < 2 {
        return Ok(x);
    }
    let mut order: Vec<_> = (0..rank).collect();
    if how.rows_first {
        // Rows before the batch go behind it.
        if let Some(leading) = order.get_mut(..rank - 1) {
            leading.rotate_left(1);
        }
    }
    if how.transpose {
        order.swap(rank - 2, rank - 1);
    }
    Ok(x.permute(&order))
}

/// The inverse of each square matrix, by elimination with the largest pivot of a column.
fn inverse(x: Value) -> Result<Value> {
    let (shape, dtype, device) = (x.shape(), x.dtype(), x.device());
    let &[.., rows, columns] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected matrices, found {shape:?}"
        )));
    };
    if rows != columns {
        return Err(OpError::Shape(format!(
            "a matrix {rows} × {columns} has no inverse"
        )));
    }
    check_size(DType::F64, &[2, count(&shape)])?;
    let x = x.float().map(Value::Float)?.to_floats()?;
    let mut made = Vec::with_capacity(x.len());
    for matrix in x.chunks_exact((rows * rows).max(1)) {
        made.extend(inverted(matrix, rows)?);
    }
    Value::from_floats(made, &shape, dtype, &device)
}

fn inverted(matrix: &[f64], n: usize) -> Result<Vec<f64>> {
    // Each row with the same row of the identity behind it.
    let mut rows: Vec<Vec<f64>> = matrix
        .chunks_exact(n)
        .enumerate()
        .map(|(at, row)| {
            let unit = (0..n).map(|column| f64::from(u8::from(column == at)));
            row.iter().copied().chain(unit).collect()
        })
        .collect();
    let at = |row: &[f64], column: usize| row.get(column).copied().unwrap_or(0.0);
    for column in 0..n {
        let candidates = rows.iter().enumerate().skip(column);
        let pivot = candidates
            .max_by(|(_, a), (_, b)| at(a, column).abs().total_cmp(&at(b, column).abs()))
            .map_or(column, |(row, _)| row);
        rows.swap(column, pivot);
        let Some(mut row) = rows.get(column).cloned() else {
            continue;
        };
        let by = at(&row, column);
        if by == 0.0 || !by.is_finite() {
            return Err(OpError::Value("a matrix has no inverse".into()));
        }
        row.iter_mut().for_each(|x| *x /= by);
        for (number, other) in rows.iter_mut().enumerate() {
            let times = at(other, column);
            if number != column && times != 0.0 {
                let each = other.iter_mut().zip(&row);
                each.for_each(|(x, pivot)| *x -= times * pivot);
            }
        }
        if let Some(slot) = rows.get_mut(column) {
            *slot = row;
        }
    }
    Ok(rows
        .iter()
        .flat_map(|row| row.iter().skip(n))
        .copied()
        .collect())
}
