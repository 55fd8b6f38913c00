//! A plan is what a model comes down to for inputs of certain shapes: a straight list of steps.
//!
//! It is made by watching the first run with these shapes. Each value carries whether its
//! shape, and whether its elements, follow from the inputs' shapes alone. What does is
//! computed once and kept: `Shape`, the arithmetic on sizes, masks made of them. An `If`
//! whose condition is such a value is replaced by the branch that it takes. What is left is
//! cut down to what the outputs need, and each step knows which of its inputs nobody reads
//! later, so that their memory is reused.

mod layout;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::RunError;
use crate::exec::{self, Bodies, Scope};
use crate::graph::{Block, Node, Op, Program, ValueId};
use crate::ops::Args;
use crate::place::{Machine, Place};
use crate::value::{Item, Value};
use layout::Layout;

/// Computed values up to this size are kept in a plan.
const KEPT_BYTES: usize = 64 << 10;

/// Where a step reads from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A value of this run; `last`: nobody reads it after this.
    Slot { slot: usize, last: bool },
    /// A weight, or what was computed when the plan was made.
    Constant(usize),
}

#[derive(Debug)]
enum Work {
    /// The node's operator.
    Operator,
    /// Another shape for the same elements.
    View(Vec<usize>),
    /// Control flow that only the data decides: what its bodies read from outside.
    Control(Vec<(ValueId, Source)>),
}

#[derive(Debug)]
struct Step {
    node: Arc<Node>,
    work: Work,
    place: Place,
    inputs: Vec<Option<Source>>,
    outputs: Vec<Option<usize>>,
}

/// How long a step of a run took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The node, or the last one of those that were joined.
    pub node: String,
    /// Its operator, after joins.
    pub operator: String,
    /// The shapes that it made.
    pub made: Vec<Vec<usize>>,
    /// Where it computed: on the model's device, or else on the processor.
    pub place: Place,
    /// The time on the clock.
    pub time: Duration,
}

fn made_shape(item: &Item) -> Option<Vec<usize>> {
    match item {
        Item::Tensor(value) => Some(value.shape()),
        Item::Sequence(_) | Item::Nothing => None,
    }
}

/// Steps for inputs of certain shapes.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    slots: usize,
    /// Slots of the model's inputs; `None` where nothing reads one.
    inputs: Vec<Option<usize>>,
    outputs: Vec<Source>,
    constants: Vec<Item>,
}

impl Plan {
    /// The number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The number of steps that fall back to the processor.
    pub fn fallbacks(&self) -> usize {
        let fall = |step: &&Step| step.place == Place::Fallback;
        self.steps.iter().filter(fall).count()
    }

    /// Runs the steps on inputs in the model's order; `times`, where given, gets that of each.
    pub fn run(
        &self,
        program: &Program,
        inputs: Vec<Value>,
        machine: &Machine,
        mut times: Option<&mut Vec<StepTime>>,
    ) -> Result<Vec<Value>, RunError> {
        let mut run = Run {
            plan: self,
            slots: vec![None; self.slots],
        };
        for (slot, value) in self.inputs.iter().zip(inputs) {
            run.store(*slot, value.into());
        }
        for step in &self.steps {
            let node = &step.node;
            let started = times.is_some().then(Instant::now);
            let args = step
                .inputs
                .iter()
                .map(|source| source.map(|source| run.read(node, source)).transpose())
                .collect::<Result<Vec<_>, _>>()?;
            let made = match &step.work {
                Work::Operator => machine.run(step.place, node, args)?,
                Work::View(shape) => {
                    let value = exec::guard(node, || Args::new(args).take(0))?;
                    vec![exec::guard(node, || Ok(value.reshape(shape).into()))?]
                }
                Work::Control(captures) => {
                    let mut scope = Scope::new();
                    for (id, source) in captures {
                        scope.insert(*id, run.read(node, *source)?);
                    }
                    let mut bodies = Bodies {
                        program,
                        machine,
                        scope,
                    };
                    bodies.control(node, args)?
                }
            };
            if let (Some(times), Some(started)) = (&mut times, started) {
                exec::guard(node, || machine.wait())?;
                times.push(StepTime {
                    node: node.name.clone(),
                    operator: match step.work {
                        Work::View(_) => "View".into(),
                        _ => exec::operator_name(&node.op),
                    },
                    made: made.iter().filter_map(made_shape).collect(),
                    place: step.place,
                    time: started.elapsed(),
                });
            }
            for (slot, value) in step.outputs.iter().zip(made) {
                run.store(*slot, value);
            }
        }
        let lost = |message: &str| RunError::Internal {
            node: "graph outputs".into(),
            message: message.into(),
        };
        self.outputs
            .iter()
            .map(|source| {
                let item = run
                    .get(*source)
                    .ok_or_else(|| lost("an output was not made"))?;
                item.tensor().map_err(|error| lost(&error.to_string()))
            })
            .collect()
    }
}

