//! From protobuf messages to a [`Program`]: names become numbers, attributes become types.
//!
//! Names are resolved from the inside out, as ONNX scopes them: the body of an `If` sees the
//! values that were made before it. Everything that can be refused without input tensors is
//! refused here.

mod attributes;
mod control;
mod functions;
mod operators;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::LoadError;
use crate::graph::{Block, Node, Program, ValueId};
use crate::kernels::Numbers;
use crate::onnx;
use crate::onnx::proto::{
    DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::signature::{Dim, Signature, TensorSpec};
use crate::tensor::Tensor;
use crate::value::Value;
use attributes::Attributes;

/// Bytes of weights after whose copying pages of the file are given back.
const PIECE: usize = 4 << 20;

/// Lowers a decoded model, its weights on the host, and says what it takes and gives. Calls
/// `copied` each time that much was copied out of the file.
pub(crate) fn lower(
    mut model: ModelProto,
    copied: &dyn Fn(),
) -> Result<(Program, Signature), LoadError> {
    let mut graph = model.graph.take().ok_or(LoadError::NoGraph)?;
    let sparse = graph.sparse_initializer.iter().map(sparse_name);
    let stored = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let stored: HashSet<_> = stored.chain(sparse).map(str::to_owned).collect();
    // Before IR version 4 every stored tensor had to be an input too.
    graph.input.retain(|input| !stored.contains(&input.name));
    tensors_for_maps(&mut graph);
    let specs = |infos: &[ValueInfoProto]| infos.iter().map(spec).collect::<Result<Vec<_>, _>>();
    let signature = Signature {
        inputs: specs(&graph.input)?,
        outputs: specs(&graph.output)?,
    };

    let opsets = model
        .opset_import
        .iter()
        .map(|set| (domain(&set.domain), set.version.unwrap_or(1)))
        .collect();
    let mut lowering = Lowering {
        program: Program::default(),
        copied,
        since: Cell::new(0),
        opsets,
        functions: functions::by_name(model.functions),
        calls: 0,
        scopes: Vec::new(),
        later: Vec::new(),
    };
    lowering.scopes.push(HashMap::new());
    for input in &signature.inputs {
        let id = lowering.define(&input.name)?;
        lowering.program.inputs.push(id);
    }
    lowering.program.root = lowering.block(graph)?;
    Ok((lowering.program, signature))
}

/// Declares what `ZipMap` makes as the f32 tensor that it makes here: what would be a map from
/// labels to probabilities for each row stays a row of probabilities.
fn tensors_for_maps(graph: &mut GraphProto) {
    let maps: HashSet<_> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "ZipMap" && node.domain == "ai.onnx.ml")
        .flat_map(|node| &node.output)
        .collect();
    for output in graph
        .output
        .iter_mut()
        .filter(|info| maps.contains(&info.name))
    {
        output.r#type = Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: 1,
                shape: None,
            }),
        });
    }
}

/// ONNX's own domain has two names.
fn domain(name: &str) -> String {
    match name {
        "ai.onnx" => String::new(),
        other => other.to_owned(),
    }
}

/// A sparse tensor has the name of its values.
fn sparse_name(sparse: &SparseTensorProto) -> &str {
    sparse.values.as_ref().map_or("", |values| &values.name)
}

/// What a graph declares of an input or output.
fn spec(info: &ValueInfoProto) -> Result<TensorSpec, LoadError> {
    let name = info.name.clone();
    let tensor = info
        .r#type
        .as_ref()
        .and_then(|found| found.tensor_type.as_ref());
    let Some(tensor) = tensor else {
        let found = "no tensor (a sequence, map or optional)".into();
        return Err(LoadError::UnsupportedType { name, found });
    };
    let dtype = onnx::dtype(tensor.elem_type, &name)?;
    // Exporters write 0, -1 or "?" where they know nothing.
    let dim = |dim: &DimensionProto| match &dim.value {
        Some(DimensionValue::Name(name)) if !name.is_empty() && name != "?" => {
            Dim::Named(name.clone())
        }
        Some(DimensionValue::Size(size)) if *size > 0 => Dim::Fixed(*size as usize),
        _ => Dim::Any,
    };
    let shape = tensor
        .shape
        .as_ref()
        .map(|shape| shape.dim.iter().map(dim).collect());
    Ok(TensorSpec { name, dtype, shape })
}

struct Lowering<'a> {
    program: Program,
    copied: &'a dyn Fn(),
    /// Bytes that were copied since `copied` was called.
    since: Cell<usize>,
    /// Version of each imported domain.
    opsets: HashMap<String, i64>,
    /// Operators that the model defines.
    functions: functions::Functions,
    /// How many of them are being lowered, one inside the other.
    calls: usize,
    /// Names that can be read, innermost last.
    scopes: Vec<HashMap<String, ValueId>>,
    /// Names that nodes of each open block make, seen yet or not.
    later: Vec<HashSet<String>>,
}

