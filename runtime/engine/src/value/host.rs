//! Values from the host's memory, and back into it.

use std::borrow::Cow;
use std::sync::Arc;

use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::{
    AllocationProperty, BoolStore, Bytes as BurnBytes, DType as BurnType, Element, IntDType, Shape,
    TensorData, read_sync,
};
use burn_dispatch::DispatchDevice;
use bytemuck::Pod;
use bytes::Bytes;

use super::place::bools;
use super::{B, Value, burn_type, check_size, float_type, int_type, is_float};
use crate::error::OpError;
use crate::tensor::{DType, Tensor, TensorError};
use crate::{device, kernels};

impl Value {
    /// Takes a host tensor onto a device; its bytes are moved where they are not shared.
    pub fn upload(tensor: Tensor, device: &DispatchDevice) -> Result<Self, OpError> {
        if tensor.dtype() == DType::Bytes {
            return Ok(Self::from_strings(tensor.blobs(), tensor.shape()));
        }
        if tensor.shape().is_empty() && !device::is_cpu(device) {
            // burn makes no tensor of rank 0 there.
            let (dtype, _, data) = tensor.into_parts();
            let one = Tensor::new(dtype, vec![1], data);
            let one = one.map_err(|error| OpError::Value(error.to_string()))?;
            return Ok(Self::upload(one, device)?.reshape(&[]));
        }
        let (dtype, shape, data) = tensor.into_parts();
        check_size(dtype, &shape)?;
        let mut bytes: Vec<u8> = data.into();
        if dtype == DType::Bool {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Self::from_bytes(dtype, shape, BurnBytes::from_bytes_vec(bytes), device)
    }

    /// Takes a host tensor that is read only, as a weight is: shares its memory where burn can
    /// read that as it is. Writing to it would copy it first.
    pub fn share(tensor: Tensor) -> Result<Self, OpError> {
        let dtype = tensor.dtype();
        let aligned = |size| tensor.data().as_ptr().addr().is_multiple_of(size);
        let is_plain = !matches!(dtype, DType::Bool | DType::Bytes);
        if !is_plain || !aligned(dtype.size().unwrap_or(1)) {
            return Self::upload(tensor, &device::cpu());
        }
        let (dtype, shape, data) = tensor.into_parts();
        check_size(dtype, &shape)?;
        let bytes = BurnBytes::from_shared(data, AllocationProperty::Native);
        Self::from_bytes(dtype, shape, bytes, &device::cpu())
    }

    fn from_bytes(
        dtype: DType,
        shape: Vec<usize>,
        bytes: BurnBytes,
        device: &DispatchDevice,
    ) -> Result<Self, OpError> {
        let data = TensorData::from_bytes(bytes, Shape::from(shape), burn_type(dtype)?);
        Ok(match dtype {
            DType::Bool => Self::Bool(bools(data, device)),
            DType::Narrow(narrow) => Self::Code(narrow, B::int_from_data(data, device)),
            dtype if is_float(dtype) => Self::Float(B::float_from_data(data, device)),
            _ => Self::Int(B::int_from_data(data, device)),
        })
    }

    /// Brings the tensor to the host.
    pub fn download(self) -> Result<Tensor, OpError> {
        let refused = |error: TensorError| OpError::Value(error.to_string());
        let dtype = self.dtype();
        if dtype == DType::Bytes {
            let shape = self.shape();
            return Tensor::from_blobs(shape, &self.strings()?).map_err(refused);
        }
        let shape = self.shape();
        let data = self.into_data()?;
        let data = Bytes::from_owner(Owned(data.into_bytes()));
        Tensor::new(dtype, shape, data).map_err(refused)
    }

    pub(super) fn into_data(self) -> Result<TensorData, OpError> {
        let number = self.shape().is_empty() && !self.is_on_cpu();
        // Nor does burn read one of rank 0 there.
        let data = match if number { self.reshape(&[1]) } else { self } {
            Self::Float(t) => read_sync(B::float_into_data(t)),
            Self::Int(t) | Self::Code(_, t) | Self::Text(_, t) => read_sync(B::int_into_data(t)),
            Self::Bool(t) => read_sync(B::bool_into_data(t)),
        };
        let data = data.map_err(|error| OpError::Value(format!("reading a tensor: {error:?}")))?;
        Ok(match data.dtype() {
            BurnType::Bool(BoolStore::Native | BoolStore::U8) => data,
            BurnType::Bool(_) => data.convert_dtype(BurnType::Bool(BoolStore::Native)),
            _ => data,
        })
    }

    /// The elements as integers, on the host. Floats are cut toward zero, and what is too
    /// large becomes the largest.
    pub fn to_ints(&self) -> Result<Vec<i64>, OpError> {
        let data = self.clone().into_data()?;
        // burn's own conversions panic where a number does not fit.
        Ok(match self.dtype() {
            DType::U64 => {
                let all = data.iter::<u64>();
                all.map(|n| i64::try_from(n).unwrap_or(i64::MAX)).collect()
            }
            dtype if is_float(dtype) => data.iter::<f64>().map(|x| x as i64).collect(),
            _ => data.iter::<i64>().collect(),
        })
    }

    /// The elements as floats, on the host.
    pub fn to_floats(&self) -> Result<Vec<f64>, OpError> {
        Ok(self.clone().into_data()?.iter::<f64>().collect())
    }

    /// The elements as `T`, on the host: without a copy where they are of that type and lie
    /// there in order.
    pub fn elements<T: Element + Pod>(&self) -> Result<Cow<'_, [T]>, OpError> {
        if let Some(elements) = kernels::elements(self.tensor()) {
            return Ok(Cow::Borrowed(elements));
        }
        let values = self.clone().into_data()?.convert::<T>().try_into_vec::<T>();
        let values = values.map_err(|error| OpError::Value(format!("reading a tensor: {error:?}")));
        values.map(Cow::Owned)
    }

