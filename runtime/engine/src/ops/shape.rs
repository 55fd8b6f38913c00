//! Shapes: what they are, changing them, cutting, joining and filling.

use burn_dispatch::DispatchDevice;

use super::{Result, axes, axis, broadcast, broadcast_to, count, with_rank};
use crate::device;
use crate::error::OpError;
use crate::graph::PadMode;
use crate::tensor::DType;
use crate::value::{Value, check_size, is_float, range};

/// Sizes as a model gives them, none below zero.
pub(super) fn sizes(given: &[i64]) -> Result<Vec<usize>> {
    let size = |&n: &i64| {
        usize::try_from(n).map_err(|_| OpError::Shape(format!("a negative size in {given:?}")))
    };
    given.iter().map(size).collect()
}

/// A position counted from the end where it is negative, kept within `0..=size`.
fn position(at: i64, size: usize) -> usize {
    let size = size as i64;
    let from_front = if at < 0 { at.saturating_add(size) } else { at };
    from_front.clamp(0, size) as usize
}

pub(super) fn shape(x: &Value, start: i64, end: i64) -> Value {
    let shape = x.shape();
    let (start, end) = (position(start, shape.len()), position(end, shape.len()));
    let part: Vec<_> = shape
        .iter()
        .take(end)
        .skip(start)
        .map(|&size| size as i64)
        .collect();
    Value::from_ints(&part, &[part.len()], &device::cpu())
}

pub(super) fn size(x: &Value) -> Value {
    Value::from_ints(&[x.len() as i64], &[], &device::cpu())
}

pub(super) fn reshape(x: Value, given: &[i64], allow_zero: bool) -> Result<Value> {
    let from = x.shape();
    let misfit = || OpError::Shape(format!("{from:?} can't become {given:?}"));
    let mut shape = Vec::with_capacity(given.len());
    let mut open = None;
    for (at, &size) in given.iter().enumerate() {
        shape.push(match size {
            0 if !allow_zero => from.get(at).copied().ok_or_else(misfit)?,
            -1 if open.is_none() => {
                open = Some(at);
                1
            }
            size => usize::try_from(size).map_err(|_| misfit())?,
        });
    }
    let known = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
        .ok_or_else(misfit)?;
    if let Some(slot) = open.and_then(|at| shape.get_mut(at)) {
        *slot = x.len().checked_div(known).ok_or_else(misfit)?;
    }
    match shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
    {
        Some(n) if n == x.len() => Ok(x.reshape(&shape)),
        _ => Err(misfit()),
    }
}

pub(super) fn flatten(x: Value, at: i64) -> Result<Value> {
    let shape = x.shape();
    let rank = shape.len();
    // One past the last axis is allowed here.
    let at = if at == rank as i64 {
        rank
    } else {
        axis(at, rank)?
    };
    let (outer, inner) = shape.split_at(at);
    Ok(x.reshape(&[count(outer), count(inner)]))
}

pub(super) fn squeeze(x: Value, given: Option<&[i64]>) -> Result<Value> {
    let shape = x.shape();
    let gone = match given {
        Some(given) => axes(given, shape.len())?,
        None => (0..shape.len())
            .zip(&shape)
            .filter(|(_, n)| **n == 1)
            .map(|(at, _)| at)
            .collect(),
    };
    if let Some((at, n)) = (0..)
        .zip(&shape)
        .find(|(at, n)| **n != 1 && gone.contains(at))
    {
        return Err(OpError::Shape(format!(
            "axis {at} has size {n}, expected 1"
        )));
    }
    let kept: Vec<_> = (0..)
        .zip(&shape)
        .filter(|(at, _)| !gone.contains(at))
        .map(|(_, &n)| n)
        .collect();
    Ok(x.reshape(&kept))
}

pub(super) fn unsqueeze(x: Value, given: &[i64]) -> Result<Value> {
    let shape = x.shape();
    let rank = shape.len() + given.len();
    let added = axes(given, rank)?;
    let mut old = shape.into_iter();
    let wide: Vec<_> = (0..rank)
        .map(|at| {
            if added.contains(&at) {
                1
            } else {
                old.next().unwrap_or(1)
            }
        })
        .collect();
    Ok(x.reshape(&wide))
}

