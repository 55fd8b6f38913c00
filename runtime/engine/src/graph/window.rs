//! Windows that slide over an image.

use crate::kernels::Activation;

/// How much is added around a tensor before a window slides over it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Padding {
    /// Begin of each axis, then end of each axis; empty for none.
    Explicit(Vec<usize>),
    /// Such that the output has `ceil(size / stride)` elements; the odd one at the end
    /// (`upper`) or at the begin.
    Same { upper: bool },
}

/// A convolution; empty lists stand for ones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conv {
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub padding: Padding,
    pub groups: usize,
    /// Checked against the weights where it is given.
    pub kernel: Vec<usize>,
    /// What the result goes through.
    pub activation: Activation,
}

/// A pooling window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub padding: Padding,
    pub ceil: bool,
}
