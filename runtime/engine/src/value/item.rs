//! What stands where a node's inputs and outputs are: a tensor, several, or nothing.

use std::sync::Arc;

use super::Value;
use crate::error::OpError;

/// What flows from node to node.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Tensor(Value),
    Sequence(Arc<Vec<Value>>),
    /// An optional that holds nothing.
    Nothing,
}

impl Item {
    /// The tensor, or an error that says what came instead.
    pub fn tensor(self) -> Result<Value, OpError> {
        let found = match self {
            Self::Tensor(value) => return Ok(value),
            Self::Sequence(_) => "a sequence",
            Self::Nothing => "an optional without an element",
        };
        Err(OpError::Value(format!("expected a tensor, found {found}")))
    }

    /// The sequence's tensors, or an error that says what came instead.
    pub fn sequence(self) -> Result<Vec<Value>, OpError> {
        let found = match self {
            Self::Sequence(values) => return Ok(Arc::unwrap_or_clone(values)),
            Self::Tensor(_) => "a tensor",
            Self::Nothing => "an optional without an element",
        };
        Err(OpError::Value(format!(
            "expected a sequence, found {found}"
        )))
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Tensor(value) => value.bytes(),
            Self::Sequence(values) => values.iter().map(Value::bytes).sum(),
            Self::Nothing => 0,
        }
    }
}

impl From<Value> for Item {
    fn from(value: Value) -> Self {
        Self::Tensor(value)
    }
}

impl From<Vec<Value>> for Item {
    fn from(values: Vec<Value>) -> Self {
        Self::Sequence(Arc::new(values))
    }
}