pub(super) fn transpose(x: Value, order: Option<&[usize]>) -> Result<Value> {
    let rank = x.rank();
    let Some(order) = order else {
        let order: Vec<_> = (0..rank).rev().collect();
        return Ok(x.permute(&order));
    };
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(OpError::Shape(format!(
            "{order:?} does not order {rank} axes"
        )));
    }
    Ok(x.permute(order))
}

pub(super) fn concat(values: Vec<Value>, along: i64) -> Result<Value> {
    let Some(first) = values.first() else {
        return Err(OpError::MissingInput { index: 0 });
    };
    let (mut shape, dtype) = (first.shape(), first.dtype());
    let at = axis(along, shape.len())?;
    let mut total = 0usize;
    for value in &values {
        let found = value.shape();
        let same = |(i, (a, b)): (usize, (&usize, &usize))| i == at || a == b;
        if found.len() != shape.len() || !found.iter().zip(&shape).enumerate().all(same) {
            return Err(OpError::Shape(format!(
                "{shape:?} and {found:?} don't join at axis {at}"
            )));
        }
        if value.dtype() != dtype {
            return Err(OpError::DType {
                expected: dtype.to_string(),
                found: value.dtype(),
            });
        }
        total = total.saturating_add(found.get(at).copied().unwrap_or(0));
    }
    shape
        .iter_mut()
        .skip(at)
        .take(1)
        .for_each(|size| *size = total);
    check_size(dtype, &shape)?;
    if count(&shape) == 0 {
        return Value::full(dtype, &shape, 0.0, &first.device());
    }
    let filled: Vec<_> = values.into_iter().filter(|value| value.len() > 0).collect();
    Value::concat(filled, at)
}

pub(super) fn split(
    x: Value,
    along: i64,
    parts: usize,
    given: Option<Vec<i64>>,
) -> Result<Vec<Value>> {
    let at = axis(along, x.rank())?;
    let size = x.shape().get(at).copied().unwrap_or(0);
    let each = match given {
        Some(given) => sizes(&given)?,
        None => {
            // The last one is smaller where they don't come out even.
            let part = size.div_ceil(parts.max(1));
            (0..parts)
                .map(|i| part.min(size.saturating_sub(i * part)))
                .collect()
        }
    };
    let sum = each
        .iter()
        .try_fold(0usize, |sum, &part| sum.checked_add(part));
    if each.len() != parts || sum != Some(size) {
        return Err(OpError::Shape(format!(
            "{size} elements into {parts} parts of {each:?}"
        )));
    }
    let mut start = 0;
    let cut = |part: usize| {
        let from = start;
        start += part;
        x.clone().narrow(at, from, start)
    };
    Ok(each.into_iter().map(cut).collect())
}

