//! A tensor on a device: burn's primitive with its kind, and what can be done to any kind.
//!
//! burn has one primitive per kind (float, int, bool) and one set of functions for each; here
//! they become methods. Shapes are checked by the operators before these are called, since
//! burn's kernels panic on a misfit.

mod cast;
mod host;
mod item;
mod place;

use std::sync::Arc;

use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::tensor::IndexingUpdateOp;
use burn_backend::{
    BoolStore, DType as BurnType, FloatDType, IntDType, Scalar, Shape, Slice, TensorMetadata,
};
use burn_dispatch::{Dispatch, DispatchDevice, DispatchTensor};
use bytes::Bytes;

use crate::device;
use crate::error::OpError;
use crate::tensor::{DType, Narrow};

pub(crate) use item::Item;
pub(crate) use place::{bool_type, computes};

/// The backend that everything runs on: it picks the device's own at run time.
pub(crate) type B = Dispatch;

/// The largest tensor that an operator makes, in bytes.
pub(crate) const MAX_TENSOR_BYTES: usize = 1 << 31;

/// A tensor on a device. Cloning shares the memory.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(DispatchTensor),
    Int(DispatchTensor),
    Bool(DispatchTensor),
    /// Codes of elements narrower than burn has, as u8.
    Code(Narrow, DispatchTensor),
    /// Strings and, as i64 on the host, the place of each element's string among them: what
    /// moves elements moves places.
    Text(Arc<Vec<Bytes>>, DispatchTensor),
}

/// Applies the function of each kind and keeps the kind.
macro_rules! by_kind {
    ($value:expr, $t:ident => $float:expr, $int:expr, $bool:expr) => {
        match $value {
            Value::Float($t) => Value::Float($float),
            Value::Int($t) => Value::Int($int),
            Value::Bool($t) => Value::Bool($bool),
            Value::Code(narrow, $t) => Value::Code(narrow, $int),
            Value::Text(strings, $t) => Value::Text(strings, $int),
        }
    };
}

impl Value {
    /// A tensor with `value` everywhere: zeros and empty strings for types without numbers.
    /// It lies on the host where it has no elements.
    pub fn full(
        dtype: DType,
        shape: &[usize],
        value: f64,
        device: &DispatchDevice,
    ) -> Result<Self, OpError> {
        check_size(dtype, shape)?;
        let host = device::cpu();
        let device = if shape.contains(&0) { &host } else { device };
        let shape = Shape::from(shape.to_vec());
        Ok(match dtype {
            DType::Bool if value == 0.0 => {
                Self::Bool(B::bool_zeros(shape, device, bool_type(device)))
            }
            DType::Bool => Self::Bool(B::bool_ones(shape, device, bool_type(device))),
            dtype if is_float(dtype) => Self::Float(B::float_full(
                shape,
                value.into(),
                device,
                float_type(dtype)?,
            )),
            DType::Narrow(narrow) => {
                let zero = Scalar::Int(0);
                Self::Code(narrow, B::int_full(shape, zero, device, IntDType::U8))
            }
            DType::Bytes => {
                let (empty, zero) = (Arc::new(vec![Bytes::new()]), Scalar::Int(0));
                let places = B::int_full(shape, zero, &device::cpu(), IntDType::I64);
                Self::Text(empty, places)
            }
            dtype => {
                let value = Scalar::Int(value as i64);
                Self::Int(B::int_full(shape, value, device, int_type(dtype)?))
            }
        })
    }

    pub fn tensor(&self) -> &DispatchTensor {
        match self {
            Self::Float(t) | Self::Int(t) | Self::Bool(t) => t,
            Self::Code(_, t) | Self::Text(_, t) => t,
        }
    }

    pub fn shape(&self) -> Vec<usize> {
        self.tensor().shape().to_vec()
    }

    pub fn rank(&self) -> usize {
        self.tensor().shape().num_dims()
    }

    pub fn len(&self) -> usize {
        self.tensor().shape().num_elements()
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().size().unwrap_or(1)
    }

    pub fn dtype(&self) -> DType {
        match self {
            Self::Code(narrow, _) => return DType::Narrow(*narrow),
            Self::Text(..) => return DType::Bytes,
            Self::Float(_) | Self::Int(_) | Self::Bool(_) => {}
        }
        match self.tensor().dtype() {
            BurnType::F64 => DType::F64,
            BurnType::F16 => DType::F16,
            BurnType::BF16 => DType::BF16,
            BurnType::I64 => DType::I64,
            BurnType::I32 => DType::I32,
            BurnType::I16 => DType::I16,
            BurnType::I8 => DType::I8,
            BurnType::U64 => DType::U64,
            BurnType::U32 => DType::U32,
            BurnType::U16 => DType::U16,
            BurnType::U8 => DType::U8,
            BurnType::Bool(_) => DType::Bool,
            BurnType::F32 | BurnType::Flex32 | BurnType::QFloat(_) => DType::F32,
        }
    }

    /// The float primitive, or an error that says what came instead.
    pub fn float(self) -> Result<DispatchTensor, OpError> {
        match self {
            Self::Float(t) => Ok(t),
            other => Err(OpError::DType {
                expected: "floats".into(),
                found: other.dtype(),
            }),
        }
    }

