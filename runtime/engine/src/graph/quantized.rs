//! Quantised tensors.

use super::Conv;
use crate::narrow::Rounding;
use crate::tensor::DType;

/// Operators that make quantised tensors, or compute with them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quantized {
    /// Inputs: x, scale, zero point?.
    Quantize {
        scales: Scales,
        /// Left out: as the zero point, or u8.
        to: Option<DType>,
        /// In which x is divided; left out: as the scale.
        precision: Option<DType>,
        rounding: Rounding,
    },
    /// Inputs: x, scale, zero point?.
    Dequantize {
        scales: Scales,
        /// Left out: as the scale.
        to: Option<DType>,
    },
    /// Outputs: y, scale, zero point.
    DynamicQuantize,
    /// Inputs: a, b, zero points of both?.
    MatMulInteger,
    /// Inputs: x, weights, zero points of both?.
    ConvInteger(Conv),
    /// Inputs: a, its scale and zero point, the same for b and for the result.
    QLinearMatMul,
    /// The same, then bias?.
    QLinearConv(Conv),
}

/// Along what elements share a scale, where there is more than one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scales {
    pub axis: i64,
    /// How many neighbours along the axis share one, where scales differ along others too.
    pub block: usize,
}
