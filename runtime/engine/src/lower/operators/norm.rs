//! Normalisation.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(match operator {
        "BatchNormalization" => {
            if a.flag("training_mode", false)? {
                return Err("training mode is not supported".into());
            }
            Op::BatchNorm {
                epsilon: a.float_or("epsilon", 1e-5)?,
            }
        }
        "InstanceNormalization" => Op::InstanceNorm {
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "LayerNormalization" => Op::LayerNorm {
            axis: a.int_or("axis", -1)?,
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "SimplifiedLayerNormalization" => Op::Contrib(super::contrib::simplified_norm(a)?),
        "LpNormalization" => Op::LpNorm {
            axis: a.int_or("axis", -1)?,
            p: match a.int_or("p", 2)? {
                p @ (1 | 2) => p,
                other => return Err(format!("p is {other}, expected 1 or 2").into()),
            },
        },
        "Softmax" | "LogSoftmax" => {
            let flat = context.opset < 13;
            Op::Softmax {
                axis: a.int_or("axis", if flat { 1 } else { -1 })?,
                flat,
                log: operator == "LogSoftmax",
            }
        }
        _ => return Ok(None),
    }))
}
