//! Running nodes: an operator, or the bodies of control flow that only the data decides.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn_dispatch::DispatchDevice;

use crate::device;
use crate::error::{OpError, RunError};
use crate::graph::{Block, Contrib, Node, Op, Program, Scan, ValueId};
use crate::ops::{self, Args, stacked};
use crate::place::{Machine, Place};
use crate::signature::{Dim, TensorSpec};
use crate::tensor::DType;
use crate::value::{Item, MAX_TENSOR_BYTES, Value};

/// Rounds of a loop, at most.
const MAX_ROUNDS: i64 = 1 << 20;

/// Runs one node that is not control flow. A panic in a kernel becomes an error.
pub(crate) fn run_node(
    node: &Node,
    args: Vec<Option<Item>>,
    device: &DispatchDevice,
) -> Result<Vec<Item>, RunError> {
    guard(node, || ops::run(&node.op, Args::new(args), device))
}

/// Names the node in the errors and panics of `work`.
pub(crate) fn guard<T>(
    node: &Node,
    work: impl FnOnce() -> Result<T, OpError>,
) -> Result<T, RunError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(RunError::Operator {
            operator: operator_name(&node.op),
            node: node.name.clone(),
            source,
        }),
        Err(panic) => Err(RunError::Internal {
            node: node.name.clone(),
            message: message(&*panic),
        }),
    }
}

/// Does `work` outside any node; a panic becomes an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, OpError>) -> Result<T, OpError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(OpError::Value(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// The operator as messages name it: the variant's name.
pub(crate) fn operator_name(op: &Op) -> String {
    let text = match op {
        Op::Unary(kind) => format!("{kind:?}"),
        Op::Binary(kind) => format!("{kind:?}"),
        Op::Variadic(kind) => format!("{kind:?}"),
        Op::Compare(kind) => format!("{kind:?}"),
        Op::Logic(kind) => format!("{kind:?}"),
        Op::Reduce { kind, .. } => format!("Reduce{kind:?}"),
        Op::Packed { .. } | Op::PackedInt8 { .. } => "Linear".into(),
        Op::Filter { .. } => "Conv".into(),
        Op::Recurrent(layer) => format!("{:?}", layer.cell),
        Op::Sequence(kind) => format!("Sequence{kind:?}"),
        Op::Quantized(kind) => format!("{kind:?}"),
        Op::Contrib(Contrib::QLinear(kind)) => format!("QLinear{kind:?}"),
        Op::Contrib(kind) => format!("{kind:?}"),
        Op::If { .. } => "If".into(),
        Op::Loop { .. } => "Loop".into(),
        Op::Scan { .. } => "Scan".into(),
        Op::SequenceMap { .. } => "SequenceMap".into(),
        other => format!("{other:?}"),
    };
    text.split([' ', '(', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Which branch an `If` takes.
pub(crate) fn branch<'a>(node: &'a Node, condition: &Value) -> Result<&'a Block, RunError> {
    let Op::If { then, otherwise } = &node.op else {
        let message = "control flow expected".into();
        return Err(RunError::Internal {
            node: node.name.clone(),
            message,
        });
    };
    Ok(if guard(node, || truth(condition))? {
        then
    } else {
        otherwise
    })
}

fn truth(condition: &Value) -> Result<bool, OpError> {
    match condition.to_ints()?.as_slice() {
        [one] => Ok(*one != 0),
        many => Err(OpError::Shape(format!(
            "a condition of {} elements",
            many.len()
        ))),
    }
}

/// Values by number, for a body that runs without a plan.
pub(crate) type Scope = HashMap<ValueId, Item>;

/// Where bodies run.
pub(crate) struct Bodies<'a> {
    pub program: &'a Program,
    pub machine: &'a Machine,
    /// What they read from outside.
    pub scope: Scope,
}

