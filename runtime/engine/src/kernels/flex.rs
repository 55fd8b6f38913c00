//! burn's CPU tensors as slices, and slices as such tensors.

use std::sync::Arc;

use burn_backend::{Element, TensorMetadata};
use burn_dispatch::backends::flex::{FlexTensor, Layout};
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use bytemuck::Pod;
use rayon::prelude::*;

use super::PART;
use super::activation::Activation;
use super::spare;
use crate::graph::Unary;
use crate::value::Value;

/// The elements of a tensor of this type that lie in order in the memory of the CPU.
pub(crate) fn elements<T: Element + Pod>(t: &DispatchTensor) -> Option<&[T]> {
    let DispatchTensorKind::Flex(
        BackendTensor::Float(t) | BackendTensor::Int(t) | BackendTensor::Bool(t),
    ) = &t.kind
    else {
        return None;
    };
    if t.dtype() != T::dtype() || !t.is_contiguous() {
        return None;
    }
    let (start, count) = (t.layout().start_offset(), t.shape().num_elements());
    t.storage::<T>().get(start..start + count)
}

/// An f32 tensor in the CPU's memory.
#[derive(Clone)]
pub(crate) struct F32(FlexTensor);

impl F32 {
    /// The value as such a tensor, or the value again where it is none.
    #[allow(
        clippy::result_large_err,
        reason = "the error is the value, given back"
    )]
    pub fn new(value: Value) -> Result<Self, Value> {
        match value {
            Value::Float(DispatchTensor {
                kind: DispatchTensorKind::Flex(BackendTensor::Float(t)),
                ..
            }) if t.dtype() == burn_backend::DType::F32 => Ok(Self(t)),
            other => Err(other),
        }
    }

    /// Both as such tensors, or as they were.
    #[allow(
        clippy::result_large_err,
        reason = "the error is the values, given back"
    )]
    pub fn both(a: Value, b: Value) -> Result<(Self, Self), (Value, Value)> {
        match (Self::new(a), Self::new(b)) {
            (Ok(a), Ok(b)) => Ok((a, b)),
            (Ok(a), Err(b)) => Err((a.into_value(), b)),
            (Err(a), Ok(b)) => Err((a, b.into_value())),
            (Err(a), Err(b)) => Err((a, b)),
        }
    }

    /// Whether the value is such a tensor.
    pub fn is(value: &Value) -> bool {
        matches!(value, Value::Float(DispatchTensor {
            kind: DispatchTensorKind::Flex(BackendTensor::Float(t)),
            ..
        }) if t.dtype() == burn_backend::DType::F32)
    }

    /// A tensor of these elements, row-major.
    pub fn from_vec(values: Vec<f32>, shape: &[usize]) -> Self {
        Self(FlexTensor::new(
            burn_backend::Bytes::from_elems(values),
            Layout::contiguous(burn_backend::Shape::from(shape.to_vec())),
            burn_backend::DType::F32,
        ))
    }

    pub fn into_value(self) -> Value {
        let kind = DispatchTensorKind::Flex(BackendTensor::Float(self.0));
        Value::Float(DispatchTensor {
            kind,
            autodiff: Default::default(),
        })
    }

    pub fn shape(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// The elements from the first one on, and how far apart those of each axis are; `None`
    /// where an axis runs backward.
    pub fn strided(&self) -> Option<(&[f32], Vec<usize>)> {
        let layout = self.0.layout();
        let strides = layout.strides().iter().map(|&n| usize::try_from(n).ok());
        let data = self.0.storage::<f32>().get(layout.start_offset()..)?;
        Some((data, strides.collect::<Option<_>>()?))
    }

    /// Gives the memory on, where nobody else reads it.
    pub fn give(self) {
        let bytes = self.0.data_arc();
        drop(self.0);
        let bytes = Arc::try_unwrap(bytes).ok();
        if let Some(buffer) = bytes.and_then(|bytes| bytes.try_into_vec().ok()) {
            spare::give(buffer);
        }
    }

    /// The same elements, row-major.
    pub fn contiguous(self) -> Self {
        if self.0.is_contiguous() {
            self
        } else {
            Self(self.0.to_contiguous())
        }
    }

    /// The elements, row-major: empty where they do not lie so.
    pub fn slice(&self) -> &[f32] {
        let count = self.0.shape().num_elements();
        let start = self.0.layout().start_offset();
        let elements = self.0.storage::<f32>().get(start..start + count);
        elements
            .filter(|_| self.0.is_contiguous())
            .unwrap_or_default()
    }

    /// The elements, to be changed in place, where nobody else reads them.
    pub fn slice_mut(&mut self) -> Option<&mut [f32]> {
        let count = self.0.shape().num_elements();
        let whole = self.0.is_contiguous() && self.0.layout().start_offset() == 0;
        if !whole {
            return None;
        }
        self.0.try_storage_mut::<f32>()?.get_mut(..count)
    }

    /// The elements, row-major, as `change` leaves them: in place where nobody else reads them.
    pub fn changed(mut self, change: impl Fn(&mut [f32])) -> Self {
        if let Some(values) = self.slice_mut() {
            change(values);
            return self;
        }
        let shape = self.shape();
        let mut values = self.contiguous().slice().to_vec();
        change(&mut values);
        Self::from_vec(values, &shape)
    }

    /// Each number replaced by the function of it.
    fn map(self, activation: Activation) -> Self {
        self.changed(|values| {
            if values.len() <= PART {
                activation.apply(values);
            } else {
                let parts = values.par_chunks_mut(PART);
                parts.for_each(|part| activation.apply(part));
            }
        })
    }
}

/// Applies `kind` where there is a kernel for it and for where the tensor lies; else gives
/// the tensor back.
#[allow(
    clippy::result_large_err,
    reason = "the error is the value, given back"
)]
pub(crate) fn unary(kind: Unary, x: Value) -> Result<Value, Value> {
    match Activation::of(kind) {
        Some(activation) => F32::new(x).map(|x| x.map(activation).into_value()),
        None => Err(x),
    }
}
