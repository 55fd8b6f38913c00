//! Recurrent layers: LSTM, GRU and RNN, in both directions.
//!
//! The input's part of all gates is one product over all steps; then each step adds the
//! state's part. The formulas are those of ONNX's operator pages.

use super::elementwise::{binary, choose, clip, unary};
use super::matmul::{linear, matmul};
use super::{Args, Result};
use crate::device;
use crate::error::OpError;
use crate::graph::{Binary, Cell, Direction, Recurrent, Unary};
use crate::kernels::{Activation, F32, Lstm};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// The inputs, steps first: x `[steps, batch, inputs]`, states `[directions, batch, hidden]`.
struct Layer<'a> {
    layer: &'a Recurrent,
    x: Value,
    weights: Value,
    recurrence: Value,
    bias: Option<Value>,
    hidden: Option<Value>,
    cell: Option<Value>,
    peepholes: Option<Value>,
    /// Lengths of the sequences, where they differ from the number of steps.
    lengths: Option<Vec<i64>>,
    steps: usize,
    batch: usize,
}

pub(super) fn run(layer: &Recurrent, args: &mut Args) -> Result<Vec<Value>> {
    let steps_first = |value: Value| match layer.batch_major {
        true => value.permute(&[1, 0, 2]),
        false => value,
    };
    let expect_rank = |value: &Value| match value.rank() {
        3 => Ok(()),
        _ => Err(OpError::Shape(format!(
            "expected rank 3, found {:?}",
            value.shape()
        ))),
    };
    let x = args.take(0)?;
    expect_rank(&x)?;
    let x = steps_first(x);
    let (weights, recurrence, bias) = (args.take(1)?, args.take(2)?, args.optional(3)?);
    let lengths = args.optional_ints(4)?;
    let mut state = |index| -> Result<Option<Value>> {
        let found = args.optional(index)?;
        found.iter().try_for_each(expect_rank)?;
        Ok(found.map(steps_first))
    };
    let (hidden, cell) = (state(5)?, state(6)?);
    let peepholes = args.optional(7)?;
    let shape = x.shape();
    let [steps, batch, inputs] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
    };
    let lengths = lengths.filter(|lengths| lengths.iter().any(|&n| n != *steps as i64));
    let all = Layer {
        layer,
        weights,
        recurrence,
        bias,
        hidden,
        cell,
        peepholes,
        lengths,
        steps: *steps,
        batch: *batch,
        x,
    };
    all.check(*inputs)?;

    let reversed: &[bool] = match layer.direction {
        Direction::Forward => &[false],
        Direction::Reverse => &[true],
        Direction::Both => &[false, true],
    };
    let mut outputs = Vec::new();
    let (mut hiddens, mut cells) = (Vec::new(), Vec::new());
    for (at, &reversed) in reversed.iter().enumerate() {
        let done = all.direction(at, reversed)?;
        outputs.push(done.outputs);
        hiddens.push(done.hidden);
        cells.push(done.cell);
    }
    // [steps, directions, batch, hidden], or [batch, steps, directions, hidden]
    let y = Value::concat(outputs, 1)?;
    let y = if layer.batch_major {
        y.permute(&[2, 0, 1, 3])
    } else {
        y
    };
    let mut made = vec![y, steps_first(Value::concat(hiddens, 0)?)];
    if matches!(layer.cell, Cell::Lstm { .. }) {
        made.push(steps_first(Value::concat(cells, 0)?));
    }
    Ok(made)
}

