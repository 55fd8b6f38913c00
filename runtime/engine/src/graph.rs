//! Our own form of a model: blocks of nodes, each with one typed operator.
//!
//! Every value of a model, those in the bodies of `If` nodes included, has one number, so a
//! body reads the values around it like any other and an environment is one flat list.
//! Attributes are parsed and checked when a node is made; what older operator sets gave as
//! attributes and newer ones give as inputs (`axes`, `pads`, `k`…) is always an input here.

mod contrib;
mod einsum;
mod elementwise;
mod image;
mod language;
mod ml;
mod op;
mod place;
mod quantized;
mod recurrent;
mod sequence;
mod signal;
mod text;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::value::Value;

pub(crate) use contrib::*;
pub(crate) use einsum::*;
pub(crate) use elementwise::*;
pub(crate) use image::*;
pub(crate) use language::*;
pub(crate) use ml::*;
pub(crate) use op::*;
pub(crate) use quantized::*;
pub(crate) use recurrent::*;
pub(crate) use sequence::*;
pub(crate) use signal::*;
pub(crate) use text::*;
pub(crate) use window::*;

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

    /// Bytes of all constants, those inside operators included; shared ones count once.
    pub fn weight_bytes(&self) -> usize {
        let mut laid_out = BTreeMap::new();
        self.root.laid_out(&mut laid_out);
        let constants = self.constants.iter().flatten();
        laid_out.values().sum::<usize>() + constants.map(Value::bytes).sum::<usize>()
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
    /// Where all weights that are laid out lie, inside control flow too, and their bytes.
    fn laid_out(&self, found: &mut BTreeMap<usize, usize>) {
        for node in &self.nodes {
            match &node.op {
                Op::Packed { weights, .. } => {
                    found.insert(Arc::as_ptr(weights).addr(), weights.bytes());
                }
                Op::PackedInt8 { weights, .. } => {
                    found.insert(Arc::as_ptr(weights).addr(), weights.bytes());
                }
                Op::Lstm { weights, .. } => {
                    found.insert(Arc::as_ptr(weights).addr(), weights.bytes());
                }
                Op::Filter { filters, .. } => {
                    found.insert(Arc::as_ptr(filters).addr(), filters.bytes());
                }
                op => op.blocks().iter().for_each(|block| block.laid_out(found)),
            }
        }
    }

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
