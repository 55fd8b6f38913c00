//! Our own form of a model: blocks of nodes, each with one typed operator.
//!
//! Every value of a model, those in the bodies of `If` nodes included, has one number, so a
//! body reads the values around it like any other and an environment is one flat list.
//! Attributes are parsed and checked when a node is made; what older operator sets gave as
//! attributes and newer ones give as inputs (`axes`, `pads`, `k`…) is always an input here.

mod language;
mod ml;
mod text;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::signature::TensorSpec;
use crate::tensor::DType;
use crate::value::Value;

pub(crate) use language::*;
pub(crate) use ml::*;
pub(crate) use text::*;

/// The number of a value in a [`Program`].
pub(crate) type ValueId = usize;

/// A whole model.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Names of all values, for messages.
    pub names: Vec<String>,
    /// Weights and other values that are the same in every run, by number.
    pub constants: Vec<Option<Value>>,
    /// The model's inputs, in the signature's order.
    pub inputs: Vec<ValueId>,
    /// The model's nodes and outputs.
    pub root: Block,
}

impl Program {
    pub fn add_value(&mut self, name: &str) -> ValueId {
        self.names.push(name.to_owned());
        self.constants.push(None);
        self.names.len() - 1
    }

    pub fn add_constant(&mut self, name: &str, value: Value) -> ValueId {
        let id = self.add_value(name);
        self.set_constant(id, value);
        id
    }

    pub fn set_constant(&mut self, id: ValueId, value: Value) {
        if let Some(slot) = self.constants.get_mut(id) {
            *slot = Some(value);
        }
    }

    pub fn constant(&self, id: ValueId) -> Option<&Value> {
        self.constants.get(id).and_then(Option::as_ref)
    }

    /// The value of a constant with one element.
    pub fn scalar(&self, id: ValueId) -> Option<f64> {
        let value = self.constant(id)?;
        if value.len() != 1 {
            return None;
        }
        value.to_floats().ok()?.first().copied()
    }
}

/// Nodes in an order in which each reads only what stands before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// What each run of the body of a loop is given; empty for branches.
    pub inputs: Vec<ValueId>,
    pub nodes: Vec<Arc<Node>>,
    pub outputs: Vec<ValueId>,
}

impl Block {
    /// The values that this block reads but does not make.
    pub fn captures(&self) -> BTreeSet<ValueId> {
        let mut made: BTreeSet<ValueId> = self.inputs.iter().copied().collect();
        let mut read = BTreeSet::new();
        for node in &self.nodes {
            read.extend(node.reads().filter(|id| !made.contains(id)));
            made.extend(node.outputs.iter().flatten());
        }
        read.extend(self.outputs.iter().filter(|id| !made.contains(id)));
        read
    }
}

/// One step of a model.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The node's name, or the name of its first output.
    pub name: String,
    pub op: Op,
    /// What it reads; `None` for an optional input that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// What it makes; `None` for an output that nothing wants.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// Everything that it reads, what bodies read from outside included.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> {
        let mut ids: Vec<_> = self.inputs.iter().flatten().copied().collect();
        ids.extend(self.op.blocks().into_iter().flat_map(Block::captures));
        ids.into_iter()
    }

    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }
}

/// An operator with its attributes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    // Element by element
    Unary(Unary),
    Binary(Binary),
    Variadic(Variadic),
    Compare(Compare),
    Logic(Logic),
    Where,
    /// Inputs: x, min?, max?.
    Clip,
    Cast(DType),
    CastLike,

    // Products
    MatMul,
    /// x · weights (rank 2) + bias: what `MatMul` and `Add` become.
    Linear,
    Gemm {
        alpha: f32,
        beta: f32,
        transpose_a: bool,
        transpose_b: bool,
    },
    Conv(Conv),
    ConvTranspose {
        conv: Conv,
        output_padding: Vec<usize>,
        output_shape: Vec<usize>,
    },

    // Windows
    MaxPool(Window),
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
    /// Inputs: x, k.
    TopK {
        axis: i64,
        largest: bool,
    },

    // Shapes
    Identity,
    /// Outputs: x, mask?.
    Dropout,
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

    // By index
    Gather {
        axis: i64,
    },
    GatherElements {
        axis: i64,
    },
    GatherNd,
    ScatterElements {
        axis: i64,
        update: Update,
    },
    ScatterNd {
        update: Update,
    },
    NonZero,
    /// Inputs: indices, depth, [off, on].
    OneHot {
        axis: i64,
    },

    // Over time
    Recurrent(Recurrent),

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
        false
    }

    /// Which inputs decide, by what they hold, the shape of what is made; `None` where the
    /// shape follows from all the data.
    pub fn shaping_inputs(&self) -> Option<&'static [usize]> {
        Some(match self {
            Self::NonZero | Self::Sequence(_) => return None,
            control if control.is_control() => return None,
            Self::Text(Text::Split { .. } | Text::Normalize { .. }) => return None,
            Self::ConstantOfShape { .. } => &[0],
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

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    BitNot,
    Ceil,
    Celu { alpha: f32 },
    Cos,
    Cosh,
    Elu { alpha: f32 },
    Erf,
    Exp,
    Floor,
    Gelu { tanh: bool },
    HardSigmoid { alpha: f32, beta: f32 },
    HardSwish,
    IsInf { negative: bool, positive: bool },
    IsNan,
    LeakyRelu { alpha: f32 },
    Log,
    Mish,
    Neg,
    Not,
    Reciprocal,
    Relu,
    Round,
    Selu { alpha: f32, gamma: f32 },
    Sigmoid,
    Sign,
    Silu,
    Sin,
    Sinh,
    Shrink { bias: f32, lambda: f32 },
    Softplus,
    Softsign,
    Sqrt,
    Swish { alpha: f32 },
    Tan,
    Tanh,
    ThresholdedRelu { alpha: f32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// `c_like`: the result has the sign of the left side.
    Mod {
        c_like: bool,
    },
    Pow,
    PRelu,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Variadic {
    Max,
    Min,
    Sum,
    Mean,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
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
