//! Conversions between element types: ONNX's `Cast` and `BitCast`.

use std::fmt::Display;
use std::str::FromStr;

use burn_backend::Scalar;
use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_dispatch::DispatchDevice;
use bytes::Bytes;

use super::{B, Value, bool_type, float_type, int_type, is_float};
use crate::error::OpError;
use crate::narrow::Rounding;
use crate::tensor::{DType, Narrow, Tensor};

impl Value {
    /// Elements converted to `dtype`, as ONNX's Cast does: floats cut toward zero, anything
    /// but zero is true, what is too large for a narrow float becomes its largest number.
    pub fn cast(self, dtype: DType) -> Result<Self, OpError> {
        self.cast_by(dtype, Rounding::default())
    }

    /// The same with a rounding for narrow types.
    pub fn cast_by(self, dtype: DType, rounding: Rounding) -> Result<Self, OpError> {
        if self.dtype() == dtype {
            return Ok(self);
        }
        let device = self.device();
        let out = bool_type(&device);
        Ok(match (self, dtype) {
            (text @ Self::Text(..), dtype) => text.parsed(dtype)?.cast_by(dtype, rounding)?,
            (Self::Code(narrow, t), dtype) => {
                Self::Code(narrow, t).decode()?.cast_by(dtype, rounding)?
            }
            (value, DType::Bytes) => value.printed()?,
            (value, DType::Narrow(narrow)) => value.encode(narrow, rounding)?,
            (Self::Float(t), DType::Bool) => {
                Self::Bool(B::float_not_equal_elem(t, Scalar::Float(0.0), out))
            }
            (Self::Int(t), DType::Bool) => {
                Self::Bool(B::int_not_equal_elem(t, Scalar::Int(0), out))
            }
            (Self::Bool(t), dtype) if is_float(dtype) => {
                Self::Float(B::bool_into_float(t, float_type(dtype)?))
            }
            (Self::Bool(t), dtype) => Self::Int(B::bool_into_int(t, int_type(dtype)?)),
            (Self::Float(t), dtype) if is_float(dtype) => {
                Self::Float(B::float_cast(t, float_type(dtype)?))
            }
            (Self::Float(t), dtype) => Self::Int(B::float_into_int(t, int_type(dtype)?)),
            (Self::Int(t), dtype) if is_float(dtype) => {
                Self::Float(B::int_into_float(t, float_type(dtype)?))
            }
            (Self::Int(t), dtype) => Self::Int(B::int_cast(t, int_type(dtype)?)),
        })
    }

    /// The same bits as elements of another type of the same width.
    pub fn bit_cast(self, dtype: DType) -> Result<Self, OpError> {
        let from = self.dtype();
        if bits(from).is_none() || bits(from) != bits(dtype) {
            let expected = format!("elements as wide as {dtype}");
            return Err(self.unexpected(&expected));
        }
        let device = self.device();
        let (_, shape, bytes) = self.download()?.into_parts();
        uploaded(dtype, shape, bytes, &device)
    }

    /// The numbers that codes stand for, as f32.
    fn decode(self) -> Result<Self, OpError> {
        let (device, found) = (self.device(), self.dtype());
        let (_, shape, codes) = self.download()?.into_parts();
        let DType::Narrow(narrow) = found else {
            let expected = "codes".into();
            return Err(OpError::DType { expected, found });
        };
        let table: Vec<_> = (0..=u8::MAX).map(|code| narrow.decode(code)).collect();
        let number = |&code: &u8| table.get(usize::from(code)).copied().unwrap_or(f32::NAN);
        let numbers: Vec<f32> = codes.iter().map(number).collect();
        uploaded(
            DType::F32,
            shape,
            Bytes::from_owner(Floats(numbers)),
            &device,
        )
    }

    fn encode(self, narrow: Narrow, rounding: Rounding) -> Result<Self, OpError> {
        let (device, shape) = (self.device(), self.shape());
        let codes: Vec<u8> = if narrow.is_integer() && !matches!(self, Self::Float(_)) {
            // Whole numbers lose their upper bits, which f64 would not keep.
            let mask = u8::MAX >> (8 - narrow.bits());
            let ints = self.cast(DType::U8)?.to_ints()?;
            ints.iter().map(|&x| x as u8 & mask).collect()
        } else {
            let numbers = self.to_floats()?;
            numbers
                .iter()
                .map(|&x| narrow.encode(x, rounding))
                .collect()
        };
        uploaded(DType::Narrow(narrow), shape, codes, &device)
    }

    /// Numbers as text: plain digits, as many as tell them apart.
    fn printed(self) -> Result<Self, OpError> {
        let (dtype, shape) = (self.dtype(), self.shape());
        let data = self.into_data()?;
        let texts = match dtype {
            DType::F64 => data.iter::<f64>().map(text).collect(),
            dtype if is_float(dtype) => data.iter::<f32>().map(text).collect(),
            DType::U64 => data.iter::<u64>().map(|x| x.to_string().into()).collect(),
            _ => data.iter::<i64>().map(|x| x.to_string().into()).collect(),
        };
        Ok(Self::from_strings(texts, &shape))
    }

