//! Quantised tensors: whole numbers (or small floats) with a scale and a zero point.

use burn_backend::ops::FloatTensorOps;

use super::elementwise::binary;
use super::{Args, Result, axis};
use crate::error::OpError;
use crate::graph::{Binary, Quantized, Scales};
use crate::kernels::integer;
use crate::narrow::Rounding;
use crate::tensor::{DType, Narrow, Tensor};
use crate::value::{B, Value, check_size};

mod integers;

pub(super) use integers::matmul_integer;

pub(super) fn run(kind: &Quantized, args: &mut Args) -> Result<Vec<Value>> {
    let one = match kind {
        Quantized::Quantize {
            scales,
            to,
            precision,
            rounding,
        } => {
            let (x, scale, zero) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            let to = to.or(zero.as_ref().map(Value::dtype)).unwrap_or(DType::U8);
            quantize(x, scale, zero, *scales, to, *precision, *rounding)?
        }
        Quantized::Dequantize { scales, to } => {
            let (x, scale, zero) = (args.take(0)?, args.take(1)?, args.optional(2)?);
            dequantize(x, scale, zero, *scales, *to)?
        }
        Quantized::DynamicQuantize => return dynamic(args.take(0)?),
        Quantized::MatMulInteger => {
            let (a, b) = (args.take(0)?, args.take(1)?);
            matmul_integer(a, b, args.optional(2)?, args.optional(3)?)?
        }
        Quantized::ConvInteger(conv) => {
            let (x, weights) = (args.take(0)?, args.take(1)?);
            integers::conv_integer(conv, x, weights, args.optional(2)?, args.optional(3)?)?
        }
        Quantized::QLinearMatMul => {
            let (a, b) = (Linear::take(args, 0)?, Linear::take(args, 3)?);
            let to = Linear::result(args, 6)?;
            let rows = |scale: Value| match scale.len() {
                1 => scale.reshape(&[]),
                rows => scale.reshape(&[rows, 1]),
            };
            let sums = matmul_integer(a.x, b.x, a.zero, b.zero)?;
            let to = (rows(to.0), rows(to.1));
            requantize(sums, rows(a.scale), b.scale, to)?
        }
        Quantized::QLinearConv(conv) => {
            let (x, weights) = (Linear::take(args, 0)?, Linear::take(args, 3)?);
            let to = Linear::result(args, 6)?;
            let sums = integers::conv_integer(conv, x.x, weights.x, x.zero, weights.zero)?;
            let mut wide = vec![1; sums.rank()];
            let mut channels = |value: Value| {
                if let Some(slot) = wide.get_mut(1) {
                    *slot = value.len();
                }
                value.reshape(&wide)
            };
            let scale = channels(weights.scale);
            let sums = match args.optional(8)? {
                Some(bias) => binary(Binary::Add, sums, channels(bias))?,
                None => sums,
            };
            requantize(sums, x.scale, scale, to)?
        }
    };
    Ok(vec![one])
}

/// A quantised tensor.
struct Linear {
    x: Value,
    scale: Value,
    zero: Option<Value>,
}

impl Linear {
    /// The tensor at `index`, its scale and its zero point.
    fn take(args: &mut Args, index: usize) -> Result<Self> {
        Ok(Self {
            x: args.take(index)?,
            scale: args.take(index + 1)?,
            zero: args.optional(index + 2)?,
        })
    }

    /// The scale and zero point of a result.
    fn result(args: &mut Args, index: usize) -> Result<(Value, Value)> {
        Ok((args.take(index)?, args.take(index + 1)?))
    }
}

/// Sums of products as quantised numbers, by the scales of both factors and of the result.
fn requantize(sums: Value, a: Value, b: Value, (scale, zero): (Value, Value)) -> Result<Value> {
    let [a, b, scale] = [
        a.cast(DType::F32)?,
        b.cast(DType::F32)?,
        scale.cast(DType::F32)?,
    ];
    let factor = binary(Binary::Div, binary(Binary::Mul, a, b)?, scale)?;
    let factor = if factor.len() == 1 {
        factor.reshape(&[])
    } else {
        factor
    };
    let numbers = binary(Binary::Mul, sums.cast(DType::F32)?, factor)?;
    let to = zero.dtype();
    quantized(numbers, Some(zero), to)
}

