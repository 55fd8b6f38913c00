//! Recurrent layers.

use super::Unary;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
    Lstm { input_forget: bool },
    Gru { linear_before_reset: bool },
    Rnn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
    Both,
}

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recurrent {
    pub cell: Cell,
    pub direction: Direction,
    pub hidden: usize,
    /// Those of one direction, then those of the other.
    pub activations: Vec<Unary>,
    pub clip: Option<f32>,
    /// Batch first, time second.
    pub batch_major: bool,
}
