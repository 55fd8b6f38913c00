//! LSTM layers with the usual activations (ONNX's operator page has the formulas).

use super::activation::{Activation, sigmoid, tanh};
use super::gemm::{Bias, Left, Matrix, Packed, Right, gemm};
use super::simd::vectorised;

/// The weights of a layer.
pub(crate) struct Lstm {
    inputs: usize,
    hidden: usize,
    directions: Vec<Direction>,
}

struct Direction {
    /// `[inputs, 4 · hidden]`
    input: Packed,
    /// `[hidden, 4 · hidden]`
    recurrence: Packed,
    /// Both biases.
    bias: Vec<f32>,
    reversed: bool,
}

/// What a run gives.
pub(crate) struct Ran {
    /// `[steps, directions, batch, hidden]`
    pub outputs: Vec<f32>,
    /// `[directions, batch, hidden]`, after the last step.
    pub hidden: Vec<f32>,
    /// The same of the cells.
    pub cells: Vec<f32>,
}

impl Lstm {
    /// Weights `[directions, 4 · hidden, inputs]`, recurrence `[directions, 4 · hidden, hidden]`,
    /// bias `[directions, 8 · hidden]`; `reversed` says of each direction whether it goes
    /// backward. `None` where the sizes do not fit.
    pub fn new(
        weights: &[f32],
        recurrence: &[f32],
        bias: Option<&[f32]>,
        [inputs, hidden]: [usize; 2],
        reversed: &[bool],
    ) -> Option<Self> {
        let rows = 4 * hidden;
        let part = |all: &[f32], at: usize, columns: usize| {
            let part = all.get(at * rows * columns..(at + 1) * rows * columns)?;
            let matrix = Matrix::new(part, [rows, columns], [columns, 1])?;
            Some(Packed::new(&matrix.transposed()))
        };
        let directions = reversed.iter().enumerate().map(|(at, &reversed)| {
            let bias = match bias {
                None => vec![0.0; rows],
                Some(all) => {
                    let both = all.get(at * 2 * rows..(at + 1) * 2 * rows)?;
                    let (input, recurrence) = both.split_at(rows);
                    input.iter().zip(recurrence).map(|(a, b)| a + b).collect()
                }
            };
            Some(Direction {
                input: part(weights, at, inputs)?,
                recurrence: part(recurrence, at, hidden)?,
                bias,
                reversed,
            })
        });
        Some(Self {
            inputs,
            hidden,
            directions: directions.collect::<Option<_>>()?,
        })
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        let each = self.directions.iter();
        each.map(|d| d.input.bytes() + d.recurrence.bytes() + size_of_val(d.bias.as_slice()))
            .sum()
    }

    /// How many numbers a step takes, how many it gives, and in how many directions.
    pub fn sizes(&self) -> [usize; 3] {
        [self.inputs, self.hidden, self.directions.len()]
    }

    /// Runs over x `[steps, batch, inputs]` from states `[directions, batch, hidden]`, zeros
    /// where there are none. `None` where the sizes do not fit.
    pub fn run(
        &self,
        x: &[f32],
        [steps, batch]: [usize; 2],
        hidden: Option<&[f32]>,
        cells: Option<&[f32]>,
    ) -> Option<Ran> {
        let state = batch * self.hidden;
        let whole = self.directions.len() * state;
        let first = |given: Option<&[f32]>| match given {
            None => Some(vec![0.0; whole]),
            Some(given) => (given.len() == whole).then(|| given.to_vec()),
        };
        let mut ran = Ran {
            outputs: vec![0.0; steps * whole],
            hidden: first(hidden)?,
            cells: first(cells)?,
        };
        let x = Matrix::new(x, [steps * batch, self.inputs], [self.inputs, 1])?;
        let row = 4 * self.hidden;
        let mut gates = vec![0.0; steps * batch * row];
        for (at, direction) in self.directions.iter().enumerate() {
            let h = ran.hidden.get_mut(at * state..(at + 1) * state)?;
            let c = ran.cells.get_mut(at * state..(at + 1) * state)?;
            let bias = Bias::Columns(&direction.bias);
            let input = Right::Packed(&direction.input);
            gemm(Left::Matrix(x), input, bias, Activation::None, &mut gates)?;
            for number in 0..steps {
                let step = if direction.reversed {
                    steps - 1 - number
                } else {
                    number
                };
                let gates = gates.get_mut(step * batch * row..(step + 1) * batch * row)?;
                let held = Matrix::new(h, [batch, self.hidden], [self.hidden, 1])?;
                let recurrence = Right::Packed(&direction.recurrence);
                gemm(
                    Left::Matrix(held),
                    recurrence,
                    Bias::Held,
                    Activation::None,
                    gates,
                )?;
                let each = gates.chunks_exact(row).zip(h.chunks_exact_mut(self.hidden));
                for ((gates, h), c) in each.zip(c.chunks_exact_mut(self.hidden)) {
                    cell(gates, h, c);
                }
                let place = step * whole + at * state;
                ran.outputs
                    .get_mut(place..place + state)?
                    .copy_from_slice(h);
            }
        }
        Some(ran)
    }
}

impl std::fmt::Debug for Lstm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lstm{:?}", self.sizes())
    }
}

vectorised! {
    /// One step; the gates stand in ONNX's order: input, output, forget, cell.
    fn cell(gates: &[f32], h: &mut [f32], c: &mut [f32]) {
        let (first, last) = gates.split_at(gates.len() / 2);
        let (input, output) = first.split_at(h.len());
        let (forget, new) = last.split_at(h.len());
        let gates = input.iter().zip(output).zip(forget.iter().zip(new));
        for (((input, output), (forget, new)), (h, c)) in gates.zip(h.iter_mut().zip(c)) {
            *c = sigmoid(*forget) * *c + sigmoid(*input) * tanh(*new);
            *h = sigmoid(*output) * tanh(*c);
        }
    }
}