/// The smallest and largest number of a quantised type of whole numbers.
fn range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::U8 => Some((0, 255)),
        DType::I8 => Some((-128, 127)),
        DType::U16 => Some((0, 65_535)),
        DType::I16 => Some((-32_768, 32_767)),
        DType::Narrow(narrow) => narrow.range(),
        _ => None,
    }
}

/// `saturate(round(x / scale) + zero)`.
pub(super) fn quantize(
    x: Value,
    scale: Value,
    zero: Option<Value>,
    scales: Scales,
    to: DType,
    precision: Option<DType>,
    rounding: Rounding,
) -> Result<Value> {
    if let Some(zero) = &zero
        && zero.dtype() != to
    {
        let found = zero.dtype();
        let expected = format!("a zero point of type {to}");
        return Err(OpError::DType { expected, found });
    }
    let small = matches!(to, DType::Narrow(narrow) if narrow != Narrow::F8E8M0);
    if range(to).is_none() && !small {
        let expected = "a quantised type".into();
        return Err(OpError::DType {
            expected,
            found: to,
        });
    }
    if precision.is_none()
        && let Some(done) = quantize_bytes(&x, &scale, zero.as_ref(), to)?
    {
        return Ok(done);
    }
    let compute = match precision.unwrap_or(scale.dtype()) {
        float @ (DType::F16 | DType::BF16 | DType::F32 | DType::F64) => float,
        _ => DType::F32,
    };
    let shape = x.shape();
    let scale = spread(scale.cast(compute)?, &shape, scales)?;
    let zero = zero.map(|zero| spread(zero, &shape, scales)).transpose()?;
    let divided = binary(Binary::Div, x.cast(compute)?, scale)?;
    if range(to).is_some() {
        return quantized(divided, zero, to);
    }
    let shifted = match zero {
        Some(zero) => binary(Binary::Add, divided, zero.cast(compute)?)?,
        None => divided,
    };
    shifted.cast_by(to, rounding)
}

/// With one scale, to bytes, in one pass.
fn quantize_bytes(
    x: &Value,
    scale: &Value,
    zero: Option<&Value>,
    to: DType,
) -> Result<Option<Value>> {
    let bytes = matches!(to, DType::U8 | DType::I8);
    let single = scale.len() == 1 && zero.is_none_or(|zero| zero.len() == 1);
    let (Value::Float(t), Some((low, high))) = (x, range(to)) else {
        return Ok(None);
    };
    if !bytes || !single || scale.dtype() != DType::F32 {
        return Ok(None);
    }
    let scale = scale.to_floats()?.first().copied().unwrap_or(1.0) as f32;
    let zero = zero.map(Value::to_ints).transpose()?;
    let zero = zero.and_then(|zero| zero.first().copied()).unwrap_or(0) as i32;
    let within = (low as i32, high as i32);
    let made = integer::with_floats(t, |values| integer::quantized(values, scale, zero, within));
    made.map(|made| from_bytes(made, x.shape(), to, x))
        .transpose()
}

/// A tensor of i8 or u8 from its bytes.
fn from_bytes(bytes: Vec<u8>, shape: Vec<usize>, dtype: DType, like: &Value) -> Result<Value> {
    let tensor = Tensor::new(dtype, shape, bytes);
    Value::upload(
        tensor.map_err(|error| OpError::Value(error.to_string()))?,
        &like.device(),
    )
}

/// Numbers in units of the scale, rounded, moved by the zero point and kept in range.
fn quantized(numbers: Value, zero: Option<Value>, to: DType) -> Result<Value> {
    let (low, high) = range(to).ok_or_else(|| OpError::DType {
        expected: "a quantised type of whole numbers".into(),
        found: to,
    })?;
    if numbers.len() == 0 {
        return Value::full(to, &numbers.shape(), 0.0, &numbers.device());
    }
    let rounded = Value::Float(B::float_round(numbers.float()?)).cast(DType::F32)?;
    let shifted = match zero {
        Some(zero) => binary(Binary::Add, rounded, zero.cast(DType::F32)?)?,
        None => rounded,
    };
    let (low, high) = ((low as f64).into(), (high as f64).into());
    Value::Float(B::float_clamp(shifted.float()?, low, high)).cast(to)
}

