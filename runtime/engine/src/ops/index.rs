//! Reading and writing by index. Indices are read on the host, checked, and turned into row
//! numbers of a tensor with fewer axes, for which burn has kernels.

use burn_backend::ops::IntTensorOps;
use burn_backend::tensor::IndexingUpdateOp;

use super::{Result, axis, broadcast_to, count, with_rank};
use crate::error::OpError;
use crate::graph::Update;
use crate::tensor::DType;
use crate::value::{B, Value, bool_type, check_size};

/// The numbers of an index tensor.
fn indices(value: &Value) -> Result<Vec<i64>> {
    match value {
        Value::Int(_) => value.to_ints(),
        other => Err(OpError::DType {
            expected: "integers".into(),
            found: other.dtype(),
        }),
    }
}

/// An index counted from the front.
fn index(index: i64, size: usize) -> Result<usize> {
    let from_front = if index < 0 {
        index.saturating_add(size as i64)
    } else {
        index
    };
    let found = usize::try_from(from_front).ok().filter(|&at| at < size);
    found.ok_or(OpError::Index { index, size })
}

/// Row numbers as a tensor beside `x`.
fn rows(numbers: &[i64], x: &Value) -> Result<burn_dispatch::DispatchTensor> {
    Value::indices(numbers, &x.device()).int()
}

pub(super) fn gather(x: Value, at: &Value, along: i64) -> Result<Value> {
    let shape = x.shape();
    let along = axis(along, shape.len())?;
    let size = shape.get(along).copied().unwrap_or(0);
    let numbers = indices(at)?
        .into_iter()
        .map(|number| index(number, size).map(|number| number as i64))
        .collect::<Result<Vec<_>>>()?;
    let (before, after) = (shape.iter().take(along), shape.iter().skip(along + 1));
    let made: Vec<_> = before.chain(&at.shape()).chain(after).copied().collect();
    check_size(x.dtype(), &made)?;
    if count(&made) == 0 {
        return Value::full(x.dtype(), &made, 0.0, &x.device());
    }
    // A single row is a view.
    if let [one] = numbers.as_slice() {
        let one = *one as usize;
        return Ok(x.narrow(along, one, one + 1).reshape(&made));
    }
    let numbers = rows(&numbers, &x)?;
    Ok(x.select(along, numbers).reshape(&made))
}

/// Sizes to step over elements of each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step *= size;
    }
    strides
}

/// For each index along an axis, the place of its element in the flat tensor.
fn element_places(shape: &[usize], at: &Value, along: usize) -> Result<Vec<i64>> {
    let found = at.shape();
    let fits = |(axis, (of, all)): (usize, (&usize, &usize))| axis == along || of <= all;
    if found.len() != shape.len() || !found.iter().zip(shape).enumerate().all(fits) {
        return Err(OpError::Shape(format!(
            "indices {found:?} into {shape:?} at axis {along}"
        )));
    }
    let (own, steps) = (strides(&found), strides(shape));
    let size = shape.get(along).copied().unwrap_or(0);
    indices(at)?
        .into_iter()
        .enumerate()
        .map(|(flat, number)| {
            let number = index(number, size)?;
            let mut rest = flat;
            let mut place = 0;
            for (axis, (own, step)) in own.iter().zip(&steps).enumerate() {
                let position = rest / own;
                rest %= own;
                place += step * if axis == along { number } else { position };
            }
            Ok(place as i64)
        })
        .collect()
}

pub(super) fn gather_elements(x: Value, at: &Value, along: i64) -> Result<Value> {
    let shape = x.shape();
    let along = axis(along, shape.len())?;
    let places = element_places(&shape, at, along)?;
    if places.is_empty() {
        return Value::full(x.dtype(), &at.shape(), 0.0, &x.device());
    }
    let places = rows(&places, &x)?;
    let flat = x.reshape(&[count(&shape)]);
    Ok(flat.select(0, places).reshape(&at.shape()))
}

