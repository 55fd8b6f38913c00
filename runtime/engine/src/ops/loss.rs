//! Losses: what a classifier's scores lack to its labels.

use burn_backend::ops::ActivationOps;

use super::{Args, Result, count};
use crate::error::OpError;
use crate::graph::{Loss, Reduction};
use crate::value::{B, Value};

/// Scores `[n, classes, …]`, labels `[n, …]`, weights `[classes]`: the loss, of the labels'
/// shape or one number, and the log probabilities, of the scores' shape.
pub(super) fn run(of: &Loss, args: &mut Args) -> Result<Vec<Value>> {
    let (scores, labels) = (args.take(0)?, args.take(1)?);
    let weights = args.optional(2)?;
    let (shape, label_shape) = (scores.shape(), labels.shape());
    let misfit = || OpError::Shape(format!("labels {label_shape:?} for scores {shape:?}"));
    let [n, classes, rest @ ..] = shape.as_slice() else {
        return Err(misfit());
    };
    if !label_shape.iter().eq(std::iter::once(n).chain(rest)) {
        return Err(misfit());
    }
    let (dtype, device) = (scores.dtype(), scores.device());
    let logs = match of.softmax {
        true if scores.len() > 0 => Value::Float(B::log_softmax(scores.float()?, 1)),
        _ => Value::Float(scores.float()?),
    };
    let weights = match weights {
        None => vec![1.0; *classes],
        Some(weights) if weights.shape() == [*classes] => weights.to_floats()?,
        Some(weights) => {
            return Err(OpError::Shape(format!(
                "weights {:?} for {classes} classes",
                weights.shape()
            )));
        }
    };
    let inner = count(rest);
    let values = logs.to_floats()?;
    let (mut losses, mut total) = (Vec::with_capacity(labels.len()), 0.0);
    for (at, label) in labels.to_ints()?.into_iter().enumerate() {
        if of.ignored == Some(label) {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(label).ok().filter(|class| class < classes);
        let class = class.ok_or(OpError::Index {
            index: label,
            size: *classes,
        })?;
        let place = (at / inner * classes + class) * inner + at % inner;
        let weight = weights.get(class).copied().unwrap_or(1.0);
        losses.push(-values.get(place).copied().unwrap_or(0.0) * weight);
        total += weight;
    }
    let sum = || losses.iter().sum::<f64>();
    let loss = match of.reduction {
        Reduction::None => Value::from_floats(losses, &label_shape, dtype, &device)?,
        Reduction::Sum => Value::from_floats(vec![sum()], &[], dtype, &device)?,
        Reduction::Mean => Value::from_floats(vec![sum() / total], &[], dtype, &device)?,
    };
    Ok(vec![loss, logs])
}
