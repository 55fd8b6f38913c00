//! Sequences, and walks along an axis.

/// Operators on sequences of tensors, and on values that may be missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sequence {
    Empty,
    Construct,
    /// Inputs: sequence, position.
    At,
    /// Inputs: sequence, tensor, position?.
    Insert,
    /// Inputs: sequence, position?.
    Erase,
    Length,
    /// `stack`: along a new axis.
    Concat {
        axis: i64,
        stack: bool,
    },
    /// Inputs: tensor, sizes?.
    Split {
        axis: i64,
        keep_dims: bool,
    },
    Optional,
    OptionalHasElement,
    OptionalGetElement,
}

/// How a `Scan` takes its inputs apart and puts its outputs together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scan {
    /// An axis for each scanned input, and whether it is walked backward.
    pub inputs: Vec<(i64, bool)>,
    /// The same for each stacked output.
    pub outputs: Vec<(i64, bool)>,
    /// The form of opset 8: the first axis of everything is a batch, whose members are
    /// scanned one by one, and the first input is the lengths.
    pub batched: bool,
}
