//! The slots and constants of a plan, as they are given out.

use std::collections::HashMap;

use super::{Source, Step, Trace, Traced, Work};
use crate::device;
use crate::error::{OpError, RunError};
use crate::exec;
use crate::graph::ValueId;
use crate::place::Place;
use crate::value::{Item, Value};

pub(super) struct Layout<'a, 'b> {
    trace: &'a Trace<'b>,
    slots: HashMap<ValueId, usize>,
    constants: Vec<Item>,
    /// Where a constant stands, by its number and, where it had to be taken there, whether it
    /// lies on the device.
    places: HashMap<(ValueId, Option<bool>), usize>,
}

impl<'a, 'b> Layout<'a, 'b> {
    pub(super) fn new(trace: &'a Trace<'b>) -> Self {
        Self {
            trace,
            slots: HashMap::new(),
            constants: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The number of slots, and the constants.
    pub(super) fn into_parts(self) -> (usize, Vec<Item>) {
        (self.slots.len(), self.constants)
    }

    pub(super) fn slot(&mut self, id: ValueId) -> usize {
        let next = self.slots.len();
        *self.slots.entry(id).or_insert(next)
    }

    /// Where a value is read from, wherever it lies.
    pub(super) fn source(&mut self, id: ValueId) -> Source {
        let id = self.trace.resolve(id);
        match self.constant(id) {
            Some(item) => self.keep((id, None), item),
            None => Source::Slot {
                slot: self.slot(id),
                last: false,
            },
        }
    }

    /// The same for input `at` of a step: constants lie where they are read.
    fn data(&mut self, step: &Traced, at: usize, id: ValueId) -> Result<Source, OpError> {
        let (machine, op) = (self.trace.machine, &step.node.op);
        if machine.is_host() || op.hands_on() || op.is_control() {
            return Ok(self.source(id));
        }
        let id = self.trace.resolve(id);
        let Some(item) = self.constant(id) else {
            return Ok(self.source(id));
        };
        let elements: usize = item.values().map(Value::len).sum();
        let on_device = step.place == Place::Device && !op.reads_on_host(at, elements);
        // What is kept for this plan alone hides a weight.
        let kept = self.trace.kept.contains_key(&id);
        let item = match self.trace.program.constant(id) {
            _ if on_device => item.moved(&machine.device)?,
            Some(weight) if !kept => machine.copy(id, weight)?.into(),
            _ => item.moved(&device::cpu())?,
        };
        Ok(self.keep((id, Some(on_device)), item))
    }

    fn constant(&self, id: ValueId) -> Option<Item> {
        let weight = || self.trace.program.constant(id).cloned().map(Item::from);
        self.trace.kept.get(&id).cloned().or_else(weight)
    }

    fn keep(&mut self, what: (ValueId, Option<bool>), item: Item) -> Source {
        let constants = &mut self.constants;
        let at = *self.places.entry(what).or_insert_with(|| {
            constants.push(item);
            constants.len() - 1
        });
        Source::Constant(at)
    }

    pub(super) fn step(&mut self, step: &Traced) -> Result<Step, RunError> {
        let inputs = exec::guard(&step.node, || {
            let inputs = step.inputs.iter().enumerate();
            let source = |(at, id): (usize, &Option<ValueId>)| {
                id.map(|id| self.data(step, at, id)).transpose()
            };
            inputs.map(source).collect::<Result<Vec<_>, _>>()
        })?;
        let work = match (&step.view, &step.node.op) {
            (Some(shape), _) => Work::View(shape.clone()),
            (None, op) if op.is_control() => {
                let captures = step.captures.iter().map(|&id| (id, self.source(id)));
                Work::Control(captures.collect())
            }
            (None, _) => Work::Operator,
        };
        let outputs = step
            .node
            .outputs
            .iter()
            .map(|id| id.map(|id| self.slot(id)))
            .collect();
        Ok(Step {
            node: step.node.clone(),
            work,
            place: step.place,
            inputs,
            outputs,
        })
    }
}
