//! Products and sliding windows.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

fn padding(a: &mut Attributes) -> Result<Padding, ParseError> {
    match a.text("auto_pad")?.as_deref() {
        None | Some("NOTSET" | "") => {
            if a.ints("pads")?
                .is_some_and(|pads| pads.iter().any(|&pad| pad < 0))
            {
                return Err("negative pads of a window are not supported".into());
            }
            Ok(Padding::Explicit(a.sizes("pads")?))
        }
        Some("VALID") => Ok(Padding::Explicit(Vec::new())),
        Some("SAME_UPPER") => Ok(Padding::Same { upper: true }),
        Some("SAME_LOWER") => Ok(Padding::Same { upper: false }),
        Some(other) => Err(format!("unknown auto_pad `{other}`").into()),
    }
}

pub(super) fn conv(a: &mut Attributes) -> Result<Conv, ParseError> {
    let groups = usize::try_from(a.int_or("group", 1)?)
        .ok()
        .filter(|&groups| groups > 0);
    Ok(Conv {
        strides: a.positive_sizes("strides")?,
        dilations: a.positive_sizes("dilations")?,
        padding: padding(a)?,
        groups: groups.ok_or("attribute `group` is below 1")?,
        kernel: a.positive_sizes("kernel_shape")?,
    })
}

pub(super) fn window(a: &mut Attributes) -> Result<Window, ParseError> {
    let kernel = a.positive_sizes("kernel_shape")?;
    if kernel.is_empty() {
        return Err("attribute `kernel_shape` is missing".into());
    }
    Ok(Window {
        kernel,
        strides: a.positive_sizes("strides")?,
        dilations: a.positive_sizes("dilations")?,
        padding: padding(a)?,
        ceil: a.flag("ceil_mode", false)?,
    })
}

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "MatMul" => Op::MatMul,
        "GlobalMaxPool" => Op::GlobalMaxPool,
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "Conv" => Op::Conv(conv(a)?),
        "ConvTranspose" => Op::ConvTranspose {
            conv: conv(a)?,
            output_padding: a.sizes("output_padding")?,
            output_shape: a.sizes("output_shape")?,
        },
        "MaxPool" => {
            if a.int_or("storage_order", 0)? != 0 && context.outputs > 1 {
                return Err("column-major indices are not supported".into());
            }
            Op::MaxPool(window(a)?)
        }
        "AveragePool" => Op::AveragePool {
            count_padding: a.flag("count_include_pad", false)?,
            window: window(a)?,
        },
        "Gemm" => Op::Gemm {
            alpha: a.float_or("alpha", 1.0)?,
            beta: a.float_or("beta", 1.0)?,
            transpose_a: a.flag("transA", false)?,
            transpose_b: a.flag("transB", false)?,
        },
        _ => return Ok(None),
    }))
}
