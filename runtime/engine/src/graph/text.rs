//! Attributes of the operators on strings.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use regex::Regex;

/// Operators on tensors of strings.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// Joins the elements of two tensors.
    Concat,
    /// Outputs: parts, their number.
    Split {
        /// `None`: at white space.
        delimiter: Option<String>,
        limit: Option<usize>,
    },
    Normalize {
        case: Option<Case>,
        /// Stop words have to match in case too.
        case_sensitive: bool,
        stop_words: Vec<String>,
    },
    /// Holds where the whole element matches.
    FullMatch(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Case {
    Lower,
    Upper,
}

/// Counts of n-grams.
#[derive(Clone, Debug)]
pub(crate) struct TfIdf {
    pub shortest: usize,
    pub longest: usize,
    pub skips: usize,
    pub counts: Counts,
    /// One per column; empty for ones.
    pub weights: Vec<f32>,
    pub columns: usize,
    pub grams: Arc<Grams>,
}

/// What becomes of a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Counts {
    /// Stays as it is.
    Plain,
    /// 1 where it is more, times the weight.
    Presence,
    /// Times the weight.
    Weighted,
}

/// The n-grams that are counted, as a tree whose root is node 0.
#[derive(Debug, Default)]
pub(crate) struct Grams {
    /// Tokens by what they stand for: integers as little-endian bytes.
    pub tokens: HashMap<Bytes, usize>,
    /// The node that a token leads to.
    pub next: HashMap<(usize, usize), usize>,
    /// For each node the column that counts what leads to it.
    pub columns: Vec<Option<usize>>,
    /// The tokens are strings.
    pub strings: bool,
}
