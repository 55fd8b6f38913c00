//! Quantised tensors.

use super::{Context, ParseError};
use super::{elementwise, window};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::onnx;
use crate::tensor::DType;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let node = context.node;
    Ok(Some(Op::Quantized(match operator {
        "QuantizeLinear" => Quantized::Quantize {
            scales: scales(a)?,
            to: dtype(a, "output_dtype", node)?,
            precision: dtype(a, "precision", node)?,
            rounding: elementwise::rounding(a)?,
        },
        "DequantizeLinear" => Quantized::Dequantize {
            scales: scales(a)?,
            to: dtype(a, "output_dtype", node)?,
        },
        "DynamicQuantizeLinear" => Quantized::DynamicQuantize,
        "MatMulInteger" => Quantized::MatMulInteger,
        "ConvInteger" => Quantized::ConvInteger(window::conv(a)?),
        "QLinearMatMul" => Quantized::QLinearMatMul,
        "QLinearConv" => Quantized::QLinearConv(window::conv(a)?),
        _ => return Ok(None),
    })))
}

fn scales(a: &mut Attributes) -> Result<Scales, ParseError> {
    let block = a.int_or("block_size", 0)?;
    Ok(Scales {
        axis: a.int_or("axis", 1)?,
        block: usize::try_from(block)
            .map_err(|_| format!("attribute `block_size` is {block}, expected ≥ 0"))?,
    })
}

/// A type, where the attribute names one; 0 stands for none.
fn dtype(a: &mut Attributes, name: &str, node: &str) -> Result<Option<DType>, ParseError> {
    match a.int_or(name, 0)? {
        0 => Ok(None),
        number => Ok(Some(onnx::dtype(
            i32::try_from(number).unwrap_or(-1),
            node,
        )?)),
    }
}
