//! Products and sliding windows.

use super::{Context, ParseError};
use crate::graph::*;
use crate::kernels::Activation;
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
        activation: Activation::None,
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

/// The power of an Lp norm.
fn norm(a: &mut Attributes) -> Result<f32, ParseError> {
    match a.int_or("p", 2)? {
        p @ 1.. => Ok(p as f32),
        p => Err(format!("attribute `p` is {p}, expected ≥ 1").into()),
    }
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
        "DeformConv" => Op::DeformConv {
            conv: conv(a)?,
            offset_groups: usize::try_from(a.int_or("offset_group", 1)?)
                .ok()
                .filter(|&groups| groups > 0)
                .ok_or("attribute `offset_group` is below 1")?,
        },
        "Einsum" => Op::Einsum(super::einsum::parse(
            &a.text("equation")?
                .ok_or("attribute `equation` is missing")?,
            context.inputs.len(),
        )?),
        "MaxPool" => Op::MaxPool {
            column_major: a.flag("storage_order", false)?,
            indices: context.outputs > 1,
            window: window(a)?,
        },
        "MaxUnpool" => Op::MaxUnpool(window(a)?),
        "LpPool" => Op::LpPool {
            p: norm(a)?,
            window: window(a)?,
        },
        "GlobalLpPool" => Op::GlobalLpPool { p: norm(a)? },
        "LRN" => Op::LocalResponseNorm {
            size: usize::try_from(a.int_or("size", 0)?)
                .ok()
                .filter(|&size| size > 0)
                .ok_or("attribute `size` is missing or below 1")?,
            alpha: a.float_or("alpha", 1e-4)?,
            beta: a.float_or("beta", 0.75)?,
            bias: a.float_or("bias", 1.0)?,
        },
        "Col2Im" => Op::Col2Im {
            strides: a.positive_sizes("strides")?,
            dilations: a.positive_sizes("dilations")?,
            pads: a.sizes("pads")?,
        },
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
