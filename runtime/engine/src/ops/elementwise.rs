//! Element by element: arithmetic, activations, comparisons, logic.

use burn_backend::ops::{ActivationOps, BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::{Scalar, TensorMetadata};
use burn_dispatch::{DispatchDevice, DispatchTensor};

use super::{Result, axis, broadcast, broadcast_to, count, text, wide, with_rank};
use crate::device;
use crate::error::OpError;
use crate::graph::{Binary, Compare, Logic, Unary, Variadic};
use crate::kernels::{self, Activation};
use crate::tensor::DType;
use crate::value::{B, Value, bool_type, check_size};

fn scalar(value: f32) -> Scalar {
    Scalar::Float(f64::from(value))
}

pub(super) fn unary(kind: Unary, x: Value) -> Result<Value> {
    if x.len() == 0 {
        return empty_unary(kind, x);
    }
    let narrow = x.dtype();
    // One rounding at the end, not one for each step of a function.
    if wide(narrow) != narrow && !matches!(kind, Unary::IsInf { .. } | Unary::IsNan) {
        return unary(kind, x.cast(wide(narrow))?)?.cast(narrow);
    }
    let x = match kernels::unary(kind, x) {
        Ok(done) => return Ok(done),
        Err(x) => x,
    };
    match x {
        Value::Float(t) => float_unary(kind, t),
        Value::Int(t) => int_unary(kind, t),
        Value::Bool(t) if kind == Unary::Not => Ok(Value::Bool(B::bool_not(t))),
        other => Err(OpError::DType {
            expected: "numbers".into(),
            found: other.dtype(),
        }),
    }
}

/// The function of each element that joins of nodes leave to do.
pub(super) fn activate(activation: Activation, x: Value) -> Result<Value> {
    let kind = match activation {
        Activation::None => return Ok(x),
        Activation::Clamp { low, high } => {
            let bound = |value: f32| Value::full(x.dtype(), &[], f64::from(value), &device::cpu());
            let (low, high) = (bound(low)?, bound(high)?);
            return clip(x, Some(low), Some(high));
        }
        Activation::Relu => Unary::Relu,
        Activation::LeakyRelu { alpha } => Unary::LeakyRelu { alpha },
        Activation::HardSigmoid { alpha, beta } => Unary::HardSigmoid { alpha, beta },
        Activation::HardSwish => Unary::HardSwish,
        Activation::Sigmoid => Unary::Sigmoid,
        Activation::Silu => Unary::Silu,
        Activation::Tanh => Unary::Tanh,
        Activation::Erf => Unary::Erf,
        Activation::Gelu { tanh } => Unary::Gelu { tanh },
    };
    unary(kind, x)
}

fn empty_unary(kind: Unary, x: Value) -> Result<Value> {
    match kind {
        Unary::IsInf { .. } | Unary::IsNan => x.cast(DType::Bool),
        _ => Ok(x),
    }
}

fn float_unary(kind: Unary, t: DispatchTensor) -> Result<Value> {
    let out = || bool_type(&Value::Float(t.clone()).device());
    Ok(Value::Float(match kind {
        Unary::Abs => B::float_abs(t),
        Unary::Acos => B::float_acos(t),
        Unary::Acosh => B::float_acosh(t),
        Unary::Asin => B::float_asin(t),
        Unary::Asinh => B::float_asinh(t),
        Unary::Atan => B::float_atan(t),
        Unary::Atanh => B::float_atanh(t),
        Unary::Ceil => B::float_ceil(t),
        Unary::Celu { alpha } => exponential(t, alpha, alpha, 1.0),
        Unary::Cos => B::float_cos(t),
        Unary::Cosh => B::float_cosh(t),
        Unary::Elu { alpha } => exponential(t, alpha, 1.0, 1.0),
        Unary::Erf => B::float_erf(t),
        Unary::Exp => B::float_exp(t),
        Unary::Floor => B::float_floor(t),
        Unary::Gelu { tanh: false } => B::gelu(t),
        Unary::Gelu { tanh: true } => gelu_tanh(t),
        Unary::HardSigmoid { alpha, beta } => B::hard_sigmoid(t, scalar(alpha), scalar(beta)),
        Unary::HardSwish => {
            let gate = B::hard_sigmoid(t.clone(), Scalar::Float(1.0 / 6.0), Scalar::Float(0.5));
            B::float_mul(gate, t)
        }
        Unary::IsInf { negative, positive } => {
            let all = out();
            let found = match (negative, positive) {
                (true, true) => B::float_is_inf(t, all),
                (true, false) => B::float_equal_elem(t, Scalar::Float(f64::NEG_INFINITY), all),
                (false, true) => B::float_equal_elem(t, Scalar::Float(f64::INFINITY), all),
                (false, false) => B::float_not_equal(t.clone(), t.clone(), all),
            };
            return Ok(Value::Bool(found));
        }
        Unary::IsNan => {
            let all = out();
            return Ok(Value::Bool(B::float_is_nan(t, all)));
        }
        Unary::LeakyRelu { alpha } => B::leaky_relu(t, scalar(alpha)),
        Unary::Log => B::float_log(t),
        Unary::Mish => B::float_mul(B::float_tanh(softplus(t.clone())), t),
        Unary::Neg => B::float_neg(t),
        Unary::Reciprocal => B::float_recip(t),
        Unary::Relu => B::relu(t),
        Unary::Round => B::float_round(t),
        Unary::Selu { alpha, gamma } => exponential(t, alpha, 1.0, gamma),
        Unary::Sigmoid => B::sigmoid(t),
        Unary::Sign => B::float_sign(t),
        Unary::Silu => B::float_mul(B::sigmoid(t.clone()), t),
        Unary::Shrink { bias, lambda } => shrink(t, bias, lambda),
        Unary::Sin => B::float_sin(t),
        Unary::Sinh => B::float_sinh(t),
        Unary::Softplus => softplus(t),
        Unary::Softsign => {
            let over = B::float_add_scalar(B::float_abs(t.clone()), Scalar::Float(1.0));
            B::float_div(t, over)
        }
        Unary::Sqrt => B::float_sqrt(t),
        Unary::Swish { alpha } => {
            let gate = B::sigmoid(B::float_mul_scalar(t.clone(), scalar(alpha)));
            B::float_mul(gate, t)
        }
        Unary::Tan => B::float_tan(t),
        Unary::Tanh => B::float_tanh(t),
        Unary::ThresholdedRelu { alpha } => {
            let below = B::float_lower_equal_elem(t.clone(), scalar(alpha), out());
            B::float_mask_fill(t, below, Scalar::Float(0.0))
        }
        Unary::BitNot | Unary::Not => {
            let expected = if kind == Unary::Not {
                "bools"
            } else {
                "integers"
            };
            let found = Value::Float(t).dtype();
            return Err(OpError::DType {
                expected: expected.into(),
                found,
            });
        }
    }))
}

/// `gamma * (x > 0 ? x : alpha * (exp(x / width) - 1))`: Elu, Celu and Selu.
fn exponential(t: DispatchTensor, alpha: f32, width: f32, gamma: f32) -> DispatchTensor {
    let low = B::float_clamp_max(t.clone(), Scalar::Float(0.0));
    let low = B::float_exp(B::float_div_scalar(low, scalar(width)));
    let low = B::float_mul_scalar(B::float_sub_scalar(low, Scalar::Float(1.0)), scalar(alpha));
    let both = B::float_add(B::relu(t), low);
    if gamma == 1.0 {
        both
    } else {
        B::float_mul_scalar(both, scalar(gamma))
    }
}

/// `x` moved by `bias` toward zero where it is beyond ± `lambda`, else zero.
fn shrink(t: DispatchTensor, bias: f32, lambda: f32) -> DispatchTensor {
    let out = bool_type(&Value::Float(t.clone()).device());
    let low = B::float_lower_elem(t.clone(), scalar(-lambda), out);
    let high = B::float_greater_elem(t.clone(), scalar(lambda), out);
    let none = B::bool_not(B::bool_or(low.clone(), high));
    let up = B::float_add_scalar(t.clone(), scalar(bias));
    let down = B::float_sub_scalar(t, scalar(bias));
    let moved = B::float_mask_where(down, low, up);
    B::float_mask_fill(moved, none, Scalar::Float(0.0))
}

/// `max(x, 0) + log(1 + exp(-|x|))`, which does not overflow.
fn softplus(t: DispatchTensor) -> DispatchTensor {
    let tail = B::float_log1p(B::float_exp(B::float_neg(B::float_abs(t.clone()))));
    B::float_add(B::relu(t), tail)
}

/// `x * sigmoid(1.5957691 * (x + 0.044715 x³))`: the approximation by tanh, since
/// `(1 + tanh(y)) / 2 = sigmoid(2y)`.
fn gelu_tanh(t: DispatchTensor) -> DispatchTensor {
    let square = B::float_mul(t.clone(), t.clone());
    let inner = B::float_mul_scalar(square, Scalar::Float(0.044715));
    let inner = B::float_mul(B::float_add_scalar(inner, Scalar::Float(1.0)), t.clone());
    let gate = B::sigmoid(B::float_mul_scalar(
        inner,
        Scalar::Float(1.595_769_121_605_730_7),
    ));
    B::float_mul(gate, t)
}

fn int_unary(kind: Unary, t: DispatchTensor) -> Result<Value> {
    Ok(Value::Int(match kind {
        Unary::Abs => B::int_abs(t),
        Unary::Neg => B::int_neg(t),
        Unary::Sign => B::int_sign(t),
        Unary::BitNot => B::bitwise_not(t),
        Unary::Relu => B::int_clamp_min(t, Scalar::Int(0)),
        Unary::Ceil | Unary::Floor | Unary::Round => t,
        Unary::Shrink { bias, lambda } => {
            let x = Value::Int(t);
            let dtype = x.dtype();
            let moved = shrink(x.cast(DType::F64)?.float()?, bias, lambda);
            Value::Float(moved).cast(dtype)?.int()?
        }
        _ => {
            let found = Value::Int(t).dtype();
            return Err(OpError::DType {
                expected: "floats".into(),
                found,
            });
        }
    }))
}

/// Two values of one dtype and rank, and the shape that they broadcast to.
struct Pair {
    left: Value,
    right: Value,
    shape: Vec<usize>,
}

impl Pair {
    fn new(left: Value, right: Value) -> Result<Self> {
        if left.dtype() != right.dtype() {
            let expected = format!("{} as on the left side", left.dtype());
            return Err(OpError::DType {
                expected,
                found: right.dtype(),
            });
        }
        let shape = broadcast(&left.shape(), &right.shape())?;
        check_size(left.dtype(), &shape)?;
        let rank = shape.len().max(1);
        let (left, right) = left.beside(right)?;
        Ok(Self {
            left: with_rank(left, rank),
            right: with_rank(right, rank),
            shape,
        })
    }

    /// What an operation that makes no element gives.
    fn empty(&self, dtype: DType) -> Option<Result<Value>> {
        let device: DispatchDevice = self.left.device();
        (count(&self.shape) == 0).then(|| Value::full(dtype, &self.shape, 0.0, &device))
    }
}

pub(super) fn binary(kind: Binary, left: Value, right: Value) -> Result<Value> {
    let right = match kind {
        // The exponent may have a type of its own.
        Binary::Pow if left.dtype() != right.dtype() => right.cast(left.dtype())?,
        _ => right,
    };
    let (left, right) = match kind {
        Binary::Add | Binary::Mul if left.len() == 1 => (right, left),
        _ => (left, right),
    };
    if left.dtype() == right.dtype()
        && matches!(left, Value::Float(_))
        && let Some(by) = host_scalar(&right, &left)
        && let Some(done) = float_by_scalar(kind, &left, by)
    {
        return done(left.float()?);
    }
    let pair = Pair::new(left, right)?;
    if let Some(empty) = pair.empty(pair.left.dtype()) {
        return empty;
    }
    let Pair { left, right, shape } = pair;
    let done = match (left, right) {
        (Value::Float(a), Value::Float(b)) => Value::Float(float_binary(kind, a, b)?),
        (Value::Int(a), Value::Int(b)) => Value::Int(int_binary(kind, a, b)?),
        (a, _) => {
            return Err(OpError::DType {
                expected: "numbers".into(),
                found: a.dtype(),
            });
        }
    };
    Ok(done.reshape(&shape))
}

/// The right side's axes are those of the left one from `along` on.
pub(super) fn binary_at(kind: Binary, left: Value, right: Value, along: i64) -> Result<Value> {
    if right.len() == 1 {
        return binary(kind, left, right);
    }
    let (rank, mut wide) = (left.rank(), right.shape());
    let at = axis(along, rank)?;
    let after = (rank - at).checked_sub(wide.len());
    let after = after.ok_or_else(|| {
        let left = left.shape();
        OpError::Shape(format!("{wide:?} at axis {at} of {left:?}"))
    })?;
    wide.extend(vec![1; after]);
    binary(kind, left, right.reshape(&wide))
}

/// The number in a one-element tensor on the host that doesn't widen the other side.
fn host_scalar(value: &Value, other: &Value) -> Option<f64> {
    let narrow = value.len() == 1 && value.rank() <= other.rank();
    if !narrow || !matches!(value.device(), DispatchDevice::Flex(_)) {
        return None;
    }
    value.to_floats().ok()?.first().copied()
}

type ByScalar = Box<dyn FnOnce(DispatchTensor) -> Result<Value>>;

/// Operations with a number on the right side, which need no second tensor.
fn float_by_scalar(kind: Binary, left: &Value, by: f64) -> Option<ByScalar> {
    if left.len() == 0 {
        return None;
    }
    let number = Scalar::Float(by);
    Some(match kind {
        Binary::Add => Box::new(move |t| Ok(Value::Float(B::float_add_scalar(t, number)))),
        Binary::Sub => Box::new(move |t| Ok(Value::Float(B::float_sub_scalar(t, number)))),
        Binary::Mul => Box::new(move |t| Ok(Value::Float(B::float_mul_scalar(t, number)))),
        Binary::Div => Box::new(move |t| Ok(Value::Float(B::float_div_scalar(t, number)))),
        Binary::Pow if by == 2.0 => Box::new(|t| Ok(Value::Float(B::float_mul(t.clone(), t)))),
        Binary::Pow if by == 3.0 => Box::new(|t| {
            let square = B::float_mul(t.clone(), t.clone());
            Ok(Value::Float(B::float_mul(square, t)))
        }),
        Binary::Pow if by == 0.5 => Box::new(|t| Ok(Value::Float(B::float_sqrt(t)))),
        _ => return None,
    })
}

fn float_binary(kind: Binary, a: DispatchTensor, b: DispatchTensor) -> Result<DispatchTensor> {
    Ok(match kind {
        Binary::Add => B::float_add(a, b),
        Binary::Sub => B::float_sub(a, b),
        Binary::Mul => B::float_mul(a, b),
        Binary::Div => B::float_div(a, b),
        Binary::Pow => B::float_powf(a, b),
        Binary::PRelu => B::prelu(a, b),
        Binary::Mod { c_like: false } => B::float_remainder(a, b),
        Binary::Mod { c_like: true } => {
            let times = B::float_trunc(B::float_div(a.clone(), b.clone()));
            B::float_sub(a, B::float_mul(times, b))
        }
        Binary::BitAnd
        | Binary::BitOr
        | Binary::BitXor
        | Binary::ShiftLeft
        | Binary::ShiftRight => {
            let found = Value::Float(a).dtype();
            return Err(OpError::DType {
                expected: "integers".into(),
                found,
            });
        }
    })
}

fn int_binary(kind: Binary, a: DispatchTensor, b: DispatchTensor) -> Result<DispatchTensor> {
    if matches!(kind, Binary::Div | Binary::Mod { .. }) {
        let divisor = Value::Int(b.clone());
        if matches!(divisor.device(), DispatchDevice::Flex(_)) && divisor.to_ints()?.contains(&0) {
            return Err(OpError::DivisionByZero);
        }
    }
    Ok(match kind {
        Binary::Add => B::int_add(a, b),
        Binary::Sub => B::int_sub(a, b),
        Binary::Mul => B::int_mul(a, b),
        Binary::Div => B::int_div(a, b),
        Binary::Mod { c_like: false } => B::int_remainder(a, b),
        Binary::Mod { c_like: true } => {
            let times = B::int_div(a.clone(), b.clone());
            B::int_sub(a, B::int_mul(times, b))
        }
        Binary::Pow => {
            let dtype = Value::Int(a.clone()).dtype();
            let a = Value::Int(a).cast(DType::F64)?.float()?;
            let b = Value::Int(b).cast(DType::F64)?.float()?;
            Value::Float(B::float_powf(a, b)).cast(dtype)?.int()?
        }
        Binary::PRelu => {
            let zero = Scalar::Int(0);
            let low = B::int_mul(B::int_clamp_max(a.clone(), zero), b);
            B::int_add(B::int_clamp_min(a, zero), low)
        }
        Binary::BitAnd => B::bitwise_and(a, b),
        Binary::BitOr => B::bitwise_or(a, b),
        Binary::BitXor => B::bitwise_xor(a, b),
        Binary::ShiftLeft | Binary::ShiftRight => shift(kind, a, b),
    })
}

/// Bits moved left or right. By as many as there are, or by a negative number, which counts
/// as a large one, nothing but zeros is left, or ones of a negative number moved right.
fn shift(kind: Binary, a: DispatchTensor, b: DispatchTensor) -> DispatchTensor {
    let by = Value::Int(b.clone());
    let (dtype, out) = (by.dtype(), bool_type(&by.device()));
    let bits = Scalar::Int(8 * dtype.size().unwrap_or(8) as i64);
    let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
    let far = |b: DispatchTensor| {
        let large = B::int_greater_equal_elem(b.clone(), bits, out);
        if signed {
            B::bool_or(large, B::int_lower_elem(b, Scalar::Int(0), out))
        } else {
            large
        }
    };
    if kind == Binary::ShiftRight && signed {
        let most = Scalar::Int(8 * dtype.size().unwrap_or(8) as i64 - 1);
        return B::bitwise_right_shift(a, B::int_mask_fill(b.clone(), far(b), most));
    }
    let moved = match kind {
        Binary::ShiftLeft => B::bitwise_left_shift(a, b.clone()),
        _ => B::bitwise_right_shift(a, b.clone()),
    };
    let far = far(B::int_expand(b, moved.shape()));
    B::int_mask_fill(moved, far, Scalar::Int(0))
}

pub(super) fn variadic(kind: Variadic, values: Vec<Value>) -> Result<Value> {
    let number = values.len();
    let mut values = values.into_iter();
    let first = values.next().ok_or(OpError::MissingInput { index: 0 })?;
    let all = values.try_fold(first, |a, b| match kind {
        Variadic::Max => extreme(a, b, true),
        Variadic::Min => extreme(a, b, false),
        Variadic::Sum | Variadic::Mean => binary(Binary::Add, a, b),
    })?;
    if kind != Variadic::Mean {
        return Ok(all);
    }
    Ok(Value::Float(B::float_div_scalar(
        all.float()?,
        Scalar::Float(number as f64),
    )))
}

/// The larger or smaller of each two elements; NaN where either is.
fn extreme(left: Value, right: Value, largest: bool) -> Result<Value> {
    let pair = Pair::new(left, right)?;
    if let Some(empty) = pair.empty(pair.left.dtype()) {
        return empty;
    }
    let out = bool_type(&pair.left.device());
    let (a, b) = (
        broadcast_rank(pair.left, &pair.shape),
        broadcast_rank(pair.right, &pair.shape),
    );
    let mask = match (a.clone(), b.clone(), largest) {
        (Value::Float(a), Value::Float(b), largest) => {
            let wins = match largest {
                true => B::float_greater(b.clone(), a, out),
                false => B::float_lower(b.clone(), a, out),
            };
            B::bool_or(wins, B::float_is_nan(b, out))
        }
        (Value::Int(a), Value::Int(b), true) => B::int_greater(b, a, out),
        (Value::Int(a), Value::Int(b), false) => B::int_lower(b, a, out),
        (a, ..) => {
            return Err(OpError::DType {
                expected: "numbers".into(),
                found: a.dtype(),
            });
        }
    };
    Ok(a.choose(mask, b)?.reshape(&pair.shape))
}

/// Repeated to the shape, which counts as `[1]` where it is empty.
fn broadcast_rank(value: Value, shape: &[usize]) -> Value {
    if shape.is_empty() {
        value
    } else {
        broadcast_to(value, shape)
    }
}

pub(super) fn compare(kind: Compare, left: Value, right: Value) -> Result<Value> {
    if matches!(
        (kind, &left, &right),
        (Compare::Equal, Value::Text(..), Value::Text(..))
    ) {
        let (left, right) = text::numbered(left, right)?;
        return compare(kind, left, right);
    }
    let pair = Pair::new(left, right)?;
    if let Some(empty) = pair.empty(DType::Bool) {
        return empty;
    }
    let out = bool_type(&pair.left.device());
    let Pair { left, right, shape } = pair;
    let done = match (left, right) {
        (Value::Float(a), Value::Float(b)) => match kind {
            Compare::Equal => B::float_equal(a, b, out),
            Compare::Greater => B::float_greater(a, b, out),
            Compare::GreaterOrEqual => B::float_greater_equal(a, b, out),
            Compare::Less => B::float_lower(a, b, out),
            Compare::LessOrEqual => B::float_lower_equal(a, b, out),
        },
        (Value::Int(a), Value::Int(b)) => match kind {
            Compare::Equal => B::int_equal(a, b, out),
            Compare::Greater => B::int_greater(a, b, out),
            Compare::GreaterOrEqual => B::int_greater_equal(a, b, out),
            Compare::Less => B::int_lower(a, b, out),
            Compare::LessOrEqual => B::int_lower_equal(a, b, out),
        },
        (a @ Value::Bool(_), b) if kind == Compare::Equal => {
            let (a, b) = (broadcast_rank(a, &shape), broadcast_rank(b, &shape));
            B::bool_equal(a.bool()?, b.bool()?)
        }
        (a, _) => {
            return Err(OpError::DType {
                expected: "numbers".into(),
                found: a.dtype(),
            });
        }
    };
    Ok(Value::Bool(done).reshape(&shape))
}

pub(super) fn logic(kind: Logic, left: Value, right: Value) -> Result<Value> {
    let pair = Pair::new(left, right)?;
    if let Some(empty) = pair.empty(DType::Bool) {
        return empty;
    }
    let a = broadcast_rank(pair.left, &pair.shape).bool()?;
    let b = broadcast_rank(pair.right, &pair.shape).bool()?;
    let done = match kind {
        Logic::And => B::bool_and(a, b),
        Logic::Or => B::bool_or(a, b),
        Logic::Xor => B::bool_xor(a, b),
    };
    Ok(Value::Bool(done).reshape(&pair.shape))
}

/// ONNX's Where.
pub(super) fn choose(mask: Value, yes: Value, no: Value) -> Result<Value> {
    if yes.dtype() != no.dtype() {
        return Err(OpError::DType {
            expected: yes.dtype().to_string(),
            found: no.dtype(),
        });
    }
    let shape = broadcast(&broadcast(&mask.shape(), &yes.shape())?, &no.shape())?;
    check_size(yes.dtype(), &shape)?;
    if count(&shape) == 0 {
        return Value::full(yes.dtype(), &shape, 0.0, &yes.device());
    }
    let wide = if shape.is_empty() {
        vec![1]
    } else {
        shape.clone()
    };
    let [mask, yes, no] = [mask, yes, no].map(|value| broadcast_to(with_rank(value, 1), &wide));
    Ok(no.choose(mask.bool()?, yes)?.reshape(&shape))
}

pub(super) fn clip(x: Value, min: Option<Value>, max: Option<Value>) -> Result<Value> {
    let bound = |value: Option<Value>| -> Result<Option<f64>> {
        let Some(value) = value else { return Ok(None) };
        match value.to_floats()?.as_slice() {
            [one] => Ok(Some(*one)),
            many => Err(OpError::Shape(format!(
                "a bound has {} elements, expected 1",
                many.len()
            ))),
        }
    };
    let (min, max) = (bound(min)?, bound(max)?);
    if x.len() == 0 {
        return Ok(x);
    }
    match x {
        Value::Float(t) => Ok(Value::Float(match (min, max) {
            (Some(min), Some(max)) if min <= max => B::float_clamp(t, min.into(), max.into()),
            (min, max) => {
                let mut t = t;
                if let Some(min) = min {
                    t = B::float_clamp_min(t, min.into());
                }
                if let Some(max) = max {
                    t = B::float_clamp_max(t, max.into());
                }
                t
            }
        })),
        Value::Int(t) => {
            let mut t = t;
            if let Some(min) = min {
                t = B::int_clamp_min(t, Scalar::Int(min as i64));
            }
            if let Some(max) = max {
                t = B::int_clamp_max(t, Scalar::Int(max as i64));
            }
            Ok(Value::Int(t))
        }
        other => Err(other.unexpected("numbers")),
    }
}
