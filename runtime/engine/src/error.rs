//! What can go wrong when a model is loaded and when it runs.

use std::io;
use std::path::PathBuf;

use crate::device::Device;
use crate::signature::SignatureError;
use crate::tensor::DType;

/// A model that can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not an ONNX protobuf.
    #[error("not an ONNX model: {reason}")]
    NotOnnx {
        /// What is wrong, with the offset where it is known.
        reason: String,
    },
    /// A model without a graph.
    #[error("not an ONNX model: it has no graph")]
    NoGraph,
    /// An operator that this engine does not have.
    #[error("operator {operator} of node `{node}` is not supported (opset {opset})")]
    Unsupported {
        /// The operator, with its domain where that is not ONNX's own.
        operator: String,
        /// The node's name, or what it makes where it has none.
        node: String,
        /// The version of the operator's domain that the model imports.
        opset: i64,
    },
    /// A node whose attributes or inputs are not what its operator takes.
    #[error("node `{node}` ({operator}): {reason}")]
    Node {
        /// The operator.
        operator: String,
        /// The node.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// An element type that this engine does not have.
    #[error("`{name}` has the element type {found}, which is not supported")]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// ONNX's name of the type.
        found: String,
    },
    /// A stored tensor whose bytes and shape do not fit.
    #[error("stored tensor `{name}`: {reason}")]
    Weights {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A value that is read, but that neither an input, a stored tensor nor a node gives.
    #[error("`{reader}` reads `{value}`, which no input, initializer or node gives")]
    Missing {
        /// The node that reads it, or `graph outputs`.
        reader: String,
        /// The value.
        value: String,
    },
    /// A node that stands before what it reads: unsorted, or a cycle.
    #[error("node `{reader}` reads `{value}` before it is made: the graph is unsorted or cyclic")]
    Order {
        /// The node that reads it.
        reader: String,
        /// The value.
        value: String,
    },
    /// A name that is given twice.
    #[error("the name `{name}` is given to two values")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The device does not exist here, or this build has no support for it.
    #[error("device {device} is not available: {reason}")]
    Device {
        /// The device.
        device: Device,
        /// Why.
        reason: String,
    },
    /// The threads that were asked for could not be started.
    #[error("cannot start {threads} compute threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The inputs do not fit the signature.
    #[error(transparent)]
    Input(#[from] SignatureError),
    /// An operator refused the tensors that came to it.
    #[error("node `{node}` ({operator}): {source}")]
    Operator {
        /// The operator.
        operator: String,
        /// The node.
        node: String,
        /// Why.
        source: OpError,
    },
    /// A defect in the engine or in a kernel below it.
    #[error("internal error at node `{node}`: {message}")]
    Internal {
        /// The node that ran, where it is known.
        node: String,
        /// The panic's message.
        message: String,
    },
}

/// Why an operator refused its tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// An input that the operator needs.
    #[error("input {index} is missing")]
    MissingInput {
        /// Its position.
        index: usize,
    },
    /// An element type that the operator does not take, or not in this combination.
    #[error("expected {expected}, found {found}")]
    DType {
        /// What it takes.
        expected: String,
        /// What came.
        found: DType,
    },
    /// Shapes that do not fit each other or the attributes.
    #[error("{0}")]
    Shape(String),
    /// An axis outside the tensor's rank.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis.
        axis: i64,
        /// The rank.
        rank: usize,
    },
    /// An index outside a dimension.
    #[error("index {index} is outside a dimension of size {size}")]
    Index {
        /// The index.
        index: i64,
        /// The dimension's size.
        size: usize,
    },
    /// An integer divided by zero.
    #[error("division of an integer by zero")]
    DivisionByZero,
    /// A tensor larger than this engine makes.
    #[error("a {dtype} tensor of shape {shape:?} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The element type.
        dtype: DType,
        /// The shape.
        shape: Vec<usize>,
        /// The largest tensor in bytes.
        limit: usize,
    },
    /// A value that the operator does not take.
    #[error("{0}")]
    Value(String),
}