/// Row numbers for index tuples in the last axis, and into how many axes behind the first
/// `batch_dims`, which both tensors share, a tuple points.
fn tuple_rows(shape: &[usize], at: &Value, batch_dims: usize) -> Result<(Vec<i64>, usize)> {
    let found = at.shape();
    let misfit = || OpError::Shape(format!("index tuples {found:?} into {shape:?}"));
    let (batch, inner) = shape.split_at_checked(batch_dims).ok_or_else(misfit)?;
    let depth = found.last().copied();
    let depth = depth.filter(|&depth| depth > 0 && depth <= inner.len());
    let depth = depth.ok_or_else(misfit)?;
    let tuples = found.get(..found.len() - 1).unwrap_or_default();
    let (shared, tuples) = tuples.split_at_checked(batch_dims).ok_or_else(misfit)?;
    if shared != batch {
        return Err(misfit());
    }
    let leading: Vec<_> = inner.iter().take(depth).copied().collect();
    let (steps, rows, tuples) = (strides(&leading), count(&leading), count(tuples));
    let numbers = indices(at)?
        .chunks(depth)
        .enumerate()
        .map(|(i, tuple)| {
            let each = tuple.iter().zip(leading.iter().zip(&steps));
            let place = each.map(|(&number, (&size, step))| Ok(index(number, size)? * step));
            Ok((i / tuples * rows + place.sum::<Result<usize>>()?) as i64)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((numbers, depth))
}

pub(super) fn gather_nd(x: Value, at: &Value, batch_dims: usize) -> Result<Value> {
    let shape = x.shape();
    let (numbers, depth) = tuple_rows(&shape, at, batch_dims)?;
    let (leading, row) = shape.split_at(batch_dims + depth);
    let tuples = at.shape();
    let made: Vec<_> = tuples
        .iter()
        .take(tuples.len() - 1)
        .chain(row)
        .copied()
        .collect();
    check_size(x.dtype(), &made)?;
    if count(&made) == 0 {
        return Value::full(x.dtype(), &made, 0.0, &x.device());
    }
    let numbers = rows(&numbers, &x)?;
    let table = x.reshape(&[count(leading), count(row)]);
    Ok(table.select(0, numbers).reshape(&made))
}

fn update_op(update: Update) -> IndexingUpdateOp {
    match update {
        Update::Assign => IndexingUpdateOp::Assign,
        Update::Add => IndexingUpdateOp::Add,
        Update::Mul => IndexingUpdateOp::Mul,
        Update::Max => IndexingUpdateOp::Max,
        Update::Min => IndexingUpdateOp::Min,
    }
}

/// Combines rows of a table with updates; bools take the way over integers.
fn update_rows(table: Value, numbers: &[i64], updates: Value, how: Update) -> Result<Value> {
    if numbers.is_empty() || updates.len() == 0 {
        return Ok(table);
    }
    let numbers = rows(numbers, &table)?;
    let how = update_op(how);
    match table {
        Value::Bool(_) => {
            let table = table.cast(DType::I32)?;
            table
                .update_rows(numbers, updates.cast(DType::I32)?, how)?
                .cast(DType::Bool)
        }
        table => table.update_rows(numbers, updates, how),
    }
}

fn same_type(x: &Value, updates: &Value) -> Result<()> {
    if x.dtype() == updates.dtype() {
        return Ok(());
    }
    Err(OpError::DType {
        expected: x.dtype().to_string(),
        found: updates.dtype(),
    })
}

pub(super) fn scatter_elements(
    x: Value,
    at: &Value,
    updates: &Value,
    along: i64,
    how: Update,
) -> Result<Value> {
    same_type(&x, updates)?;
    let shape = x.shape();
    let along = axis(along, shape.len())?;
    if updates.shape() != at.shape() {
        let (at, updates) = (at.shape(), updates.shape());
        return Err(OpError::Shape(format!(
            "{updates:?} updates for {at:?} indices"
        )));
    }
    let places = element_places(&shape, at, along)?;
    let table = x.reshape(&[count(&shape)]);
    let updates = updates.clone().reshape(&[places.len()]);
    Ok(update_rows(table, &places, updates, how)?.reshape(&shape))
}

pub(super) fn scatter_nd(x: Value, at: &Value, updates: &Value, how: Update) -> Result<Value> {
    same_type(&x, updates)?;
    let shape = x.shape();
    let (numbers, depth) = tuple_rows(&shape, at, 0)?;
    let (leading, row) = shape.split_at(depth);
    let tuples = at.shape();
    let wanted: Vec<_> = tuples
        .iter()
        .take(tuples.len() - 1)
        .chain(row)
        .copied()
        .collect();
    if updates.shape() != wanted {
        let found = updates.shape();
        return Err(OpError::Shape(format!(
            "updates of shape {found:?}, expected {wanted:?}"
        )));
    }
    let table = x.reshape(&[count(leading), count(row)]);
    let updates = updates.clone().reshape(&[numbers.len(), count(row)]);
    Ok(update_rows(table, &numbers, updates, how)?.reshape(&shape))
}

/// Positions of what is not zero, one column each.
pub(super) fn non_zero(x: &Value) -> Result<Value> {
    let steps = strides(&x.shape());
    let shape = x.shape();
    let found: Vec<_> = (0..)
        .zip(x.to_floats()?)
        .filter(|(_, value)| *value != 0.0)
        .map(|(at, _)| at)
        .collect();
    let places: Vec<_> = steps
        .iter()
        .zip(&shape)
        .flat_map(|(step, size)| {
            found
                .iter()
                .map(move |at: &usize| (at / step % size) as i64)
        })
        .collect();
    Ok(Value::from_ints(
        &places,
        &[shape.len(), found.len()],
        &x.device(),
    ))
}

/// `values[1]` where an index names the place along a new axis, else `values[0]`.
pub(super) fn one_hot(at: Value, depth: &Value, values: Value, along: i64) -> Result<Value> {
    let at = at.cast(DType::I64)?;
    let depth = depth.to_ints()?;
    let [depth] = depth.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected one depth, found {}",
            depth.len()
        )));
    };
    let depth = usize::try_from(*depth).ok().filter(|&depth| depth > 0);
    let depth = depth.ok_or_else(|| OpError::Value("a depth below 1".into()))?;
    if values.shape() != [2] {
        return Err(OpError::Shape(format!(
            "values of shape {:?}, expected [2]",
            values.shape()
        )));
    }
    let mut shape = at.shape();
    let along = axis(along, shape.len() + 1)?;
    shape.insert(along, depth);
    check_size(DType::I64, &shape)?;
    let device = values.device();
    if count(&shape) == 0 {
        return Value::full(values.dtype(), &shape, 0.0, &device);
    }
    let size = depth as i64;
    // An index outside the depth names no place.
    let numbers: Vec<_> = indices(&at)?
        .into_iter()
        .map(|number| {
            if number < 0 {
                number.saturating_add(size)
            } else {
                number
            }
        })
        .collect();
    let mut single = shape.clone();
    single
        .iter_mut()
        .skip(along)
        .take(1)
        .for_each(|size| *size = 1);
    let mut line = vec![1; shape.len()];
    line.iter_mut()
        .skip(along)
        .take(1)
        .for_each(|size| *size = depth);
    let classes: Vec<_> = (0..size).collect();
    let numbers = broadcast_to(Value::from_ints(&numbers, &single, &device), &shape).int()?;
    let classes = broadcast_to(Value::from_ints(&classes, &line, &device), &shape).int()?;
    let mask = B::int_equal(numbers, classes, bool_type(&device));
    let one = |from: usize| {
        let value = values.clone().narrow(0, from, from + 1);
        broadcast_to(with_rank(value, shape.len()), &shape)
    };
    one(0).choose(mask, one(1))
}
