//! What is the same in every run is computed once, when the model is loaded, on the host.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::device;
use crate::exec;
use crate::graph::{Block, Node, Op, Program, ValueId};
use crate::signature::{Dim, Signature};
use crate::tensor::DType;
use crate::value::{Item, Value};

/// Results may be this much larger than what they are made of.
const GROWTH_BYTES: usize = 64 << 10;

/// Replaces nodes that read constants only by their results, and an `If` with a constant
/// condition by its branch. A node that fails is left to fail when it runs.
pub(crate) fn fold(program: &mut Program) {
    let root = std::mem::take(&mut program.root);
    program.root = fold_block(program, root);
    prune(program);
}

fn fold_block(program: &mut Program, mut block: Block) -> Block {
    let mut nodes = Vec::with_capacity(block.nodes.len());
    for node in std::mem::take(&mut block.nodes) {
        if node.op.is_control() {
            let taken = node
                .input(0)
                .and_then(|id| program.constant(id))
                .and_then(|condition| exec::branch(&node, condition).ok())
                .cloned();
            match taken {
                Some(branch) => {
                    let branch = fold_block(program, branch);
                    nodes.extend(branch.nodes);
                    nodes.extend(renames(&node, &branch.outputs));
                }
                None => {
                    let mut node = (*node).clone();
                    for block in node.op.blocks_mut() {
                        *block = fold_block(program, std::mem::take(block));
                    }
                    nodes.push(Arc::new(node));
                }
            }
            continue;
        }
        match constant_results(program, &node) {
            None => nodes.push(node),
            Some(made) => {
                for (id, value) in node.outputs.iter().zip(made) {
                    if let Some(id) = *id {
                        program.set_constant(id, value);
                    }
                }
            }
        }
    }
    Block { nodes, ..block }
}

/// Nodes that give a branch's outputs the names that the `If` gave them.
fn renames(node: &Node, from: &[ValueId]) -> Vec<Arc<Node>> {
    let pairs = node
        .outputs
        .iter()
        .zip(from)
        .filter_map(|(to, from)| Some(((*to)?, *from)));
    pairs
        .map(|(to, from)| {
            let (inputs, outputs) = (vec![Some(from)], vec![Some(to)]);
            Arc::new(Node {
                name: node.name.clone(),
                op: Op::Identity,
                inputs,
                outputs,
            })
        })
        .collect()
}

fn constant_results(program: &Program, node: &Node) -> Option<Vec<Value>> {
    if node.inputs.iter().all(Option::is_none) || node.op.draws() {
        return None;
    }
    let args = node
        .inputs
        .iter()
        .map(|input| {
            input
                .map(|id| program.constant(id).cloned().map(Item::from).ok_or(()))
                .transpose()
        })
        .collect::<Result<Vec<_>, ()>>()
        .ok()?;
    let before: usize = args.iter().flatten().map(Item::bytes).sum();
    let made = exec::run_node(node, args, &device::cpu()).ok()?;
    let made = made.into_iter().map(Item::tensor);
    let made = made.collect::<Result<Vec<_>, _>>().ok()?;
    let after: usize = made.iter().map(Value::bytes).sum();
    (after <= before + GROWTH_BYTES).then_some(made)
}

/// Drops constants that nothing reads.
pub(crate) fn prune(program: &mut Program) {
    let mut reads = HashMap::new();
    count_reads(&program.root, &mut reads);
    for (id, slot) in program.constants.iter_mut().enumerate() {
        if !reads.contains_key(&id) {
            *slot = None;
        }
    }
}

/// Adds up how often the nodes and outputs of a block, and of those inside, read each value.
pub(crate) fn count_reads(block: &Block, reads: &mut HashMap<ValueId, usize>) {
    let of_nodes = block.nodes.iter().flat_map(|node| &node.inputs);
    for &id in of_nodes.flatten().chain(&block.outputs) {
        *reads.entry(id).or_default() += 1;
    }
    let inner = block.nodes.iter().flat_map(|node| node.op.blocks());
    inner.for_each(|block| count_reads(block, reads));
}

/// Inputs of one integer or bool that decide an `If` of the root block, and nothing else
/// does beside them: plans are made per value of these.
pub(crate) fn selecting_inputs(program: &Program, signature: &Signature) -> Vec<bool> {
    let makers: HashMap<_, _> = program
        .root
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().flatten().map(move |&id| (id, node)))
        .collect();
    let single = |at: usize| {
        signature.inputs.get(at).is_some_and(|spec| {
            let one = match spec.shape.as_deref() {
                Some([]) => true,
                Some([dim]) => *dim == Dim::Fixed(1),
                _ => false,
            };
            one && matches!(spec.dtype, DType::Bool | DType::I32 | DType::I64)
        })
    };
    let mut selecting = vec![false; program.inputs.len()];
    for node in program
        .root
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::If { .. }))
    {
        let mut open: Vec<_> = node.input(0).into_iter().collect();
        let mut found = BTreeSet::new();
        let mut all_single = true;
        let mut steps = 0;
        while let Some(id) = open.pop() {
            steps += 1;
            if steps > 64 {
                all_single = false;
                break;
            }
            if let Some(at) = program.inputs.iter().position(|&input| input == id) {
                all_single &= single(at);
                found.insert(at);
            } else if let Some(maker) = makers.get(&id) {
                open.extend(maker.reads());
            }
        }
        if all_single {
            selecting
                .iter_mut()
                .enumerate()
                .for_each(|(at, flag)| *flag |= found.contains(&at));
        }
    }
    selecting
}
