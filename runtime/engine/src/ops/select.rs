//! Choosing parts of a tensor by conditions, order and lengths.

use std::collections::BTreeMap;

use super::{Result, axis, count};
use crate::error::OpError;
use crate::tensor::DType;
use crate::value::{Value, check_size, range};

/// The value with its elements along one axis only, and that axis.
fn flat_or_along(x: Value, along: Option<i64>) -> Result<(Value, usize)> {
    match along {
        Some(along) => {
            let at = axis(along, x.rank())?;
            Ok((x, at))
        }
        None => {
            let len = x.len();
            Ok((x.reshape(&[len]), 0))
        }
    }
}

/// Slices along an axis by their numbers, which are checked.
fn pick(x: Value, at: usize, numbers: &[i64]) -> Result<Value> {
    let mut shape = x.shape();
    shape
        .iter_mut()
        .skip(at)
        .take(1)
        .for_each(|size| *size = numbers.len());
    if count(&shape) == 0 {
        return Value::full(x.dtype(), &shape, 0.0, &x.device());
    }
    let numbers = Value::indices(numbers, &x.device()).int()?;
    Ok(x.select(at, numbers))
}

/// The slices for which a condition holds.
pub(super) fn compress(x: Value, condition: Value, along: Option<i64>) -> Result<Value> {
    let (x, at) = flat_or_along(x, along)?;
    if !matches!(condition, Value::Bool(_)) {
        return Err(condition.unexpected("bools"));
    }
    let holds = condition.to_ints()?;
    let chosen: Vec<_> = (0..)
        .zip(&holds)
        .filter(|(_, holds)| **holds != 0)
        .map(|(i, _)| i)
        .collect();
    let size = x.shape().get(at).copied().unwrap_or(0);
    if let Some(&index) = chosen.last().filter(|&&last| last >= size as i64) {
        return Err(OpError::Index { index, size });
    }
    pick(x, at, &chosen)
}

/// Integers in the order of a tensor's elements: equal for equal elements.
fn ranks(x: Value) -> Result<Vec<i64>> {
    Ok(match x {
        Value::Float(_) => {
            let rank = |x: f64| {
                // Zeros are equal; NaNs are too, and larger than all else.
                let bits = if x.is_nan() { f64::NAN.abs() } else { x + 0.0 }
                    .to_bits()
                    .cast_signed();
                if bits < 0 { bits ^ i64::MAX } else { bits }
            };
            x.to_floats()?.into_iter().map(rank).collect()
        }
        Value::Int(_) if x.dtype() == DType::U64 => {
            let ordered = |x: &u64| (x ^ (1 << 63)).cast_signed();
            x.elements::<u64>()?.iter().map(ordered).collect()
        }
        Value::Int(_) | Value::Bool(_) => x.to_ints()?,
        Value::Text(..) => {
            let strings = x.strings()?;
            let mut known: BTreeMap<_, i64> = strings.iter().cloned().map(|s| (s, 0)).collect();
            known
                .values_mut()
                .zip(0..)
                .for_each(|(rank, at)| *rank = at);
            strings
                .iter()
                .filter_map(|string| known.get(string).copied())
                .collect()
        }
        Value::Code(..) => return Err(x.unexpected("numbers or strings")),
    })
}

/// Outputs: the slices that differ, where each was first, where each slice of `x` is among
/// them, and how often.
pub(super) fn unique(x: Value, along: Option<i64>, sorted: bool) -> Result<Vec<Value>> {
    let (x, at) = flat_or_along(x, along)?;
    let device = x.device();
    let shape = x.shape();
    let size = shape.get(at).copied().unwrap_or(1);
    let width = shape
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != at)
        .map(|(_, n)| n)
        .product::<usize>();
    let order: Vec<_> = [at]
        .into_iter()
        .chain((0..shape.len()).filter(|i| *i != at))
        .collect();
    let ranks = ranks(x.clone().permute(&order))?;
    let slice = |i: usize| ranks.get(i * width..(i + 1) * width).unwrap_or_default();
    let mut order: Vec<_> = (0..size).collect();
    // Stable: of equal slices, the first one stays first.
    order.sort_by_key(|&i| slice(i));
    let mut groups: Vec<_> = order.chunk_by(|&a, &b| slice(a) == slice(b)).collect();
    if !sorted {
        groups.sort_by_key(|group| group.first().copied());
    }
    let firsts: Vec<_> = groups
        .iter()
        .filter_map(|group| Some(*group.first()? as i64))
        .collect();
    let counts: Vec<_> = groups.iter().map(|group| group.len() as i64).collect();
    let mut inverse = vec![0; size];
    for (number, group) in (0..).zip(&groups) {
        for &i in *group {
            inverse
                .iter_mut()
                .skip(i)
                .take(1)
                .for_each(|slot| *slot = number);
        }
    }
    let list = |values: &[i64]| Value::from_ints(values, &[values.len()], &device);
    let others = [list(&firsts), list(&inverse), list(&counts)];
    Ok([pick(x, at, &firsts)?].into_iter().chain(others).collect())
}