pub(super) fn slice(
    x: Value,
    starts: &[i64],
    ends: &[i64],
    along: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Value> {
    let shape = x.shape();
    let along = along.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), along.len(), steps.len()] != [starts.len(); 3] {
        return Err(OpError::Shape(
            "starts, ends, axes and steps differ in length".into(),
        ));
    }
    let mut parts: Vec<_> = shape.iter().map(|&size| (0, size, 1)).collect();
    let mut made = shape.clone();
    let mut backward = Vec::new();
    let mut seen = Vec::new();
    for ((&start, &end), (&at, &step)) in starts.iter().zip(ends).zip(along.iter().zip(&steps)) {
        let at = axis(at, shape.len())?;
        if seen.contains(&at) {
            return Err(OpError::Value(format!("axis {at} is sliced twice")));
        }
        seen.push(at);
        let size = shape.get(at).copied().unwrap_or(0);
        let by = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
        let (from, to) = match step {
            0 => return Err(OpError::Value("a slice has step 0".into())),
            1.. => (position(start, size), position(end, size)),
            // Backward: the same, seen from the other end.
            _ => {
                backward.push(at);
                let mirrored = |n: i64| {
                    let n = if n < 0 {
                        n.saturating_add(size as i64)
                    } else {
                        n
                    };
                    (size as i64 - 1).saturating_sub(n).clamp(0, size as i64) as usize
                };
                (mirrored(start), mirrored(end))
            }
        };
        let number = to.saturating_sub(from).div_ceil(by);
        parts
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|part| *part = (from, to.max(from), by));
        made.iter_mut()
            .skip(at)
            .take(1)
            .for_each(|size| *size = number);
    }
    if count(&made) == 0 {
        return Value::full(x.dtype(), &made, 0.0, &x.device());
    }
    let x = if backward.is_empty() {
        x
    } else {
        x.flip(&backward)
    };
    // A longer step than the axis gives no more than its first element either.
    let slices: Vec<_> = parts
        .into_iter()
        .zip(&shape)
        .map(|((from, to, by), &size)| range(from, to, by.min(size.max(1))))
        .collect();
    Ok(x.slice(&slices))
}

pub(super) fn expand(x: Value, given: &[i64]) -> Result<Value> {
    let shape = broadcast(&x.shape(), &sizes(given)?)?;
    check_size(x.dtype(), &shape)?;
    if count(&shape) == 0 {
        return Value::full(x.dtype(), &shape, 0.0, &x.device());
    }
    Ok(broadcast_to(x, &shape))
}

pub(super) fn tile(x: Value, repeats: &[i64]) -> Result<Value> {
    let times = sizes(repeats)?;
    let mut shape = x.shape();
    if times.len() != shape.len() {
        let rank = shape.len();
        return Err(OpError::Shape(format!(
            "{} repeats for {rank} axes",
            times.len()
        )));
    }
    shape
        .iter_mut()
        .zip(&times)
        .for_each(|(size, &times)| *size = size.saturating_mul(times));
    check_size(x.dtype(), &shape)?;
    if count(&shape) == 0 {
        return Value::full(x.dtype(), &shape, 0.0, &x.device());
    }
    let repeat = |x: Value, (at, &times): (usize, &usize)| {
        if times == 1 { x } else { x.repeat(at, times) }
    };
    Ok(times.iter().enumerate().fold(x, repeat))
}

pub(super) fn pad(
    x: Value,
    mode: PadMode,
    given: &[i64],
    along: Option<Vec<i64>>,
    value: Option<Value>,
) -> Result<Value> {
    let rank = x.rank();
    let along = along.unwrap_or_else(|| (0..rank as i64).collect());
    let (begin, end) = given
        .split_at_checked(along.len())
        .filter(|(_, end)| end.len() == along.len())
        .ok_or_else(|| OpError::Shape(format!("{} pads for {} axes", given.len(), along.len())))?;
    let mut pads = vec![(0i64, 0i64); rank];
    for (&at, (&begin, &end)) in along.iter().zip(begin.iter().zip(end)) {
        let at = axis(at, rank)?;
        pads.iter_mut()
            .skip(at)
            .take(1)
            .for_each(|pad| *pad = (begin, end));
    }
    let x = crop(x, &pads)?;
    let grow = |n: i64| usize::try_from(n).unwrap_or(0);
    let pads: Vec<_> = pads
        .into_iter()
        .map(|(begin, end)| (grow(begin), grow(end)))
        .collect();
    if mode == PadMode::Constant {
        let fill = match value {
            None => 0.0,
            Some(value) => match value.to_floats()?.as_slice() {
                [one] => *one,
                many => return Err(OpError::Shape(format!("{} values to pad with", many.len()))),
            },
        };
        return pad_constant(x, &pads, fill);
    }
    let padded = padded_shape(&x.shape(), &pads);
    check_size(x.dtype(), &padded)?;
    pads.iter()
        .enumerate()
        .try_fold(x, |x, (at, &pad)| extend(x, at, pad, mode))
}