impl Bodies<'_> {
    /// Runs a node of control flow.
    pub fn control(&mut self, node: &Node, args: Vec<Option<Item>>) -> Result<Vec<Item>, RunError> {
        match &node.op {
            Op::If { .. } => {
                let condition = guard(node, || Args::new(args).take(0))?;
                self.block(branch(node, &condition)?, Vec::new())
            }
            Op::Loop { body, stacked } => self.repeat(node, body, stacked, args),
            Op::Scan { body, scan } if scan.batched => self.scan_batch(node, body, scan, args),
            Op::Scan { body, scan } => self.scan(node, body, scan, args),
            Op::SequenceMap { body } => self.map(node, body, args),
            _ => match self.machine.of_body(node) {
                Some(place) => self.machine.run(place, node, args),
                None => self.machine.place_in_body(node, args),
            },
        }
    }

    /// Runs a block, given its inputs.
    fn block(&mut self, block: &Block, inputs: Vec<Item>) -> Result<Vec<Item>, RunError> {
        self.scope.extend(block.inputs.iter().copied().zip(inputs));
        for node in &block.nodes {
            let place = self.machine.of_body(node);
            let on_host = matches!(place, Some(Place::Host | Place::Fallback));
            let args = node
                .inputs
                .iter()
                .map(|input| match input {
                    Some(id) if on_host => self.read_on_host(node, *id).map(Some),
                    input => input.map(|id| self.read(id)).transpose(),
                })
                .collect::<Result<Vec<_>, _>>()?;
            let made = self.control(node, args)?;
            let made = node.outputs.iter().zip(made);
            self.scope
                .extend(made.filter_map(|(id, item)| Some(((*id)?, item))));
        }
        block.outputs.iter().map(|&id| self.read(id)).collect()
    }

    fn read(&self, id: ValueId) -> Result<Item, RunError> {
        if let Some(item) = self.scope.get(&id) {
            return Ok(item.clone());
        }
        let constant = self.program.constant(id).cloned();
        constant.map(Item::from).ok_or_else(|| RunError::Internal {
            node: self.program.names.get(id).cloned().unwrap_or_default(),
            message: "a value is read before it is made".into(),
        })
    }

    /// The same for a node that runs on the host: a weight is not moved there each time.
    fn read_on_host(&self, node: &Node, id: ValueId) -> Result<Item, RunError> {
        match self.program.constant(id) {
            Some(weight) if !self.scope.contains_key(&id) => {
                guard(node, || Ok(self.machine.copy(id, weight)?.into()))
            }
            _ => self.read(id),
        }
    }

    fn repeat(
        &mut self,
        node: &Node,
        body: &Block,
        declared: &[Option<TensorSpec>],
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let mut args = args.into_iter();
        let (trips, holds) = (args.next().flatten(), args.next().flatten());
        let trips = guard(node, || match trips.map(Item::tensor).transpose()? {
            None => Ok(i64::MAX),
            Some(trips) => one(&trips.to_ints()?, "a trip count"),
        })?;
        let mut holds = guard(node, || {
            holds.map_or(Ok(true), |item| truth(&item.tensor()?))
        })?;
        let mut states: Vec<Item> = args.map(|item| item.unwrap_or(Item::Nothing)).collect();
        let mut rows = Rows::new(declared.len());
        let mut round = 0;
        while holds && round < trips {
            if round == MAX_ROUNDS {
                let message = format!("it is not done after {MAX_ROUNDS} rounds");
                return guard(node, || Err(OpError::Value(message)));
            }
            let number = Value::from_ints(&[round], &[], &device::cpu());
            let condition = Value::from_bools(vec![true], &[], &device::cpu());
            let mut inputs = vec![number.into(), condition.into()];
            let number_of_states = states.len();
            inputs.append(&mut states);
            let mut made = self.block(body, inputs)?.into_iter();
            let condition = made.next();
            states = made.by_ref().take(number_of_states).collect();
            holds = guard(node, || {
                rows.push(made.collect())?;
                let condition = condition.ok_or(OpError::MissingInput { index: 0 })?;
                truth(&condition.tensor()?)
            })?;
            round += 1;
        }
        states.extend(guard(node, || {
            rows.stack(declared, &vec![(0, false); declared.len()])
        })?);
        Ok(states)
    }

    /// Scans each member of a batch, and puts what they give together again.
    fn scan_batch(
        &mut self,
        node: &Node,
        body: &Block,
        scan: &Scan,
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let mut args = args.into_iter();
        let mut members = guard(node, || {
            if args.next().flatten().is_some() {
                let message = "lengths of sequences are not supported";
                return Err(OpError::Value(message.into()));
            }
            let each = args.map(|item| {
                let mut rows = ops::rows(item.unwrap_or(Item::Nothing).tensor()?, 0)?;
                // The next one stands last.
                rows.reverse();
                Ok(rows)
            });
            each.collect::<Result<Vec<_>, _>>()
        })?;
        let size = members.first().map_or(0, Vec::len);
        if size == 0 || members.iter().any(|rows| rows.len() != size) {
            let sizes: Vec<_> = members.iter().map(Vec::len).collect();
            let message = format!("batches of {sizes:?}, expected one size above 0");
            return guard(node, || Err(OpError::Shape(message)));
        }
        let columns = body.outputs.len();
        let mut made = Rows::new(columns);
        for _ in 0..size {
            let member = members.iter_mut().map(|rows| rows.pop().map(Item::from));
            let row = self.scan(node, body, scan, member.collect())?;
            guard(node, || made.push(row))?;
        }
        let (declared, axes) = (vec![None; columns], vec![(0, false); columns]);
        guard(node, || made.stack(&declared, &axes))
    }

    fn scan(
        &mut self,
        node: &Node,
        body: &Block,
        scan: &Scan,
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let number_of_states = args.len().saturating_sub(scan.inputs.len());
        let mut args = args.into_iter().map(|item| item.unwrap_or(Item::Nothing));
        let mut states: Vec<Item> = args.by_ref().take(number_of_states).collect();
        let columns: Vec<Item> = args.collect();
        let mut parts = guard(node, || {
            let each = columns.into_iter().zip(&scan.inputs);
            each.map(|(column, &(axis, backward))| {
                let mut rows = ops::rows(column.tensor()?, axis)?;
                if !backward {
                    rows.reverse();
                }
                // The next one stands last.
                Ok(rows)
            })
            .collect::<Result<Vec<_>, _>>()
        })?;
        let rounds = parts.first().map_or(0, Vec::len);
        if parts.iter().any(|rows| rows.len() != rounds) {
            let lengths: Vec<_> = parts.iter().map(Vec::len).collect();
            let message = format!("the scanned axes differ in length: {lengths:?}");
            return guard(node, || Err(OpError::Shape(message)));
        }
        let mut rows = Rows::new(scan.outputs.len());
        for _ in 0..rounds {
            let mut inputs = std::mem::take(&mut states);
            inputs.extend(parts.iter_mut().filter_map(Vec::pop).map(Item::from));
            let mut made = self.block(body, inputs)?.into_iter();
            states = made.by_ref().take(number_of_states).collect();
            guard(node, || rows.push(made.collect()))?;
        }
        let declared = vec![None; scan.outputs.len()];
        states.extend(guard(node, || rows.stack(&declared, &scan.outputs))?);
        Ok(states)
    }

    fn map(
        &mut self,
        node: &Node,
        body: &Block,
        args: Vec<Option<Item>>,
    ) -> Result<Vec<Item>, RunError> {
        let rounds = match args.first() {
            Some(Some(Item::Sequence(values))) => values.len(),
            _ => {
                let message = "its first input is no sequence".into();
                return guard(node, || Err(OpError::Value(message)));
            }
        };
        let mut made = vec![Vec::new(); body.outputs.len()];
        for round in 0..rounds {
            let inputs = args.iter().map(|item| match item {
                Some(Item::Sequence(values)) => {
                    let (index, size) = (round as i64, values.len());
                    let value = values.get(round).cloned();
                    value.map(Item::from).ok_or(OpError::Index { index, size })
                }
                Some(other) => Ok(other.clone()),
                None => Ok(Item::Nothing),
            });
            let inputs = guard(node, || inputs.collect())?;
            for (all, item) in made.iter_mut().zip(self.block(body, inputs)?) {
                all.push(guard(node, || item.tensor())?);
            }
        }
        Ok(made.into_iter().map(Item::from).collect())
    }
}

