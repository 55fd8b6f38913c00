//! Tensors as messages have them: raw bytes, or lists of elements by datatype.

use bytes::Bytes;
use firebox_engine::{DType, Tensor, TensorError};

use super::wire::{InferInputTensor, InferTensorContents};
use crate::problem::Failure;
use crate::protocol::{arrays, raw};

/// The input that a message holds, with its raw bytes where it has such.
///
/// # Errors
/// Where datatype, shape and contents do not fit each other.
pub fn read(input: InferInputTensor, bytes: Option<Bytes>) -> Result<(String, Tensor), Failure> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        contents,
        ..
    } = input;
    let wrong = |error: String| Failure::WrongTensor(format!("input `{name}`: {error}"));
    let dtype = arrays::from_datatype(&datatype).map_err(wrong)?;
    let shape = raw::shape(&shape).map_err(|error| wrong(error.to_string()))?;
    let tensor = match bytes {
        Some(bytes) => raw::read(dtype, shape, bytes).map_err(|error| error.to_string()),
        None => typed(dtype, shape, contents.unwrap_or_default()),
    };
    let tensor = tensor.map_err(wrong)?;
    Ok((name, tensor))
}

/// A tensor of the elements in the one list that is for its datatype.
fn typed(dtype: DType, shape: Vec<usize>, contents: InferTensorContents) -> Result<Tensor, String> {
    let datatype = arrays::datatype(dtype);
    let filled = filled(&contents);
    let own = match dtype {
        DType::Bool => "bool_contents",
        DType::I8 | DType::I16 | DType::I32 => "int_contents",
        DType::I64 => "int64_contents",
        DType::U8 | DType::U16 | DType::U32 | DType::Narrow(_) => "uint_contents",
        DType::U64 => "uint64_contents",
        DType::F32 => "fp32_contents",
        DType::F64 => "fp64_contents",
        DType::Bytes => "bytes_contents",
        DType::F16 | DType::BF16 => {
            return Err(format!(
                "{datatype} has no list in `contents`; send its bytes in `raw_input_contents`"
            ));
        }
    };
    if let Some((other, count)) = filled.iter().find(|(name, _)| *name != own) {
        return Err(format!(
            "{datatype} is given in `{own}`, but `{other}` holds {count} elements"
        ));
    }
    let found: usize = filled.iter().map(|(_, count)| *count).sum();
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match count {
        Some(expected) if expected != found => {
            return Err(format!(
                "shape {shape:?} needs {expected} elements, `{own}` holds {found}"
            ));
        }
        Some(_) => {}
        None => return Err(TensorError::TooLarge { shape }.to_string()),
    }
    let of = &contents;
    let data = match dtype {
        DType::Bool => of.bool_contents.iter().map(|&b| u8::from(b)).collect(),
        DType::I8 => narrowed(datatype, &of.int_contents, i8::to_le_bytes)?,
        DType::I16 => narrowed(datatype, &of.int_contents, i16::to_le_bytes)?,
        DType::I32 => spelled(&of.int_contents, i32::to_le_bytes),
        DType::I64 => spelled(&of.int64_contents, i64::to_le_bytes),
        DType::U16 => narrowed(datatype, &of.uint_contents, u16::to_le_bytes)?,
        DType::U32 => spelled(&of.uint_contents, u32::to_le_bytes),
        DType::U64 => spelled(&of.uint64_contents, u64::to_le_bytes),
        DType::F32 => spelled(&of.fp32_contents, f32::to_le_bytes),
        DType::F64 => spelled(&of.fp64_contents, f64::to_le_bytes),
        DType::Bytes => {
            let tensor = Tensor::from_blobs(shape, &of.bytes_contents);
            return tensor.map_err(|error| error.to_string());
        }
        _ => narrowed(datatype, &of.uint_contents, u8::to_le_bytes)?,
    };
    Tensor::new(dtype, shape, data).map_err(|error| error.to_string())
}

