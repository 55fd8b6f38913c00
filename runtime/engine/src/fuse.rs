//! Nodes that are computed in one go are joined: what exporters spell out becomes one
//! operator again, and batch normalisation goes into the weights of the convolution before it.
//!
//! Each node is looked at as the last one of a pattern, in order, so that one join can be a
//! part of the next. A join reads what the pattern read; nodes that nobody reads any more are
//! dropped at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::fold::prune;
use crate::graph::{Binary, Block, Conv, Node, Op, Program, Reduce, Unary, ValueId};
use crate::kernels::Activation;
use crate::ops;

/// Looks at all nodes, at most.
const MAX_ROUNDS: usize = 4;

/// Joins what can be joined, in all blocks.
pub(crate) fn fuse(program: &mut Program) {
    // A join leaves fewer readers, and so room for the next one.
    for _ in 0..MAX_ROUNDS {
        let root = std::mem::take(&mut program.root);
        let before = root.nodes.len();
        let mut reads = BTreeMap::new();
        count_reads(&root, &mut reads);
        program.root = fuse_block(program, &reads, root);
        if program.root.nodes.len() == before {
            break;
        }
    }
    prune(program);
}

fn count_reads(block: &Block, reads: &mut BTreeMap<ValueId, usize>) {
    let mut count = |id: &ValueId| *reads.entry(*id).or_insert(0) += 1;
    block.outputs.iter().for_each(&mut count);
    block
        .nodes
        .iter()
        .flat_map(|node| node.inputs.iter().flatten())
        .for_each(&mut count);
    for node in &block.nodes {
        for block in node.op.blocks() {
            count_reads(block, reads);
        }
    }
}

fn fuse_block(program: &mut Program, reads: &BTreeMap<ValueId, usize>, block: Block) -> Block {
    let mut makers: HashMap<ValueId, Arc<Node>> = HashMap::new();
    let mut nodes = Vec::with_capacity(block.nodes.len());
    for node in block.nodes {
        let node = if node.op.is_control() {
            let mut node = (*node).clone();
            for block in node.op.blocks_mut() {
                *block = fuse_block(program, reads, std::mem::take(block));
            }
            Arc::new(node)
        } else {
            let mut view = View {
                program,
                makers: &makers,
                reads,
            };
            view.join(&node).map_or(node, Arc::new)
        };
        makers.extend(node.outputs.iter().flatten().map(|&id| (id, node.clone())));
        nodes.push(node);
    }

    let mut needed: BTreeSet<_> = block.outputs.iter().copied().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes.into_iter().rev() {
        if node.outputs.iter().flatten().any(|id| needed.contains(id)) {
            needed.extend(node.reads());
            kept.push(node);
        }
    }
    kept.reverse();
    Block {
        inputs: block.inputs,
        nodes: kept,
        outputs: block.outputs,
    }
}

/// What a pattern looks at.
struct View<'a> {
    program: &'a mut Program,
    makers: &'a HashMap<ValueId, Arc<Node>>,
    reads: &'a BTreeMap<ValueId, usize>,
}