    /// A tensor of elements from the host, converted to `dtype`: for integers, rounded to the
    /// nearest one that the type holds.
    pub fn from_vec<T: Element>(
        values: Vec<T>,
        shape: &[usize],
        dtype: DType,
        device: &DispatchDevice,
    ) -> Result<Self, OpError> {
        let data = TensorData::new(values, Shape::from(shape.to_vec()));
        if is_float(dtype) {
            let data = data.convert_dtype(burn_type(dtype)?);
            return Ok(Self::Float(B::float_from_data(data, device)));
        }
        let kind = int_type(dtype)?;
        let (low, high) = match kind {
            IntDType::I8 => (i8::MIN.into(), i8::MAX.into()),
            IntDType::I16 => (i16::MIN.into(), i16::MAX.into()),
            IntDType::I32 => (i32::MIN.into(), i32::MAX.into()),
            IntDType::I64 => (i64::MIN as f64, i64::MAX as f64),
            IntDType::U8 => (0.0, u8::MAX.into()),
            IntDType::U16 => (0.0, u16::MAX.into()),
            IntDType::U32 => (0.0, u32::MAX.into()),
            IntDType::U64 => (0.0, u64::MAX as f64),
        };
        let bounded = |value: f64| value.round_ties_even().clamp(low, high);
        let data = if kind == IntDType::U64 {
            let values = data.iter::<f64>().map(|value| bounded(value) as u64);
            TensorData::new(values.collect(), Shape::from(shape.to_vec()))
        } else {
            let values = data.iter::<f64>().map(|value| bounded(value) as i64);
            TensorData::new(values.collect(), Shape::from(shape.to_vec()))
        };
        let data = data.convert_dtype(burn_type(dtype)?);
        Ok(Self::Int(B::int_from_data(data, device)))
    }

    /// The elements of a tensor of strings.
    pub fn strings(self) -> Result<Vec<Bytes>, OpError> {
        let found = self.dtype();
        let Self::Text(strings, places) = self else {
            let expected = "strings".into();
            return Err(OpError::DType { expected, found });
        };
        let places = Self::Int(places).to_ints()?;
        let string = |&place: &i64| strings.get(usize::try_from(place).ok()?).cloned();
        let strings = places.iter().map(string).collect::<Option<_>>();
        strings.ok_or_else(|| OpError::Value("a string is missing".into()))
    }

    /// A tensor of strings.
    pub fn from_strings(strings: Vec<Bytes>, shape: &[usize]) -> Self {
        let places: Vec<_> = (0..strings.len() as i64).collect();
        let places = TensorData::new(places, Shape::from(shape.to_vec()));
        Self::Text(Arc::new(strings), B::int_from_data(places, &device::cpu()))
    }

    /// A tensor of i64 values.
    pub fn from_ints(values: &[i64], shape: &[usize], device: &DispatchDevice) -> Self {
        let data = TensorData::new(values.to_vec(), Shape::from(shape.to_vec()));
        Self::Int(B::int_from_data(data, device))
    }

    /// A tensor of floats of any width.
    pub fn from_floats(
        values: Vec<f64>,
        shape: &[usize],
        dtype: DType,
        device: &DispatchDevice,
    ) -> Result<Self, OpError> {
        let data = TensorData::new(values, Shape::from(shape.to_vec()));
        let data = data.convert_dtype(float_type(dtype)?.into());
        Ok(Self::Float(B::float_from_data(data, device)))
    }

    /// A tensor of bools.
    pub fn from_bools(values: Vec<bool>, shape: &[usize], device: &DispatchDevice) -> Self {
        let data = TensorData::new(values, Shape::from(shape.to_vec()));
        Self::Bool(bools(data, device))
    }
}

/// burn's bytes as an owner for `bytes::Bytes`, so that outputs leave without a copy.
struct Owned(burn_backend::Bytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
