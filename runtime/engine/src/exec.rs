//! Running nodes: one operator, or a body of an `If` whose condition only the data decides.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn_dispatch::DispatchDevice;

use crate::error::{OpError, RunError};
use crate::graph::{Block, Node, Op, Program, ValueId};
use crate::ops::{self, Args};
use crate::value::Value;

/// Runs one node that is not control flow. A panic in a kernel becomes an error.
pub(crate) fn run_node(
    node: &Node,
    args: Vec<Option<Value>>,
    device: &DispatchDevice,
) -> Result<Vec<Value>, RunError> {
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
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let message = text.unwrap_or("a panic without a message").to_owned();
            Err(RunError::Internal {
                node: node.name.clone(),
                message,
            })
        }
    }
}

/// The operator as messages name it: the variant's name.
fn operator_name(op: &Op) -> String {
    let text = match op {
        Op::Unary(kind) => format!("{kind:?}"),
        Op::Binary(kind) => format!("{kind:?}"),
        Op::Variadic(kind) => format!("{kind:?}"),
        Op::Compare(kind) => format!("{kind:?}"),
        Op::Logic(kind) => format!("{kind:?}"),
        Op::Reduce { kind, .. } => format!("Reduce{kind:?}"),
        Op::Recurrent(layer) => format!("{:?}", layer.cell),
        Op::If { .. } => "If".into(),
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
    let holds = guard(node, || match condition.to_ints()?.as_slice() {
        [one] => Ok(*one != 0),
        many => Err(OpError::Shape(format!(
            "a condition of {} elements",
            many.len()
        ))),
    })?;
    Ok(if holds { then } else { otherwise })
}

/// Values by number, for a body that runs without a plan.
pub(crate) type Scope = HashMap<ValueId, Value>;

/// Runs a block; `scope` holds what it captures.
pub(crate) fn run_block(
    program: &Program,
    block: &Block,
    scope: &mut Scope,
    device: &DispatchDevice,
) -> Result<Vec<Value>, RunError> {
    for node in &block.nodes {
        let args = node
            .inputs
            .iter()
            .map(|input| input.map(|id| read(program, scope, id)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let made = match &node.op {
            Op::If { .. } => {
                let missing = || OpError::MissingInput { index: 0 };
                let condition = args.into_iter().next().flatten();
                let condition = guard(node, || condition.ok_or_else(missing))?;
                run_block(program, branch(node, &condition)?, scope, device)?
            }
            _ => run_node(node, args, device)?,
        };
        scope.extend(
            node.outputs
                .iter()
                .zip(made)
                .filter_map(|(id, value)| Some(((*id)?, value))),
        );
    }
    block
        .outputs
        .iter()
        .map(|&id| read(program, scope, id))
        .collect()
}

fn read(program: &Program, scope: &Scope, id: ValueId) -> Result<Value, RunError> {
    let found = scope.get(&id).or_else(|| program.constant(id)).cloned();
    found.ok_or_else(|| RunError::Internal {
        node: program.names.get(id).cloned().unwrap_or_default(),
        message: "a value is read before it is made".into(),
    })
}