impl Lowering<'_> {
    /// Lowers a graph in a scope that holds its inputs, and closes the scope.
    fn block(&mut self, graph: GraphProto) -> Result<Block, LoadError> {
        let dense = graph.initializer.iter();
        let dense = dense.map(|stored| (&stored.name[..], onnx::tensor(stored, &stored.name)));
        let sparse = graph.sparse_initializer.iter().map(|stored| {
            let name = sparse_name(stored);
            (name, onnx::sparse(stored, name))
        });
        for (name, tensor) in dense.chain(sparse) {
            let tensor = tensor?;
            let id = self.define(name)?;
            let value = self.upload(name, tensor)?;
            self.program.set_constant(id, value);
        }
        self.later.push(
            graph
                .node
                .iter()
                .flat_map(|node| node.output.iter().cloned())
                .collect(),
        );
        let nodes = self.nodes(graph.node)?;
        let outputs = graph
            .output
            .iter()
            .map(|output| self.resolve("graph outputs", &output.name))
            .collect::<Result<_, _>>()?;
        self.later.pop();
        self.scopes.pop();
        Ok(Block {
            inputs: Vec::new(),
            nodes,
            outputs,
        })
    }

    fn nodes(&mut self, protos: Vec<NodeProto>) -> Result<Vec<Arc<Node>>, LoadError> {
        let mut nodes = Vec::with_capacity(protos.len());
        for proto in protos {
            match self.function(&proto) {
                Some(function) => nodes.extend(self.call(&function, proto)?),
                None => nodes.extend(self.node(proto)?.map(Arc::new)),
            }
        }
        Ok(nodes)
    }

    /// Lowers a node; a constant becomes no node.
    fn node(&mut self, mut proto: NodeProto) -> Result<Option<Node>, LoadError> {
        let operator = std::mem::take(&mut proto.op_type);
        let domain = domain(&proto.domain);
        let mut names = std::iter::once(&proto.name).chain(&proto.output);
        let name = names.find(|name| !name.is_empty());
        let name = name.cloned().unwrap_or_default();
        let mut inputs = proto
            .input
            .iter()
            .map(|input| match input.as_str() {
                "" => Ok(None),
                input => self.resolve(&name, input).map(Some),
            })
            .collect::<Result<Vec<_>, _>>()?;

        let opset = self.opsets.get(&domain).copied().unwrap_or(1);
        let said = if domain.is_empty() {
            operator.clone()
        } else {
            format!("{domain}.{operator}")
        };
        let unsupported = || LoadError::Unsupported {
            operator: said.clone(),
            node: name.clone(),
            opset,
        };
        let wrong = |reason: String| LoadError::Node {
            operator: operator.clone(),
            node: name.clone(),
            reason,
        };

        let mut attributes = Attributes::new(&mut proto.attribute);
        let own = domain.is_empty();
        if own && operator == "Constant" {
            let tensor = operators::constant(&mut attributes, &name).map_err(|e| e.at(wrong))?;
            let [output] = proto.output.as_slice() else {
                return Err(wrong("a constant has one output".into()));
            };
            let id = self.define(output)?;
            let value = self.upload(&name, tensor)?;
            self.program.set_constant(id, value);
            return Ok(None);
        }
        let control = match own {
            true => self.control(&operator, &mut attributes, inputs.len(), proto.output.len()),
            false => Ok(None),
        };
        let op = if let Some(op) = control.map_err(|e| e.at(wrong))? {
            op
        } else {
            let mut context = operators::Context {
                program: &mut self.program,
                node: &name,
                inputs: &mut inputs,
                outputs: proto.output.len(),
                wanted: proto.output.iter().map(|name| !name.is_empty()).collect(),
                opset,
            };
            operators::parse(&domain, &operator, &mut attributes, &mut context)
                .map_err(|e| e.at(wrong))?
                .ok_or_else(unsupported)?
        };
        let outputs = proto
            .output
            .iter()
            .map(|output| match output.as_str() {
                "" => Ok(None),
                output => self.define(output).map(Some),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let made = operators::output_count(&op);
        if made.is_some_and(|made| outputs.iter().skip(made).any(Option::is_some)) {
            return Err(wrong(format!(
                "its outputs beyond {} are not supported",
                outputs.len() - 1
            )));
        }
        Ok(Some(Node {
            name,
            op,
            inputs,
            outputs,
        }))
    }

    fn resolve(&self, reader: &str, name: &str) -> Result<ValueId, LoadError> {
        if let Some(id) = self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            return Ok(*id);
        }
        let (reader, value) = (reader.to_owned(), name.to_owned());
        if self.later.iter().any(|later| later.contains(name)) {
            return Err(LoadError::Order { reader, value });
        }
        Err(LoadError::Missing { reader, value })
    }

    fn define(&mut self, name: &str) -> Result<ValueId, LoadError> {
        let id = self.program.add_value(name);
        self.alias(name, id)?;
        Ok(id)
    }

    /// Gives a value one more name.
    fn alias(&mut self, name: &str, id: ValueId) -> Result<(), LoadError> {
        let scope = self.scopes.last_mut();
        match scope.and_then(|scope| scope.insert(name.to_owned(), id)) {
            None => Ok(()),
            Some(_) => Err(LoadError::Duplicate {
                name: name.to_owned(),
            }),
        }
    }

    fn upload(&self, name: &str, tensor: Tensor) -> Result<Value, LoadError> {
        let wrong = |reason: String| LoadError::Weights {
            name: name.to_owned(),
            reason,
        };
        let (dtype, shape, data) = tensor.into_parts();
        let tensor = Tensor::new(dtype, shape, Bytes::from_owner(self.copy(&data)));
        let tensor = tensor.map_err(|error| wrong(error.to_string()))?;
        Value::share(tensor).map_err(|error| wrong(error.to_string()))
    }

    /// Copies a weight piece by piece, so that file and copy are never both whole in memory.
    fn copy(&self, data: &[u8]) -> Numbers<u8> {
        let mut copy = Numbers::zeros(data.len());
        for (to, piece) in copy.chunks_mut(PIECE).zip(data.chunks(PIECE)) {
            to.copy_from_slice(piece);
            self.since.set(self.since.get() + piece.len());
            if self.since.get() >= PIECE {
                self.since.set(0);
                (self.copied)();
            }
        }
        copy
    }
}
