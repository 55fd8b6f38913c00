//! Tensor elements as JSON arrays, flat or nested, both ways.
//!
//! Reading works on a JSON value that is already known to be well formed (a
//! `RawValue`), so one pass over its text finds elements and nesting, and each
//! number goes straight from its digits to the tensor's bytes.
//!
//! JSON has no NaN and no infinities. They are written, and read, as the strings
//! `"NaN"`, `"Infinity"` and `"-Infinity"`, as the JSON mapping of Protocol
//! Buffers does; numpy and JavaScript turn these strings into the right numbers.

use std::fmt::Write as _;

use firebox_engine::{DType, Tensor, TensorError};
use half::{bf16, f16};

/// The deepest nesting that is read.
const MAX_RANK: usize = 32;

/// The most brackets that are written for a tensor without elements.
const MAX_EMPTY: usize = 1 << 16;

/// A JSON value is not an array of the wanted elements.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArrayError {
    /// Rows of different lengths, or numbers beside arrays.
    #[error("the arrays are ragged: at element {at}, a row differs in length or depth")]
    Ragged {
        /// How many elements stand before the spot.
        at: usize,
    },
    /// Deeper nesting than any tensor has.
    #[error("the arrays nest deeper than {MAX_RANK}")]
    TooDeep,
    /// An element that the dtype can't hold.
    #[error("element {at}: expected {expected}, found {found}")]
    Element {
        /// Its place in row-major order.
        at: usize,
        /// What the dtype can hold.
        expected: &'static str,
        /// The element's JSON, shortened.
        found: String,
    },
    /// An object where an array was wanted.
    #[error("expected an array of {expected}, found an object")]
    Object {
        /// What the dtype can hold.
        expected: &'static str,
    },
    /// The elements do not fit the shape.
    #[error("shape {shape:?} needs {expected} elements, `data` holds {found}")]
    Count {
        /// The shape that was given beside the data.
        shape: Vec<usize>,
        /// Elements that it needs.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// The nesting contradicts the shape.
    #[error("`shape` is {expected:?}, but `data` is nested as {found:?}")]
    Nesting {
        /// The shape that was given beside the data.
        expected: Vec<usize>,
        /// The shape of the nesting.
        found: Vec<usize>,
    },
    /// The shape is too large.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Reads nested arrays; the nesting gives the shape, and a bare value is a scalar.
pub fn nested(json: &str, dtype: DType) -> Result<Tensor, ArrayError> {
    let elements = read(json, dtype)?;
    Ok(Tensor::new(dtype, elements.shape, elements.data)?)
}

/// Reads the elements of a tensor of this `shape`, given flat or nested like it.
pub fn shaped(json: &str, dtype: DType, shape: Vec<usize>) -> Result<Tensor, ArrayError> {
    let elements = read(json, dtype)?;
    let expected = shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(|| TensorError::TooLarge {
            shape: shape.clone(),
        })?;
    if elements.shape.len() > 1 && elements.shape != shape && expected != 0 {
        return Err(ArrayError::Nesting {
            expected: shape,
            found: elements.shape,
        });
    }
    if elements.count != expected {
        return Err(ArrayError::Count {
            shape,
            expected,
            found: elements.count,
        });
    }
    Ok(Tensor::new(dtype, shape, elements.data)?)
}

struct Elements {
    shape: Vec<usize>,
    count: usize,
    data: Vec<u8>,
}

/// Runs [`scan`] with the element parser of `dtype`.
fn read(json: &str, dtype: DType) -> Result<Elements, ArrayError> {
    macro_rules! number {
        ($ty:ty, $parse:expr) => {
            scan(json, dtype, size_of::<$ty>(), |token, data| {
                let value: $ty = $parse(token)?;
                data.extend_from_slice(&value.to_le_bytes());
                Some(())
            })
        };
    }
    match dtype {
        DType::Bool => scan(json, dtype, 1, |token, data| {
            data.push(match token {
                "true" | "1" => 1,
                "false" | "0" => 0,
                _ => return None,
            });
            Some(())
        }),
        // Codes, where the elements are narrower.
        DType::U8 | DType::Narrow(_) => number!(u8, whole),
        DType::U16 => number!(u16, whole),
        DType::U32 => number!(u32, whole),
        DType::U64 => number!(u64, whole),
        DType::I8 => number!(i8, whole),
        DType::I16 => number!(i16, whole),
        DType::I32 => number!(i32, whole),
        DType::I64 => number!(i64, whole),
        DType::F16 => number!(f16, |t| finite_or_named(
            t,
            f16::from_f64(real(t)?),
            f16::is_finite
        )),
        DType::BF16 => {
            number!(bf16, |t| finite_or_named(
                t,
                bf16::from_f64(real(t)?),
                bf16::is_finite
            ))
        }
        DType::F32 => number!(f32, |t: &str| match t.parse::<f32>() {
            Ok(value) => value.is_finite().then_some(value),
            Err(_) => not_finite(t).map(|value| value as f32),
        }),
        DType::F64 => number!(f64, real),
        DType::Bytes => scan(json, dtype, 4, |token, data| {
            if !token.starts_with('"') {
                return None;
            }
            let text: String = serde_json::from_str(token).ok()?;
            data.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
            data.extend_from_slice(text.as_bytes());
            Some(())
        }),
    }
}

/// An integer, also written as `3.0` or `3e2`.
fn whole<T: std::str::FromStr + TryFrom<i64>>(token: &str) -> Option<T> {
    token.parse().ok().or_else(|| {
        let value: f64 = token.parse().ok()?;
        let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
        exact.then(|| T::try_from(value as i64).ok()).flatten()
    })
}

fn real(token: &str) -> Option<f64> {
    match token.parse::<f64>() {
        Ok(value) => value.is_finite().then_some(value),
        Err(_) => not_finite(token),
    }
}

fn not_finite(token: &str) -> Option<f64> {
    match token {
        "\"NaN\"" => Some(f64::NAN),
        "\"Infinity\"" => Some(f64::INFINITY),
        "\"-Infinity\"" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Refuses a number that became infinite by rounding.
fn finite_or_named<T: Copy>(token: &str, value: T, finite: fn(T) -> bool) -> Option<T> {
    (finite(value) || token.starts_with('"')).then_some(value)
}

fn expected(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "true or false",
        DType::U8 | DType::Narrow(_) => "integers from 0 to 255",
        DType::U16 => "integers from 0 to 65535",
        DType::U32 => "integers from 0 to 4294967295",
        DType::U64 => "integers of 64 bits without sign",
        DType::I8 => "integers from -128 to 127",
        DType::I16 => "integers from -32768 to 32767",
        DType::I32 => "integers of 32 bits",
        DType::I64 => "integers of 64 bits",
        DType::F16 | DType::BF16 => "numbers of 16 bits",
        DType::F32 => "numbers of 32 bits",
        DType::F64 => "numbers",
        DType::Bytes => "strings",
    }
}

/// Walks well-formed JSON and hands each element to `push`, keeping the nesting
/// rectangular.
fn scan(
    json: &str,
    dtype: DType,
    size: usize,
    push: impl Fn(&str, &mut Vec<u8>) -> Option<()>,
) -> Result<Elements, ArrayError> {
    let mut data = Vec::with_capacity(json.len() / 8 * size.min(4));
    let mut nesting = Nesting::default();
    let mut count = 0;
    let mut rest = json;
    loop {
        rest = rest.trim_start_matches([' ', '\n', '\r', '\t', ',']);
        let Some(first) = rest.as_bytes().first() else {
            break;
        };
        match first {
            b'[' => nesting.open(count)?,
            b']' => nesting.close(count)?,
            b'{' => {
                return Err(ArrayError::Object {
                    expected: expected(dtype),
                });
            }
            _ => {
                let (token, after) = rest.split_at(token_len(rest));
                nesting.element(count)?;
                if push(token, &mut data).is_none() {
                    return Err(wrong_element(count, dtype, token));
                }
                count += 1;
                rest = after;
                continue;
            }
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    Ok(Elements {
        shape: nesting.shape(),
        count,
        data,
    })
}

/// The length of the number, word or string at the front.
fn token_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        let end = |b: &u8| matches!(b, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        return bytes.iter().position(end).unwrap_or(bytes.len());
    }
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

fn wrong_element(at: usize, dtype: DType, token: &str) -> ArrayError {
    let mut found: String = token.chars().take(40).collect();
    if found.len() < token.len() {
        found.push('…');
    }
    ArrayError::Element {
        at,
        expected: expected(dtype),
        found,
    }
}

/// The shape that brackets spell, and whether every row agrees with it.
#[derive(Default)]
struct Nesting {
    /// The length of a row at each depth, once one has closed.
    sizes: Vec<Option<usize>>,
    /// Items so far in each open row.
    open: Vec<usize>,
    /// How deep the elements stand.
    leaf: Option<usize>,
}

impl Nesting {
    fn open(&mut self, at: usize) -> Result<(), ArrayError> {
        if self.open.len() >= MAX_RANK {
            return Err(ArrayError::TooDeep);
        }
        if self.leaf.is_some_and(|leaf| self.open.len() >= leaf) {
            return Err(ArrayError::Ragged { at });
        }
        self.count_item();
        self.open.push(0);
        if self.sizes.len() < self.open.len() {
            self.sizes.push(None);
        }
        Ok(())
    }

    fn close(&mut self, at: usize) -> Result<(), ArrayError> {
        let Some(items) = self.open.pop() else {
            return Err(ArrayError::Ragged { at });
        };
        match self.sizes.get_mut(self.open.len()) {
            Some(Some(size)) if *size != items => Err(ArrayError::Ragged { at }),
            Some(size) => {
                *size = Some(items);
                Ok(())
            }
            None => Err(ArrayError::Ragged { at }),
        }
    }

    #[inline]
    fn element(&mut self, at: usize) -> Result<(), ArrayError> {
        let depth = self.open.len();
        if *self.leaf.get_or_insert(depth) != depth || depth < self.sizes.len() {
            return Err(ArrayError::Ragged { at });
        }
        self.count_item();
        Ok(())
    }

    #[inline]
    fn count_item(&mut self) {
        if let Some(items) = self.open.last_mut() {
            *items += 1;
        }
    }

    fn shape(self) -> Vec<usize> {
        self.sizes
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect()
    }
}

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
            let mut values = chunks.iter().map(|chunk| <$ty>::from_le_bytes(*chunk));
            rows(out, shape, &mut |out| {
                values.next().map(|value| $write(out, value))
            });
        }};
    }
    match tensor.dtype() {
        DType::Bool => rows!(u8, |out: &mut Vec<u8>, v| {
            out.extend_from_slice(if v == 0 { b"false" } else { b"true" });
        }),
        DType::U8 | DType::Narrow(_) => rows!(u8, json),
        DType::U16 => rows!(u16, json),
        DType::U32 => rows!(u32, json),
        DType::U64 => rows!(u64, json),
        DType::I8 => rows!(i8, json),
        DType::I16 => rows!(i16, json),
        DType::I32 => rows!(i32, json),
        DType::I64 => rows!(i64, json),
        DType::F16 => rows!(f16, |out, v: f16| float(out, v.to_f32(), v.to_f64())),
        DType::BF16 => rows!(bf16, |out, v: bf16| float(out, v.to_f32(), v.to_f64())),
        DType::F32 => rows!(f32, |out, v: f32| float(out, v, v.into())),
        DType::F64 => rows!(f64, |out, v: f64| float(out, v, v)),
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
                texts.next().map(|text| json(out, text))
            });
        }
    }
    Ok(())
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

