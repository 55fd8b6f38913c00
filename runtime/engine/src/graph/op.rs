//! What a node does.

use std::sync::Arc;

use super::*;
use crate::kernels::{Activation, Filters, Int8, Lstm, Packed};
use crate::narrow::Rounding;
use crate::signature::TensorSpec;
use crate::tensor::DType;

/// An operator with its attributes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    // Element by element
    Unary(Unary),
    Binary(Binary),
    /// The right side's axes are those of the left side from `axis` on, as they could be
    /// before opset 7.
    BinaryAt {
        kind: Binary,
        axis: i64,
    },
    Variadic(Variadic),
    Compare(Compare),
    Logic(Logic),
    Where,
    /// Inputs: x, min?, max?.
    Clip,
    Cast {
        to: DType,
        rounding: Rounding,
    },
    CastLike(Rounding),
    BitCast(DType),

    // Products
    MatMul,
    /// Inputs: x, weights (rank 2), bias?: what `MatMul`, `Add` and an activation become.
    Linear {
        activation: Activation,
    },
    /// Inputs: x, bias?. The same with weights that lie as the CPU's kernels want them;
    /// `matrix`: x must have rank 2.
    Packed {
        weights: Arc<Packed>,
        activation: Activation,
        matrix: bool,
    },
    /// The same with weights that were quantised.
    PackedInt8 {
        weights: Arc<Int8>,
        activation: Activation,
        matrix: bool,
    },
    Gemm {
        alpha: f32,
        beta: f32,
        transpose_a: bool,
        transpose_b: bool,
    },
    Conv(Conv),
    /// Inputs: x, bias?. A convolution with weights of this shape that the CPU's kernels lay
    /// out.
    Filter {
        conv: Conv,
        filters: Arc<Filters>,
        shape: Vec<usize>,
    },
    ConvTranspose {
        conv: Conv,
        output_padding: Vec<usize>,
        output_shape: Vec<usize>,
    },

    /// Inputs: x, weights, offsets, bias?, mask?.
    DeformConv {
        conv: Conv,
        offset_groups: usize,
    },
    /// Letters of each input, then those of the result.
    Einsum(Einsum),
    Quantized(Quantized),

    Contrib(Contrib),

    // Windows
    /// Outputs: x, indices where `indices` says so, counted along the first axis of a plane
    /// first where they are `column_major`.
    MaxPool {
        window: Window,
        indices: bool,
        column_major: bool,
    },
    /// Inputs: x, indices, shape?.
    MaxUnpool(Window),
    LpPool {
        window: Window,
        p: f32,
    },
    GlobalLpPool {
        p: f32,
    },
    /// Inputs: columns, shape of the image, shape of a block.
    Col2Im {
        strides: Vec<usize>,
        dilations: Vec<usize>,
        pads: Vec<usize>,
    },
    AveragePool {
        window: Window,
        count_padding: bool,
    },
    GlobalMaxPool,
    GlobalAveragePool,

    // Normalisation
    BatchNorm {
        epsilon: f32,
    },
    /// Outputs: y, running mean, running variance, mean?, variance?.
    BatchNormTraining {
        epsilon: f32,
        momentum: f32,
    },
    InstanceNorm {
        epsilon: f32,
    },
    GroupNorm {
        groups: usize,
        epsilon: f32,
    },
    /// Outputs: y and, with `statistics`, means and inverse deviations.
    LayerNorm {
        axis: i64,
        epsilon: f32,
        statistics: bool,
    },
    RmsNorm {
        axis: i64,
        epsilon: f32,
    },
    /// Over these axes.
    MeanVarianceNorm(Vec<i64>),
    LpNorm {
        axis: i64,
        p: i64,
    },
    LocalResponseNorm {
        size: usize,
        alpha: f32,
        beta: f32,
        bias: f32,
    },
    /// `flat`: over everything from `axis` on, as before opset 13.
    Softmax {
        axis: i64,
        flat: bool,
        log: bool,
    },

    // Language models
    Attention(Attention),
    Rotary(Rotary),
    LinearAttention(LinearAttention),
    /// Inputs: x, weights, bias?, state?. Outputs: y, state.
    CausalConv {
        silu: bool,
    },
    /// Swish of the first input times the second.
    SwiGlu {
        alpha: f32,
    },
    Loss(Loss),

    // Strings
    Text(Text),
    /// Input: tokens, as strings or integers.
    TfIdf(TfIdf),

    // Classical models
    Ml(Ml),

    // Reductions
    /// Inputs: x, axes?.
    Reduce {
        kind: Reduce,
        keep_dims: bool,
        noop_with_empty_axes: bool,
    },
    ArgExtreme {
        largest: bool,
        axis: i64,
        keep_dims: bool,
        last: bool,
    },
    CumSum {
        exclusive: bool,
        reverse: bool,
    },
    CumProd {
        exclusive: bool,
        reverse: bool,
    },
    /// `flat`: over everything from `axis` on, as before opset 13.
    Hardmax {
        axis: i64,
        flat: bool,
    },
    Det,
    /// Inputs: x, k.
    TopK {
        axis: i64,
        largest: bool,
    },

    // Shapes
    Identity,
    /// Inputs: x, ratio?, training?. Outputs: x, mask?.
    Dropout {
        seed: Option<i64>,
    },
    Shape {
        start: i64,
        end: i64,
    },
    Size,
    /// Inputs: x, shape.
    Reshape {
        allow_zero: bool,
    },
    Flatten {
        axis: i64,
    },
    /// Inputs: x, axes?.
    Squeeze,
    /// Inputs: x, axes.
    Unsqueeze,
    /// `None`: all axes reversed.
    Transpose(Option<Vec<usize>>),
    Concat {
        axis: i64,
    },
    /// Inputs: x, sizes?; without sizes, equal parts.
    Split {
        axis: i64,
        parts: usize,
    },
    /// Inputs: x, starts, ends, axes?, steps?.
    Slice,
    /// Inputs: x, shape.
    Expand,
    /// Inputs: x, repeats.
    Tile,
    /// Inputs: x, pads, value?, axes?.
    Pad(PadMode),
    DepthToSpace {
        block: usize,
        columns_first: bool,
    },
    SpaceToDepth {
        block: usize,
        columns_first: bool,
    },
    Trilu {
        upper: bool,
    },

    // Made from nothing but shapes and numbers
    /// Input: shape.
    ConstantOfShape {
        dtype: DType,
        value: f64,
    },
    /// Inputs: start, limit, step.
    Range,
    /// `dtype`: that of the input where there is none.
    EyeLike {
        dtype: Option<DType>,
        diagonal: i64,
    },
    Draw(Draw),

    // By index
    Gather {
        axis: i64,
    },
    GatherElements {
        axis: i64,
    },
    GatherNd {
        batch_dims: usize,
    },
    ScatterElements {
        axis: i64,
        update: Update,
    },
    ScatterNd {
        update: Update,
    },
    NonZero,
    /// Inputs: x, condition.
    Compress {
        axis: Option<i64>,
    },
    /// Outputs: values, first places, places of all among the values, counts.
    Unique {
        axis: Option<i64>,
        sorted: bool,
    },
    /// Inputs: x, lengths.
    ReverseSequence {
        batch_axis: i64,
        time_axis: i64,
    },
    /// Inputs: cache, update, places?. `circular`: what doesn't fit goes on at the start.
    TensorScatter {
        axis: i64,
        circular: bool,
    },
    /// Inputs: indices, depth, [off, on].
    OneHot {
        axis: i64,
    },

    Image(Image),
    Signal(Signal),

    // Over time
    Recurrent(Recurrent),
    /// Inputs: x, hidden?, cell?. A layer with weights that the CPU's kernels lay out.
    Lstm {
        weights: Arc<Lstm>,
        batch_major: bool,
    },

    // Sequences and optionals
    Sequence(Sequence),

    // Control
    If {
        then: Block,
        otherwise: Block,
    },
    /// Inputs: trip count?, condition?, states. The body gives a condition, the states and
    /// values that are stacked.
    Loop {
        body: Block,
        /// What the stacked values are declared as, for no round at all.
        stacked: Vec<Option<TensorSpec>>,
    },
    /// Inputs: states, then tensors that are taken apart.
    Scan {
        body: Block,
        scan: Scan,
    },
    /// Inputs: a sequence, then sequences of its length and tensors.
    SequenceMap {
        body: Block,
    },
}