    /// The int primitive, or an error that says what came instead.
    pub fn int(self) -> Result<DispatchTensor, OpError> {
        match self {
            Self::Int(t) => Ok(t),
            other => Err(OpError::DType {
                expected: "integers".into(),
                found: other.dtype(),
            }),
        }
    }

    /// The bool primitive, or an error that says what came instead.
    pub fn bool(self) -> Result<DispatchTensor, OpError> {
        match self {
            Self::Bool(t) => Ok(t),
            other => Err(OpError::DType {
                expected: "bools".into(),
                found: other.dtype(),
            }),
        }
    }

    /// The same elements in another shape of the same size.
    pub fn reshape(self, shape: &[usize]) -> Self {
        if self.tensor().shape().iter().eq(shape.iter()) {
            return self;
        }
        let shape = Shape::from(shape.to_vec());
        by_kind!(self, t => B::float_reshape(t, shape), B::int_reshape(t, shape), B::bool_reshape(t, shape))
    }

    pub fn permute(self, axes: &[usize]) -> Self {
        if axes.iter().enumerate().all(|(at, &axis)| at == axis) {
            return self;
        }
        by_kind!(self, t => B::float_permute(t, axes), B::int_permute(t, axes), B::bool_permute(t, axes))
    }

    /// Repeats dimensions of size 1; `shape` has the tensor's rank.
    pub fn expand(self, shape: &[usize]) -> Self {
        let shape = Shape::from(shape.to_vec());
        by_kind!(self, t => B::float_expand(t, shape), B::int_expand(t, shape), B::bool_expand(t, shape))
    }

    /// One range per dimension, steps above zero.
    pub fn slice(self, slices: &[Slice]) -> Self {
        by_kind!(self, t => B::float_slice(t, slices), B::int_slice(t, slices), B::bool_slice(t, slices))
    }

    /// The part from `start` to `end` of one dimension.
    pub fn narrow(self, axis: usize, start: usize, end: usize) -> Self {
        if start == end && !self.is_on_cpu() {
            return self.emptied(axis);
        }
        let slices: Vec<_> = self
            .shape()
            .iter()
            .enumerate()
            .map(|(at, &size)| {
                if at == axis {
                    range(start, end, 1)
                } else {
                    range(0, size, 1)
                }
            })
            .collect();
        self.slice(&slices)
    }

    pub fn flip(self, axes: &[usize]) -> Self {
        by_kind!(self, t => B::float_flip(t, axes), B::int_flip(t, axes), B::bool_flip(t, axes))
    }

    /// The whole tensor `times` times, one after the other, along a dimension.
    pub fn repeat(self, axis: usize, times: usize) -> Self {
        by_kind!(self, t => B::float_repeat_dim(t, axis, times), B::int_repeat_dim(t, axis, times), B::bool_repeat_dim(t, axis, times))
    }

    /// Rows of a dimension by the numbers in a rank-1 int tensor.
    pub fn select(self, axis: usize, indices: DispatchTensor) -> Self {
        by_kind!(self, t => B::float_select(t, axis, indices), B::int_select(t, axis, indices), B::bool_select(t, axis, indices))
    }

    /// The tensor with `value` written over a region of its size.
    pub fn write(self, slices: &[Slice], value: Self) -> Result<Self, OpError> {
        Ok(match self {
            Self::Float(t) => Self::Float(B::float_slice_assign(t, slices, value.float()?)),
            Self::Int(t) => Self::Int(B::int_slice_assign(t, slices, value.int()?)),
            Self::Bool(t) => Self::Bool(B::bool_slice_assign(t, slices, value.bool()?)),
            Self::Code(..) | Self::Text(..) => {
                let (of, to, from) = self.alike(value)?;
                of.wrap(B::int_slice_assign(to, slices, from))
            }
        })
    }

    /// The rows of the first dimension named in `indices` combined with those of `value`.
    pub fn update_rows(
        self,
        indices: DispatchTensor,
        value: Self,
        how: IndexingUpdateOp,
    ) -> Result<Self, OpError> {
        Ok(match self {
            Self::Float(t) => {
                Self::Float(B::float_select_assign(t, 0, indices, value.float()?, how))
            }
            Self::Int(t) => Self::Int(B::int_select_assign(t, 0, indices, value.int()?, how)),
            other => return Err(other.unexpected("numbers")),
        })
    }

    /// Joins tensors of one dtype along a dimension.
    pub fn concat(values: Vec<Self>, axis: usize) -> Result<Self, OpError> {
        let parts = |take: fn(Self) -> Result<DispatchTensor, OpError>, values: Vec<Self>| {
            values.into_iter().map(take).collect::<Result<Vec<_>, _>>()
        };
        Ok(match values.first() {
            None => return Err(OpError::MissingInput { index: 0 }),
            Some(Self::Float(_)) => Self::Float(B::float_cat(parts(Self::float, values)?, axis)),
            Some(Self::Int(_)) => Self::Int(B::int_cat(parts(Self::int, values)?, axis)),
            Some(Self::Bool(_)) => Self::Bool(B::bool_cat(parts(Self::bool, values)?, axis)),
            Some(Self::Code(..) | Self::Text(..)) => {
                let mut values = values.into_iter();
                let first = values.next().ok_or(OpError::MissingInput { index: 0 })?;
                let join = |all: Self, next| {
                    let (of, all, next) = all.alike(next)?;
                    Ok(of.wrap(B::int_cat(vec![all, next], axis)))
                };
                return values.try_fold(first, join);
            }
        })
    }

