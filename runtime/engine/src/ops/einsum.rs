//! Sums of products over named axes, as products of matrices.

use super::{Result, broadcast, broadcast_to, count, matmul, reduce, with_rank};
use crate::error::OpError;
use crate::graph::{Einsum, Letters, Reduce};
use crate::value::{Value, check_size, range};

/// The name of an axis; axes of an ellipsis are named by their place from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Letter(char),
    Unnamed(usize),
}

/// A tensor whose axes have names, no two the same.
struct Named {
    names: Vec<Name>,
    value: Value,
}

pub(super) fn run(einsum: &Einsum, inputs: Vec<Value>) -> Result<Value> {
    if inputs.len() != einsum.inputs.len() {
        let (found, terms) = (inputs.len(), einsum.inputs.len());
        return Err(OpError::Value(format!("{found} inputs for {terms} terms")));
    }
    let mut unnamed = 0;
    let mut terms = Vec::new();
    for (letters, value) in einsum.inputs.iter().zip(inputs) {
        let known = letters.names().count();
        let rest = value.rank().checked_sub(known);
        let rest = rest.filter(|&rest| rest == 0 || letters.ellipsis.is_some());
        let rest = rest.ok_or_else(|| {
            let (shape, names) = (value.shape(), letters.names().collect::<String>());
            OpError::Shape(format!("axes `{names}` for a tensor of shape {shape:?}"))
        })?;
        unnamed = unnamed.max(rest);
        terms.push(diagonal(names(letters, rest), value)?);
    }
    let wanted = names(&einsum.output, unnamed);
    let mut terms = terms.into_iter();
    let first = terms.next().ok_or(OpError::MissingInput { index: 0 })?;
    let mut done = first;
    while let Some(next) = terms.next() {
        let later = terms.as_slice();
        let needed = |name: &Name| {
            wanted.contains(name) || later.iter().any(|term| term.names.contains(name))
        };
        done = product(done, next, needed)?;
    }
    arrange(sum_out(done, |name| wanted.contains(name))?, &wanted)
}

fn names(letters: &Letters, unnamed: usize) -> Vec<Name> {
    let unnamed = match letters.ellipsis {
        Some(_) => unnamed,
        None => 0,
    };
    let before = letters.before.iter().copied().map(Name::Letter);
    let after = letters.ellipsis.iter().flatten().copied().map(Name::Letter);
    before
        .chain((0..unnamed).rev().map(Name::Unnamed))
        .chain(after)
        .collect()
}

/// Keeps of axes with the same name the elements at equal places.
fn diagonal(mut names: Vec<Name>, mut value: Value) -> Result<Named> {
    while let Some((a, b)) = repeated(&names) {
        let shape = value.shape();
        let size = |at: usize| shape.get(at).copied().unwrap_or(1);
        let n = size(a);
        if n != size(b) {
            return Err(OpError::Shape(format!(
                "axes of sizes {n} and {} by one name",
                size(b)
            )));
        }
        let others: Vec<_> = (0..names.len()).filter(|at| *at != a && *at != b).collect();
        let order: Vec<_> = others.iter().copied().chain([a, b]).collect();
        let mut kept: Vec<_> = others.iter().map(|&at| size(at)).collect();
        let rows = count(&kept);
        kept.push(n);
        let flat = value.permute(&order).reshape(&[rows, n * n]);
        value = if rows == 0 || n == 0 {
            flat.reshape(&kept)
        } else {
            flat.slice(&[range(0, rows, 1), range(0, n * n, n + 1)])
                .reshape(&kept)
        };
        let name = names.get(a).copied();
        names = order
            .iter()
            .take(others.len())
            .filter_map(|&at| names.get(at).copied())
            .collect();
        names.extend(name);
    }
    Ok(Named { names, value })
}

