//! Weights are laid out once as the CPU's kernels want them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fold::{count_reads, prune};
use crate::graph::{Block, Cell, Direction, Node, Op, Program, Unary, ValueId};
use crate::kernels::{
    Activation, F32, Filters, Int8, Int8Filters, Lstm, Matrix, Packed, filters_pay, weights_pay,
};
use crate::precision::Precision;
use crate::value::Value;

/// Packs the constant right sides of matrix products and the filters of convolutions, with fewer
/// bits where `precision` says so and it pays.
pub(crate) fn lay_out(program: &mut Program, precision: Precision) {
    let mut reads = HashMap::new();
    count_reads(&program.root, &mut reads);
    let mut root = std::mem::take(&mut program.root);
    let mut done = Done {
        precision,
        reads,
        packed: HashMap::new(),
        int8: HashMap::new(),
    };
    pack(program, &mut root, &mut done);
    program.root = root;
    prune(program);
}

/// Matrices that are packed already, by their number and whether they are transposed.
struct Done {
    precision: Precision,
    /// How many nodes still read each value as it came.
    reads: HashMap<ValueId, usize>,
    packed: HashMap<(ValueId, bool), Arc<Packed>>,
    /// Those that can't be quantised are kept too.
    int8: HashMap<(ValueId, bool), Option<Arc<Int8>>>,
}

impl Done {
    fn int8(&mut self, key: (ValueId, bool), matrix: &Matrix) -> Option<Arc<Int8>> {
        if self.precision != Precision::Int8 || !weights_pay(matrix.shape()) {
            return None;
        }
        let made = self.int8.entry(key);
        made.or_insert_with(|| Int8::new(matrix).map(Arc::new))
            .clone()
    }

    fn packed(&mut self, key: (ValueId, bool), matrix: &Matrix) -> Arc<Packed> {
        let made = self.packed.entry(key);
        made.or_insert_with(|| Arc::new(Packed::new(matrix)))
            .clone()
    }
}

fn pack(program: &mut Program, block: &mut Block, done: &mut Done) {
    for node in &mut block.nodes {
        if node.op.is_control() {
            let mut control = (**node).clone();
            for inner in control.op.blocks_mut() {
                pack(program, inner, done);
            }
            *node = Arc::new(control);
        } else if let Some(laid) = linear(program, node, done)
            .or_else(|| filter(program, node, done.precision))
            .or_else(|| lstm(program, node))
        {
            // Weights that are laid out go one by one, so that never all are held twice.
            for id in node.inputs.iter().flatten() {
                let left = done.reads.get_mut(id).map(|left| {
                    *left = left.saturating_sub(1);
                    *left
                });
                if left == Some(0)
                    && !laid.inputs.contains(&Some(*id))
                    && let Some(slot) = program.constants.get_mut(*id)
                {
                    *slot = None;
                }
            }
            *node = Arc::new(laid);
        }
    }
}

fn linear(program: &Program, node: &Node, done: &mut Done) -> Option<Node> {
    let (transposed, activation) = match node.op {
        Op::MatMul => (false, Activation::None),
        Op::Linear { activation } => (false, activation),
        Op::Gemm {
            alpha,
            beta,
            transpose_a: false,
            transpose_b,
        } if alpha == 1.0 && (beta == 1.0 || node.input(2).is_none()) => {
            (transpose_b, Activation::None)
        }
        _ => return None,
    };
    let id = node.input(1)?;
    let matrix = F32::new(program.constant(id)?.clone()).ok()?;
    let &[rows, columns] = matrix.shape().as_slice() else {
        return None;
    };
    let (rows, columns) = if transposed {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let fits = |bias: &Value| bias.shape() == [columns] && F32::is(bias);
    match node.input(2) {
        Some(bias) if !program.constant(bias).is_some_and(fits) => return None,
        _ => {}
    }
    let (data, strides) = matrix.strided()?;
    let &[first, second] = strides.as_slice() else {
        return None;
    };
    let strides = if transposed {
        [second, first]
    } else {
        [first, second]
    };
    let (key, right) = (
        (id, transposed),
        Matrix::new(data, [rows, columns], strides)?,
    );
    let matrix = matches!(node.op, Op::Gemm { .. });
    let op = match done.int8(key, &right) {
        Some(weights) => Op::PackedInt8 {
            weights,
            activation,
            matrix,
        },
        None => Op::Packed {
            weights: done.packed(key, &right),
            activation,
            matrix,
        },
    };
    Some(Node {
        op,
        inputs: vec![node.input(0), node.input(2)],
        ..node.clone()
    })
}

fn filter(program: &Program, node: &Node, precision: Precision) -> Option<Node> {
    let Op::Conv(conv) = &node.op else {
        return None;
    };
    let weights = F32::new(program.constant(node.input(1)?)?.clone()).ok()?;
    let shape = weights.shape();
    if !(3..=4).contains(&shape.len()) {
        return None;
    }
    let weights = weights.contiguous();
    let int8 = (precision == Precision::Int8 && filters_pay(&shape, conv.groups))
        .then(|| Int8Filters::new(weights.slice(), &shape, conv.groups))
        .flatten();
    let filters = int8.map_or_else(|| Filters::new(weights.slice()), Filters::Int8);
    Some(Node {
        op: Op::Filter {
            conv: conv.clone(),
            filters: Arc::new(filters),
            shape,
        },
        inputs: vec![node.input(0), node.input(2)],
        ..node.clone()
    })
}

/// An LSTM layer of the common kind: no peepholes, no clipping, no lengths.
fn lstm(program: &Program, node: &Node) -> Option<Node> {
    let Op::Recurrent(layer) = &node.op else {
        return None;
    };
    let common = [Unary::Sigmoid, Unary::Tanh, Unary::Tanh];
    let plain = layer.cell
        == Cell::Lstm {
            input_forget: false,
        }
        && layer.clip.is_none()
        && layer.activations.chunks(3).all(|chunk| chunk == common)
        && node.input(4).is_none()
        && node.input(7).is_none();
    if !plain {
        return None;
    }
    let constant = |at| {
        let value = program.constant(node.input(at)?)?.clone();
        F32::new(value).ok().map(F32::contiguous)
    };
    let (weights, recurrence) = (constant(1)?, constant(2)?);
    let bias = match node.input(3) {
        None => None,
        Some(_) => Some(constant(3)?),
    };
    let reversed: &[bool] = match layer.direction {
        Direction::Forward => &[false],
        Direction::Reverse => &[true],
        Direction::Both => &[false, true],
    };
    let (hidden, directions) = (layer.hidden, reversed.len());
    let &[_, _, inputs] = weights.shape().as_slice() else {
        return None;
    };
    let fits = weights.shape() == [directions, 4 * hidden, inputs]
        && recurrence.shape() == [directions, 4 * hidden, hidden]
        && bias
            .as_ref()
            .is_none_or(|bias| bias.shape() == [directions, 8 * hidden]);
    if !fits {
        return None;
    }
    let bias = bias.as_ref().map(F32::slice);
    let sizes = [inputs, hidden];
    let weights = Lstm::new(weights.slice(), recurrence.slice(), bias, sizes, reversed)?;
    Some(Node {
        op: Op::Lstm {
            weights: Arc::new(weights),
            batch_major: layer.batch_major,
        },
        inputs: vec![node.input(0), node.input(5), node.input(6)],
        ..node.clone()
    })
}
