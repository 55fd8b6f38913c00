//! Operators that a model defines itself: each call is replaced by the nodes of the body.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Lowering, domain};
use crate::error::LoadError;
use crate::graph::Node;
use crate::onnx::proto::{AttributeProto, FunctionProto, NodeProto};

/// Calls inside calls, at most.
const MAX_CALLS: usize = 32;

/// Nodes that calls may come to, for a model whose functions call each other twice and again.
const MAX_VALUES: usize = 1 << 22;

/// By domain, name and overload.
pub(super) type Functions = HashMap<(String, String, String), Arc<FunctionProto>>;

pub(super) fn by_name(functions: Vec<FunctionProto>) -> Functions {
    let named = functions.into_iter().map(|function| {
        let key = (
            domain(&function.domain),
            function.name.clone(),
            function.overload.clone(),
        );
        (key, Arc::new(function))
    });
    named.collect()
}

impl Lowering<'_> {
    /// The function that a node calls, if it calls one.
    pub(super) fn function(&self, node: &NodeProto) -> Option<Arc<FunctionProto>> {
        if self.functions.is_empty() {
            return None;
        }
        let key = (
            domain(&node.domain),
            node.op_type.clone(),
            node.overload.clone(),
        );
        self.functions.get(&key).cloned()
    }

    /// The nodes that a call stands for. A body sees its own inputs only.
    pub(super) fn call(
        &mut self,
        function: &FunctionProto,
        node: NodeProto,
    ) -> Result<Vec<Arc<Node>>, LoadError> {
        let wrong = |reason: &str| LoadError::Node {
            operator: node.op_type.clone(),
            node: node.name.clone(),
            reason: reason.into(),
        };
        if self.calls == MAX_CALLS || self.program.names.len() > MAX_VALUES {
            return Err(wrong("functions call each other without an end"));
        }
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(wrong("it has more inputs or outputs than its function"));
        }
        let mut inside = HashMap::new();
        let mut missing = HashSet::new();
        for (at, name) in function.input.iter().enumerate() {
            match node.input.get(at).filter(|given| !given.is_empty()) {
                Some(given) => {
                    inside.insert(name.clone(), self.resolve(&node.name, given)?);
                }
                None => {
                    missing.insert(name.as_str());
                }
            }
        }
        let mut body = function.node.clone();
        for inner in &mut body {
            for input in &mut inner.input {
                if missing.contains(input.as_str()) {
                    input.clear();
                }
            }
            bind(
                &mut inner.attribute,
                &node.attribute,
                &function.attribute_proto,
            );
        }
        let opsets = function.opset_import.iter();
        let opsets: HashMap<_, _> = opsets
            .map(|set| (domain(&set.domain), set.version.unwrap_or(1)))
            .collect();
        let made = body.iter().flat_map(|inner| inner.output.iter().cloned());
        let later = made.collect();

        let scopes = std::mem::replace(&mut self.scopes, vec![inside]);
        let outer_later = std::mem::replace(&mut self.later, vec![later]);
        let outer_opsets = std::mem::replace(&mut self.opsets, opsets);
        self.calls += 1;
        let nodes = self.nodes(body);
        let outputs = node.output.iter().zip(&function.output);
        let outputs = outputs.filter(|(outer, _)| !outer.is_empty());
        let outputs: Result<Vec<_>, _> = outputs
            .map(|(outer, inner)| Ok((outer, self.resolve(&node.name, inner)?)))
            .collect();
        self.calls -= 1;
        self.opsets = outer_opsets;
        self.later = outer_later;
        self.scopes = scopes;

        for (name, id) in outputs? {
            self.alias(name, id)?;
        }
        nodes
    }
}

/// Gives the nodes of a body the attributes of the call, or their defaults.
fn bind(inner: &mut Vec<AttributeProto>, call: &[AttributeProto], defaults: &[AttributeProto]) {
    inner.retain_mut(|attribute| {
        if let Some(graph) = &mut attribute.g {
            for node in &mut graph.node {
                bind(&mut node.attribute, call, defaults);
            }
        }
        if attribute.ref_attr_name.is_empty() {
            return true;
        }
        let all = call.iter().chain(defaults);
        let given = all.into_iter().find(|a| a.name == attribute.ref_attr_name);
        match given {
            Some(given) => {
                let name = std::mem::take(&mut attribute.name);
                *attribute = given.clone();
                attribute.name = name;
                true
            }
            None => false,
        }
    });
}
