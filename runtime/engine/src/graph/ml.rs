//! Attributes of the operators of domain `ai.onnx.ml`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::tensor::DType;
use crate::value::Value;

/// An operator of domain `ai.onnx.ml`.
#[derive(Clone, Debug)]
pub(crate) enum Ml {
    Trees(Arc<Forest>),
    /// Outputs: labels, scores.
    TreeClassifier(Arc<Forest>, Labels),
    Linear(Linear),
    /// Outputs: labels, scores.
    LinearClassifier(Linear, Labels),
    Svm(Arc<Svm>),
    /// Outputs: labels, scores.
    SvmClassifier(Arc<Svm>, Labels),
    /// `(x − offset) · scale`, one number or one per feature.
    Scaler {
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    Normalizer(Norm),
    /// `strict`: every element has to be a category.
    OneHot {
        places: Places,
        categories: usize,
        strict: bool,
    },
    /// The first whose keys are of the input's kind.
    Encoder(Vec<Encoder>),
    /// Elements that are `replaced` become the number of their feature.
    Imputer {
        floats: Option<Imputed<f32>>,
        ints: Option<Imputed<i64>>,
    },
    Binarizer {
        threshold: f32,
    },
    /// Inputs: x, places in its last axis.
    Extract,
    /// Rows side by side, as f32.
    Concat,
}

/// What a classifier names its classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<Bytes>),
}

impl Labels {
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(all) => all.len(),
            Self::Texts(all) => all.len(),
        }
    }
}

/// What becomes of the scores of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// Softmax of what is not zero.
    SoftmaxZero,
    Probit,
}

/// How the votes of trees become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

/// Decision trees, one after the other, each branch before what it leads to.
#[derive(Debug)]
pub(crate) struct Forest {
    pub nodes: Vec<TreeNode>,
    pub roots: Vec<usize>,
    /// Targets and weights of the leaves.
    pub votes: Vec<(usize, f64)>,
    /// What [`Test::Member`] looks in, ordered.
    pub sets: Vec<Vec<f64>>,
    /// One more than the last feature that is read.
    pub features: usize,
    pub targets: usize,
    pub aggregate: Aggregate,
    pub base: Vec<f64>,
    pub transform: PostTransform,
    /// `None`: f32.
    pub made: Option<DType>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeNode {
    pub test: Test,
    pub feature: u32,
    pub threshold: f64,
    /// NaN passes the test.
    pub missing: bool,
    /// Where a row that passes goes on; of a leaf: its first vote.
    pub yes: u32,
    /// Where another goes on; of a leaf: the end of its votes.
    pub no: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Test {
    Leaf,
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    NotEqual,
    /// The feature is in this set.
    Member(u32),
}

/// Weights `[targets, features]` and what is added.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub weights: Vec<f32>,
    pub targets: usize,
    pub bias: Vec<f32>,
    pub transform: PostTransform,
}

/// A support vector machine; without vectors it is linear.
#[derive(Debug)]
pub(crate) struct Svm {
    pub kernel: Kernel,
    pub gamma: f32,
    pub offset: f32,
    pub degree: f32,
    /// `[number, features]`.
    pub vectors: Vec<f32>,
    pub number: usize,
    pub coefficients: Vec<f32>,
    pub rho: Vec<f32>,
    /// Gives 1 and -1.
    pub one_class: bool,
    pub per_class: Vec<usize>,
    pub prob_a: Vec<f32>,
    pub prob_b: Vec<f32>,
    pub transform: PostTransform,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kernel {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// What a row is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Norm {
    Max,
    L1,
    L2,
}

/// The number of each key.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub kind: KeyKind,
    /// By string, or by the little-endian bytes of an i64 or f64.
    pub of: Arc<HashMap<Bytes, usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum KeyKind {
    Int,
    Float,
    Text,
}

/// The bytes by which a float is found: all zeros are one key, and all NaN.
pub(crate) fn float_key(value: f64) -> [u8; 8] {
    let value = if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    };
    value.to_le_bytes()
}

/// A value for each key, and one more for everything else.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub places: Places,
    pub values: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Imputed<T> {
    pub replaced: T,
    /// One, or one per feature.
    pub by: Vec<T>,
}