/// Cuts off what negative pads take away.
fn crop(x: Value, pads: &[(i64, i64)]) -> Result<Value> {
    if pads.iter().all(|&(begin, end)| begin >= 0 && end >= 0) {
        return Ok(x);
    }
    let less = |n: i64| usize::try_from(n.saturating_neg()).unwrap_or(0);
    let shape = x.shape();
    let each = shape.iter().zip(pads).map(|(&size, &(begin, end))| {
        let to = size.checked_sub(less(end)).filter(|&to| to >= less(begin));
        let to = to.ok_or_else(|| OpError::Shape(format!("{pads:?} cut more than {shape:?}")))?;
        Ok(range(less(begin), to, 1))
    });
    let slices = each.collect::<Result<Vec<_>>>()?;
    Ok(x.slice(&slices))
}

fn padded_shape(shape: &[usize], pads: &[(usize, usize)]) -> Vec<usize> {
    let sum = |(&size, &(begin, end)): (&usize, &(usize, usize))| {
        size.saturating_add(begin).saturating_add(end)
    };
    shape.iter().zip(pads).map(sum).collect()
}

/// The tensor in the middle of a larger one of `fill`.
pub(super) fn pad_constant(x: Value, pads: &[(usize, usize)], fill: f64) -> Result<Value> {
    if pads.iter().all(|pad| *pad == (0, 0)) {
        return Ok(x);
    }
    let shape = x.shape();
    let whole = Value::full(x.dtype(), &padded_shape(&shape, pads), fill, &x.device())?;
    if x.len() == 0 {
        return Ok(whole);
    }
    let place = |(&size, &(begin, _)): (&usize, &(usize, usize))| range(begin, begin + size, 1);
    let slices: Vec<_> = shape.iter().zip(pads).map(place).collect();
    whole.write(&slices, x)
}

/// Repeats or mirrors what an axis holds at its ends.
fn extend(x: Value, at: usize, (begin, end): (usize, usize), mode: PadMode) -> Result<Value> {
    if begin == 0 && end == 0 {
        return Ok(x);
    }
    let size = x.shape().get(at).copied().unwrap_or(0) as i64;
    if size == 0 || (mode == PadMode::Reflect && size == 1) {
        return Err(OpError::Shape(format!(
            "nothing to pad with: an axis of size {size}"
        )));
    }
    let source = |i: i64| match mode {
        PadMode::Edge | PadMode::Constant => i.clamp(0, size - 1),
        PadMode::Wrap => i.rem_euclid(size),
        PadMode::Reflect => {
            let i = i.rem_euclid(2 * (size - 1));
            i.min(2 * (size - 1) - i)
        }
    };
    let from: Vec<_> = (-(begin as i64)..size + end as i64).map(source).collect();
    let indices = Value::indices(&from, &x.device()).int()?;
    Ok(x.select(at, indices))
}

/// `[n, c, h, w]` as three sizes behind the batch.
fn image(x: &Value) -> Result<[usize; 4]> {
    let shape = x.shape();
    let found: std::result::Result<[usize; 4], _> = shape.try_into();
    found.map_err(|shape: Vec<_>| OpError::Shape(format!("expected rank 4, found {shape:?}")))
}

pub(super) fn depth_to_space(x: Value, block: usize, columns_first: bool) -> Result<Value> {
    let [n, c, h, w] = image(&x)?;
    let made = block
        .checked_mul(block)
        .filter(|&square| c % square == 0)
        .map(|square| c / square);
    let Some(made) = made else {
        return Err(OpError::Shape(format!(
            "{c} channels don't fill blocks of {block}"
        )));
    };
    let result = [n, made, h * block, w * block];
    let x = if columns_first {
        x.reshape(&[n, made, block, block, h, w])
            .permute(&[0, 1, 4, 2, 5, 3])
    } else {
        x.reshape(&[n, block, block, made, h, w])
            .permute(&[0, 3, 4, 1, 5, 2])
    };
    Ok(x.reshape(&result))
}

