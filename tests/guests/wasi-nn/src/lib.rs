//! What the programs in `bin/` share. Those whose name begins with `classic` are built for
//! `wasm32-wasip1`, those that begin with `component` for `wasm32-wasip2`.

pub mod component;

use std::io::{Error, ErrorKind, Result};

/// The classes of a model's answer with their scores, the most likely first.
pub fn sorted(scores: &[f32]) -> Vec<(usize, f32)> {
    let mut classes: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

/// The floats of a tensor's bytes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let floats = bytes.as_chunks::<4>().0.iter();
    floats.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// What is wrong with a line of a script.
pub fn wrong(what: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidInput, what.to_string())
}

/// A number, in tens or behind `0x` in sixteens.
pub fn number(word: &str) -> Result<u32> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.map_err(|error| wrong(format!("{word}: {error}")))
}

/// Dimensions with commas between them; `-` is none.
pub fn dimensions(word: &str) -> Result<Vec<u32>> {
    match word {
        "-" => Ok(Vec::new()),
        word => word.split(',').map(number).collect(),
    }
}

/// Bytes as two digits each; `-` is none.
pub fn bytes(word: &str) -> Result<Vec<u8>> {
    if word == "-" {
        return Ok(Vec::new());
    }
    let pairs = word.as_bytes().chunks(2).map(|pair| {
        let digits = str::from_utf8(pair).map_err(wrong)?;
        u8::from_str_radix(digits, 16).map_err(wrong)
    });
    pairs.collect()
}

/// The same the other way round.
pub fn hex(bytes: &[u8]) -> String {
    match bytes {
        [] => "-".into(),
        bytes => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
