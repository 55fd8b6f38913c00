//! Operators on signals.

use std::f64::consts::TAU;

use burn_dispatch::DispatchDevice;
use rayon::prelude::*;

use super::fourier::{Complex, Fourier};
use super::{Args, Result, axis, count};
use crate::error::OpError;
use crate::graph::{Signal, Taper};
use crate::tensor::DType;
use crate::value::{Value, check_size};

pub(super) fn run(kind: Signal, args: &mut Args, device: &DispatchDevice) -> Result<Value> {
    match kind {
        Signal::Dft { inverse, one_sided } => {
            let (length, along) = (size(args, 1)?, args.optional_ints(2)?);
            let along = along.and_then(|along| along.first().copied()).unwrap_or(-2);
            dft(args.take(0)?, length, along, inverse, one_sided)
        }
        Signal::Stft { one_sided } => {
            let (step, length) = (size(args, 1)?, size(args, 3)?);
            let window = args.optional(2)?;
            stft(args.take(0)?, step, window, length, one_sided)
        }
        Signal::Window {
            kind,
            periodic,
            dtype,
        } => {
            let size = size(args, 0)?.ok_or(OpError::MissingInput { index: 0 })?;
            check_size(DType::F64, &[size])?;
            let values = window(kind, periodic, size);
            Value::from_vec(values, &[size], dtype, device)
        }
        Signal::MelWeights { dtype } => mel_weights(args, dtype, device),
    }
}

/// An input of one number from zero on.
fn size(args: &mut Args, index: usize) -> Result<Option<usize>> {
    let Some(given) = args.optional_ints(index)? else {
        return Ok(None);
    };
    let size = match given.as_slice() {
        [size] => usize::try_from(*size).ok(),
        _ => None,
    };
    let misfit = || OpError::Value(format!("expected one number ≥ 0, found {given:?}"));
    size.ok_or_else(misfit).map(Some)
}

/// The lines of `[…, n, …, parts]` along an axis as complex numbers, the others in order.
fn lines(x: Value, along: usize) -> Result<Vec<Vec<Complex>>> {
    let rank = x.rank();
    let mut shape = x.shape();
    let parts = shape.pop().unwrap_or(0);
    let size = shape.get(along).copied().unwrap_or(0);
    let order: Vec<_> = (0..rank - 1)
        .filter(|&at| at != along)
        .chain([along, rank - 1])
        .collect();
    let moved = x.permute(&order);
    let values = moved.elements::<f64>()?;
    let complex = |pair: &[f64]| (first(pair), pair.get(1).copied().unwrap_or(0.0));
    let line = |line: &[f64]| line.chunks(parts).map(complex).collect();
    Ok(values.chunks((size * parts).max(1)).map(line).collect())
}

fn first(values: &[f64]) -> f64 {
    values.first().copied().unwrap_or(0.0)
}

/// Lines along an axis put back: `shape` is `[…, n, …, parts]`.
fn from_lines(
    lines: Vec<Vec<Complex>>,
    shape: &[usize],
    along: usize,
    like: (DType, DispatchDevice),
) -> Result<Value> {
    let rank = shape.len();
    let real = shape.last() == Some(&1);
    let values: Vec<f64> = lines
        .iter()
        .flatten()
        .flat_map(|&(re, im)| [Some(re), (!real).then_some(im)])
        .flatten()
        .collect();
    let others = (0..rank - 1).filter(|&at| at != along);
    let order: Vec<_> = others.chain([along, rank - 1]).collect();
    let moved: Vec<_> = order
        .iter()
        .filter_map(|&at| shape.get(at).copied())
        .collect();
    let mut back = vec![0; rank];
    for (to, &from) in order.iter().enumerate() {
        back.iter_mut()
            .skip(from)
            .take(1)
            .for_each(|slot| *slot = to);
    }
    let (dtype, device) = like;
    Ok(Value::from_vec(values, &moved, dtype, &device)?.permute(&back))
}

/// `[…, 1 or 2]` transformed along an axis.
fn dft(
    x: Value,
    length: Option<usize>,
    along: i64,
    inverse: bool,
    one_sided: bool,
) -> Result<Value> {
    let shape = x.shape();
    let rank = shape.len();
    let parts = shape.last().copied().unwrap_or(0);
    let at = axis(along, rank)?;
    if !(1..=2).contains(&parts) || at + 1 >= rank {
        return Err(OpError::Shape(format!(
            "axis {along} of {shape:?}, expected one before the last axis of 1 or 2 parts"
        )));
    }
    if one_sided && !inverse && parts == 2 {
        return Err(OpError::Value(
            "one side of a complex signal, expected a real one".into(),
        ));
    }
    let size = shape.get(at).copied().unwrap_or(0);
    let whole = if inverse && one_sided {
        2 * size.saturating_sub(1)
    } else {
        size
    };
    let length = length.unwrap_or(whole);
    let made = if one_sided && !inverse {
        length / 2 + 1
    } else {
        length
    };
    let mut result = shape.clone();
    for (i, size) in result.iter_mut().enumerate() {
        if i == at {
            *size = made;
        } else if i + 1 == rank {
            *size = if inverse && one_sided { 1 } else { 2 };
        }
    }
    check_size(DType::F64, &result)?;
    let like = (x.dtype(), x.device());
    if count(&result) == 0 || x.len() == 0 || length == 0 {
        return Value::full(like.0, &result, 0.0, &like.1);
    }
    let mut lines = lines(x, at)?;
    let fourier = Fourier::new(length);
    lines.par_iter_mut().for_each(|line| {
        if inverse && one_sided {
            mirror(line, length);
        }
        if inverse {
            fourier.inverse(line);
        } else {
            fourier.forward(line);
        }
        line.truncate(made);
    });
    from_lines(lines, &result, at, like)
}

