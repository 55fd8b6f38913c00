//! The wire format: bytes to protobuf messages to host tensors.
//!
//! Three steps. The framing is walked first, so that lengths lie inside their message, and
//! nesting and the number of messages are bounded before anything is allocated; then `prost`
//! decodes; then stored tensors are checked against their shapes as they are taken out.

pub(crate) mod external;
pub(crate) mod proto;

use bytes::Bytes;
use prost::Message as _;

use crate::error::LoadError;
use crate::tensor::{DType, Narrow, Tensor};
use crate::value::check_size;
use proto::{ModelProto, SparseTensorProto, TensorProto};

/// Messages inside messages, at most. An `If` inside an `If` is three deeper.
const MAX_DEPTH: usize = 150;

/// Messages in a file, at most: each takes some hundred bytes of memory, however few it has in
/// the file.
const MAX_MESSAGES: usize = 1 << 22;

/// Decodes a model, whose stored tensors are slices of `bytes`.
pub(crate) fn decode(bytes: Bytes) -> Result<ModelProto, LoadError> {
    let not_onnx = |reason: String| LoadError::NotOnnx { reason };
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    let mut messages = MAX_MESSAGES;
    check_framing(&bytes, 0, Message::Model, 0, &mut messages).map_err(not_onnx)?;
    let model = ModelProto::decode(bytes).map_err(|error| not_onnx(error.to_string()))?;
    if model.graph.is_none() {
        return Err(LoadError::NoGraph);
    }
    Ok(model)
}

/// The messages that hold others.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    Sequence,
    Shape,
    Leaf,
}

/// Which message a field holds, by the field numbers of `onnx.proto`.
fn child(message: Message, field: u64) -> Option<Message> {
    Some(match (message, field) {
        (Message::Model, 7) => Message::Graph,
        (Message::Model, 8 | 14) => Message::Leaf,
        (Message::Model, 25) => Message::Function,
        (Message::Function, 7) => Message::Node,
        (Message::Function, 9) => Message::Leaf,
        (Message::Function, 11) => Message::Attribute,
        (Message::Graph, 1) => Message::Node,
        (Message::Graph, 5) => Message::Tensor,
        (Message::Graph, 11..=13) => Message::ValueInfo,
        (Message::Node, 5) => Message::Attribute,
        (Message::Attribute, 5) => Message::Tensor,
        (Message::Attribute, 6) => Message::Graph,
        (Message::Attribute, 22) | (Message::Graph, 15) => Message::SparseTensor,
        (Message::SparseTensor, 1 | 2) => Message::Tensor,
        (Message::Tensor, 13) => Message::Leaf,
        (Message::ValueInfo, 2) => Message::Type,
        (Message::Type, 1) => Message::TensorType,
        (Message::Type, 4) => Message::Sequence,
        (Message::Sequence, 1) => Message::Type,
        (Message::TensorType, 2) => Message::Shape,
        (Message::Shape, 1) => Message::Leaf,
        _ => return None,
    })
}

/// Whether every field of `bytes`, which stand at `offset` in the file, lies within it.
fn check_framing(
    bytes: &[u8],
    offset: usize,
    message: Message,
    depth: usize,
    messages: &mut usize,
) -> Result<(), String> {
    *messages = messages
        .checked_sub(1)
        .ok_or_else(|| format!("more than {MAX_MESSAGES} messages at byte {offset}"))?;
    if depth > MAX_DEPTH {
        return Err(format!(
            "messages are nested deeper than {MAX_DEPTH} at byte {offset}"
        ));
    }
    let mut rest = bytes;
    let at = |rest: &[u8]| offset + bytes.len() - rest.len();
    while !rest.is_empty() {
        let start = at(rest);
        let tag = varint(&mut rest).ok_or_else(|| format!("broken field at byte {start}"))?;
        if tag >> 3 == 0 {
            return Err(format!("field number 0 at byte {start}"));
        }
        let length = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut rest),
            5 => Some(4),
            kind => return Err(format!("unknown wire type {kind} at byte {start}")),
        };
        let cut = || format!("the field at byte {start} reaches beyond its end: truncated?");
        let length = length
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(cut)?;
        let inside = at(rest);
        let (field, after) = rest.split_at_checked(length).ok_or_else(cut)?;
        if let (2, Some(inner)) = (tag & 7, child(message, tag >> 3)) {
            check_framing(field, inside, inner, depth + 1, messages)?;
        }
        rest = after;
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The element type of a tensor, by its number.
pub(crate) fn dtype(number: i32, name: &str) -> Result<DType, LoadError> {
    Ok(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::Bytes,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::Narrow(Narrow::F8E4M3Fn),
        18 => DType::Narrow(Narrow::F8E4M3FnUz),
        19 => DType::Narrow(Narrow::F8E5M2),
        20 => DType::Narrow(Narrow::F8E5M2FnUz),
        21 => DType::Narrow(Narrow::U4),
        22 => DType::Narrow(Narrow::I4),
        23 => DType::Narrow(Narrow::F4E2M1),
        24 => DType::Narrow(Narrow::F8E8M0),
        25 => DType::Narrow(Narrow::U2),
        26 => DType::Narrow(Narrow::I2),
        number => {
            return Err(LoadError::UnsupportedType {
                name: name.into(),
                found: type_name(number),
            });
        }
    })
}