    /// Strings as numbers of a type.
    fn parsed(self, dtype: DType) -> Result<Self, OpError> {
        let (device, shape) = (self.device(), self.shape());
        let strings = self.strings()?;
        if is_float(dtype) || matches!(dtype, DType::Bool | DType::Narrow(_)) {
            let numbers: Vec<f64> = numbers(&strings)?;
            return Self::from_floats(numbers, &shape, DType::F64, &device);
        }
        if let Ok(numbers) = numbers::<i64>(&strings) {
            return Ok(Self::from_ints(&numbers, &shape, &device));
        }
        if let (DType::U64, Ok(numbers)) = (dtype, numbers::<u64>(&strings)) {
            let bytes = numbers.iter().flat_map(|x| x.to_le_bytes());
            return uploaded(DType::U64, shape, bytes.collect::<Vec<_>>(), &device);
        }
        Self::from_floats(numbers(&strings)?, &shape, DType::F64, &device)
    }
}

/// A tensor on a device, from its bytes.
fn uploaded(
    dtype: DType,
    shape: Vec<usize>,
    bytes: impl Into<Bytes>,
    device: &DispatchDevice,
) -> Result<Value, OpError> {
    let tensor = Tensor::new(dtype, shape, bytes);
    Value::upload(
        tensor.map_err(|error| OpError::Value(error.to_string()))?,
        device,
    )
}

/// A float as ONNX names it.
fn text(x: impl Into<f64> + Copy + Display) -> Bytes {
    let wide: f64 = x.into();
    match wide {
        wide if wide.is_nan() => "NaN".into(),
        f64::INFINITY => "INF".into(),
        f64::NEG_INFINITY => "-INF".into(),
        _ => x.to_string().into(),
    }
}

fn numbers<T: FromStr>(strings: &[Bytes]) -> Result<Vec<T>, OpError> {
    let number = |string: &Bytes| {
        let text = std::str::from_utf8(string).map(str::trim);
        text.ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let text = String::from_utf8_lossy(string);
            OpError::Value(format!("expected a number, found the string `{text}`"))
        })
    };
    strings.iter().map(number).collect()
}

/// How wide an element is in an ONNX file.
fn bits(dtype: DType) -> Option<usize> {
    match dtype {
        DType::Narrow(narrow) => Some(narrow.bits()),
        dtype => dtype.size().map(|size| 8 * size),
    }
}

/// f32 values as the owner of their bytes.
struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::device;

    fn strings(texts: &[&'static str]) -> Value {
        let texts: Vec<Bytes> = texts.iter().map(|&text| text.into()).collect();
        let shape = [texts.len()];
        Value::from_strings(texts, &shape)
    }

    #[test]
    fn strings_and_numbers_convert_both_ways() {
        let texts = strings(&["2.25", " 1e-5", "1E8", "+INF", "-inf", "nan", "100.5"]);
        let floats = texts.clone().cast(DType::F64).unwrap().to_floats().unwrap();
        let expected = [2.25, 1e-5, 1e8, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(floats.get(..5).unwrap(), expected);
        assert_eq!(
            strings(&["100.5"])
                .cast(DType::I32)
                .unwrap()
                .to_ints()
                .unwrap(),
            [100]
        );
        let large = strings(&["9007199254740993", "-7"]);
        assert_eq!(
            large.cast(DType::I64).unwrap().to_ints().unwrap(),
            [9_007_199_254_740_993, -7]
        );
        let printed = texts.cast(DType::F32).unwrap().cast(DType::Bytes).unwrap();
        assert_eq!(
            printed.strings().unwrap(),
            [
                "2.25",
                "0.00001",
                "100000000",
                "INF",
                "-INF",
                "NaN",
                "100.5"
            ]
        );
        let error = strings(&["Hello"])
            .cast(DType::F32)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "expected a number, found the string `Hello`");
    }

    #[test]
    fn whole_numbers_lose_their_upper_bits() {
        let ints = Value::from_ints(&[200, -9, 7], &[3], &device::cpu());
        let as_i8 = ints.clone().cast(DType::I8).unwrap();
        assert_eq!(as_i8.to_ints().unwrap(), [-56, -9, 7]);
        let narrow = ints.cast(DType::Narrow(Narrow::I4)).unwrap();
        assert_eq!(
            narrow.cast(DType::I64).unwrap().to_ints().unwrap(),
            [-8, 7, 7]
        );
    }

    #[test]
    fn only_types_of_one_width_share_their_bits() {
        let codes = Value::full(DType::Narrow(Narrow::U4), &[2], 0.0, &device::cpu()).unwrap();
        assert!(
            codes
                .clone()
                .bit_cast(DType::Narrow(Narrow::F4E2M1))
                .is_ok()
        );
        let error = codes.bit_cast(DType::U8).unwrap_err().to_string();
        assert_eq!(error, "expected elements as wide as u8, found u4");
    }
}
