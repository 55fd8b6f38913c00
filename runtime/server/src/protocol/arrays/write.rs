//! Elements written as JSON arrays.

use firebox_engine::{DType, Tensor};
use half::{bf16, f16};

use super::slices;

/// Bytes of JSON that a number takes, roughly.
const NUMBER: usize = 12;

/// The most brackets that are written for a tensor without elements.
const MAX_EMPTY: usize = 1 << 16;

/// A `bytes` element can't be written as a JSON string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("element {at} is not UTF-8, so JSON can't carry it")]
pub struct NotText {
    /// Its place in row-major order.
    pub at: usize,
}

/// Writes the elements as one flat array.
pub fn write_flat(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), NotText> {
    write(out, &[tensor.len()], tensor)
}

/// Writes the elements as arrays nested like the shape; a scalar stands bare.
pub fn write_nested(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), NotText> {
    write(out, tensor.shape(), tensor)
}

fn write(out: &mut Vec<u8>, shape: &[usize], tensor: &Tensor) -> Result<(), NotText> {
    if tensor.is_empty() && shape.iter().take_while(|&&d| d != 0).product::<usize>() > MAX_EMPTY {
        out.extend_from_slice(b"[]");
        return Ok(());
    }
    macro_rules! rows {
        ($ty:ty, $write:expr) => {{
            let (chunks, _) = tensor.data().as_chunks::<{ size_of::<$ty>() }>();
            let one = |out: &mut Vec<u8>, chunk: &_| $write(out, <$ty>::from_le_bytes(*chunk));
            let mut values = chunks.iter();
            match shape {
                [_] => row(out, chunks, one),
                _ => rows(out, shape, &mut |out| {
                    values.next().map(|chunk| one(out, chunk))
                }),
            }
        }};
    }
    match tensor.dtype() {
        DType::Bool => rows!(u8, |out: &mut Vec<u8>, v| {
            out.extend_from_slice(if v == 0 { b"false" } else { b"true" });
        }),
        DType::U8 | DType::Narrow(_) => rows!(u8, whole),
        DType::U16 => rows!(u16, whole),
        DType::U32 => rows!(u32, whole),
        DType::U64 => rows!(u64, whole),
        DType::I8 => rows!(i8, whole),
        DType::I16 => rows!(i16, whole),
        DType::I32 => rows!(i32, whole),
        DType::I64 => rows!(i64, whole),
        DType::F16 => rows!(f16, |out, v: f16| float(out, v.to_f32())),
        DType::BF16 => rows!(bf16, |out, v: bf16| float(out, v.to_f32())),
        DType::F32 => rows!(f32, |out, v: f32| float(out, v)),
        DType::F64 => rows!(f64, |out, v: f64| float(out, v)),
        DType::Bytes => {
            let blobs = tensor.blobs();
            if let Some(at) = blobs
                .iter()
                .position(|blob| std::str::from_utf8(blob).is_err())
            {
                return Err(NotText { at });
            }
            let mut texts = blobs.iter().map(|blob| String::from_utf8_lossy(blob));
            rows(out, shape, &mut |out| {
                texts
                    .next()
                    .map(|text| super::super::v2::string(out, &text))
            });
        }
    }
    Ok(())
}

/// Writes one row of `elements`, in [slices] where there are many.
fn row<E: Sync>(out: &mut Vec<u8>, elements: &[E], one: impl Fn(&mut Vec<u8>, &E) + Sync) {
    let items = |out: &mut Vec<u8>, elements: &[E]| {
        for (at, element) in elements.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            one(out, element);
        }
    };
    out.push(b'[');
    match slices::count(elements.len().saturating_mul(NUMBER)) {
        1 => items(out, elements),
        count => {
            let slices = elements.chunks(elements.len().div_ceil(count));
            let parts = slices::map(slices, |slice| {
                let mut part = Vec::with_capacity(slice.len() * NUMBER);
                items(&mut part, slice);
                part
            });
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(part);
            }
        }
    }
    out.push(b']');
}

/// Writes brackets for `shape`, calling `element` where one stands.
fn rows(out: &mut Vec<u8>, shape: &[usize], element: &mut impl FnMut(&mut Vec<u8>) -> Option<()>) {
    let Some((&size, inner)) = shape.split_first() else {
        element(out);
        return;
    };
    out.push(b'[');
    for at in 0..size {
        if at > 0 {
            out.push(b',');
        }
        rows(out, inner, element);
    }
    out.push(b']');
}

/// Writes an integer.
fn whole(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes the shortest digits that read back as the same number.
fn float<T: zmij::Float + Into<f64> + Copy>(out: &mut Vec<u8>, value: T) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if wide > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
    }
}