fn repeated(names: &[Name]) -> Option<(usize, usize)> {
    let later = |(at, name): (usize, &Name)| {
        let again = names.iter().skip(at + 1).position(|other| other == name)?;
        Some((at, at + 1 + again))
    };
    names.iter().enumerate().find_map(later)
}

/// Sums over the axes that nothing needs.
fn sum_out(term: Named, needed: impl Fn(&Name) -> bool) -> Result<Named> {
    let gone = |(at, name): (usize, &Name)| (!needed(name)).then_some(at as i64);
    let over: Vec<_> = term.names.iter().enumerate().filter_map(gone).collect();
    if over.is_empty() {
        return Ok(term);
    }
    Ok(Named {
        value: reduce::reduce(Reduce::Sum, term.value, &over, false)?,
        names: term.names.into_iter().filter(|name| needed(name)).collect(),
    })
}

/// The axes in this order, those that are missing with one element.
fn arrange(term: Named, wanted: &[Name]) -> Result<Value> {
    let place = |name: &Name| term.names.iter().position(|other| other == name);
    let order: Vec<_> = wanted.iter().filter_map(place).collect();
    let shape = term.value.shape();
    let size = |name: &Name| {
        place(name)
            .and_then(|at| shape.get(at).copied())
            .unwrap_or(1)
    };
    let wide: Vec<_> = wanted.iter().map(size).collect();
    Ok(term.value.permute(&order).reshape(&wide))
}

/// Two terms as one, summed over the axes that nothing else needs.
fn product(a: Named, b: Named, needed: impl Fn(&Name) -> bool) -> Result<Named> {
    // What only one of them has is summed up before.
    let a = sum_out(a, |name| needed(name) || b.names.contains(name))?;
    let b = sum_out(b, |name| needed(name) || a.names.contains(name))?;
    let shared = |name: &&Name| b.names.contains(name);
    let both: Vec<_> = a.names.iter().filter(shared).copied().collect();
    let (batch, inner): (Vec<_>, Vec<_>) = both.iter().copied().partition(|name| needed(name));
    let own = |term: &Named| -> Vec<Name> {
        term.names
            .iter()
            .filter(|name| !both.contains(name))
            .copied()
            .collect()
    };
    let (rows, columns) = (own(&a), own(&b));
    let size = |term: &Named, name: &Name| {
        let at = term.names.iter().position(|other| other == name);
        at.and_then(|at| term.value.shape().get(at).copied())
            .unwrap_or(1)
    };
    let sizes = |term: &Named, names: &[Name]| -> Vec<usize> {
        names.iter().map(|name| size(term, name)).collect()
    };
    let batch_sizes = broadcast(&sizes(&a, &batch), &sizes(&b, &batch))?;
    let inner_sizes = broadcast(&sizes(&a, &inner), &sizes(&b, &inner))?;
    let (row_sizes, column_sizes) = (sizes(&a, &rows), sizes(&b, &columns));
    let matrix = |term: Named, names: [&[Name]; 3], sizes: [&[usize]; 3]| -> Result<Value> {
        let wide = sizes.concat();
        check_size(term.value.dtype(), &wide)?;
        let arranged = arrange(term, &names.concat())?;
        let arranged = if count(&wide) == 0 {
            Value::full(arranged.dtype(), &wide, 0.0, &arranged.device())?
        } else if wide.is_empty() {
            arranged
        } else {
            broadcast_to(with_rank(arranged, 1), &wide)
        };
        Ok(arranged.reshape(&sizes.map(count)))
    };
    let left = matrix(
        a,
        [&batch, &rows, &inner],
        [&batch_sizes, &row_sizes, &inner_sizes],
    )?;
    let right = matrix(
        b,
        [&batch, &inner, &columns],
        [&batch_sizes, &inner_sizes, &column_sizes],
    )?;
    let done = matmul::matmul(left, right)?;
    Ok(Named {
        names: [batch, rows, columns].concat(),
        value: done.reshape(&[batch_sizes, row_sizes, column_sizes].concat()),
    })
}
