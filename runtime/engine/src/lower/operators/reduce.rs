//! Reductions, and what else runs along an axis.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let kind = match operator {
        "ReduceL1" => Reduce::L1,
        "ReduceL2" => Reduce::L2,
        "ReduceLogSum" => Reduce::LogSum,
        "ReduceLogSumExp" => Reduce::LogSumExp,
        "ReduceMax" => Reduce::Max,
        "ReduceMean" => Reduce::Mean,
        "ReduceMin" => Reduce::Min,
        "ReduceProd" => Reduce::Prod,
        "ReduceSum" => Reduce::Sum,
        "ReduceSumSquare" => Reduce::SumSquare,
        "ArgMax" | "ArgMin" => {
            return Ok(Some(Op::ArgExtreme {
                largest: operator == "ArgMax",
                axis: a.int_or("axis", 0)?,
                keep_dims: a.flag("keepdims", true)?,
                last: a.flag("select_last_index", false)?,
            }));
        }
        "CumSum" => {
            return Ok(Some(Op::CumSum {
                exclusive: a.flag("exclusive", false)?,
                reverse: a.flag("reverse", false)?,
            }));
        }
        "CumProd" => {
            return Ok(Some(Op::CumProd {
                exclusive: a.flag("exclusive", false)?,
                reverse: a.flag("reverse", false)?,
            }));
        }
        "Hardmax" => {
            let flat = context.opset < 13;
            return Ok(Some(Op::Hardmax {
                axis: a.int_or("axis", if flat { 1 } else { -1 })?,
                flat,
            }));
        }
        "Det" => return Ok(Some(Op::Det)),
        "TopK" => {
            let k = a.int("k")?;
            context.ints_as_input(1, k.map(|k| vec![k]))?;
            return Ok(Some(Op::TopK {
                axis: a.int_or("axis", -1)?,
                largest: a.flag("largest", true)?,
            }));
        }
        _ => return Ok(None),
    };
    let axes = a.ints("axes")?;
    context.ints_as_input(1, axes)?;
    Ok(Some(Op::Reduce {
        kind,
        keep_dims: a.flag("keepdims", true)?,
        noop_with_empty_axes: a.flag("noop_with_empty_axes", false)?,
    }))
}