    /// `yes` where `mask` holds, else `self`; all of one shape and dtype.
    pub fn choose(self, mask: DispatchTensor, yes: Self) -> Result<Self, OpError> {
        Ok(match self {
            Self::Float(t) => Self::Float(B::float_mask_where(t, mask, yes.float()?)),
            Self::Int(t) => Self::Int(B::int_mask_where(t, mask, yes.int()?)),
            Self::Bool(t) => Self::Bool(B::bool_mask_where(t, mask, yes.bool()?)),
            Self::Code(..) | Self::Text(..) => {
                let (of, no, yes) = self.alike(yes)?;
                of.wrap(B::int_mask_where(no, mask, yes))
            }
        })
    }

    /// Two tensors of codes or of strings as the integers behind them, and what these mean.
    fn alike(self, other: Self) -> Result<(Meaning, DispatchTensor, DispatchTensor), OpError> {
        match (self, other) {
            (Self::Code(narrow, a), Self::Code(same, b)) if narrow == same => {
                Ok((Meaning::Code(narrow), a, b))
            }
            (Self::Text(mut strings, a), Self::Text(more, b)) => {
                let offset = Scalar::Int(strings.len() as i64);
                Arc::make_mut(&mut strings).extend(more.iter().cloned());
                Ok((Meaning::Text(strings), a, B::int_add_scalar(b, offset)))
            }
            (one, other) => Err(OpError::DType {
                expected: one.dtype().to_string(),
                found: other.dtype(),
            }),
        }
    }

    /// The error that says that this kind of elements is not what an operator takes.
    pub fn unexpected(&self, expected: &str) -> OpError {
        OpError::DType {
            expected: expected.into(),
            found: self.dtype(),
        }
    }
}

/// What integers stand for.
enum Meaning {
    Code(Narrow),
    Text(Arc<Vec<Bytes>>),
}

impl Meaning {
    fn wrap(self, integers: DispatchTensor) -> Value {
        match self {
            Self::Code(narrow) => Value::Code(narrow, integers),
            Self::Text(strings) => Value::Text(strings, integers),
        }
    }
}

/// Elements `start`, `start + step`, … below `end`.
pub(crate) fn range(start: usize, end: usize, step: usize) -> Slice {
    Slice::new(start as isize, Some(end as isize), step as isize)
}

/// Refuses a shape whose tensor would be larger than [`MAX_TENSOR_BYTES`].
pub(crate) fn check_size(dtype: DType, shape: &[usize]) -> Result<(), OpError> {
    let size = dtype.size().unwrap_or(1);
    // Zero dimensions don't excuse others: some kernels multiply before they look.
    let bytes = shape.iter().try_fold(size, |n, &d| n.checked_mul(d.max(1)));
    match bytes {
        Some(bytes) if bytes <= MAX_TENSOR_BYTES => Ok(()),
        _ => Err(OpError::TooLarge {
            dtype,
            shape: shape.to_vec(),
            limit: MAX_TENSOR_BYTES,
        }),
    }
}

pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

pub(crate) fn float_type(dtype: DType) -> Result<FloatDType, OpError> {
    match dtype {
        DType::F16 => Ok(FloatDType::F16),
        DType::BF16 => Ok(FloatDType::BF16),
        DType::F32 => Ok(FloatDType::F32),
        DType::F64 => Ok(FloatDType::F64),
        found => Err(OpError::DType {
            expected: "a float type".into(),
            found,
        }),
    }
}

pub(crate) fn int_type(dtype: DType) -> Result<IntDType, OpError> {
    match dtype {
        DType::I8 => Ok(IntDType::I8),
        DType::I16 => Ok(IntDType::I16),
        DType::I32 => Ok(IntDType::I32),
        DType::I64 => Ok(IntDType::I64),
        DType::U8 => Ok(IntDType::U8),
        DType::U16 => Ok(IntDType::U16),
        DType::U32 => Ok(IntDType::U32),
        DType::U64 => Ok(IntDType::U64),
        found => Err(OpError::DType {
            expected: "an integer type".into(),
            found,
        }),
    }
}

fn burn_type(dtype: DType) -> Result<BurnType, OpError> {
    match dtype {
        DType::Bool => Ok(BurnType::Bool(BoolStore::Native)),
        DType::Bytes => Err(OpError::DType {
            expected: "numbers".into(),
            found: dtype,
        }),
        DType::Narrow(_) => Ok(BurnType::U8),
        dtype if is_float(dtype) => float_type(dtype).map(BurnType::from),
        dtype => int_type(dtype).map(BurnType::from),
    }
}
