//! Strings: joining, splitting, cleaning and matching them, and counts of n-grams.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Args, Result, broadcast, broadcast_to, count};
use crate::device;
use crate::error::OpError;
use crate::graph::{Case, Counts, Grams, Text, TfIdf};
use crate::tensor::DType;
use crate::value::{Value, check_size};

pub(super) fn run(of: &Text, args: &mut Args) -> Result<Vec<Value>> {
    let x = args.take(0)?;
    match of {
        Text::Concat => Ok(vec![concat(x, args.take(1)?)?]),
        Text::Split { delimiter, limit } => split(x, delimiter.as_deref(), *limit),
        Text::Normalize {
            case,
            case_sensitive,
            stop_words,
        } => Ok(vec![normalize(x, *case, *case_sensitive, stop_words)?]),
        Text::FullMatch(pattern) => {
            let shape = x.shape();
            let strings = x.strings()?;
            let matches = strings
                .iter()
                .map(|string| Ok(pattern.is_match(utf8(string)?)));
            let matches = matches.collect::<Result<Vec<_>>>()?;
            Ok(vec![Value::from_bools(matches, &shape, &device::cpu())])
        }
    }
}

fn utf8(string: &Bytes) -> Result<&str> {
    let text = std::str::from_utf8(string);
    text.map_err(|_| OpError::Value("a string is not UTF-8 text".into()))
}

fn concat(left: Value, right: Value) -> Result<Value> {
    let shape = broadcast(&left.shape(), &right.shape())?;
    check_size(DType::I64, &shape)?;
    if count(&shape) == 0 {
        return Ok(Value::from_strings(Vec::new(), &shape));
    }
    let left = broadcast_to(left, &shape).strings()?;
    let right = broadcast_to(right, &shape).strings()?;
    let join = |(a, b): (&Bytes, &Bytes)| Bytes::from([&a[..], &b[..]].concat());
    let joined = left.iter().zip(&right).map(join).collect();
    Ok(Value::from_strings(joined, &shape))
}

/// The parts of each element along a new last axis, filled up with empty strings, and how
/// many each has.
fn split(x: Value, delimiter: Option<&str>, limit: Option<usize>) -> Result<Vec<Value>> {
    let mut shape = x.shape();
    let strings = x.strings()?;
    let parts = strings.iter().map(|string| {
        let text = utf8(string)?;
        let part = |part: &str| string.slice_ref(part.as_bytes());
        Ok(match (delimiter, limit) {
            (Some(delimiter), None) => text.split(delimiter).map(part).collect(),
            (Some(delimiter), Some(limit)) => text
                .splitn(limit.saturating_add(1), delimiter)
                .map(part)
                .collect(),
            (None, None) => text.split_whitespace().map(part).collect(),
            (None, Some(limit)) => words(text, limit).map(part).collect(),
        })
    });
    let parts = parts.collect::<Result<Vec<Vec<Bytes>>>>()?;
    let numbers: Vec<_> = parts.iter().map(|parts| parts.len() as i64).collect();
    let numbers = Value::from_ints(&numbers, &shape, &device::cpu());
    let most = parts.iter().map(Vec::len).max().unwrap_or(0);
    shape.push(most);
    check_size(DType::I64, &shape)?;
    let mut all = Vec::with_capacity(count(&shape));
    for mut part in parts {
        part.resize(most, Bytes::new());
        all.append(&mut part);
    }
    Ok(vec![Value::from_strings(all, &shape), numbers])
}

/// Words, of which `limit` are cut off and the rest stays as it is.
fn words(text: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start();
    let mut cuts = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match cuts < limit {
            true => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            false => rest.len(),
        };
        cuts += 1;
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        Some(word)
    })
}

fn with_case(text: &str, case: Option<Case>) -> String {
    match case {
        None => text.to_owned(),
        Some(Case::Lower) => text.to_lowercase(),
        Some(Case::Upper) => text.to_uppercase(),
    }
}

