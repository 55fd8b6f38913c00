//! The wire format: bytes to protobuf messages to host tensors.
//!
//! Three steps. The framing is walked first, so that lengths lie inside their message and
//! nesting is bounded before anything is allocated; then `rten-onnx` decodes; then stored
//! tensors are checked against their shapes as they are taken out.

use rten_onnx::onnx::{DataLocation, DataType, ModelProto, TensorProto};

use crate::error::LoadError;
use crate::tensor::{DType, Tensor};

/// Messages inside messages, at most. An `If` inside an `If` is three deeper.
const MAX_DEPTH: usize = 150;

/// Decodes a model.
pub(crate) fn decode(bytes: &[u8]) -> Result<ModelProto, LoadError> {
    let not_onnx = |reason: String| LoadError::NotOnnx { reason };
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    check_framing(bytes, 0, Message::Model, 0).map_err(not_onnx)?;
    let model = ModelProto::parse_buf(bytes).map_err(|error| LoadError::NotOnnx {
        reason: error.to_string(),
    })?;
    if model.graph.is_none() {
        return Err(LoadError::NoGraph);
    }
    Ok(model)
}

/// The messages that hold others.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
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
        (Message::Graph, 1) => Message::Node,
        (Message::Graph, 5) => Message::Tensor,
        (Message::Graph, 11..=13) => Message::ValueInfo,
        (Message::Node, 5) => Message::Attribute,
        (Message::Attribute, 5) => Message::Tensor,
        (Message::Attribute, 6) => Message::Graph,
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
) -> Result<(), String> {
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
            check_framing(field, inside, inner, depth + 1)?;
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

/// The element type of a tensor.
pub(crate) fn dtype(found: Option<DataType>, name: &str) -> Result<DType, LoadError> {
    Ok(match found.unwrap_or(DataType(0)) {
        DataType::FLOAT => DType::F32,
        DataType::UINT8 => DType::U8,
        DataType::INT8 => DType::I8,
        DataType::UINT16 => DType::U16,
        DataType::INT16 => DType::I16,
        DataType::INT32 => DType::I32,
        DataType::INT64 => DType::I64,
        DataType::BOOL => DType::Bool,
        DataType::FLOAT16 => DType::F16,
        DataType::DOUBLE => DType::F64,
        DataType::UINT32 => DType::U32,
        DataType::UINT64 => DType::U64,
        DataType::BFLOAT16 => DType::BF16,
        other => {
            return Err(LoadError::UnsupportedType {
                name: name.into(),
                found: other.to_string(),
            });
        }
    })
}

/// A stored tensor, taken out of its message: large ones are moved, not copied.
pub(crate) fn tensor(proto: &mut TensorProto, name: &str) -> Result<Tensor, LoadError> {
    let wrong = |reason: String| LoadError::Weights {
        name: name.to_owned(),
        reason,
    };
    if proto.data_location == Some(DataLocation::EXTERNAL) {
        let reason = "it lies in a file of its own; save the model with its weights inside";
        return Err(wrong(reason.into()));
    }
    let dtype = dtype(proto.data_type, name)?;
    let shape = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| wrong(format!("a dimension is {d}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = match proto.raw_data.take() {
        Some(raw) => raw.into_inner(),
        None => typed_bytes(proto, dtype),
    };
    Tensor::new(dtype, shape, bytes).map_err(|error| wrong(error.to_string()))
}

/// The bytes of a tensor that is stored as a list of numbers.
fn typed_bytes(proto: &TensorProto, dtype: DType) -> Vec<u8> {
    let narrow = |width: usize| {
        let low = |v: &i32| v.to_le_bytes().into_iter().take(width);
        proto.int32_data.iter().flat_map(low).collect()
    };
    match dtype {
        DType::F32 => proto
            .float_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::F64 => proto
            .double_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::I64 | DType::U64 => proto
            .int64_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::Bool | DType::U8 | DType::I8 => narrow(1),
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => narrow(2),
        DType::I32 | DType::U32 => narrow(4),
        DType::Bytes => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> String {
        decode(bytes).err().unwrap().to_string()
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