/// An LSTM layer with weights that were laid out for it, on the CPU.
pub(super) fn lstm(weights: &Lstm, batch_major: bool, args: &mut Args) -> Result<Vec<Value>> {
    let [inputs, hidden, directions] = weights.sizes();
    let own = |value: Value| -> Result<F32> {
        let value = if batch_major && value.rank() == 3 {
            value.permute(&[1, 0, 2])
        } else {
            value
        };
        let value = F32::new(value).map_err(|value| value.unexpected("f32"))?;
        Ok(value.contiguous())
    };
    let x = own(args.take(0)?)?;
    let shape = x.shape();
    let &[steps, batch, found] = shape.as_slice() else {
        return Err(OpError::Shape(format!("expected rank 3, found {shape:?}")));
    };
    if found != inputs || x.slice().is_empty() {
        return Err(OpError::Shape(format!(
            "x {shape:?} for weights of {inputs} inputs"
        )));
    }
    let state = [directions, batch, hidden];
    let mut first = |index| -> Result<Option<F32>> {
        let given = args.optional(index)?.map(own).transpose()?;
        match given {
            Some(given) if given.shape() != state => Err(OpError::Shape(format!(
                "first state {:?}, expected {state:?}",
                given.shape()
            ))),
            given => Ok(given),
        }
    };
    let (h, c) = (first(1)?, first(2)?);
    let (h, c) = (h.as_ref().map(F32::slice), c.as_ref().map(F32::slice));
    check_size(DType::F32, &[steps, batch, directions.max(4), hidden])?;
    let ran = weights
        .run(x.slice(), [steps, batch], h, c)
        .ok_or_else(|| OpError::Shape(format!("x {shape:?} doesn't fit its weights")))?;
    let y = F32::from_vec(ran.outputs, &[steps, directions, batch, hidden]).into_value();
    let (h, c) = (
        F32::from_vec(ran.hidden, &state),
        F32::from_vec(ran.cells, &state),
    );
    let (h, c) = (h.into_value(), c.into_value());
    Ok(match batch_major {
        true => vec![
            y.permute(&[2, 0, 1, 3]),
            h.permute(&[1, 0, 2]),
            c.permute(&[1, 0, 2]),
        ],
        false => vec![y, h, c],
    })
}

/// What one direction gives: `[steps, 1, batch, hidden]` and the last states.
struct Done {
    outputs: Value,
    hidden: Value,
    cell: Value,
}

/// The weights of one direction.
struct Weights {
    /// `[hidden, gates · hidden]`
    recurrence: Value,
    /// The recurrence's bias, where it is not already with the input's.
    bias: Option<Value>,
    /// One `[1, hidden]` per gate that looks at the cell.
    peepholes: Option<[Value; 3]>,
    activations: Vec<Unary>,
}