/// `[n]` or `[1, n]` without stop words, in another case; one empty string where nothing is
/// left.
fn normalize(
    x: Value,
    case: Option<Case>,
    case_sensitive: bool,
    stop_words: &[String],
) -> Result<Value> {
    let mut shape = x.shape();
    if !matches!(shape.as_slice(), [_] | [1, _]) {
        return Err(OpError::Shape(format!(
            "expected [n] or [1, n], found {shape:?}"
        )));
    }
    let compared = match case_sensitive {
        true => None,
        false => Some(case.unwrap_or(Case::Lower)),
    };
    let stopped: Vec<_> = stop_words
        .iter()
        .map(|word| with_case(word, compared))
        .collect();
    let mut kept = Vec::new();
    for string in x.strings()? {
        let text = utf8(&string)?;
        if stopped.is_empty() || !stopped.contains(&with_case(text, compared)) {
            kept.push(Bytes::from(with_case(text, case)));
        }
    }
    if kept.is_empty() {
        kept.push(Bytes::new());
    }
    shape.pop();
    shape.push(kept.len());
    Ok(Value::from_strings(kept, &shape))
}

/// Two tensors of strings as numbers that are equal where the strings are.
pub(super) fn numbered(left: Value, right: Value) -> Result<(Value, Value)> {
    let mut known = HashMap::new();
    let mut number = |value: Value| -> Result<Value> {
        let shape = value.shape();
        let number = |string: Bytes| {
            let next = known.len() as i64;
            *known.entry(string).or_insert(next)
        };
        let numbers: Vec<_> = value.strings()?.into_iter().map(number).collect();
        Ok(Value::from_ints(&numbers, &shape, &device::cpu()))
    };
    Ok((number(left)?, number(right)?))
}

/// How often each n-gram stands in a row `[n]`, or in each of the rows `[rows, n]`; an n-gram
/// is also found with `skips` other tokens between each two of its own.
pub(super) fn tf_idf(of: &TfIdf, x: Value) -> Result<Value> {
    let mut shape = x.shape();
    let tokens = tokens(&of.grams, x)?;
    let (rows, length) = match shape.as_slice() {
        [] => (1, 1),
        [length] => (1, *length),
        [rows, length] => (*rows, *length),
        _ => {
            return Err(OpError::Shape(format!(
                "expected rank 1 or 2, found {shape:?}"
            )));
        }
    };
    shape.pop();
    shape.push(of.columns);
    check_size(DType::F32, &shape)?;
    let mut counts = vec![0.0; rows * of.columns];
    if length > 0 && of.columns > 0 {
        let each = tokens.chunks(length).zip(counts.chunks_mut(of.columns));
        each.for_each(|(row, counts)| count_grams(of, row, counts));
    }
    let weight = |column: usize| of.weights.get(column).copied().map_or(1.0, f64::from);
    for (at, count) in counts.iter_mut().enumerate() {
        let weight = weight(at % of.columns.max(1));
        *count = match of.counts {
            Counts::Plain => *count,
            Counts::Presence => f64::min(*count, 1.0) * weight,
            Counts::Weighted => *count * weight,
        };
    }
    Value::from_floats(counts, &shape, DType::F32, &device::cpu())
}

/// The numbers of the tokens; `None` for those that are in no n-gram.
fn tokens(grams: &Grams, x: Value) -> Result<Vec<Option<usize>>> {
    let known = |token: &[u8]| grams.tokens.get(token).copied();
    match x {
        Value::Text(..) if grams.strings => {
            Ok(x.strings()?.iter().map(|string| known(string)).collect())
        }
        Value::Int(_) if !grams.strings => {
            let numbers = x.to_ints()?;
            Ok(numbers.iter().map(|n| known(&n.to_le_bytes())).collect())
        }
        other => Err(other.unexpected(match grams.strings {
            true => "strings",
            false => "integers",
        })),
    }
}

fn count_grams(of: &TfIdf, row: &[Option<usize>], counts: &mut [f64]) {
    for step in 1..=of.skips.saturating_add(1).min(row.len()) {
        // One token skips nothing: it is counted once.
        let shortest = match step {
            1 => of.shortest,
            _ => of.shortest.max(2),
        };
        for start in 0..row.len() {
            let mut node = 0;
            let walk = row.iter().skip(start).step_by(step).take(of.longest);
            for (size, token) in (1..).zip(walk) {
                let next = token.and_then(|token| of.grams.next.get(&(node, token)));
                let Some(&next) = next else { break };
                node = next;
                let column = of.grams.columns.get(node).copied().flatten();
                let count = column.and_then(|column| counts.get_mut(column));
                if let Some(count) = count.filter(|_| size >= shortest) {
                    *count += 1.0;
                }
            }
        }
    }
}