/// ONNX's name of an element type.
fn type_name(number: i32) -> String {
    match number {
        0 => "undefined".into(),
        14 => "complex64".into(),
        15 => "complex128".into(),
        number => format!("number {number}"),
    }
}

/// A stored tensor, checked against its shape. Its bytes are shared with the file where they
/// stand there as they are.
pub(crate) fn tensor(proto: &TensorProto, name: &str) -> Result<Tensor, LoadError> {
    let wrong = |reason: String| LoadError::Weights {
        name: name.to_owned(),
        reason,
    };
    if proto.data_location == EXTERNAL {
        let reason = "its bytes lie in another file, which a model loaded from memory doesn't have";
        return Err(wrong(reason.into()));
    }
    let dtype = dtype(proto.data_type, name)?;
    let shape = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| wrong(format!("a dimension is {d}"))))
        .collect::<Result<Vec<_>, _>>()?;
    if dtype == DType::Bytes {
        let made = Tensor::from_blobs(shape, &proto.string_data);
        return made.map_err(|error| wrong(error.to_string()));
    }
    let mut bytes = match &proto.raw_data {
        Some(raw) => raw.clone(),
        None => typed_bytes(proto, dtype).into(),
    };
    if let DType::Narrow(narrow) = dtype
        && narrow.bits() < 8
    {
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.ok_or_else(|| wrong(format!("shape {shape:?} overflows")))?;
        bytes = narrow.unpack(&bytes, count).into();
    }
    Tensor::new(dtype, shape, bytes).map_err(|error| wrong(error.to_string()))
}