/// The other side of the transform of a real signal: its conjugate, backward.
fn mirror(line: &mut Vec<Complex>, length: usize) {
    line.resize(length / 2 + 1, (0.0, 0.0));
    let other: Vec<_> = line.iter().skip(1).map(|&(re, im)| (re, -im)).collect();
    let other = other.into_iter().take(length.saturating_sub(line.len()));
    let other: Vec<_> = other.collect();
    line.extend(other.into_iter().rev());
}

/// `[batch, n, 1 or 2]` to `[batch, frames, bins, 2]`.
fn stft(
    x: Value,
    step: Option<usize>,
    window: Option<Value>,
    length: Option<usize>,
    one_sided: bool,
) -> Result<Value> {
    let shape = x.shape();
    let [batch, size, parts @ 1..=2] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected [batch, n, 1 or 2], found {shape:?}"
        )));
    };
    let step = step.filter(|&step| step > 0);
    let step = step.ok_or_else(|| OpError::Value("expected a step ≥ 1".into()))?;
    let window = window.map(|window| window.to_floats()).transpose()?;
    let known = window.as_ref().map(Vec::len);
    let length = length.or(known).unwrap_or(*size);
    if length == 0 || length > *size || known.is_some_and(|known| known != length) {
        return Err(OpError::Shape(format!(
            "frames of {length} with a window of {known:?} in a signal of {size}"
        )));
    }
    if one_sided && *parts == 2 {
        return Err(OpError::Value(
            "one side of a complex signal, expected a real one".into(),
        ));
    }
    let frames = (size - length) / step + 1;
    let bins = if one_sided { length / 2 + 1 } else { length };
    let made = [*batch, frames, bins, 2];
    check_size(DType::F64, &made)?;
    check_size(DType::F64, &[*batch, frames, length, 2])?;
    let like = (x.dtype(), x.device());
    let signals = lines(x, 1)?;
    let fourier = Fourier::new(length);
    let frame = |signal: &[Complex], at: usize| {
        let part = signal
            .get(at * step..at * step + length)
            .unwrap_or_default();
        let mut frame = part.to_vec();
        for (x, by) in frame.iter_mut().zip(window.iter().flatten()) {
            *x = (x.0 * by, x.1 * by);
        }
        fourier.forward(&mut frame);
        frame.truncate(bins);
        frame
    };
    let all = (0..signals.len() * frames).into_par_iter().map(|at| {
        let signal = signals.get(at / frames).map_or(&[][..], Vec::as_slice);
        frame(signal, at % frames)
    });
    from_lines(all.collect(), &made, 2, like)
}

fn window(kind: Taper, periodic: bool, size: usize) -> Vec<f64> {
    let whole = if periodic {
        size
    } else {
        size.saturating_sub(1)
    };
    // A window of one element is 1, whatever its form.
    if whole == 0 {
        return vec![1.0; size];
    }
    let at = |i: usize| {
        let angle = TAU * i as f64 / whole as f64;
        match kind {
            Taper::Hann => 0.5 - 0.5 * angle.cos(),
            Taper::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * angle.cos(),
            Taper::Blackman => 0.42 - 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos(),
        }
    };
    (0..size).map(at).collect()
}

/// `[length / 2 + 1, bins]`: triangles that are equally wide on the mel scale.
fn mel_weights(args: &mut Args, dtype: DType, device: &DispatchDevice) -> Result<Value> {
    let mut given = |index: usize| size(args, index)?.ok_or(OpError::MissingInput { index });
    let (bins, length, rate) = (given(0)?, given(1)?, given(2)?);
    let edge = |value: Value| Ok::<_, OpError>(first(&value.to_floats()?));
    let (low, high) = (edge(args.take(3)?)?, edge(args.take(4)?)?);
    let rows = length / 2 + 1;
    check_size(DType::F64, &[rows, bins])?;
    if rate == 0 {
        return Err(OpError::Value("a sample rate of 0".into()));
    }
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let step = (mel(high) - mel(low)) / (bins + 2) as f64;
    let place = |i: usize| {
        let hertz = 700.0 * (10f64.powf((mel(low) + i as f64 * step) / 2595.0) - 1.0);
        ((length + 1) as f64 * hertz / rate as f64)
            .floor()
            .clamp(0.0, rows as f64) as usize
    };
    let places: Vec<_> = (0..bins + 2).map(place).collect();
    let mut weights = vec![0.0; rows * bins];
    let mut set = |row: usize, bin: usize, weight: f64| {
        if let Some(slot) = weights.get_mut(row * bins + bin).filter(|_| row < rows) {
            *slot = weight;
        }
    };
    for (bin, corners) in places.windows(3).enumerate() {
        let [left, middle, right] = corners else {
            continue;
        };
        let (rise, fall) = (middle.saturating_sub(*left), right.saturating_sub(*middle));
        for row in *left..*middle {
            set(row, bin, (row - left) as f64 / rise as f64);
        }
        set(*middle, bin, 1.0);
        for row in *middle..*right {
            set(row, bin, (right - row) as f64 / fall as f64);
        }
    }
    Value::from_vec(weights, &[rows, bins], dtype, device)
}
