//! Sequences of tensors, and values that may be missing.

use super::{Args, Result, axis, shape};
use crate::error::OpError;
use crate::graph::Sequence;
use crate::value::{Item, Value};

pub(super) fn run(kind: Sequence, args: &mut Args) -> Result<Item> {
    Ok(match kind {
        Sequence::Empty => Vec::new().into(),
        Sequence::Construct => args.all()?.into(),
        Sequence::Length => {
            let length = args.item(0)?.sequence()?.len();
            Value::from_ints(&[length as i64], &[], &crate::device::cpu()).into()
        }
        Sequence::At => {
            let place = args.ints(1)?;
            let mut values = args.item(0)?.sequence()?;
            let at = position(&place, values.len(), false)?;
            values.swap_remove(at).into()
        }
        Sequence::Insert => {
            let (place, value) = (args.optional_ints(2)?, args.take(1)?);
            let mut values = args.item(0)?.sequence()?;
            let at = match place {
                Some(place) => position(&place, values.len(), true)?,
                None => values.len(),
            };
            values.insert(at, value);
            values.into()
        }
        Sequence::Erase => {
            let place = args.optional_ints(1)?.unwrap_or(vec![-1]);
            let mut values = args.item(0)?.sequence()?;
            values.remove(position(&place, values.len(), false)?);
            values.into()
        }
        Sequence::Concat { axis, stack } => {
            let values = Value::together(args.item(0)?.sequence()?)?;
            if stack {
                stacked(values, axis)?.into()
            } else {
                shape::concat(values, axis)?.into()
            }
        }
        Sequence::Split { axis, keep_dims } => {
            let sizes = args.optional(1)?;
            split(args.take(0)?, axis, keep_dims, sizes)?.into()
        }
        Sequence::Optional => args.item(0).unwrap_or(Item::Nothing),
        Sequence::OptionalHasElement => {
            let holds = args
                .item(0)
                .is_ok_and(|item| !matches!(item, Item::Nothing));
            Value::from_bools(vec![holds], &[], &crate::device::cpu()).into()
        }
        Sequence::OptionalGetElement => match args.item(0)? {
            Item::Nothing => return Err(OpError::Value("the optional holds nothing".into())),
            item => item,
        },
    })
}

/// A position in a sequence, counted from the end where it is negative.
fn position(given: &[i64], length: usize, end_too: bool) -> Result<usize> {
    let [index] = given else {
        return Err(OpError::Shape(format!(
            "{} positions, expected 1",
            given.len()
        )));
    };
    let size = length + usize::from(end_too);
    let from_front = if *index < 0 {
        index.saturating_add(length as i64)
    } else {
        *index
    };
    usize::try_from(from_front)
        .ok()
        .filter(|&at| at < size)
        .ok_or(OpError::Index {
            index: *index,
            size,
        })
}

/// Tensors of one shape joined along a new axis.
pub(crate) fn stacked(values: Vec<Value>, along: i64) -> Result<Value> {
    let wide = values
        .into_iter()
        .map(|value| shape::unsqueeze(value, &[along]));
    shape::concat(wide.collect::<Result<_>>()?, along)
}

fn split(x: Value, along: i64, keep_dims: bool, sizes: Option<Value>) -> Result<Vec<Value>> {
    let at = axis(along, x.rank())?;
    let size = x.shape().get(at).copied().unwrap_or(0);
    let given = match &sizes {
        None => vec![1; size],
        Some(value) if value.rank() == 0 => {
            let step = value.to_ints()?.first().copied().unwrap_or(0);
            let step = usize::try_from(step).ok().filter(|&step| step > 0);
            let step = step.ok_or_else(|| OpError::Value("a part has no elements".into()))?;
            (0..size)
                .step_by(step)
                .map(|from| step.min(size - from) as i64)
                .collect()
        }
        Some(value) => value.to_ints()?,
    };
    let parts = shape::split(x, at as i64, given.len(), Some(given))?;
    if keep_dims || sizes.is_some() {
        return Ok(parts);
    }
    parts
        .into_iter()
        .map(|part| shape::squeeze(part, Some(&[at as i64])))
        .collect()
}
