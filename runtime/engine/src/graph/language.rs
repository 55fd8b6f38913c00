//! Attributes of the operators of language models, and of losses.

use crate::tensor::DType;

/// Attention. Inputs: queries, keys, values, mask?, past keys?, past values?, lengths?.
/// Outputs: result, present keys, present values, scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attention {
    /// How many heads a row of rank-3 queries holds.
    pub heads: Option<usize>,
    /// The same for keys and values.
    pub kv_heads: Option<usize>,
    /// `None`: 1 / √(head size).
    pub scale: Option<f32>,
    pub causal: bool,
    /// How many keys before and after its own position a query sees; `None` for all.
    pub before: Option<usize>,
    pub after: Option<usize>,
    /// Scores are bent to stay within ± this.
    pub soft_cap: Option<f32>,
    /// The type that softmax is computed in; `None`: that of the queries.
    pub precision: Option<DType>,
    /// What the fourth output holds, where a node has one.
    pub scores: Option<Scores>,
}

/// At which point attention gives its scores away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    Product,
    Capped,
    Biased,
    Softmax,
}

/// How the state of linear attention changes from token to token, and its query heads.
/// Inputs: queries, keys, values, past state?, decay?, rate?. Outputs: result, state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearAttention {
    pub heads: usize,
    pub kv_heads: usize,
    /// `None`: 1 / √(head size).
    pub scale: Option<f32>,
    /// The state fades by exp(decay).
    pub gated: bool,
    /// Only the difference to what the state holds for a key is added, by a rate.
    pub delta: bool,
}

/// Rotary position embedding. Inputs: x, cosines, sines, positions?.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Neighbours are rotated, else the halves of a head against each other.
    pub interleaved: bool,
    /// How much of each head is rotated; `None` for all.
    pub size: Option<usize>,
    /// How many heads a row of rank 3 holds.
    pub heads: Option<usize>,
}

/// A loss. Inputs: scores, labels, weights?. Outputs: loss, log probabilities?.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loss {
    /// The scores are no log probabilities yet.
    pub softmax: bool,
    pub reduction: Reduction,
    pub ignored: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduction {
    None,
    Sum,
    Mean,
}
