//! The equation of an `Einsum`.

use super::ParseError;
use crate::graph::{Einsum, Letters};

/// Reads `ij,jk->ik`. Without a right side, the result has the unnamed axes and then, in
/// order of the alphabet, the letters that occur once.
pub(super) fn parse(equation: &str, inputs: usize) -> Result<Einsum, ParseError> {
    let plain: String = equation.split_whitespace().collect();
    let (left, right) = match plain.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (plain.as_str(), None),
    };
    let terms = left
        .split(',')
        .map(letters)
        .collect::<Result<Vec<_>, _>>()?;
    if terms.len() != inputs {
        let found = terms.len();
        return Err(format!("equation `{equation}` has {found} terms for {inputs} inputs").into());
    }
    let output = match right {
        Some(right) => letters(right)?,
        None => implied(&terms),
    };
    let known = |letter: &char| {
        terms
            .iter()
            .any(|term| term.names().any(|name| name == *letter))
    };
    let mut seen = Vec::new();
    for letter in output.names() {
        if !known(&letter) || seen.contains(&letter) {
            return Err(format!("letter `{letter}` of the result of `{equation}`").into());
        }
        seen.push(letter);
    }
    Ok(Einsum {
        inputs: terms,
        output,
    })
}

fn letters(term: &str) -> Result<Letters, ParseError> {
    let names = |text: &str| -> Result<Vec<char>, ParseError> {
        match text.chars().find(|letter| !letter.is_ascii_alphabetic()) {
            None => Ok(text.chars().collect()),
            Some(other) => Err(format!("`{other}` in an equation is no letter").into()),
        }
    };
    Ok(match term.split_once("...") {
        None => Letters {
            before: names(term)?,
            ellipsis: None,
        },
        Some((before, after)) => Letters {
            before: names(before)?,
            ellipsis: Some(names(after)?),
        },
    })
}

fn implied(terms: &[Letters]) -> Letters {
    let mut all: Vec<_> = terms.iter().flat_map(Letters::names).collect();
    all.sort_unstable();
    let once = all.chunk_by(|a, b| a == b).filter(|same| same.len() == 1);
    let once = once.flatten().copied().collect();
    if terms.iter().any(|term| term.ellipsis.is_some()) {
        Letters {
            before: Vec::new(),
            ellipsis: Some(once),
        }
    } else {
        Letters {
            before: once,
            ellipsis: None,
        }
    }
}
