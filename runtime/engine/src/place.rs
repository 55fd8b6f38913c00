//! Which nodes run on a GPU, and which fall back to the processor.
//!
//! A GPU has not all element types, and its kernels not all operators. What runs where is
//! decided when a plan is made: values of types that the device does not compute with stay on
//! the host, and any other node is tried on the device. What it makes is read back then, since
//! a kernel that cannot be compiled fails no earlier than that. A planned run just follows.

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
                let at_home = self.is_home(value.dtype(), value.len());
                *slot = Some(match at_home {
                    true => value.moved(&self.device)?,
                    false => value,
                });
            }
        }
        Ok(())
    }

    /// Takes a tensor to where it belongs.
    pub fn upload(&self, tensor: Tensor) -> Result<Value, OpError> {
        let at_home = !self.is_host() && self.is_home(tensor.dtype(), tensor.len());
        Value::upload(tensor, if at_home { &self.device } else { &self.host })
    }

    /// Whether a tensor is kept on the device.
    fn is_home(&self, dtype: DType, len: usize) -> bool {
        belongs(dtype, len) && self.computes(dtype)
    }

    /// The value of a weight on the host, which is kept.
    pub fn copy(&self, id: ValueId, weight: &Value) -> Result<Value, OpError> {
        if weight.is_on_cpu() {
            return Ok(weight.clone());
        }
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.get(&id) {
            return Ok(copy.clone());
        }
        let copy = weight.clone().moved(&self.host)?;
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
        if self.is_host() {
            return exec::run_node(node, args, &self.device);
        }
        let device = match place {
            Place::Device if node.op.hands_on() => {
                return exec::run_node(node, args, &self.device);
            }
            Place::Device => &self.device,
            Place::Host | Place::Fallback => &self.host,
        };
        let args = exec::guard(node, || together(&node.op, args, device))?;
        let made = exec::run_node(node, args, device)?;
        if place != Place::Device {
            return Ok(made);
        }
        exec::guard(node, || {
            made.into_iter().map(|item| self.brought(item)).collect()
        })
    }

    /// What the device made, but for integers, which all readers want on the host.
    fn brought(&self, item: Item) -> Result<Item, OpError> {
        match item {
            Item::Tensor(value @ Value::Int(_)) => value.moved(&self.host).map(Item::from),
            other => Ok(other),
        }
    }

    /// Runs a node that is not control flow, and says where it can be run. `known`: what it
    /// makes follows from shapes alone.
    pub fn place(
        &self,
        node: &Node,
        args: Vec<Option<Item>>,
        known: bool,
    ) -> Result<(Vec<Item>, Place), RunError> {
        if self.is_host() {
            return Ok((self.run(Place::Device, node, args)?, Place::Device));
        }
        // A shape is read from a tensor wherever that lies.
        let place = match known && !node.op.hands_on() {
            true => Place::Host,
            false => self.wanted(&node.op, &args),
        };
        if place != Place::Device {
            return Ok((self.run(place, node, args)?, place));
        }
        if let Ok(made) = self.run(place, node, args.clone())
            && exec::guard(node, || made.iter().try_for_each(|item| self.read(item))).is_ok()
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
        let data = args.iter().enumerate();
        let data = data.filter(|(at, _)| !op.host_inputs().contains(at));
        let values: Vec<&Value> = data
            .filter_map(|(_, item)| item.as_ref())
            .flat_map(|item| item.values())
            .collect();
        if op.hands_on() {
            return match values.iter().all(|value| value.is_on_cpu()) {
                true => Place::Host,
                false => Place::Device,
            };
        }
        let there = |value: &&Value| belongs(value.dtype(), value.len()) || !value.is_on_cpu();
        if !values.iter().any(there) {
            return Place::Host;
        }
        let types = values.iter().map(|value| value.dtype());
        let computed = types.chain(op.own_type()).all(|dtype| self.computes(dtype));
        match computed && !op.runs_on_host() {
            true => Place::Device,
            false => Place::Fallback,
        }
    }

    fn computes(&self, dtype: DType) -> bool {
        value::computes(&self.device, dtype)
    }

    /// Fails where the elements could not be computed, or are of a type that the device does
    /// not compute with: then burn may not have computed them at all.
    fn read(&self, item: &Item) -> Result<(), OpError> {
        item.values().try_for_each(|value| {
            if !value.is_on_cpu() && !self.computes(value.dtype()) {
                return Err(value.unexpected("elements that the device computes with"));
            }
            value.clone().download().map(drop)
        })
    }
}

/// Whether a tensor is for the device rather than for the host.
fn belongs(dtype: DType, len: usize) -> bool {
    len > if is_float(dtype) { 1 } else { HOST_ELEMENTS }
}

/// Moves all that the operator does not read on the host to the device that computes.
fn together(
    op: &Op,
    args: Vec<Option<Item>>,
    device: &DispatchDevice,
) -> Result<Vec<Option<Item>>, OpError> {
    let args = args.into_iter().enumerate().map(|(at, item)| {
        let away = |value: &Value| {
            let stays = value.is_on_cpu() && op.reads_on_host(at, value.len());
            !stays && !value.is_on(device)
        };
        match item {
            Some(item) if item.values().any(away) => item.moved(device).map(Some),
            item => Ok(item),
        }
    });
    args.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Unary;

    #[test]
    fn sizes_and_single_numbers_belong_to_the_host() {
        assert!(belongs(DType::F32, 2) && !belongs(DType::F32, 1));
        assert!(belongs(DType::I64, 5000) && !belongs(DType::I64, 4));
        assert!(!belongs(DType::F32, 0) && !belongs(DType::Bool, 0));
    }

    #[test]
    fn nothing_falls_back_where_the_processor_is_the_device() {
        let machine = Machine::new(device::cpu());
        let node = Node {
            name: "relu".into(),
            op: Op::Unary(Unary::Relu),
            inputs: vec![Some(0)],
            outputs: vec![Some(1)],
        };
        let x = Value::from_floats(vec![-1.0, 2.0], &[2], DType::F64, &machine.device).unwrap();
        let (made, place) = machine.place(&node, vec![Some(x.into())], false).unwrap();
        let made = made.into_iter().next().unwrap().tensor().unwrap();
        assert_eq!(made.to_floats().unwrap(), [0.0, 2.0]);
        assert_eq!((place, machine.fallbacks()), (Place::Device, 0));
        assert_eq!(machine.of_body(&node), Some(Place::Device));
    }
}
