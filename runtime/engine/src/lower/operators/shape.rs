//! Shapes.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;
use crate::onnx;
use crate::tensor::DType;
use crate::value::Value;

/// Whether blocks are ordered column, row, depth rather than depth, column, row.
fn columns_first(a: &mut Attributes) -> Result<bool, ParseError> {
    match a.text("mode")?.as_deref() {
        None | Some("DCR") => Ok(false),
        Some("CRD") => Ok(true),
        Some(other) => Err(format!("unknown mode `{other}`").into()),
    }
}

fn block_size(a: &mut Attributes) -> Result<usize, ParseError> {
    let size = usize::try_from(a.int_or("blocksize", 0)?)
        .ok()
        .filter(|&size| size > 0);
    size.ok_or_else(|| "attribute `blocksize` is below 1".into())
}

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "Identity" => Op::Identity,
        "Dropout" => {
            let ratio = a.float("ratio")?;
            context.float_as_input(1, ratio)?;
            Op::Dropout {
                seed: a.int("seed")?,
            }
        }
        "Size" => Op::Size,
        "Expand" => Op::Expand,
        "Tile" => Op::Tile,
        "Range" => Op::Range,
        "Shape" => Op::Shape {
            start: a.int_or("start", 0)?,
            end: a.int_or("end", i64::MAX)?,
        },
        "Reshape" => {
            let shape = a.ints("shape")?;
            context.ints_as_input(1, shape)?;
            Op::Reshape {
                allow_zero: a.flag("allowzero", false)?,
            }
        }
        "Flatten" => Op::Flatten {
            axis: a.int_or("axis", 1)?,
        },
        "Squeeze" => {
            let axes = a.ints("axes")?;
            context.ints_as_input(1, axes)?;
            Op::Squeeze
        }
        "Unsqueeze" => {
            let axes = a.ints("axes")?;
            context.ints_as_input(1, axes)?;
            Op::Unsqueeze
        }
        "Transpose" => Op::Transpose(match a.has("perm") {
            true => Some(a.sizes("perm")?),
            false => None,
        }),
        "Concat" => Op::Concat {
            axis: a.int_or("axis", 1)?,
        },
        "Split" => {
            let sizes = a.ints("split")?;
            context.ints_as_input(1, sizes)?;
            let parts = a.int("num_outputs")?.map(usize::try_from);
            let parts = parts.unwrap_or(Ok(context.outputs)).unwrap_or(0);
            if parts != context.outputs || parts == 0 {
                return Err(format!("{parts} parts into {} outputs", context.outputs).into());
            }
            Op::Split {
                axis: a.int_or("axis", 0)?,
                parts,
            }
        }
        "Slice" => {
            for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
                let values = a.ints(name)?;
                context.ints_as_input(index, values)?;
            }
            Op::Slice
        }
        "Pad" => {
            let pads = if a.has("pads") {
                a.ints("pads")?
            } else {
                a.ints("paddings")?
            };
            context.ints_as_input(1, pads)?;
            let value = a.float("value")?;
            context.float_as_input(2, value)?;
            Op::Pad(match a.text("mode")?.as_deref() {
                None | Some("constant") => PadMode::Constant,
                Some("reflect") => PadMode::Reflect,
                Some("edge") => PadMode::Edge,
                Some("wrap") => PadMode::Wrap,
                Some(other) => return Err(format!("unknown mode `{other}`").into()),
            })
        }
        "DepthToSpace" => Op::DepthToSpace {
            block: block_size(a)?,
            columns_first: columns_first(a)?,
        },
        "SpaceToDepth" => Op::SpaceToDepth {
            block: block_size(a)?,
            columns_first: columns_first(a)?,
        },
        "Trilu" => Op::Trilu {
            upper: a.flag("upper", true)?,
        },
        "ConstantOfShape" => match a.tensor("value")? {
            None => Op::ConstantOfShape {
                dtype: DType::F32,
                value: 0.0,
            },
            Some(proto) => {
                let tensor = onnx::tensor(proto, context.node)?;
                let dtype = tensor.dtype();
                let value = Value::upload(tensor, &crate::device::cpu())
                    .and_then(|value| value.to_floats())
                    .map_err(|error| error.to_string())?;
                match value.as_slice() {
                    [value] => Op::ConstantOfShape {
                        dtype,
                        value: *value,
                    },
                    _ => return Err("attribute `value` holds not one element".into()),
                }
            }
        },
        _ => return Ok(None),
    }))
}