impl Layer<'_> {
    fn gates(&self) -> usize {
        match self.layer.cell {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        }
    }

    fn check(&self, inputs: usize) -> Result<()> {
        let hidden = self.layer.hidden;
        let directions = if self.layer.direction == Direction::Both {
            2
        } else {
            1
        };
        let rows = self.gates() * hidden;
        let expect = |what: &str, value: Option<&Value>, shape: &[usize]| match value {
            Some(value) if value.shape() != shape => Err(OpError::Shape(format!(
                "{what} {:?}, expected {shape:?}",
                value.shape()
            ))),
            Some(value) if value.dtype() != self.x.dtype() => Err(OpError::DType {
                expected: self.x.dtype().to_string(),
                found: value.dtype(),
            }),
            _ => Ok(()),
        };
        let state = [directions, self.batch, hidden];
        expect("weights", Some(&self.weights), &[directions, rows, inputs])?;
        expect(
            "recurrence weights",
            Some(&self.recurrence),
            &[directions, rows, hidden],
        )?;
        expect("bias", self.bias.as_ref(), &[directions, 2 * rows])?;
        expect("first hidden state", self.hidden.as_ref(), &state)?;
        expect("first cell state", self.cell.as_ref(), &state)?;
        expect(
            "peepholes",
            self.peepholes.as_ref(),
            &[directions, 3 * hidden],
        )?;
        if self.steps == 0 || self.batch == 0 || inputs == 0 {
            return Err(OpError::Shape(format!("no elements: {:?}", self.x.shape())));
        }
        match &self.lengths {
            Some(lengths) if lengths.len() != self.batch => {
                let found = lengths.len();
                Err(OpError::Shape(format!(
                    "{found} lengths for a batch of {}",
                    self.batch
                )))
            }
            Some(lengths) if lengths.iter().any(|n| !(0..=self.steps as i64).contains(n)) => Err(
                OpError::Value(format!("a length outside 0..={}", self.steps)),
            ),
            _ => Ok(()),
        }
    }

    /// The part of a tensor for one direction, without that axis.
    fn of(value: &Value, direction: usize) -> Value {
        let part = value.clone().narrow(0, direction, direction + 1);
        let shape: Vec<_> = part.shape().into_iter().skip(1).collect();
        part.reshape(&shape)
    }

    fn state(&self, given: Option<&Value>, direction: usize) -> Result<Value> {
        match given {
            Some(given) => Ok(Self::of(given, direction)),
            None => {
                let shape = [self.batch, self.layer.hidden];
                Value::full(self.x.dtype(), &shape, 0.0, &self.x.device())
            }
        }
    }

    fn direction(&self, direction: usize, reversed: bool) -> Result<Done> {
        let hidden = self.layer.hidden;
        let rows = self.gates() * hidden;
        let separate = matches!(self.layer.cell, Cell::Gru { .. });
        let input_weights = Self::of(&self.weights, direction).permute(&[1, 0]);
        let bias = self.bias.as_ref().map(|bias| Self::of(bias, direction));
        let (input_bias, state_bias) = match bias {
            None => (None, None),
            Some(bias) => {
                let (input, state) = (
                    bias.clone().narrow(0, 0, rows),
                    bias.narrow(0, rows, 2 * rows),
                );
                if separate {
                    (Some(input), Some(state))
                } else {
                    (Some(binary(Binary::Add, input, state)?), None)
                }
            }
        };
        let inputs = match input_bias {
            Some(bias) => linear(self.x.clone(), input_weights, Some(bias), Activation::None)?,
            None => matmul(self.x.clone(), input_weights)?,
        };
        let each = self.layer.activations.len()
            / if self.layer.direction == Direction::Both {
                2
            } else {
                1
            };
        let activations = self
            .layer
            .activations
            .iter()
            .skip(direction * each)
            .take(each);
        let weights = Weights {
            recurrence: Self::of(&self.recurrence, direction).permute(&[1, 0]),
            bias: state_bias,
            peepholes: self.peepholes.as_ref().map(|peepholes| {
                let all = Self::of(peepholes, direction).reshape(&[1, 3 * hidden]);
                [0, 1, 2].map(|gate| all.clone().narrow(1, gate * hidden, (gate + 1) * hidden))
            }),
            activations: activations.copied().collect(),
        };

        let mut h = self.state(self.hidden.as_ref(), direction)?;
        let mut c = self.state(self.cell.as_ref(), direction)?;
        let mut outputs = vec![None; self.steps];
        for number in 0..self.steps {
            let step = if reversed {
                self.steps - 1 - number
            } else {
                number
            };
            let gates = inputs
                .clone()
                .narrow(0, step, step + 1)
                .reshape(&[self.batch, rows]);
            let (new_h, new_c) = self.step(gates, h.clone(), c.clone(), &weights)?;
            let y = match self.mask(step)? {
                None => {
                    (h, c) = (new_h, new_c);
                    h.clone()
                }
                // Beyond its end a sequence keeps its state and gives zeros.
                Some(mask) => {
                    let zero = Value::full(h.dtype(), &h.shape(), 0.0, &h.device())?;
                    let y = choose(mask.clone(), new_h.clone(), zero)?;
                    h = choose(mask.clone(), new_h, h)?;
                    c = choose(mask, new_c, c)?;
                    y
                }
            };
            if let Some(slot) = outputs.get_mut(step) {
                *slot = Some(y.reshape(&[1, 1, self.batch, hidden]));
            }
        }
        let outputs = Value::concat(outputs.into_iter().flatten().collect(), 0)?;
        let state = [1, self.batch, hidden];
        Ok(Done {
            outputs,
            hidden: h.reshape(&state),
            cell: c.reshape(&state),
        })
    }

    /// Which sequences still run at a step, `[batch, 1]`.
    fn mask(&self, step: usize) -> Result<Option<Value>> {
        let Some(lengths) = &self.lengths else {
            return Ok(None);
        };
        let running = lengths
            .iter()
            .map(|&length| (step as i64) < length)
            .collect();
        Ok(Some(Value::from_bools(
            running,
            &[self.batch, 1],
            &self.x.device(),
        )))
    }

    fn step(&self, inputs: Value, h: Value, c: Value, weights: &Weights) -> Result<(Value, Value)> {
        match self.layer.cell {
            Cell::Lstm { input_forget } => self.lstm(inputs, h, c, weights, input_forget),
            Cell::Gru {
                linear_before_reset,
            } => Ok((self.gru(inputs, h, weights, linear_before_reset)?, c)),
            Cell::Rnn => {
                let sum = binary(Binary::Add, matmul(h, weights.recurrence.clone())?, inputs)?;
                Ok((self.activate(sum, weights, 0)?, c))
            }
        }
    }

    fn activate(&self, x: Value, weights: &Weights, at: usize) -> Result<Value> {
        let x = match self.layer.clip {
            Some(limit) => {
                let bound = |value: f32| {
                    Value::full(x.dtype(), &[], f64::from(value), &device::cpu()).map(Some)
                };
                let (low, high) = (bound(-limit)?, bound(limit)?);
                clip(x, low, high)?
            }
            None => x,
        };
        unary(
            weights.activations.get(at).copied().unwrap_or(Unary::Tanh),
            x,
        )
    }

    fn gate(&self, gates: &Value, at: usize) -> Value {
        let hidden = self.layer.hidden;
        gates.clone().narrow(1, at * hidden, (at + 1) * hidden)
    }

    /// Gates in ONNX's order: input, output, forget, cell.
    fn lstm(
        &self,
        inputs: Value,
        h: Value,
        c: Value,
        weights: &Weights,
        input_forget: bool,
    ) -> Result<(Value, Value)> {
        let gates = binary(Binary::Add, matmul(h, weights.recurrence.clone())?, inputs)?;
        let peephole = |at: usize| weights.peepholes.as_ref().and_then(|all| all.get(at));
        let peep = |gate: Value, at: usize, cell: &Value| match peephole(at) {
            None => Ok(gate),
            Some(peephole) => {
                let seen = binary(Binary::Mul, cell.clone(), peephole.clone())?;
                binary(Binary::Add, gate, seen)
            }
        };
        let input = self.activate(peep(self.gate(&gates, 0), 0, &c)?, weights, 0)?;
        let forget = if input_forget {
            let one = Value::full(input.dtype(), &input.shape(), 1.0, &input.device())?;
            binary(Binary::Sub, one, input.clone())?
        } else {
            self.activate(peep(self.gate(&gates, 2), 2, &c)?, weights, 0)?
        };
        let new = self.activate(self.gate(&gates, 3), weights, 1)?;
        let kept = binary(Binary::Mul, forget, c)?;
        let c = binary(Binary::Add, kept, binary(Binary::Mul, input, new)?)?;
        let output = self.activate(peep(self.gate(&gates, 1), 1, &c)?, weights, 0)?;
        let shown = unary(
            weights.activations.get(2).copied().unwrap_or(Unary::Tanh),
            c.clone(),
        )?;
        Ok((binary(Binary::Mul, output, shown)?, c))
    }

    /// Gates in ONNX's order: update, reset, hidden.
    fn gru(&self, inputs: Value, h: Value, weights: &Weights, linear_first: bool) -> Result<Value> {
        let hidden = self.layer.hidden;
        let columns = |value: &Value, from: usize, to: usize| {
            value
                .clone()
                .narrow(value.rank() - 1, from * hidden, to * hidden)
        };
        let part = |state: Value, from: usize, to: usize| -> Result<Value> {
            let product = matmul(state, columns(&weights.recurrence, from, to))?;
            match &weights.bias {
                Some(bias) => binary(Binary::Add, product, columns(bias, from, to)),
                None => Ok(product),
            }
        };
        let gates = binary(Binary::Add, part(h.clone(), 0, 2)?, columns(&inputs, 0, 2))?;
        let update = self.activate(columns(&gates, 0, 1), weights, 0)?;
        let reset = self.activate(columns(&gates, 1, 2), weights, 0)?;
        let seen = match linear_first {
            true => binary(Binary::Mul, reset, part(h.clone(), 2, 3)?)?,
            false => part(binary(Binary::Mul, reset, h.clone())?, 2, 3)?,
        };
        let new = self.activate(
            binary(Binary::Add, seen, columns(&inputs, 2, 3))?,
            weights,
            1,
        )?;
        // new + update · (h − new)
        let difference = binary(Binary::Sub, h, new.clone())?;
        binary(Binary::Add, binary(Binary::Mul, update, difference)?, new)
    }
}