/// `(x − zero) · scale`.
pub(super) fn dequantize(
    x: Value,
    scale: Value,
    zero: Option<Value>,
    scales: Scales,
    to: Option<DType>,
) -> Result<Value> {
    let to = to.unwrap_or(match scale.dtype() {
        DType::Narrow(_) => DType::F32,
        other => other,
    });
    if let Some(zero) = &zero
        && zero.dtype() != x.dtype()
    {
        let expected = format!("a zero point of type {}", x.dtype());
        let found = zero.dtype();
        return Err(OpError::DType { expected, found });
    }
    let shape = x.shape();
    let scale = spread(scale.cast(DType::F32)?, &shape, scales)?;
    let x = x.cast(DType::F32)?;
    let moved = match zero {
        Some(zero) => binary(
            Binary::Sub,
            x,
            spread(zero.cast(DType::F32)?, &shape, scales)?,
        )?,
        None => x,
    };
    binary(Binary::Mul, moved, scale)?.cast(to)
}

/// Scales or zero points in a shape that broadcasts to that of their tensor.
fn spread(value: Value, shape: &[usize], scales: Scales) -> Result<Value> {
    if value.len() == 1 {
        return Ok(value.reshape(&[]));
    }
    let found = value.shape();
    let at = axis(scales.axis, shape.len())?;
    let size = shape.get(at).copied().unwrap_or(0);
    let misfit = || {
        let Scales { axis, block } = scales;
        OpError::Shape(format!(
            "scales {found:?} for a tensor {shape:?}, axis {axis}, blocks of {block}"
        ))
    };
    if scales.block == 0 || found.len() != shape.len() {
        if found != [size] {
            return Err(misfit());
        }
        let wide: Vec<_> = (0..shape.len())
            .map(|axis| if axis == at { size } else { 1 })
            .collect();
        return Ok(value.reshape(&wide));
    }
    let blocks = size.div_ceil(scales.block);
    let mut expected = shape.to_vec();
    if let Some(slot) = expected.get_mut(at) {
        *slot = blocks;
    }
    if found != expected {
        return Err(misfit());
    }
    // Each scale as often as its block is long, then cut where the last block ends.
    let (outer, inner) = expected.split_at(at + 1);
    let with = |between: usize| -> Vec<usize> {
        let outer = outer.iter().copied();
        outer
            .chain([between])
            .chain(inner.iter().copied())
            .collect()
    };
    let mut joined = expected.clone();
    if let Some(slot) = joined.get_mut(at) {
        *slot = blocks.saturating_mul(scales.block);
    }
    check_size(value.dtype(), &joined)?;
    let repeated = value.reshape(&with(1)).expand(&with(scales.block));
    Ok(repeated.reshape(&joined).narrow(at, 0, size))
}

/// To u8 by the tensor's own range, which holds zero: y, scale, zero point.
pub(super) fn dynamic(x: Value) -> Result<Vec<Value>> {
    let found = x.dtype();
    let (shape, device) = (x.shape(), x.device());
    let t = x.clone().float()?;
    let made = integer::with_floats(&t, |values| {
        let (low, high) = integer::bounds(values);
        let scale = if low == high {
            1.0
        } else {
            (high - low) / 255.0
        };
        let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
        let bytes = integer::quantized(values, scale, zero as i32, (0, 255));
        (bytes, scale, zero)
    });
    let (bytes, scale, zero) = made.ok_or_else(|| OpError::DType {
        expected: "f32".into(),
        found,
    })?;
    let y = from_bytes(bytes, shape, DType::U8, &x)?;
    let scale = Value::from_floats(vec![f64::from(scale)], &[], DType::F32, &device)?;
    let zero = Value::full(DType::U8, &[], f64::from(zero), &device)?;
    Ok(vec![y, scale, zero])
}
