//! Which nodes run on a GPU, and which fall back to the processor.
//!
//! A GPU has not all element types, and its kernels not all operators. What runs where is
//! decided when a plan is made: values of types that the device lacks stay on the host, and
//! any other node is tried on the device. What it makes is read back then, since a kernel that
//! cannot be compiled fails no earlier than that. A planned run just follows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn_backend::Backend;
use burn_dispatch::DispatchDevice;
use serde::Serialize;

use crate::device;
use crate::error::{OpError, RunError};
use crate::exec;
use crate::graph::{Node, Op, Program, ValueId};
use crate::tensor::{DType, Tensor};
use crate::value::{self, Item, Value, is_float};

/// Tensors of integers and bools up to this size stay on the host, where shapes are computed.
const HOST_ELEMENTS: usize = 1024;

/// Where a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the device that the model is loaded on.
    Device,
    /// On the processor, as what it reads lies there: sizes and other small integers.
    Host,
    /// On the processor, as the device lacks the operator or an element type.
    Fallback,
}

/// The device of a model, and what is known of what runs there.
pub(crate) struct Machine {
    pub device: DispatchDevice,
    host: DispatchDevice,
    /// Where nodes of bodies run, by the first value that each makes.
    bodies: Mutex<HashMap<ValueId, Place>>,
    /// Weights that are read on the host too.
    copies: Mutex<HashMap<ValueId, Value>>,
}

impl Machine {
    pub fn new(device: DispatchDevice) -> Self {
        Self {
            device,
            host: device::cpu(),
            bodies: Mutex::default(),
            copies: Mutex::default(),
        }
    }

    /// Whether the processor is the device.
    pub fn is_host(&self) -> bool {
        device::is_cpu(&self.device)
    }

    /// The nodes of bodies that fell back so far.
    pub fn fallbacks(&self) -> usize {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let fell = bodies.values().filter(|place| **place == Place::Fallback);
        fell.count()
    }

    /// Moves what belongs there onto the device.
    pub fn settle(&self, program: &mut Program) -> Result<(), OpError> {
        if self.is_host() {
            return Ok(());
        }
        for slot in program.constants.iter_mut() {
            if let Some(value) = slot.take() {
                *slot = Some(self.settled(value)?);
            }
        }
        Ok(())
    }

    /// Takes a tensor to where it belongs.
    pub fn upload(&self, tensor: Tensor) -> Result<Value, OpError> {
        let at_home = belongs(tensor.dtype(), tensor.len()) && self.holds(tensor.dtype());
        Value::upload(tensor, if at_home { &self.device } else { &self.host })
    }

    fn settled(&self, value: Value) -> Result<Value, OpError> {
        let dtype = value.dtype();
        if !belongs(dtype, value.len()) || !self.holds(dtype) {
            return Ok(value);
        }
        value.moved(&self.device)
    }

    /// The value of a weight on the host, which is kept.
    pub fn copy(&self, id: ValueId, value: &Value) -> Result<Value, OpError> {
        if value.is_on_cpu() {
            return Ok(value.clone());
        }
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.get(&id) {
            return Ok(copy.clone());
        }
        let copy = value.clone().moved(&self.host)?;
        copies.insert(id, copy.clone());
        Ok(copy)
    }

    /// Waits until the device has done all that it was given.
    pub fn wait(&self) -> Result<(), OpError> {
        let waited = match self.is_host() {
            true => Ok(()),
            false => value::B::sync(&self.device),
        };
        waited.map_err(|error| OpError::Value(format!("waiting for the device: {error:?}")))
    }

    /// Runs a node that is not control flow at a place that is known.
    pub fn run(
        &self,
        place: Place,
        node: &Node,
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let device = match place {
            Place::Device => &self.device,
            Place::Host | Place::Fallback => &self.host,
        };
        exec::run_node(node, args, device)
    }

    /// Runs a node that is not control flow, and says where it can be run. `known`: what it
    /// makes follows from shapes alone.
    pub fn place(
        &self,
        node: &Node,
        args: Vec<Option<Item>>,
        known: bool,
    ) -> Result<(Vec<Item>, Place), RunError> {
        // A shape is read from a tensor wherever that lies.
        let reads_shape = matches!(node.op, Op::Shape { .. } | Op::Size);
        let place = match known && !reads_shape && !self.is_host() {
            true => Place::Host,
            false => self.wanted(&node.op, &args),
        };
        if self.is_host() || place != Place::Device {
            return Ok((self.run(place, node, args)?, place));
        }
        if let Ok(made) = self.run(place, node, args.clone())
            && exec::guard(node, || made.iter().try_for_each(read)).is_ok()
        {
            return Ok((made, place));
        }
        let made = self.run(Place::Fallback, node, args)?;
        tracing::debug!(node = node.name, "falls back to the processor");
        Ok((made, Place::Fallback))
    }

    /// Where a node of a body is known to run.
    pub fn of_body(&self, node: &Node) -> Option<Place> {
        if self.is_host() {
            return Some(Place::Device);
        }
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.get(node.outputs.iter().flatten().next()?).copied()
    }

    /// Runs a node of a body that did not run before.
    pub fn place_in_body(
        &self,
        node: &Node,
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let (made, place) = self.place(node, args, false)?;
        if let Some(&id) = node.outputs.iter().flatten().next() {
            let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
            bodies.insert(id, place);
        }
        Ok(made)
    }

    /// Where a node is to run, by the values that it reads as data.
    fn wanted(&self, op: &Op, args: &[Option<Item>]) -> Place {
        if self.is_host() {
            return Place::Device;
        }
        let data = args.iter().enumerate();
        let data = data.filter(|(at, _)| !op.host_inputs().contains(at));
        let values: Vec<_> = data
            .filter_map(|(_, item)| item.as_ref())
            .flat_map(Item::values)
            .collect();
        let there = |value: &&Value| belongs(value.dtype(), value.len()) || !value.is_on_cpu();
        if !values.iter().any(there) {
            Place::Host
        } else if !op.runs_on_host() && values.iter().all(|value| self.holds(value.dtype())) {
            Place::Device
        } else {
            Place::Fallback
        }
    }

    fn holds(&self, dtype: DType) -> bool {
        value::holds(&self.device, dtype)
    }
}

/// Whether a tensor is for the device rather than for the host.
fn belongs(dtype: DType, len: usize) -> bool {
    len > if is_float(dtype) { 1 } else { HOST_ELEMENTS }
}

/// Fails where the elements could not be computed.
fn read(item: &Item) -> Result<(), OpError> {
    item.values()
        .try_for_each(|value| value.clone().download().map(drop))
}
