//! Local response normalisation.

use rayon::prelude::*;

use super::Result;
use super::taps::{Real, Row, in_real, sums};
use crate::error::OpError;
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Each element divided by a power of the sum of squares over its neighbouring channels.
pub(super) fn local_response(
    x: Value,
    size: usize,
    alpha: f32,
    beta: f32,
    bias: f32,
) -> Result<Value> {
    let Some(&channels) = x.shape().get(1) else {
        return Err(OpError::Shape(format!(
            "expected rank 2 or more, found {:?}",
            x.shape()
        )));
    };
    if !matches!(x, Value::Float(_)) {
        return Err(x.unexpected("floats"));
    }
    if x.len() == 0 {
        return Ok(x);
    }
    check_size(DType::F64, &[channels, size.min(channels), 2])?;
    in_real!(x.dtype(), divided(x, channels, size, [alpha, beta, bias]))
}

fn divided<T: Real>(
    x: Value,
    channels: usize,
    size: usize,
    [alpha, beta, bias]: [f32; 3],
) -> Result<Value> {
    let (dtype, device, shape) = (x.dtype(), x.device(), x.shape());
    let batch = shape.first().copied().unwrap_or(1);
    let mut values = x.elements::<T>()?.into_owned();
    let inner = values.len() / (batch * channels);
    let (before, after) = ((size - 1) / 2, size / 2);
    let weight = f64::from(alpha) / size as f64;
    let row = |at: usize| Row {
        taps: (at.saturating_sub(before)..=at.saturating_add(after).min(channels - 1))
            .map(|place| (place, weight))
            .collect(),
        constant: bias.into(),
    };
    let rows: Vec<_> = (0..channels).map(row).collect();
    let squares: Vec<_> = values.iter().map(|&x| x * x).collect();
    let totals = sums(&squares, [batch, channels, inner], &rows);
    let each = values.par_iter_mut().zip(totals).with_min_len(1 << 12);
    each.for_each(|(x, sum)| *x = *x / sum.power(beta.into()));
    Value::from_vec(values, &shape, dtype, &device)
}
