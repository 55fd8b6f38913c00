//! Sequences and optionals.

use super::{Context, ParseError};
use crate::graph::*;
use crate::lower::attributes::Attributes;

pub(super) fn parse(
    operator: &str,
    a: &mut Attributes,
    _: &mut Context,
) -> Result<Option<Op>, ParseError> {
    Ok(Some(Op::Sequence(match operator {
        "SequenceEmpty" => Sequence::Empty,
        "SequenceConstruct" => Sequence::Construct,
        "SequenceAt" => Sequence::At,
        "SequenceInsert" => Sequence::Insert,
        "SequenceErase" => Sequence::Erase,
        "SequenceLength" => Sequence::Length,
        "ConcatFromSequence" => Sequence::Concat {
            axis: a.int("axis")?.ok_or("attribute `axis` is missing")?,
            stack: a.flag("new_axis", false)?,
        },
        "SplitToSequence" => Sequence::Split {
            axis: a.int_or("axis", 0)?,
            keep_dims: a.flag("keepdims", true)?,
        },
        "Optional" => Sequence::Optional,
        "OptionalHasElement" => Sequence::OptionalHasElement,
        "OptionalGetElement" => Sequence::OptionalGetElement,
        _ => return Ok(None),
    })))
}