struct Run<'a> {
    plan: &'a Plan,
    slots: Vec<Option<Item>>,
}

impl Run<'_> {
    fn store(&mut self, slot: Option<usize>, item: Item) {
        if let Some(place) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *place = Some(item);
        }
    }

    fn get(&mut self, source: Source) -> Option<Item> {
        match source {
            Source::Constant(at) => self.plan.constants.get(at).cloned(),
            Source::Slot { slot, last: true } => self.slots.get_mut(slot).and_then(Option::take),
            Source::Slot { slot, last: false } => self.slots.get(slot).cloned().flatten(),
        }
    }

    fn read(&mut self, node: &Node, source: Source) -> Result<Item, RunError> {
        self.get(source).ok_or_else(|| RunError::Internal {
            node: node.name.clone(),
            message: "a value is read before it is made".into(),
        })
    }
}

/// Runs the model and makes the plan for the next run. Inputs that are marked `selecting`
/// count as known: the plan holds for their values only.
pub(crate) fn trace(
    program: &Program,
    inputs: Vec<Value>,
    selecting: &[bool],
    machine: &Machine,
) -> Result<(Vec<Value>, Plan), RunError> {
    let mut trace = Trace {
        program,
        machine,
        seen: HashMap::new(),
        same_as: HashMap::new(),
        steps: Vec::new(),
        kept: HashMap::new(),
    };
    for (at, (&id, value)) in program.inputs.iter().zip(inputs).enumerate() {
        let item = Item::from(value);
        let known = selecting.get(at).copied().unwrap_or(false);
        if known {
            trace.kept.insert(id, item.clone());
        }
        trace.seen.insert(
            id,
            Seen {
                item,
                elements: known,
                shape: true,
            },
        );
    }
    trace.block(&program.root)?;
    let outputs = program
        .root
        .outputs
        .iter()
        .map(|&id| {
            let item = trace.read("graph outputs", id)?.item;
            item.tensor().map_err(|error| RunError::Internal {
                node: "graph outputs".into(),
                message: error.to_string(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((outputs, trace.plan()?))
}

/// A value of the run that is watched.
#[derive(Clone)]
struct Seen {
    item: Item,
    /// Its elements follow from the inputs' shapes.
    elements: bool,
    /// Its shape does.
    shape: bool,
}

/// A step before slots are given out.
struct Traced {
    node: Arc<Node>,
    view: Option<Vec<usize>>,
    place: Place,
    inputs: Vec<Option<ValueId>>,
    captures: Vec<ValueId>,
}

struct Trace<'a> {
    program: &'a Program,
    machine: &'a Machine,
    seen: HashMap<ValueId, Seen>,
    /// Values that are another under a new name.
    same_as: HashMap<ValueId, ValueId>,
    steps: Vec<Traced>,
    /// What was computed for good.
    kept: HashMap<ValueId, Item>,
}

impl Trace<'_> {
    fn read(&self, reader: &str, id: ValueId) -> Result<Seen, RunError> {
        if let Some(seen) = self.seen.get(&id) {
            return Ok(seen.clone());
        }
        let constant = self.program.constant(id).cloned();
        let constant = constant.map(|value| Seen {
            item: value.into(),
            elements: true,
            shape: true,
        });
        constant.ok_or_else(|| RunError::Internal {
            node: reader.to_owned(),
            message: "a value is read before it is made".into(),
        })
    }

    fn resolve(&self, mut id: ValueId) -> ValueId {
        while let Some(&other) = self.same_as.get(&id) {
            id = other;
        }
        id
    }

    fn block(&mut self, block: &Block) -> Result<(), RunError> {
        // What this block makes is dropped after its last reader, as in a planned run.
        let mut last = HashMap::new();
        for (at, node) in block.nodes.iter().enumerate() {
            last.extend(node.outputs.iter().flatten().map(|&id| (id, at)));
            for id in node.reads() {
                last.entry(id).and_modify(|last| *last = at);
            }
        }
        for id in &block.outputs {
            last.remove(id);
        }
        let mut leaving: HashMap<usize, Vec<ValueId>> = HashMap::new();
        for (id, at) in last {
            leaving.entry(at).or_default().push(id);
        }
        for (at, node) in block.nodes.iter().enumerate() {
            self.node(node)?;
            for id in leaving.get(&at).into_iter().flatten() {
                self.seen.remove(id);
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Arc<Node>) -> Result<(), RunError> {
        let inputs = node
            .inputs
            .iter()
            .map(|input| input.map(|id| self.read(&node.name, id)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        if node.op.is_control() {
            return self.control(node, inputs);
        }
        if let (Op::Identity, [Some(from)], [Some(to)], [Some(seen)]) = (
            &node.op,
            node.inputs.as_slice(),
            node.outputs.as_slice(),
            inputs.as_slice(),
        ) {
            self.same_as.insert(*to, *from);
            self.seen.insert(*to, seen.clone());
            return Ok(());
        }
        let all = |test: fn(&Seen) -> bool| inputs.iter().flatten().all(test);
        let elements = match node.op {
            Op::Shape { .. } | Op::Size => all(|seen| seen.shape),
            _ => all(|seen| seen.elements) && !node.op.draws(),
        };
        let shape = all(|seen| seen.shape)
            && node.op.shaping_inputs().is_some_and(|shaping| {
                let decides = |at: &usize| inputs.get(*at).and_then(Option::as_ref);
                shaping.iter().filter_map(decides).all(|seen| seen.elements)
            });
        let shape = shape || elements;
        let args = inputs
            .into_iter()
            .map(|seen| seen.map(|seen| seen.item))
            .collect();
        let (made, place) = self.machine.place(node, args, elements)?;
        let keep = elements && made.iter().map(Item::bytes).sum::<usize>() <= KEPT_BYTES;
        if !keep {
            let view = match (&node.op, made.as_slice()) {
                (
                    Op::Reshape { .. } | Op::Squeeze | Op::Unsqueeze | Op::Flatten { .. },
                    [Item::Tensor(one)],
                ) if shape => Some(one.shape()),
                _ => None,
            };
            self.step(node, view, place, Vec::new());
        }
        for (id, item) in node.outputs.iter().zip(made) {
            let Some(id) = *id else { continue };
            if keep {
                self.kept.insert(id, item.clone());
            }
            self.seen.insert(
                id,
                Seen {
                    item,
                    elements: keep,
                    shape,
                },
            );
        }
        Ok(())
    }

    fn step(
        &mut self,
        node: &Arc<Node>,
        view: Option<Vec<usize>>,
        place: Place,
        captures: Vec<ValueId>,
    ) {
        let inputs: Vec<_> = node
            .inputs
            .iter()
            .map(|id| id.map(|id| self.resolve(id)))
            .collect();
        let inputs = match view {
            Some(_) => inputs.into_iter().take(1).collect(),
            None => inputs,
        };
        self.steps.push(Traced {
            node: node.clone(),
            view,
            place,
            inputs,
            captures,
        });
    }

    fn control(&mut self, node: &Arc<Node>, inputs: Vec<Option<Seen>>) -> Result<(), RunError> {
        if let (Op::If { .. }, Some(Some(condition))) = (&node.op, inputs.first())
            && condition.elements
        {
            let condition = exec::guard(node, || condition.item.clone().tensor())?;
            let block = exec::branch(node, &condition)?;
            self.block(block)?;
            for (to, &from) in node.outputs.iter().zip(&block.outputs) {
                let Some(to) = *to else { continue };
                let seen = self.read(&node.name, from)?;
                self.same_as.insert(to, from);
                self.seen.insert(to, seen);
            }
            return Ok(());
        }
        let captures = node.op.blocks().into_iter().flat_map(Block::captures);
        let captures: Vec<_> = captures.collect::<BTreeSet<_>>().into_iter().collect();
        let mut scope = Scope::new();
        for &id in &captures {
            if let Some(seen) = self.seen.get(&id) {
                scope.insert(id, seen.item.clone());
            }
        }
        let args = inputs
            .into_iter()
            .map(|seen| seen.map(|seen| seen.item))
            .collect();
        let mut bodies = Bodies {
            program: self.program,
            machine: self.machine,
            scope,
        };
        let made = bodies.control(node, args)?;
        self.step(node, None, Place::Device, captures);
        for (id, item) in node.outputs.iter().zip(made) {
            if let Some(id) = *id {
                self.seen.insert(
                    id,
                    Seen {
                        item,
                        elements: false,
                        shape: false,
                    },
                );
            }
        }
        Ok(())
    }

    /// Keeps the steps that the outputs need, gives out slots, and marks last reads.
    fn plan(self) -> Result<Plan, RunError> {
        let wanted: Vec<_> = self
            .program
            .root
            .outputs
            .iter()
            .map(|&id| self.resolve(id))
            .collect();
        let mut needed: HashSet<_> = wanted.iter().copied().collect();
        let mut steps = Vec::new();
        for step in self.steps.iter().rev() {
            if step
                .node
                .outputs
                .iter()
                .flatten()
                .any(|id| needed.contains(id))
            {
                needed.extend(step.inputs.iter().flatten());
                needed.extend(step.captures.iter().map(|&id| self.resolve(id)));
                steps.push(step);
            }
        }
        steps.reverse();

        let mut layout = Layout::new(&self);
        let inputs = self
            .program
            .inputs
            .iter()
            .map(|id| {
                let read = needed.contains(id) && !self.kept.contains_key(id);
                read.then(|| layout.slot(*id))
            })
            .collect();
        let planned = steps.into_iter().map(|step| layout.step(step));
        let mut planned = planned.collect::<Result<Vec<_>, _>>()?;
        let outputs = wanted.into_iter().map(|id| layout.source(id));
        let mut outputs: Vec<_> = outputs.collect();

        let mut later = HashSet::new();
        outputs
            .iter_mut()
            .rev()
            .for_each(|source| mark_last(source, &mut later));
        for step in planned.iter_mut().rev() {
            if let Work::Control(captures) = &mut step.work {
                captures
                    .iter_mut()
                    .rev()
                    .for_each(|(_, source)| mark_last(source, &mut later));
            }
            step.inputs
                .iter_mut()
                .rev()
                .flatten()
                .for_each(|source| mark_last(source, &mut later));
        }
        let (slots, constants) = layout.into_parts();
        Ok(Plan {
            steps: planned,
            slots,
            inputs,
            outputs,
            constants,
        })
    }
}

/// Going backward, the first read that is met is the last one.
fn mark_last(source: &mut Source, later: &mut HashSet<usize>) {
    if let Source::Slot { slot, last } = source {
        *last = later.insert(*slot);
    }
}
