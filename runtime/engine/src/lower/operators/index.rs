//! By index.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
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
        "GatherND" => Op::GatherNd {
            batch_dims: usize::try_from(a.int_or("batch_dims", 0)?)
                .map_err(|_| "attribute `batch_dims` is below 0")?,
        },
        // Scatter is what ScatterElements was called before opset 11.
        "ScatterElements" | "Scatter" => Op::ScatterElements {
            axis: a.int_or("axis", 0)?,
            update: update(a)?,
        },
        "ScatterND" => Op::ScatterNd { update: update(a)? },
        "OneHot" => Op::OneHot {
            axis: a.int_or("axis", -1)?,
        },
        "Compress" => Op::Compress {
            axis: a.int("axis")?,
        },
        "Unique" => Op::Unique {
            axis: a.int("axis")?,
            sorted: a.flag("sorted", true)?,
        },
        "ReverseSequence" => Op::ReverseSequence {
            batch_axis: a.int_or("batch_axis", 1)?,
            time_axis: a.int_or("time_axis", 0)?,
        },
        "TensorScatter" => Op::TensorScatter {
            axis: a.int_or("axis", -2)?,
            circular: match a.text("mode")?.as_deref() {
                None | Some("linear") => false,
                Some("circular") => true,
                Some(other) => return Err(format!("unknown mode `{other}`").into()),
            },
        },
        "EyeLike" => Op::EyeLike {
            dtype: super::dtype(a, "dtype", context)?,
            diagonal: a.int_or("k", 0)?,
        },
        _ => return Ok(None),
    }))
}
