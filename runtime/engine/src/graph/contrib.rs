//! Operators that are not ONNX's own: the domain `com.microsoft`.

use super::{Binary, Conv, Recurrent, Unary, Window};
use crate::kernels::Activation;

/// Operators of the domain `com.microsoft`, which exporters and onnxruntime's optimiser write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Contrib {
    /// `alpha · A · B`.
    FusedMatMul {
        alpha: f32,
        a: Turned,
        b: Turned,
    },
    FusedGemm {
        alpha: f32,
        beta: f32,
        transpose_a: bool,
        transpose_b: bool,
        activation: Activation,
    },
    /// Inputs: x, weights, bias?, what is added before the activation?.
    FusedConv {
        conv: Conv,
        activation: Activation,
    },
    /// Inputs: x, bias?.
    BiasGelu {
        tanh: bool,
    },
    /// `x · sigmoid(alpha · x)`.
    QuickGelu {
        alpha: f32,
    },
    /// Of a sum. Inputs: x, skip, scale, shift? (not where `simplified`), bias?. Outputs: y,
    /// two that are not made, the sum.
    SkipLayerNorm {
        epsilon: f32,
        simplified: bool,
    },
    /// Inputs: words, segments?, word, position and segment? tables, scale, shift, mask?,
    /// positions?. Outputs: y, lengths by the mask, the sum.
    EmbedLayerNorm {
        epsilon: f32,
    },
    /// Of images `[n, h, w, c]` or `[n, c, h, w]`. Inputs: x, scale, shift.
    GroupNorm {
        groups: usize,
        epsilon: f32,
        channels_last: bool,
        silu: bool,
    },
    /// Inputs: a, b, b's scale, its zero point?, bias?.
    DynamicQuantizeMatMul,
    /// Inputs: a, b, both scales, both zero points?, bias?.
    MatMulIntegerToFloat,
    /// Weights as integers, `[directions, inputs, 4 · hidden]`. Inputs: those of an LSTM, then
    /// scale and zero point of its weights and of its recurrence.
    DynamicQuantizeLstm(Recurrent),
    QLinear(QLinear),
    /// Inputs: x, weights, bias?, mask?, past?, bias of the scores?. Outputs: y, present.
    Attention(Heads),
    /// Inputs: x, weights, bias, both scales, mask?, both zero points?, past?.
    QAttention(Heads),
    /// Inputs: query, key, value, bias?, mask of keys?, bias of the scores?, past key?, past
    /// value?. Outputs: y, present key, present value.
    MultiHeadAttention(Heads),
    /// Inputs: x, positions, cosines, sines.
    RotaryEmbedding {
        interleaved: bool,
        /// 0 where the input has an axis of heads.
        heads: usize,
        /// How much of a head is turned; 0 for all.
        dim: usize,
    },
    Inverse,
}

/// How a matrix is turned before it is multiplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Turned {
    pub transpose: bool,
    /// Its rows stand on the first axis, before those of the batch.
    pub rows_first: bool,
}

/// Operators on quantised tensors that are computed as floats.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QLinear {
    Binary(Binary),
    Unary(Unary),
    /// Inputs: scale and zero point of the result, then each tensor with both of its own.
    Concat {
        axis: i64,
    },
    AveragePool {
        window: Window,
        count_padding: bool,
        channels_last: bool,
    },
    GlobalAveragePool {
        channels_last: bool,
    },
}

/// Attention with several heads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heads {
    pub count: usize,
    /// No position sees a later one.
    pub causal: bool,
    /// Left out: one over the root of a head's size.
    pub scale: Option<f32>,
    /// What is added to a score that is masked.
    pub masked: f32,
    /// Sizes of all query, key and value heads; empty for equal ones.
    pub sizes: Vec<usize>,
}