/// The lists that hold anything, and how much.
fn filled(contents: &InferTensorContents) -> Vec<(&'static str, usize)> {
    let lists = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    lists.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The bytes of elements that are as wide as those of their list.
fn spelled<T: Copy, const N: usize>(elements: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    elements
        .iter()
        .flat_map(|&element| bytes(element))
        .collect()
}

/// The bytes of elements that are narrower than those of their list.
fn narrowed<W, T, const N: usize>(
    datatype: &str,
    elements: &[W],
    bytes: fn(T) -> [u8; N],
) -> Result<Vec<u8>, String>
where
    W: Copy + std::fmt::Display,
    T: TryFrom<W>,
{
    let mut out = Vec::with_capacity(elements.len() * N);
    for (at, &element) in elements.iter().enumerate() {
        let narrow = T::try_from(element)
            .map_err(|_| format!("element {at}: {element} is out of the range of {datatype}"))?;
        out.extend_from_slice(&bytes(narrow));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
        InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents: Some(contents),
            ..InferInputTensor::default()
        }
    }

    fn said(input: InferInputTensor, bytes: Option<&'static [u8]>) -> String {
        let failure = read(input, bytes.map(Bytes::from_static)).unwrap_err();
        assert_eq!(failure.status(), 400);
        failure.to_string()
    }

    #[test]
    fn each_datatype_has_its_list() {
        let none = InferTensorContents::default;
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.to_vec(),
            ..none()
        };
        let uints = |values: &[u32]| InferTensorContents {
            uint_contents: values.to_vec(),
            ..none()
        };
        let bools = InferTensorContents {
            bool_contents: vec![true, false],
            ..none()
        };
        let i64s = InferTensorContents {
            int64_contents: vec![-1, 2],
            ..none()
        };
        let u64s = InferTensorContents {
            uint64_contents: vec![1, u64::MAX],
            ..none()
        };
        let f32s = InferTensorContents {
            fp32_contents: vec![0.5, f32::NEG_INFINITY],
            ..none()
        };
        let f64s = InferTensorContents {
            fp64_contents: vec![0.5, -2.0],
            ..none()
        };
        let blobs = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"a"), Bytes::new()],
            ..none()
        };
        for (datatype, contents, bytes) in [
            ("BOOL", bools, vec![1, 0]),
            ("INT8", ints(&[-1, 127]), vec![255, 127]),
            ("INT16", ints(&[-1, 256]), vec![255, 255, 0, 1]),
            (
                "INT32",
                ints(&[-1, 1]),
                vec![255, 255, 255, 255, 1, 0, 0, 0],
            ),
            (
                "INT64",
                i64s,
                [(-1i64).to_le_bytes(), 2i64.to_le_bytes()].concat(),
            ),
            ("UINT8", uints(&[255, 1]), vec![255, 1]),
            ("UINT16", uints(&[256, 1]), vec![0, 1, 1, 0]),
            ("UINT32", uints(&[1, 0]), vec![1, 0, 0, 0, 0, 0, 0, 0]),
            (
                "UINT64",
                u64s,
                [1u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
            ),
            (
                "FP32",
                f32s,
                [0.5f32.to_le_bytes(), f32::NEG_INFINITY.to_le_bytes()].concat(),
            ),
            (
                "FP64",
                f64s,
                [0.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat(),
            ),
            ("BYTES", blobs, vec![1, 0, 0, 0, b'a', 0, 0, 0, 0]),
        ] {
            let (name, tensor) = read(input(datatype, &[2], contents), None).unwrap();
            assert_eq!((name.as_str(), tensor.shape()), ("x", &[2][..]));
            assert_eq!(tensor.data(), &bytes, "{datatype}");
        }
    }

    #[test]
    fn contents_that_do_not_fit_are_refused() {
        let none = InferTensorContents::default;
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.to_vec(),
            ..none()
        };
        assert_eq!(
            said(input("FP32", &[2], ints(&[1, 2])), None),
            "input `x`: FP32 is given in `fp32_contents`, but `int_contents` holds 2 elements"
        );
        assert_eq!(
            said(input("INT8", &[2], ints(&[1, 300])), None),
            "input `x`: element 1: 300 is out of the range of INT8"
        );
        assert_eq!(
            said(input("INT32", &[3], ints(&[1, 2])), None),
            "input `x`: shape [3] needs 3 elements, `int_contents` holds 2"
        );
        assert!(said(input("FP16", &[1], none()), None).contains("`raw_input_contents`"));
        assert!(said(input("INT32", &[i64::MAX, 4], none()), None).contains("more elements"));
        assert!(said(input("INT32", &[2, -1], none()), None).contains("dimension 1"));
        assert!(said(input("FLOAT", &[1], none()), None).contains("expected one of BOOL"));
        assert!(said(input("FP32", &[2], none()), Some(&[0; 7])).contains("needs 8 bytes, got 7"));
    }
}
