//! Products of matrices with constant right sides of 8 bits.

#![allow(
    unsafe_code,
    reason = "panels of a result are written through pointers"
)]

use rayon::prelude::*;

use super::super::activation::Activation;
use super::super::floats::Numbers;
use super::super::gemm::{Matrix, Target};
use super::super::integer::panel::{COLUMNS, DEPTH, Kernel, Signed};
use super::super::simd::vectorised;
use super::codes::{Coding, encode, weight_code, weight_scale};
use super::{MOST, threads};

/// Rows whose sums are held at a time.
const BLOCK: usize = 32;

/// Whether a right side of this size is large enough for what quantising costs.
pub(crate) fn pays([rows, columns]: [usize; 2]) -> bool {
    rows >= 16 && columns >= 16 && rows.saturating_mul(columns) >= 4096
}

/// A right side as codes of i8, with a scale for each column.
pub(crate) struct Int8 {
    /// `[panels, groups, COLUMNS]`, four codes of a column in each.
    panels: Numbers<u32>,
    /// Of each column, those that fill the last panel included.
    scales: Vec<f32>,
    /// Of the codes of each column.
    sums: Vec<i32>,
    rows: usize,
    columns: usize,
}

impl Int8 {
    /// `None` where a weight isn't finite, or there are too many of them for sums of 32 bits.
    pub fn new(matrix: &Matrix) -> Option<Self> {
        let [rows, columns] = matrix.shape();
        let mut made = Self::empty(rows, columns)?;
        let mut numbers = vec![0.0f32; rows * COLUMNS];
        for panel in 0..columns.div_ceil(COLUMNS) {
            matrix.fill(panel * COLUMNS, COLUMNS, &mut numbers);
            if !numbers.iter().all(|x| x.is_finite()) {
                return None;
            }
            let lines = numbers.as_chunks::<COLUMNS>().0;
            let mut scales = [0.0f32; COLUMNS];
            for line in lines {
                let each = scales.iter_mut().zip(line);
                each.for_each(|(most, x)| *most = most.max(x.abs()));
            }
            scales = scales.map(weight_scale);
            let codes = lines.iter().flat_map(|line| {
                let each = line.iter().zip(&scales);
                each.map(|(x, scale)| weight_code(*x, *scale).cast_unsigned())
            });
            let codes: Vec<u8> = codes.collect();
            made.put(panel, &codes, &scales)?;
        }
        Some(made)
    }

    /// Of columns that are quantised already: `[columns, rows]`.
    pub fn of_codes(codes: &[u8], scales: &[f32], rows: usize) -> Option<Self> {
        let mut made = Self::empty(rows, scales.len())?;
        let mut turned = vec![0; rows * COLUMNS];
        let columns = codes.chunks(rows * COLUMNS).zip(scales.chunks(COLUMNS));
        for (panel, (codes, scales)) in columns.enumerate() {
            turned.fill(0);
            for (at, column) in codes.chunks_exact(rows).enumerate() {
                let to = turned.iter_mut().skip(at).step_by(COLUMNS);
                to.zip(column).for_each(|(to, code)| *to = *code);
            }
            made.put(panel, &turned, scales)?;
        }
        Some(made)
    }

    fn empty(rows: usize, columns: usize) -> Option<Self> {
        if !(1..=MOST).contains(&rows) || columns == 0 {
            return None;
        }
        let padded = columns.checked_next_multiple_of(COLUMNS)?;
        Some(Self {
            panels: Numbers::zeros(padded.checked_mul(rows.div_ceil(DEPTH))?),
            scales: vec![0.0; padded],
            sums: vec![0; padded],
            rows,
            columns,
        })
    }

    /// Lays out the codes `[rows, COLUMNS]` of a panel.
    fn put(&mut self, panel: usize, codes: &[u8], scales: &[f32]) -> Option<()> {
        let (first, length) = (panel * COLUMNS, self.rows.div_ceil(DEPTH) * COLUMNS);
        let packed = Kernel::best().pack(codes, COLUMNS, 0..COLUMNS, 0);
        let to = self.panels.get_mut(panel * length..(panel + 1) * length)?;
        to.copy_from_slice(packed.get(..length)?);
        let own = self.scales.get_mut(first..first + scales.len())?;
        own.copy_from_slice(scales);
        let sums = self.sums.get_mut(first..first + COLUMNS)?;
        for line in codes.chunks_exact(COLUMNS) {
            let each = sums.iter_mut().zip(line);
            each.for_each(|(sum, code)| *sum += i32::from(code.cast_signed()));
        }
        Some(())
    }

