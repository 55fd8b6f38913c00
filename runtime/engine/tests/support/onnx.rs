//! Writes ONNX files for tests: the few messages and fields that they need.
//!
//! Field numbers are those of `onnx.proto`.

#![allow(dead_code, reason = "each test binary uses a part")]

use firebox_engine::{DType, Tensor};

/// A protobuf message as it is written.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A text that is left out where it is empty.
    fn name(self, field: u64, text: &str) -> Self {
        match text {
            "" => self,
            text => self.bytes(field, text.as_bytes()),
        }
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }
}

pub enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
    Tensor(Tensor),
    Graph(Graph),
    SparseTensor(Message),
}

impl Attribute {
    fn message(&self, name: &str) -> Message {
        let m = Message::default().bytes(1, name.as_bytes());
        match self {
            Self::Float(value) => m.float(2, *value).int(20, 1),
            Self::Int(value) => m.int(3, *value).int(20, 2),
            Self::Text(value) => m.bytes(4, value.as_bytes()).int(20, 3),
            Self::Tensor(value) => m.bytes(5, &tensor("", value).0).int(20, 4),
            Self::Graph(value) => m.bytes(6, &value.message().0).int(20, 5),
            Self::SparseTensor(value) => m.bytes(22, &value.0).int(20, 11),
            Self::Floats(values) => values.iter().fold(m, |m, v| m.float(7, *v)).int(20, 6),
            Self::Ints(values) => values.iter().fold(m, |m, v| m.int(8, *v)).int(20, 7),
            Self::Texts(values) => values
                .iter()
                .fold(m, |m, v| m.bytes(9, v.as_bytes()))
                .int(20, 8),
        }
    }
}

fn type_number(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bytes => 8,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        other => panic!("no test writes {other}"),
    }
}

pub fn tensor(name: &str, tensor: &Tensor) -> Message {
    let dims = tensor
        .shape()
        .iter()
        .fold(Message::default(), |m, &d| m.int(1, d as i64));
    let named = dims
        .int(2, type_number(tensor.dtype()))
        .bytes(8, name.as_bytes());
    match tensor.dtype() {
        DType::Bytes => tensor
            .blobs()
            .iter()
            .fold(named, |m, text| m.bytes(6, text)),
        _ => named.bytes(9, tensor.data()),
    }
}

/// A graph under construction; nodes, inputs and so on in the order that they are added.
#[derive(Clone, Default)]
pub struct Graph(Message);

impl Graph {
    fn value(self, field: u64, name: &str, dtype: DType, shape: Option<&[i64]>) -> Self {
        let mut kind = Message::default().int(1, type_number(dtype));
        if let Some(shape) = shape {
            let dim = |m: Message, &size: &i64| m.bytes(1, &Message::default().int(1, size).0);
            kind = kind.bytes(2, &shape.iter().fold(Message::default(), dim).0);
        }
        let kind = Message::default().bytes(1, &kind.0);
        let info = Message::default()
            .bytes(1, name.as_bytes())
            .bytes(2, &kind.0);
        Self(self.0.bytes(field, &info.0))
    }

    pub fn input(self, name: &str, dtype: DType, shape: &[i64]) -> Self {
        self.value(11, name, dtype, Some(shape))
    }

    /// An input whose rank is open.
    pub fn open_input(self, name: &str, dtype: DType) -> Self {
        self.value(11, name, dtype, None)
    }

    pub fn output(self, name: &str, dtype: DType) -> Self {
        self.value(12, name, dtype, None)
    }

    /// An output that is a sequence of maps from strings to f32.
    pub fn output_of_maps(self, name: &str) -> Self {
        let number = Message::default().int(1, type_number(DType::F32));
        let number = Message::default().bytes(1, &number.0);
        let map = Message::default().int(1, 8).bytes(2, &number.0);
        let map = Message::default().bytes(5, &map.0);
        let maps = Message::default().bytes(1, &map.0);
        let kind = Message::default().bytes(4, &maps.0);
        let info = Message::default()
            .bytes(1, name.as_bytes())
            .bytes(2, &kind.0);
        Self(self.0.bytes(12, &info.0))
    }

    pub fn weights(self, name: &str, value: &Tensor) -> Self {
        self.raw_weights(&tensor(name, value))
    }

    pub fn raw_weights(self, message: &Message) -> Self {
        Self(self.0.bytes(5, &message.0))
    }

    pub fn sparse_weights(self, message: &Message) -> Self {
        Self(self.0.bytes(15, &message.0))
    }

    pub fn node(
        self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        self.node_of("", operator, inputs, outputs, attributes)
    }

    /// A node with an operator of any domain.
    pub fn node_of(
        self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let node = inputs
            .iter()
            .fold(Message::default(), |m, name| m.bytes(1, name.as_bytes()));
        let node = outputs
            .iter()
            .fold(node, |m, name| m.bytes(2, name.as_bytes()));
        let node = node.bytes(4, operator.as_bytes());
        let node = node.name(7, domain);
        let attribute =
            |m: Message, (name, value): &(&str, Attribute)| m.bytes(5, &value.message(name).0);
        Self(self.0.bytes(1, &attributes.iter().fold(node, attribute).0))
    }

    fn message(&self) -> &Message {
        &self.0
    }

    /// The model as a file's bytes.
    pub fn model(&self, opset: i64) -> bytes::Bytes {
        self.model_of(&[("", opset)])
    }

    /// The same with the versions of several domains.
    pub fn model_of(&self, opsets: &[(&str, i64)]) -> bytes::Bytes {
        let model = Message::default().int(1, 8).bytes(7, &self.0.0);
        let import = |m: Message, (domain, version): &(&str, i64)| {
            let set = Message::default().name(1, domain);
            m.bytes(8, &set.int(2, *version).0)
        };
        opsets.iter().fold(model, import).0.into()
    }
}