/// Writes a value that `serde_json` can't fail on.
fn json(out: &mut Vec<u8>, value: impl serde::Serialize) {
    let written = serde_json::to_writer(&mut *out, &value);
    debug_assert!(written.is_ok());
}

/// The shortest digits that read back as the same number.
fn float(out: &mut Vec<u8>, value: impl serde::Serialize, wide: f64) {
    if wide.is_finite() {
        json(out, value);
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

/// The name of a dtype in the Open Inference Protocol.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 | DType::Narrow(_) => "UINT8",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::F16 => "FP16",
        DType::BF16 => "BF16",
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::Bytes => "BYTES",
    }
}

/// Every dtype, in the order in which the protocol lists them.
pub const DTYPES: [DType; 14] = [
    DType::Bool,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::Bytes,
];

/// The dtype with this name in the Open Inference Protocol.
pub fn from_datatype(name: &str) -> Result<DType, String> {
    DTYPES
        .into_iter()
        .find(|&dtype| datatype(dtype) == name)
        .ok_or_else(|| {
            let mut text = format!("unknown datatype `{name}`; expected one of");
            for dtype in DTYPES {
                let _ = write!(text, " {}", datatype(dtype));
            }
            text
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(tensor: &Tensor) -> String {
        let mut out = Vec::new();
        write_nested(&mut out, tensor).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Any tensor of any dtype whose elements JSON can carry.
    fn tensors() -> impl Strategy<Value = Tensor> {
        let shapes = proptest::collection::vec(0usize..4, 0..4);
        (0..DTYPES.len(), shapes, any::<u64>()).prop_map(|(dtype, shape, seed)| {
            let dtype = DTYPES[dtype];
            let count: usize = shape.iter().product();
            let mut state = seed;
            let mut next = || {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state ^ (state >> 29)).to_le_bytes()
            };
            let mut data = Vec::new();
            for _ in 0..count {
                match dtype {
                    DType::Bool => data.push(next()[7] & 1),
                    DType::Bytes => {
                        let text = format!("\"{}\\ é\n", next()[7]);
                        data.extend((text.len() as u32).to_le_bytes());
                        data.extend(text.as_bytes());
                    }
                    _ => data.extend_from_slice(&next()[..dtype.size().unwrap()]),
                }
            }
            Tensor::new(dtype, shape, data).unwrap()
        })
    }

    /// All NaNs are one in JSON.
    fn same(a: &Tensor, b: &Tensor) -> bool {
        a == b || (a.dtype() == b.dtype() && a.shape() == b.shape() && text(a) == text(b))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(tensor in tensors()) {
            let json = text(&tensor);
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
            // Below an empty dimension, JSON can't show how the rest was sized.
            if !tensor.is_empty() {
                prop_assert!(same(&nested(&json, tensor.dtype()).unwrap(), &tensor));
            }
            let mut flat = Vec::new();
            write_flat(&mut flat, &tensor).unwrap();
            for json in [String::from_utf8(flat).unwrap(), json] {
                let read = shaped(&json, tensor.dtype(), tensor.shape().to_vec());
                if !(json == "[]" || tensor.shape().is_empty()) || !tensor.is_empty() {
                    prop_assert!(same(&read.unwrap(), &tensor), "{json}");
                }
            }
        }

        #[test]
        fn any_json_is_read_or_refused_without_a_panic(json in "[\\[\\]0-9,\" {}a-]{0,30}") {
            if serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok() {
                for dtype in DTYPES {
                    let _ = nested(&json, dtype);
                }
            }
        }
    }

    #[test]
    fn a_misfit_says_expected_and_found() {
        let said = |json, dtype| nested(json, dtype).unwrap_err().to_string();
        assert_eq!(
            said("[1, 300]", DType::U8),
            "element 1: expected integers from 0 to 255, found 300"
        );
        assert_eq!(
            said("[1, \"a\"]", DType::F32),
            "element 1: expected numbers of 32 bits, found \"a\""
        );
        assert_eq!(
            said("[[1, 2], [3]]", DType::F32),
            "the arrays are ragged: at element 3, a row differs in length or depth"
        );
        assert!(matches!(
            nested("[1, [2]]", DType::F32),
            Err(ArrayError::Ragged { at: 1 })
        ));
        assert!(matches!(
            nested("[[], 1]", DType::F32),
            Err(ArrayError::Ragged { at: 0 })
        ));
        assert!(matches!(
            nested("1e39", DType::F32),
            Err(ArrayError::Element { .. })
        ));
        assert!(matches!(
            nested("1e6", DType::F16),
            Err(ArrayError::Element { .. })
        ));
        let error = shaped("[1, 2]", DType::F32, vec![1, 3])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "shape [1, 3] needs 3 elements, `data` holds 2");
        let error = shaped("[[1], [2]]", DType::F32, vec![1, 2])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`shape` is [1, 2], but `data` is nested as [2, 1]");
    }

    #[test]
    fn numbers_that_json_lacks_travel_as_strings() {
        let tensor =
            Tensor::from_f32(vec![3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]).unwrap();
        assert_eq!(text(&tensor), r#"["NaN","Infinity","-Infinity"]"#);
        let read = nested(&text(&tensor), DType::F32)
            .unwrap()
            .to_f32()
            .unwrap();
        assert!(read[0].is_nan() && read[1] == f32::INFINITY && read[2] == f32::NEG_INFINITY);
    }

    #[test]
    fn a_huge_empty_tensor_is_written_short() {
        let tensor = Tensor::new(DType::F32, vec![1 << 40, 0], vec![]).unwrap();
        assert_eq!(text(&tensor), "[]");
    }

    #[test]
    fn whole_floats_pass_as_integers_and_bytes_must_be_text() {
        assert_eq!(
            nested("[1.0, 2e2]", DType::I64).unwrap().to_i64(),
            Some(vec![1, 200])
        );
        assert!(nested("[1.5]", DType::I64).is_err());
        let blob = Tensor::from_blob(&[0xff]).unwrap();
        assert_eq!(write_nested(&mut Vec::new(), &blob), Err(NotText { at: 0 }));
    }
}
