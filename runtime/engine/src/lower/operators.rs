//! From an operator's name and attributes to an [`Op`], for all operator sets that differ.

mod contrib;
mod einsum;
mod elementwise;
mod image;
mod index;
mod language;
mod ml;
mod norm;
mod quantize;
mod reduce;
mod rnn;
mod sequence;
mod shape;
mod signal;
mod text;
mod trees;
mod window;

use super::attributes::Attributes;
use crate::error::LoadError;
use crate::graph::*;
use crate::onnx;
use crate::tensor::{DType, Tensor};
use crate::value::Value;

/// What is wrong with a node, or with something inside it.
pub(super) enum ParseError {
    Here(String),
    Inside(LoadError),
}

impl ParseError {
    /// As an error of the node, which `here` names.
    pub fn at(self, here: impl FnOnce(String) -> LoadError) -> LoadError {
        match self {
            Self::Here(reason) => here(reason),
            Self::Inside(error) => error,
        }
    }
}

impl From<String> for ParseError {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

impl From<&str> for ParseError {
    fn from(reason: &str) -> Self {
        Self::Here(reason.into())
    }
}

impl From<LoadError> for ParseError {
    fn from(error: LoadError) -> Self {
        Self::Inside(error)
    }
}

/// What a parser needs beside the attributes.
pub(super) struct Context<'a> {
    pub program: &'a mut Program,
    pub node: &'a str,
    pub inputs: &'a mut Vec<Option<ValueId>>,
    pub outputs: usize,
    /// Which outputs something may read.
    pub wanted: Vec<bool>,
    pub opset: i64,
}

impl Context<'_> {
    /// Gives what an older operator set has as an attribute as input `index`.
    fn as_input(&mut self, index: usize, tensor: Tensor) -> Result<(), ParseError> {
        let name = format!("{} input {index}", self.node);
        let value =
            Value::upload(tensor, &crate::device::cpu()).map_err(|error| error.to_string())?;
        let id = self.program.add_constant(&name, value);
        if self.inputs.len() <= index {
            self.inputs.resize(index + 1, None);
        }
        if let Some(slot) = self.inputs.get_mut(index) {
            *slot = Some(id);
        }
        Ok(())
    }

    fn ints_as_input(&mut self, index: usize, values: Option<Vec<i64>>) -> Result<(), ParseError> {
        let Some(values) = values else { return Ok(()) };
        let tensor = Tensor::from_i64(vec![values.len()], &values);
        self.as_input(index, tensor.map_err(|error| error.to_string())?)
    }

    fn floats_as_input(
        &mut self,
        index: usize,
        values: Option<Vec<f32>>,
    ) -> Result<(), ParseError> {
        let Some(values) = values else { return Ok(()) };
        let tensor = Tensor::from_f32(vec![values.len()], &values);
        self.as_input(index, tensor.map_err(|error| error.to_string())?)
    }

    fn float_as_input(&mut self, index: usize, value: Option<f32>) -> Result<(), ParseError> {
        let Some(value) = value else { return Ok(()) };
        self.as_input(
            index,
            Tensor::from_f32(vec![], &[value]).map_err(|error| error.to_string())?,
        )
    }
}

/// How many outputs an operator makes; `None` for as many as the node has.
pub(super) fn output_count(op: &Op) -> Option<usize> {
    match op {
        Op::Split { .. } => None,
        control if control.is_control() => None,
        Op::TopK { .. } | Op::Dropout { .. } => Some(2),
        Op::MaxPool { .. } => Some(2),
        Op::Unique { .. } => Some(4),
        Op::Quantized(Quantized::DynamicQuantize) => Some(3),
        Op::Contrib(kind) => Some(contrib::output_count(kind)),
        Op::LayerNorm { statistics, .. } => Some(if *statistics { 3 } else { 1 }),
        Op::BatchNormTraining { .. } => Some(5),
        Op::Attention(_) => Some(4),
        Op::LinearAttention(_) | Op::CausalConv { .. } | Op::Loss(_) => Some(2),
        Op::Text(Text::Split { .. }) => Some(2),
        Op::Ml(Ml::TreeClassifier(..) | Ml::LinearClassifier(..) | Ml::SvmClassifier(..)) => {
            Some(2)
        }
        Op::Recurrent(layer) => Some(if matches!(layer.cell, Cell::Lstm { .. }) {
            3
        } else {
            2
        }),
        _ => Some(1),
    }
}

/// The tensor of a `Constant` node.
pub(super) fn constant(attributes: &mut Attributes, node: &str) -> Result<Tensor, ParseError> {
    if let Some(proto) = attributes.tensor("value")? {
        return Ok(onnx::tensor(proto, node)?);
    }
    if let Some(proto) = attributes.sparse_tensor("sparse_value")? {
        return Ok(onnx::sparse(proto, node)?);
    }
    let made = if attributes.has("value_float") {
        Tensor::from_f32(vec![], &[attributes.float_or("value_float", 0.0)?])
    } else if attributes.has("value_int") {
        Tensor::from_i64(vec![], &[attributes.int_or("value_int", 0)?])
    } else if let Some(values) = attributes.floats("value_floats")? {
        Tensor::from_f32(vec![values.len()], &values)
    } else if let Some(values) = attributes.ints("value_ints")? {
        Tensor::from_i64(vec![values.len()], &values)
    } else {
        return Err("it holds no numbers (strings are not supported)".into());
    };
    made.map_err(|error| error.to_string().into())
}

/// The element type that an attribute names.
fn dtype(a: &mut Attributes, name: &str, context: &Context) -> Result<Option<DType>, ParseError> {
    let Some(number) = a.int(name)? else {
        return Ok(None);
    };
    let number = i32::try_from(number).unwrap_or(0);
    Ok(Some(onnx::dtype(number, context.node)?))
}

/// A family's parser: the operator, or nothing where it is of another family.
type Parser = fn(&str, &mut Attributes, &mut Context) -> Result<Option<Op>, ParseError>;

const FAMILIES: &[Parser] = &[
    elementwise::parse,
    shape::parse,
    window::parse,
    reduce::parse,
    index::parse,
    norm::parse,
    quantize::parse,
    rnn::parse,
    sequence::parse,
    image::parse,
    signal::parse,
    language::parse,
    text::parse,
];

/// The parsers of each domain; the first is ONNX's own.
const DOMAINS: &[(&str, &[Parser])] = &[
    ("", FAMILIES),
    ("ai.onnx.ml", &[ml::parse]),
    (contrib::DOMAIN, &[contrib::parse]),
];

/// The operator, or nothing where it is not supported.
pub(super) fn parse(
    domain: &str,
    operator: &str,
    a: &mut Attributes,
    context: &mut Context,
) -> Result<Option<Op>, ParseError> {
    let families = DOMAINS.iter().filter(|(name, _)| *name == domain);
    for parse in families.flat_map(|(_, families)| *families) {
        if let Some(op) = parse(operator, a, context)? {
            return Ok(Some(op));
        }
    }
    Ok(None)
}
