//! By index.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    _: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let update = |a: &mut Attributes| -> Result<Update, ParseError> {
        Ok(match a.text("reduction")?.as_deref() {
            None | Some("none" | "") => Update::Assign,
            Some("add") => Update::Add,
            Some("mul") => Update::Mul,
            Some("max") => Update::Max,
            Some("min") => Update::Min,
            Some(other) => return Err(format!("unknown reduction `{other}`").into()),
        })
    };
    Ok(Some(match operator {
        "NonZero" => Op::NonZero,
        "Gather" => Op::Gather {
            axis: a.int_or("axis", 0)?,
        },
        "GatherElements" => Op::GatherElements {
            axis: a.int_or("axis", 0)?,
        },
        "GatherND" => {
            if a.int_or("batch_dims", 0)? != 0 {
                return Err("batch_dims other than 0 are not supported".into());
            }
            Op::GatherNd
        }
        // Scatter is what ScatterElements was called before opset 11.
        "ScatterElements" | "Scatter" => Op::ScatterElements {
            axis: a.int_or("axis", 0)?,
            update: update(a)?,
        },
        "ScatterND" => Op::ScatterNd { update: update(a)? },
        "OneHot" => Op::OneHot {
            axis: a.int_or("axis", -1)?,
        },
        _ => return Ok(None),
    }))
}