    /// Rows and columns of the matrix.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels) + 8 * self.scales.len()
    }

    /// `c = activation(left · self + bias)`, each row of the left side quantised by itself.
    /// `None` where the shapes do not fit, or elements of a row lie apart.
    pub fn product(
        &self,
        left: &Matrix,
        bias: Option<&[f32]>,
        activation: Activation,
        c: &mut [f32],
    ) -> Option<()> {
        let [rows, k] = left.shape();
        if k != self.rows {
            return None;
        }
        let stride = k.next_multiple_of(DEPTH);
        let mut codes = vec![0; rows * stride];
        let mut codings = vec![Coding::default(); rows];
        let one = |(at, (to, coding)): (usize, (&mut [u8], &mut Coding))| {
            let row = left.row(at)?;
            *coding = Coding::of(row);
            encode(row, *coding, to);
            Some(())
        };
        let each = codes.chunks_exact_mut(stride).zip(&mut codings);
        if threads(rows * k * self.columns) == 1 || rows == 1 {
            each.enumerate().map(one).collect::<Option<()>>()?;
        } else {
            let each = codes.par_chunks_exact_mut(stride).zip(&mut codings);
            let each = each.enumerate().with_min_len(BLOCK);
            each.map(one).collect::<Option<()>>()?;
        }
        self.multiply(&codes, &codings, bias, activation, c)
    }

    /// The same with rows that are quantised already, their lengths filled up to a multiple of
    /// [`DEPTH`].
    pub(super) fn multiply(
        &self,
        codes: &[u8],
        codings: &[Coding],
        bias: Option<&[f32]>,
        activation: Activation,
        c: &mut [f32],
    ) -> Option<()> {
        let (rows, panels) = (codings.len(), self.columns.div_ceil(COLUMNS));
        let fits = codes.len() == rows * self.rows.next_multiple_of(DEPTH)
            && c.len() == rows * self.columns
            && bias.is_none_or(|bias| bias.len() == self.columns);
        if !fits {
            return None;
        }
        let job = Job {
            weights: self,
            kernel: Kernel::best(),
            codes,
            codings,
            bias: bias.unwrap_or_default(),
            activation,
            c: Target(c.as_mut_ptr()),
        };
        let threads = threads(rows * self.rows * self.columns);
        if threads == 1 {
            job.part(0..rows, 0..panels);
            return Some(());
        }
        // Many rows are cut, else columns: then each thread reads a part of the weights only.
        let (height, width) = if rows >= BLOCK * threads {
            (
                rows.div_ceil(2 * threads).next_multiple_of(BLOCK / 4),
                panels,
            )
        } else {
            (rows, panels.div_ceil(2 * threads))
        };
        let parts: Vec<_> = (0..rows)
            .step_by(height)
            .flat_map(|row| (0..panels).step_by(width).map(move |panel| (row, panel)))
            .collect();
        parts.into_par_iter().for_each(|(row, panel)| {
            job.part(
                row..(row + height).min(rows),
                panel..(panel + width).min(panels),
            );
        });
        Some(())
    }
}

impl std::fmt::Debug for Int8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8[{}, {}]", self.rows, self.columns)
    }
}

struct Job<'a> {
    weights: &'a Int8,
    kernel: Kernel,
    codes: &'a [u8],
    codings: &'a [Coding],
    /// Empty where there is none.
    bias: &'a [f32],
    activation: Activation,
    c: Target,
}

impl Job<'_> {
    /// Computes some panels of some rows.
    fn part(&self, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let weights = self.weights;
        let groups = weights.rows.div_ceil(DEPTH);
        let stride = groups * DEPTH;
        let mut made = [0; BLOCK * COLUMNS];
        for panel in panels.clone() {
            let first = panel * COLUMNS;
            let codes = panel * groups * COLUMNS..(panel + 1) * groups * COLUMNS;
            let codes = weights.panels.get(codes).unwrap_or_default();
            let codes = bytemuck::cast_slice(codes);
            let bias = self.bias.get(first..).unwrap_or_default();
            let mut padded = [0.0; COLUMNS];
            padded
                .iter_mut()
                .zip(bias)
                .for_each(|(to, from)| *to = *from);
            let columns = Columns {
                scales: part_of(&weights.scales, first),
                sums: part_of(&weights.sums, first),
                bias: &padded,
                width: COLUMNS.min(weights.columns - first),
            };
            for row in rows.clone().step_by(BLOCK) {
                let number = BLOCK.min(rows.end - row);
                let made = made.get_mut(..number * COLUMNS).unwrap_or_default();
                let a = self.codes.get(row * stride..(row + number) * stride);
                let a = a.unwrap_or_default();
                made.fill(0);
                self.kernel.panel(Signed::Right, a, codes, made, groups);
                let codings = self.codings.get(row..row + number).unwrap_or_default();
                // SAFETY: `multiply` checked that C has these rows and columns; no other part has
                // them.
                let c = Target(unsafe { self.c.0.add(row * weights.columns + first) });
                scale_back(made, codings, columns, c, weights.columns);
            }
        }
        let columns = panels.start * COLUMNS..(panels.end * COLUMNS).min(weights.columns);
        // SAFETY: the same elements as above, and no other reference to them.
        unsafe {
            self.c
                .activate(self.activation, rows, columns, weights.columns)
        };
    }
}

fn part_of<T: Copy + Default>(all: &[T], first: usize) -> [T; COLUMNS] {
    let part = all.get(first..).and_then(|part| part.first_chunk());
    part.copied().unwrap_or([T::default(); COLUMNS])
}

/// What the columns of a panel need besides their sums.
#[derive(Clone, Copy)]
struct Columns<'a> {
    scales: [f32; COLUMNS],
    sums: [i32; COLUMNS],
    bias: &'a [f32; COLUMNS],
    width: usize,
}

vectorised! {
    /// Sums `[rows, COLUMNS]` as numbers, written to rows of C that lie `stride` apart and hold
    /// the panel's columns.
    fn scale_back(
        made: &[i32],
        codings: &[Coding],
        columns: Columns<'_>,
        c: Target,
        stride: usize,
    ) {
        for (row, (made, coding)) in made.as_chunks::<COLUMNS>().0.iter().zip(codings).enumerate() {
            let mut line = [0.0f32; COLUMNS];
            let each = columns.scales.iter().zip(&columns.sums).zip(columns.bias);
            for ((to, made), ((scale, sum), bias)) in line.iter_mut().zip(made).zip(each) {
                let sum = made.wrapping_sub(coding.zero.wrapping_mul(*sum));
                *to = sum as f32 * (coding.scale * scale) + bias;
            }
            // SAFETY: the caller's C holds these rows and columns, and nobody else writes them.
            unsafe { Target(c.0.add(row * stride)).write(&line, columns.width) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
