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
            if !a.flag("spatial", true)? {
                return Err("only the spatial form is supported".into());
            }
            let epsilon = a.float_or("epsilon", 1e-5)?;
            // Before opset 14 the outputs say that it is training.
            let training = match context.opset {
                ..14 => context.outputs > 1,
                _ => a.flag("training_mode", false)?,
            };
            match training {
                false => Op::BatchNorm { epsilon },
                true => Op::BatchNormTraining {
                    epsilon,
                    momentum: a.float_or("momentum", 0.9)?,
                },
            }
        }
        "GroupNormalization" => {
            let groups = a.int("num_groups")?.map(usize::try_from);
            let Some(Ok(groups @ 1..)) = groups else {
                return Err("attribute `num_groups` is missing or below 1".into());
            };
            Op::GroupNorm {
                groups,
                epsilon: a.float_or("epsilon", 1e-5)?,
            }
        }
        "RMSNormalization" => Op::RmsNorm {
            axis: a.int_or("axis", -1)?,
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "MeanVarianceNormalization" => {
            Op::MeanVarianceNorm(a.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]))
        }
        "InstanceNormalization" => Op::InstanceNorm {
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
        "LayerNormalization" => Op::LayerNorm {
            axis: a.int_or("axis", -1)?,
            epsilon: a.float_or("epsilon", 1e-5)?,
            statistics: context.outputs > 1,
        },
        // What onnxruntime called RMSNormalization before ONNX had it.
        "SimplifiedLayerNormalization" => Op::RmsNorm {
            axis: a.int_or("axis", -1)?,
            epsilon: a.float_or("epsilon", 1e-5)?,
        },
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