/// The first elements along the time axis backward, as many as each sequence of the batch has.
pub(super) fn reverse_sequence(x: Value, lengths: &[i64], batch: i64, time: i64) -> Result<Value> {
    let shape = x.shape();
    let (batch, time) = (axis(batch, shape.len())?, axis(time, shape.len())?);
    let ([first, second, row @ ..], true) = (shape.as_slice(), batch + time == 1) else {
        return Err(OpError::Shape(format!(
            "batch axis {batch} and time axis {time} of shape {shape:?}, expected 0 and 1"
        )));
    };
    let (sequences, steps) = if batch == 0 {
        (*first, *second)
    } else {
        (*second, *first)
    };
    if lengths.len() != sequences {
        let found = lengths.len();
        return Err(OpError::Shape(format!(
            "{found} lengths for {sequences} sequences"
        )));
    }
    if x.len() == 0 {
        return Ok(x);
    }
    let length = |&n: &i64| usize::try_from(n).ok().filter(|&n| n <= steps);
    let bad = || OpError::Value(format!("lengths {lengths:?} of sequences of {steps}"));
    let lengths = lengths
        .iter()
        .map(length)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(bad)?;
    let places = (0..first * second).map(|at| {
        let (i, j) = (at / second, at % second);
        let (sequence, step) = if batch == 0 { (i, j) } else { (j, i) };
        let length = lengths.get(sequence).copied().unwrap_or(0);
        let step = if step < length {
            length - 1 - step
        } else {
            step
        };
        let place = if batch == 0 {
            sequence * second + step
        } else {
            step * second + sequence
        };
        place as i64
    });
    let places: Vec<_> = places.collect();
    let table = x.clone().reshape(&[first * second, count(row)]);
    Ok(pick(table, 0, &places)?.reshape(&shape))
}

/// A cache with an update written at a place of each batch along an axis.
pub(super) fn tensor_scatter(
    cache: Value,
    update: Value,
    places: Option<Vec<i64>>,
    along: i64,
    circular: bool,
) -> Result<Value> {
    let (whole, part) = (cache.shape(), update.shape());
    let at = axis(along, whole.len())?;
    let same = |(i, (a, b)): (usize, (&usize, &usize))| i == at || a == b;
    let fits = whole.len() == part.len()
        && at > 0
        && whole.iter().zip(&part).enumerate().all(same)
        && part.get(at) <= whole.get(at)
        && cache.dtype() == update.dtype();
    let batch = whole.first().copied().unwrap_or(0);
    let places = places.unwrap_or_else(|| vec![0; batch]);
    if !fits || places.len() != batch {
        let number = places.len();
        return Err(OpError::Shape(format!(
            "an update {part:?} at {number} places of a cache {whole:?} along axis {along}"
        )));
    }
    if update.len() == 0 {
        return Ok(cache);
    }
    let size = whole.get(at).copied().unwrap_or(1);
    let length = part.get(at).copied().unwrap_or(1);
    let mut done = cache;
    for (row, place) in places.into_iter().enumerate() {
        let start = match usize::try_from(place) {
            Ok(start) if circular => start % size,
            Ok(start) if start.saturating_add(length) <= size => start,
            _ => return Err(OpError::Index { index: place, size }),
        };
        // What reaches over the end goes on at the start.
        let before = length.min(size - start);
        for (from, to, start) in [(0, before, start), (before, length, 0)] {
            if from == to {
                continue;
            }
            let region = |(i, &size): (usize, &usize)| match i {
                0 => range(row, row + 1, 1),
                i if i == at => range(start, start + to - from, 1),
                _ => range(0, size, 1),
            };
            let slices: Vec<_> = whole.iter().enumerate().map(region).collect();
            let piece = update.clone().narrow(0, row, row + 1).narrow(at, from, to);
            done = done.write(&slices, piece)?;
        }
    }
    Ok(done)
}

/// Ones on a diagonal.
pub(super) fn eye_like(x: &Value, dtype: Option<DType>, diagonal: i64) -> Result<Value> {
    let shape = x.shape();
    let [rows, columns] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 2, found {shape:?}")));
    };
    check_size(DType::F64, &shape)?;
    let on = |row: usize| (0..*columns).map(move |column| column as i64 - row as i64 == diagonal);
    let ones = Value::from_bools((0..*rows).flat_map(on).collect(), &shape, &x.device());
    ones.cast(dtype.unwrap_or(x.dtype()))
}