/// A tensor that is stored as its elements other than zero, with all of its elements.
pub(crate) fn sparse(proto: &SparseTensorProto, name: &str) -> Result<Tensor, LoadError> {
    let wrong = |reason: String| LoadError::Weights {
        name: name.to_owned(),
        reason,
    };
    let part = |part: &Option<TensorProto>, what: &str| match part {
        Some(part) => tensor(part, name),
        None => Err(wrong(format!("a sparse tensor without {what}"))),
    };
    let values = part(&proto.values, "values")?;
    let indices = part(&proto.indices, "indices")?;
    let (dtype, _, bytes) = values.into_parts();
    let sizes = proto.dims.iter().map(|&size| usize::try_from(size).ok());
    let shape: Option<Vec<_>> = sizes.collect();
    let shape = shape.ok_or_else(|| wrong(format!("its shape is {:?}", proto.dims)))?;
    check_size(dtype, &shape).map_err(|error| wrong(error.to_string()))?;
    let size = dtype
        .size()
        .ok_or_else(|| wrong("a sparse tensor of strings".into()))?;
    // One number counts through the whole tensor; several stand for its axes.
    let per_element = match indices.shape() {
        [_] => 1,
        [_, rank] if *rank == shape.len() => *rank,
        found => return Err(wrong(format!("indices {found:?} for a tensor {shape:?}"))),
    };
    let count: usize = shape.iter().product();
    let place = |index: &[i64]| -> Option<usize> {
        let within = |index: i64, size: usize| usize::try_from(index).ok().filter(|&i| i < size);
        match index {
            [one] if per_element == 1 && indices.shape().len() == 1 => within(*one, count),
            several => several
                .iter()
                .zip(&shape)
                .try_fold(0, |at, (&index, &size)| {
                    Some(at * size + within(index, size)?)
                }),
        }
    };
    let numbers = indices
        .to_i64()
        .ok_or_else(|| wrong(format!("indices of type {}, expected i64", indices.dtype())))?;
    let elements = bytes.len() / size;
    if numbers.len() != elements * per_element {
        let found = numbers.len();
        return Err(wrong(format!(
            "{found} index numbers for {elements} values"
        )));
    }
    let mut dense = vec![0u8; count * size];
    let indices = numbers.chunks_exact(per_element.max(1));
    for (index, value) in indices.zip(bytes.chunks_exact(size)) {
        let to = place(index).and_then(|at| dense.get_mut(at * size..(at + 1) * size));
        let to = to.ok_or_else(|| wrong(format!("index {index:?} is outside {shape:?}")))?;
        to.copy_from_slice(value);
    }
    Tensor::new(dtype, shape, dense).map_err(|error| wrong(error.to_string()))
}

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// The bytes of a tensor that is stored as a list of numbers.
fn typed_bytes(proto: &TensorProto, dtype: DType) -> Vec<u8> {
    fn wide<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&value| bytes(value)).collect()
    }
    let narrow = |width: usize| {
        let low = |v: &i32| v.to_le_bytes().into_iter().take(width);
        proto.int32_data.iter().flat_map(low).collect()
    };
    match dtype {
        DType::F32 => wide(&proto.float_data, f32::to_le_bytes),
        DType::F64 => wide(&proto.double_data, f64::to_le_bytes),
        DType::I64 => wide(&proto.int64_data, i64::to_le_bytes),
        DType::U64 => wide(&proto.uint64_data, u64::to_le_bytes),
        DType::U32 => wide(&proto.uint64_data, |v| (v as u32).to_le_bytes()),
        DType::Bool | DType::U8 | DType::I8 | DType::Narrow(_) => narrow(1),
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => narrow(2),
        DType::I32 => narrow(4),
        DType::Bytes => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> String {
        decode(bytes.to_vec().into()).err().unwrap().to_string()
    }

    #[test]
    fn what_is_not_protobuf_is_said_with_its_place() {
        assert_eq!(said(b""), "not an ONNX model: the file is empty");
        assert_eq!(
            said(&[0x3f]),
            "not an ONNX model: unknown wire type 7 at byte 0"
        );
        assert!(said(b"PK\x03\x04 a zip file").starts_with("not an ONNX model: "));
    }

    #[test]
    fn a_length_beyond_the_end_is_a_truncation() {
        // Field 7, the graph, of 100 bytes, of which 2 are there.
        let error = said(&[0x3a, 100, 0x0a, 0x00]);
        assert!(
            error.contains("at byte 0 reaches beyond its end: truncated?"),
            "{error}"
        );
        // A graph whose length overflows any addition.
        let mut huge = vec![0x3a];
        huge.extend([0xff; 9]);
        huge.push(0x01);
        assert!(said(&huge).contains("truncated?"));
    }

    #[test]
    fn a_model_without_a_graph_is_refused() {
        assert_eq!(said(&[0x08, 0x08]), "not an ONNX model: it has no graph");
    }

    #[test]
    fn endless_nesting_is_refused_before_the_stack_ends() {
        let mut bytes = Vec::new();
        for _ in 0..2000 {
            for tag in [0x32, 0x2a, 0x0a] {
                // attribute.g, node.attribute, graph.node: from the inside out
                let mut outer = vec![tag];
                let mut length = bytes.len();
                while length > 0x7f {
                    outer.push((length & 0x7f) as u8 | 0x80);
                    length >>= 7;
                }
                outer.push(length as u8);
                outer.extend(&bytes);
                bytes = outer;
            }
        }
        let mut model = vec![0x3a];
        let mut length = bytes.len();
        while length > 0x7f {
            model.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        model.push(length as u8);
        model.extend(&bytes);
        assert!(said(&model).contains("nested deeper"));
    }
}
