//! Where a tensor lies, and ways from one device to another.

use std::sync::Arc;

use burn_backend::ops::{BoolTensorOps, IntTensorOps};
use burn_backend::{
    Backend, BoolDType, BoolStore, DType as BurnType, Shape, TensorData, TensorMetadata,
    get_or_init_device_settings,
};
use burn_dispatch::{DispatchDevice, DispatchTensor, DispatchTensorKind};

use super::{B, Item, Value, burn_type};
use crate::device;
use crate::error::OpError;
use crate::tensor::DType;

impl Value {
    pub fn device(&self) -> DispatchDevice {
        self.tensor().device()
    }

    pub fn is_on_cpu(&self) -> bool {
        matches!(self.tensor().kind, DispatchTensorKind::Flex(_))
    }

    /// Whether it lies on this device, or is of a kind that stays on the host: strings, and
    /// tensors without elements.
    pub fn is_on(&self, device: &DispatchDevice) -> bool {
        match self.is_on_cpu() {
            true => device::is_cpu(device) || matches!(self, Self::Text(..)) || self.len() == 0,
            false => self.device() == *device,
        }
    }

    /// Both on one device: what lies on the host follows the other.
    pub fn beside(self, other: Self) -> Result<(Self, Self), OpError> {
        Ok(match (self.is_on_cpu(), other.is_on_cpu()) {
            (true, false) => (self.moved(&other.device())?, other),
            (false, true) => {
                let device = self.device();
                (self, other.moved(&device)?)
            }
            _ => (self, other),
        })
    }

    /// The same on another device.
    pub fn moved(self, device: &DispatchDevice) -> Result<Self, OpError> {
        if self.is_on(device) {
            return Ok(self);
        }
        Self::upload(self.download()?, device)
    }

    /// All on one device: the host where they lie on several.
    pub fn together(values: Vec<Self>) -> Result<Vec<Self>, OpError> {
        let first = values.first().map(Self::device);
        match first {
            Some(first) if values.iter().any(|value| !value.is_on(&first)) => {
                let host = device::cpu();
                values.into_iter().map(|value| value.moved(&host)).collect()
            }
            _ => Ok(values),
        }
    }

    /// Numbers of rows, as integers that the device has.
    pub fn indices(numbers: &[i64], device: &DispatchDevice) -> Self {
        let mut data = TensorData::new(numbers.to_vec(), Shape::from(vec![numbers.len()]));
        if !device::is_cpu(device) {
            // Memory ends below 2³¹ elements there, and not every GPU has i64.
            data = data.convert_dtype(BurnType::I32);
        }
        Self::Int(B::int_from_data(data, device))
    }

    /// No elements along an axis.
    pub(super) fn emptied(self, axis: usize) -> Self {
        let mut shape = self.shape();
        shape.iter_mut().skip(axis).take(1).for_each(|n| *n = 0);
        Self::full(self.dtype(), &shape, 0.0, &device::cpu()).unwrap_or(self)
    }
}

impl Item {
    /// The tensors that it holds.
    pub fn values(&self) -> std::slice::Iter<'_, Value> {
        match self {
            Self::Tensor(value) => std::slice::from_ref(value).iter(),
            Self::Sequence(values) => values.iter(),
            Self::Nothing => [].iter(),
        }
    }

    /// The same on another device.
    pub fn moved(self, device: &DispatchDevice) -> Result<Self, OpError> {
        Ok(match self {
            Self::Tensor(value) => value.moved(device)?.into(),
            Self::Sequence(values) => {
                let values = Arc::unwrap_or_clone(values).into_iter();
                let moved = values.map(|value| value.moved(device));
                moved.collect::<Result<Vec<_>, _>>()?.into()
            }
            Self::Nothing => Self::Nothing,
        })
    }
}

/// How this device stores bools.
pub(crate) fn bool_type(device: &DispatchDevice) -> BoolDType {
    match device::is_cpu(device) {
        true => BoolStore::Native,
        false => get_or_init_device_settings::<B>(device).bool_dtype,
    }
}

/// Bools on a device, as it stores them.
pub(super) fn bools(data: TensorData, device: &DispatchDevice) -> DispatchTensor {
    B::bool_from_data(data.convert_dtype(bool_type(device).into()), device)
}

/// Whether a GPU computes with such elements. Integers and f64 it does not: most GPUs have
/// not all of them, and functions of f64 do not exist there.
pub(crate) fn computes(device: &DispatchDevice, dtype: DType) -> bool {
    match dtype {
        DType::Bool => true,
        DType::F32 | DType::F16 | DType::BF16 => {
            burn_type(dtype).is_ok_and(|kind| B::supports_dtype(device, kind))
        }
        _ => false,
    }
}