pub(super) fn space_to_depth(x: Value, block: usize, columns_first: bool) -> Result<Value> {
    let [n, c, h, w] = image(&x)?;
    if h % block != 0 || w % block != 0 {
        return Err(OpError::Shape(format!(
            "{h} × {w} doesn't divide into blocks of {block}"
        )));
    }
    let (rows, columns) = (h / block, w / block);
    let order = if columns_first {
        [0, 1, 3, 5, 2, 4]
    } else {
        [0, 3, 5, 1, 2, 4]
    };
    let x = x
        .reshape(&[n, c, rows, block, columns, block])
        .permute(&order);
    Ok(x.reshape(&[n, c * block * block, rows, columns]))
}

/// The upper or lower triangle of the last two axes, the rest zero.
pub(super) fn trilu(x: Value, upper: bool, diagonal: i64) -> Result<Value> {
    let shape = x.shape();
    let [.., rows, columns] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected rank 2 or more, found {shape:?}"
        )));
    };
    if x.len() == 0 {
        return Ok(x);
    }
    let keep = |row: usize, column: usize| {
        let offset = (column as i64 - row as i64).saturating_sub(diagonal);
        if upper { offset >= 0 } else { offset <= 0 }
    };
    let mask = (0..*rows).flat_map(|row| (0..*columns).map(move |column| keep(row, column)));
    let mask = Value::from_bools(mask.collect(), &[*rows, *columns], &x.device());
    let mask = broadcast_to(with_rank(mask, shape.len()), &shape).bool()?;
    Value::full(x.dtype(), &shape, 0.0, &x.device())?.choose(mask, x)
}

/// Where numbers that are made from numbers alone should lie: integers are mostly shapes.
fn place_for(dtype: DType, device: &DispatchDevice) -> DispatchDevice {
    if is_float(dtype) {
        device.clone()
    } else {
        device::cpu()
    }
}

pub(super) fn constant_of_shape(
    given: &[i64],
    dtype: DType,
    value: f64,
    device: &DispatchDevice,
) -> Result<Value> {
    Value::full(dtype, &sizes(given)?, value, &place_for(dtype, device))
}

/// `start`, `start + step`, … before `limit`.
pub(super) fn arange(
    start: &Value,
    limit: &Value,
    step: &Value,
    device: &DispatchDevice,
) -> Result<Value> {
    let dtype = start.dtype();
    for value in [limit, step] {
        if value.dtype() != dtype {
            return Err(OpError::DType {
                expected: dtype.to_string(),
                found: value.dtype(),
            });
        }
    }
    let misfit = || OpError::Value("start, limit and step are one number each, step not 0".into());
    let device = place_for(dtype, device);
    if is_float(dtype) {
        let one = |value: &Value| value.to_floats()?.first().copied().ok_or_else(misfit);
        let (start, limit, step) = (one(start)?, one(limit)?, one(step)?);
        let number = ((limit - start) / step).ceil().max(0.0);
        if step == 0.0 || number.is_nan() {
            return Err(misfit());
        }
        // A count beyond usize is cut to it, and refused as too large.
        check_size(DType::F64, &[number as usize])?;
        let values: Vec<_> = (0..number as usize)
            .map(|i| start + i as f64 * step)
            .collect();
        return Value::from_floats(values, &[number as usize], dtype, &device);
    }
    let one = |value: &Value| value.to_ints()?.first().copied().ok_or_else(misfit);
    let (start, limit, step) = (one(start)?, one(limit)?, one(step)?);
    if step == 0 {
        return Err(misfit());
    }
    let distance = i128::from(limit) - i128::from(start);
    let step = i128::from(step);
    let number = if distance.signum() == step.signum() {
        usize::try_from(distance.unsigned_abs().div_ceil(step.unsigned_abs())).unwrap_or(usize::MAX)
    } else {
        0
    };
    check_size(DType::I64, &[number])?;
    let value = |i: usize| (i128::from(start) + i as i128 * step) as i64;
    let values: Vec<_> = (0..number).map(value).collect();
    Value::from_ints(&values, &[number], &device).cast(dtype)
}