impl View<'_> {
    fn join(&mut self, node: &Node) -> Option<Node> {
        match node.op {
            Op::BatchNorm { epsilon } => self.conv_and_norm(node, epsilon),
            Op::Binary(Binary::Mul | Binary::Div) => self.activation(node),
            Op::Unary(kind) => self.activated(node, Activation::of(kind)?),
            Op::Clip => {
                let bound = |at, open| match node.input(at) {
                    None => Some(open),
                    Some(id) => self.program.scalar(id),
                };
                let low = bound(1, f64::from(f32::MIN))? as f32;
                let high = bound(2, f64::from(f32::MAX))? as f32;
                (low <= high)
                    .then(|| self.activated(node, Activation::Clamp { low, high }))
                    .flatten()
            }
            Op::Binary(Binary::Add) => self
                .conv_and_bias(node)
                .or_else(|| self.layer_norm(node))
                .or_else(|| self.linear(node)),
            _ => None,
        }
    }

    fn maker(&self, id: ValueId) -> Option<&Arc<Node>> {
        self.makers.get(&id)
    }

    /// The node that makes a value which nobody else reads.
    fn own(&self, id: ValueId) -> Option<&Arc<Node>> {
        (self.reads.get(&id) == Some(&1))
            .then(|| self.maker(id))
            .flatten()
    }

    /// The two inputs of a node, where the second one is constant, in either order.
    fn with_constant(&self, node: &Node) -> Option<(ValueId, ValueId)> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let constant = |id| self.program.constant(id).is_some();
        match (constant(a), constant(b)) {
            (false, true) => Some((a, b)),
            (true, false) => Some((b, a)),
            _ => None,
        }
    }

    /// The other side of a sum with a number close to `number`.
    fn plus(&self, id: ValueId, number: f64) -> Option<ValueId> {
        let node = self.maker(id)?;
        let (x, by) = match node.op {
            Op::Binary(Binary::Add) => self.with_constant(node)?,
            _ => return None,
        };
        near(self.program.scalar(by)?, number).then_some(x)
    }

    /// A value as a product: a number and the factors that are none.
    fn product(&self, id: ValueId) -> (f64, Vec<ValueId>) {
        let mut number = 1.0;
        let mut factors = Vec::new();
        let mut open = vec![(id, 0)];
        while let Some((id, depth)) = open.pop() {
            if let Some(found) = self.program.scalar(id) {
                number *= found;
                continue;
            }
            match self.maker(id) {
                Some(node) if depth < 6 => match (&node.op, node.input(0), node.input(1)) {
                    (Op::Binary(Binary::Mul), Some(a), Some(b)) => {
                        open.extend([(a, depth + 1), (b, depth + 1)]);
                    }
                    (Op::Binary(Binary::Div), Some(a), Some(b)) => match self.program.scalar(b) {
                        Some(by) => {
                            number /= by;
                            open.push((a, depth + 1));
                        }
                        None => factors.push(id),
                    },
                    (Op::Binary(Binary::Pow), Some(a), Some(b)) => match self.program.scalar(b) {
                        Some(power) if power == 2.0 || power == 3.0 => {
                            factors.extend(vec![a; power as usize]);
                        }
                        _ => factors.push(id),
                    },
                    _ => factors.push(id),
                },
                _ => factors.push(id),
            }
        }
        (number, factors)
    }

    /// `x · g(x)`: Gelu, HardSwish, Silu.
    fn activation(&self, node: &Node) -> Option<Node> {
        let (number, factors) = self.inputs_product(node)?;
        let [a, b] = factors.as_slice() else {
            return None;
        };
        let kind = |x: ValueId, gate: ValueId| self.gated(number, x, gate);
        let (kind, x) = kind(*a, *b)
            .map(|k| (k, *a))
            .or_else(|| kind(*b, *a).map(|k| (k, *b)))?;
        Some(Node {
            op: Op::Unary(kind),
            inputs: vec![Some(x)],
            ..node.clone()
        })
    }

    fn inputs_product(&self, node: &Node) -> Option<(f64, Vec<ValueId>)> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let (left, mut factors) = self.product(a);
        match node.op {
            Op::Binary(Binary::Mul) => {
                let (right, more) = self.product(b);
                factors.extend(more);
                Some((left * right, factors))
            }
            _ => Some((left / self.program.scalar(b)?, factors)),
        }
    }

    /// Which activation `number · x · gate` is.
    fn gated(&self, number: f64, x: ValueId, gate: ValueId) -> Option<Unary> {
        let maker = self.maker(gate)?;
        match maker.op {
            Op::Unary(Unary::Sigmoid) if near(number, 1.0) => {
                (maker.input(0) == Some(x)).then_some(Unary::Silu)
            }
            Op::Unary(Unary::HardSigmoid { alpha, beta }) if near(number, 1.0) => {
                let same = maker.input(0) == Some(x);
                let sixth = near(f64::from(alpha), 1.0 / 6.0) && near(f64::from(beta), 0.5);
                (same && sixth).then_some(Unary::HardSwish)
            }
            Op::Clip if near(number, 1.0 / 6.0) => {
                let bound = |at| self.program.scalar(maker.input(at)?);
                let bounds = bound(1) == Some(0.0) && bound(2) == Some(6.0);
                (bounds && self.plus(maker.input(0)?, 3.0) == Some(x)).then_some(Unary::HardSwish)
            }
            Op::Binary(Binary::Add) if near(number, 0.5) => {
                let inner = self.maker(self.plus(gate, 1.0)?)?;
                let argument = inner.input(0)?;
                match inner.op {
                    Op::Unary(Unary::Erf) => {
                        let (number, factors) = self.product(argument);
                        let root = near(number, std::f64::consts::FRAC_1_SQRT_2);
                        (root && factors == [x]).then_some(Unary::Gelu { tanh: false })
                    }
                    Op::Unary(Unary::Tanh) => self
                        .is_gelu_argument(argument, x)
                        .then_some(Unary::Gelu { tanh: true }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// `√(2/π) · (x + 0.044715 x³)`, or the same with x taken out of the sum.
    fn is_gelu_argument(&self, id: ValueId, x: ValueId) -> bool {
        let (number, factors) = self.product(id);
        if !near(number, 0.797_884_560_802_865_4) {
            return false;
        }
        let small = |id: ValueId, powers: usize| {
            let (number, factors) = self.product(id);
            near(number, 0.044_715) && factors == vec![x; powers]
        };
        match factors.as_slice() {
            [sum] => {
                let Some(node) = self.maker(*sum) else {
                    return false;
                };
                if !matches!(node.op, Op::Binary(Binary::Add)) {
                    return false;
                }
                match (node.input(0), node.input(1)) {
                    (Some(a), Some(b)) => (a == x && small(b, 3)) || (b == x && small(a, 3)),
                    _ => false,
                }
            }
            [a, b] => {
                let one = |sum: ValueId| self.plus(sum, 1.0).is_some_and(|rest| small(rest, 2));
                (*a == x && one(*b)) || (*b == x && one(*a))
            }
            _ => false,
        }
    }

    /// `(x − mean) / √(variance + ε) · scale + bias` over the last axis.
    fn layer_norm(&self, node: &Node) -> Option<Node> {
        let (scaled, bias) = self.with_constant(node)?;
        let scaled = self
            .own(scaled)
            .filter(|node| matches!(node.op, Op::Binary(Binary::Mul)))?;
        let (normal, scale) = self.with_constant(scaled)?;
        let vector = |id| {
            self.program
                .constant(id)
                .is_some_and(|value| value.rank() == 1)
        };
        if !vector(scale) || !vector(bias) {
            return None;
        }
        let normal = self
            .own(normal)
            .filter(|node| matches!(node.op, Op::Binary(Binary::Div)))?;
        let (centred, deviation) = (normal.input(0)?, normal.input(1)?);
        let root = self.own(deviation)?;
        let sum = match root.op {
            Op::Unary(Unary::Sqrt) => root.input(0)?,
            Op::Binary(Binary::Pow) if self.program.scalar(root.input(1)?) == Some(0.5) => {
                root.input(0)?
            }
            _ => return None,
        };
        let sum = self
            .own(sum)
            .filter(|node| matches!(node.op, Op::Binary(Binary::Add)))?;
        let (variance, epsilon) = self.with_constant(sum)?;
        let epsilon = self.program.scalar(epsilon)?;
        let square = self.mean_over_last(variance)?;
        if self.product(square) != (1.0, vec![centred, centred]) {
            return None;
        }
        let difference = self.maker(centred)?;
        let x = difference.input(0)?;
        let is_mean = matches!(difference.op, Op::Binary(Binary::Sub))
            && self.mean_over_last(difference.input(1)?) == Some(x);
        let op = Op::LayerNorm {
            axis: -1,
            epsilon: epsilon as f32,
            statistics: false,
        };
        let inputs = vec![Some(x), Some(scale), Some(bias)];
        is_mean.then(|| Node {
            op,
            inputs,
            ..node.clone()
        })
    }

    /// What a mean over the last axis is taken of.
    fn mean_over_last(&self, id: ValueId) -> Option<ValueId> {
        let node = self.maker(id)?;
        let Op::Reduce {
            kind: Reduce::Mean,
            keep_dims: true,
            ..
        } = node.op
        else {
            return None;
        };
        (self.program.scalar(node.input(1)?) == Some(-1.0))
            .then(|| node.input(0))
            .flatten()
    }

    /// A product with a constant matrix, then a vector added.
    fn linear(&self, node: &Node) -> Option<Node> {
        let (product, bias) = self.with_constant(node)?;
        let product = self
            .own(product)
            .filter(|node| matches!(node.op, Op::MatMul))?;
        let (x, weights) = (product.input(0)?, product.input(1)?);
        let rank = |id| self.program.constant(id).map(crate::value::Value::rank);
        let fits = rank(weights) == Some(2) && rank(bias) == Some(1) && rank(x).is_none();
        let inputs = vec![Some(x), Some(weights), Some(bias)];
        fits.then(|| Node {
            op: Op::Linear {
                activation: Activation::None,
            },
            inputs,
            ..node.clone()
        })
    }

    /// An activation of what a product or a convolution gives.
    fn activated(&self, node: &Node, activation: Activation) -> Option<Node> {
        let maker = self.own(node.input(0)?)?;
        let op = match &maker.op {
            Op::Conv(conv) if conv.activation == Activation::None => Op::Conv(Conv {
                activation,
                ..conv.clone()
            }),
            Op::Linear {
                activation: Activation::None,
            } => Op::Linear { activation },
            _ => return None,
        };
        Some(Node {
            op,
            inputs: maker.inputs.clone(),
            ..node.clone()
        })
    }

    fn own_conv(&self, id: ValueId) -> Option<(Arc<Node>, ValueId)> {
        let plain = |node: &&Arc<Node>| matches!(&node.op, Op::Conv(conv) if conv.activation == Activation::None);
        let conv = self.own(id).filter(plain)?;
        let weights = conv.input(1)?;
        self.program.constant(weights)?;
        Some((conv.clone(), weights))
    }

    /// One number per channel added to a convolution without a bias.
    fn conv_and_bias(&mut self, node: &Node) -> Option<Node> {
        let (made, bias) = self.with_constant(node)?;
        let (conv, weights) = self.own_conv(made)?;
        if conv.input(2).is_some() {
            return None;
        }
        let shape = self.program.constant(weights)?.shape();
        let (channels, rank) = (*shape.first()?, shape.len());
        let bias = self.program.constant(bias)?;
        let mut expected = vec![1; rank - 1];
        *expected.first_mut()? = channels;
        let found = bias.shape();
        if found != expected && (found.first() != Some(&1) || found.get(1..) != Some(&expected)) {
            return None;
        }
        let bias = bias.clone().reshape(&[channels]);
        let bias = self.program.add_constant("bias", bias);
        let inputs = vec![conv.input(0), Some(weights), Some(bias)];
        Some(Node {
            op: conv.op.clone(),
            inputs,
            ..node.clone()
        })
    }

    /// Batch normalisation of a convolution's result.
    fn conv_and_norm(&mut self, node: &Node, epsilon: f32) -> Option<Node> {
        let (conv, weights) = self.own_conv(node.input(0)?)?;
        let constant = |id: Option<ValueId>| self.program.constant(id?).cloned();
        let bias = match conv.input(2) {
            None => None,
            bias => Some(constant(bias)?),
        };
        let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|at| constant(node.input(at)));
        let folded = ops::fold_batch_norm(
            constant(Some(weights))?,
            bias,
            [scale?, shift?, mean?, variance?],
            epsilon,
        );
        let (weights, bias) = folded.ok()?;
        let weights = self.program.add_constant("weights", weights);
        let bias = self.program.add_constant("bias", bias);
        let inputs = vec![conv.input(0), Some(weights), Some(bias)];
        Some(Node {
            op: conv.op.clone(),
            inputs,
            ..node.clone()
        })
    }
}

/// Equal as far as f32 constants in files go.
fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-5 * expected.abs()
}