fn one(values: &[i64], what: &str) -> Result<i64, OpError> {
    match values {
        [one] => Ok(*one),
        many => Err(OpError::Shape(format!("{what} of {} elements", many.len()))),
    }
}

/// What the rounds of a loop give, to be stacked.
struct Rows {
    columns: Vec<Vec<Value>>,
    bytes: usize,
}

impl Rows {
    fn new(columns: usize) -> Self {
        Self {
            columns: vec![Vec::new(); columns],
            bytes: 0,
        }
    }

    fn push(&mut self, row: Vec<Item>) -> Result<(), OpError> {
        for (column, item) in self.columns.iter_mut().zip(row) {
            let value = item.tensor()?;
            self.bytes = self.bytes.saturating_add(value.bytes());
            if self.bytes > MAX_TENSOR_BYTES {
                let (dtype, limit) = (value.dtype(), MAX_TENSOR_BYTES);
                let mut shape = vec![column.len() + 1];
                shape.extend(value.shape());
                return Err(OpError::TooLarge {
                    dtype,
                    shape,
                    limit,
                });
            }
            column.push(value);
        }
        Ok(())
    }

    fn stack(
        self,
        declared: &[Option<TensorSpec>],
        axes: &[(i64, bool)],
    ) -> Result<Vec<Item>, OpError> {
        let columns = self.columns.into_iter().zip(declared).zip(axes);
        columns
            .map(|((mut column, declared), &(axis, backward))| {
                if column.is_empty() {
                    return nothing(declared.as_ref()).map(Item::from);
                }
                if backward {
                    column.reverse();
                }
                stacked(Value::together(column)?, axis).map(Item::from)
            })
            .collect()
    }
}

/// No rows of what is declared.
fn nothing(declared: Option<&TensorSpec>) -> Result<Value, OpError> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any => 0,
    };
    let sizes = declared.and_then(|spec| spec.shape.as_ref());
    let mut shape = vec![0];
    shape.extend(sizes.into_iter().flatten().map(size));
    let dtype = declared.map_or(DType::F32, |spec| spec.dtype);
    Value::full(dtype, &shape, 0.0, &device::cpu())
}