impl Op {
    /// The bodies of a node of control flow.
    pub fn blocks(&self) -> Vec<&Block> {
        match self {
            Self::If { then, otherwise } => vec![then, otherwise],
            Self::Loop { body, .. } | Self::Scan { body, .. } | Self::SequenceMap { body } => {
                vec![body]
            }
            _ => Vec::new(),
        }
    }

    /// The same, to be changed.
    pub fn blocks_mut(&mut self) -> Vec<&mut Block> {
        match self {
            Self::If { then, otherwise } => vec![then, otherwise],
            Self::Loop { body, .. } | Self::Scan { body, .. } | Self::SequenceMap { body } => {
                vec![body]
            }
            _ => Vec::new(),
        }
    }

    /// Whether it has bodies.
    pub fn is_control(&self) -> bool {
        !self.blocks().is_empty()
    }

    /// Whether each run gives something else.
    pub fn draws(&self) -> bool {
        // Whether a dropout draws is an input.
        matches!(self, Self::Draw(_) | Self::Dropout { .. })
    }

    /// Which inputs decide, by what they hold, the shape of what is made; `None` where the
    /// shape follows from all the data.
    pub fn shaping_inputs(&self) -> Option<&'static [usize]> {
        Some(match self {
            Self::NonZero
            | Self::Sequence(_)
            | Self::Compress { .. }
            | Self::Unique { .. }
            | Self::Image(Image::NonMaxSuppression { .. }) => return None,
            control if control.is_control() => return None,
            Self::Text(Text::Split { .. } | Text::Normalize { .. }) => return None,
            Self::ConstantOfShape { .. } | Self::Signal(Signal::Window { .. }) => &[0],
            Self::Image(Image::AffineGrid { .. } | Image::CenterCropPad { .. }) => &[1],
            Self::Image(Image::Resize(_)) => &[1, 2, 3],
            Self::MaxUnpool(_) => &[2],
            Self::Col2Im { .. } | Self::Signal(Signal::Dft { .. }) => &[1, 2],
            Self::Signal(Signal::Stft { .. }) => &[1, 3],
            Self::Signal(Signal::MelWeights { .. }) => &[0, 1],
            Self::Reshape { .. }
            | Self::Squeeze
            | Self::Unsqueeze
            | Self::Split { .. }
            | Self::Expand
            | Self::Tile
            | Self::TopK { .. }
            | Self::Reduce { .. }
            | Self::OneHot { .. } => &[1],
            Self::Slice => &[1, 2, 3, 4],
            Self::Pad(_) => &[1, 3],
            Self::Range => &[0, 1, 2],
            _ => &[],
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduce {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Update {
    Assign,
    Add,
    Mul,
    Max,
    Min,
}
