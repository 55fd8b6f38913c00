//! From the scores of a classical model to what it gives: transforms and labels. What ONNX
//! leaves open is as onnxruntime does it.

use super::Result;
use crate::device;
use crate::error::OpError;
use crate::graph::{Labels, PostTransform};
use crate::tensor::DType;
use crate::value::Value;

/// What a classifier says of a row.
pub(super) struct Row {
    pub class: usize,
    pub scores: Vec<f64>,
}

/// Rows and features; a vector is one row.
pub(super) fn rows(x: &Value) -> Result<(usize, usize)> {
    match x.shape().as_slice() {
        [features] => Ok((1, *features)),
        [rows, features] => Ok((*rows, *features)),
        shape => Err(OpError::Shape(format!(
            "expected rank 1 or 2, found {shape:?}"
        ))),
    }
}

pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// √2 · erf⁻¹(2x − 1), by Winitzki's approximation of erf⁻¹.
fn probit(x: f64) -> f64 {
    const A: f64 = 0.147;
    let y = 2.0 * x - 1.0;
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let part = 2.0 / (std::f64::consts::PI * A) + 0.5 * log;
    let root = ((part * part - log / A).sqrt() - part).sqrt();
    std::f64::consts::SQRT_2 * root.copysign(y)
}

/// The transform of a row; a single score is left alone by all but the probit.
pub(super) fn transform(kind: PostTransform, row: &mut [f64]) {
    if row.len() < 2 && kind != PostTransform::Probit {
        return;
    }
    match kind {
        PostTransform::None => {}
        PostTransform::Logistic => row.iter_mut().for_each(|x| *x = logistic(*x)),
        PostTransform::Probit => row.iter_mut().for_each(|x| *x = probit(*x)),
        PostTransform::Softmax | PostTransform::SoftmaxZero => {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for x in row.iter_mut() {
                let zero = kind == PostTransform::SoftmaxZero && x.abs() <= 1e-7;
                *x = if zero { 0.0 } else { (*x - largest).exp() };
            }
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| match sum {
                0.0 => *x = 0.5,
                sum => *x /= sum,
            });
        }
    }
}

/// The scores of both classes from that of the second: taken as a probability (`positive`: all
/// weights are) or as a distance.
pub(super) fn both_sides(score: f64, positive: bool, kind: PostTransform) -> Vec<f64> {
    match (positive, kind) {
        (_, PostTransform::Probit) => vec![probit(1.0 - score), probit(score)],
        (_, PostTransform::Logistic) => vec![logistic(-score), logistic(score)],
        (true, _) => vec![1.0 - score, score],
        (false, _) => vec![-score, score],
    }
}

/// The place of the largest, the first of equals.
pub(super) fn largest(scores: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, score) in scores.enumerate() {
        if score > best.1 {
            best = (at, score);
        }
    }
    best.0
}

/// Labels `[n]` and scores `[n, …]`.
pub(super) fn classified(rows: Vec<Row>, labels: &Labels, x: &Value) -> Result<Vec<Value>> {
    let count = rows.len();
    let width = rows.first().map_or(labels.len(), |row| row.scores.len());
    let classes: Vec<_> = rows.iter().map(|row| row.class).collect();
    let scores: Vec<_> = rows.into_iter().flat_map(|row| row.scores).collect();
    let named = match labels {
        // A single class is there or not.
        Labels::Ints(all) if all.len() < 2 => {
            let found: Vec<_> = classes.iter().map(|&class| class as i64).collect();
            Value::from_ints(&found, &[count], &device::cpu())
        }
        Labels::Ints(all) => {
            let found = classes.iter().map(|&class| all.get(class).copied());
            let found = found.collect::<Option<Vec<_>>>().ok_or_else(unnamed)?;
            Value::from_ints(&found, &[count], &device::cpu())
        }
        Labels::Texts(all) => {
            let found = classes.iter().map(|&class| all.get(class).cloned());
            let found = found.collect::<Option<Vec<_>>>().ok_or_else(unnamed)?;
            Value::from_strings(found, &[count])
        }
    };
    let scores = Value::from_floats(scores, &[count, width], DType::F32, &x.device())?;
    Ok(vec![named, scores])
}

fn unnamed() -> OpError {
    OpError::Value("a class has no label".into())
}
