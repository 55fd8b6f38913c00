//! Products of f32 matrices: C = A · B + bias, then an activation.
//!
//! A is read in blocks of rows and B in panels of columns, as high and as wide as a
//! [tile](super::tile), each lying column by column and row by row as the tile wants it. What is
//! constant is laid out so once, anything else is copied as it is needed: Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication" (2008).

#![allow(unsafe_code, reason = "tiles write through pointers")]

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
use super::conv::Patches;
use super::floats::Floats;
use super::tile::{Kernel, MAX_ROWS, MAX_WIDTH, Start, Tile, kernel};

/// Rows of a panel that are multiplied in one go, so that a panel stays in the second cache.
const DEPTH: usize = 2048;

/// Elements of A that are laid out at a time, so that they stay in the second cache.
const CHUNK: usize = 1 << 16;

/// Multiplications for which it pays to ask another thread.
const WORTH_A_THREAD: usize = 1 << 18;

/// A matrix somewhere in memory.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `None` where the data ends before the last element.
    pub fn new(
        data: &'a [f32],
        [rows, columns]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Option<Self> {
        let last = (rows.checked_sub(1)?.checked_mul(row_stride)?)
            .checked_add(columns.checked_sub(1)?.checked_mul(column_stride)?)?;
        (last < data.len()).then_some(Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        })
    }

    /// Some of the rows.
    fn part(&self, first: usize, rows: usize) -> Option<Self> {
        Self::new(
            self.data.get(first * self.row_stride..)?,
            [rows, self.columns],
            [self.row_stride, self.column_stride],
        )
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// A row, where its elements lie side by side.
    pub fn row(&self, at: usize) -> Option<&'a [f32]> {
        let first = at * self.row_stride;
        let row = self.data.get(first..first + self.columns)?;
        (self.column_stride == 1 || self.columns == 1).then_some(row)
    }

    /// Rows as columns.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Copies columns from `first` on into a panel, with zeros beyond the last column.
    pub(super) fn fill(&self, first: usize, width: usize, panel: &mut [f32]) {
        let columns = width.min(self.columns - first);
        if self.column_stride == 1 && columns == width {
            match width {
                32 => return self.fill_whole::<32>(first, panel),
                16 => return self.fill_whole::<16>(first, panel),
                8 => return self.fill_whole::<8>(first, panel),
                _ => {}
            }
        }
        for (row, to) in panel.chunks_exact_mut(width).enumerate() {
            let from = row * self.row_stride + first * self.column_stride;
            let from = self.data.get(from..).unwrap_or_default();
            if self.column_stride == 1 {
                let from = from.get(..columns).unwrap_or_default();
                let (head, tail) = to.split_at_mut(from.len());
                head.copy_from_slice(from);
                tail.fill(0.0);
            } else {
                let mut from = from.iter().step_by(self.column_stride.max(1)).take(columns);
                to.fill_with(|| from.next().copied().unwrap_or(0.0));
            }
        }
    }

    /// The same for columns side by side that are all there: a copy of known length is a few
    /// instructions, not a call.
    fn fill_whole<const WIDTH: usize>(&self, first: usize, panel: &mut [f32]) {
        let (panel, _) = panel.as_chunks_mut::<WIDTH>();
        for (row, to) in panel.iter_mut().enumerate() {
            let from = self.data.get(row * self.row_stride + first..);
            if let Some(from) = from.and_then(|from| from.first_chunk()) {
                *to = *from;
            }
        }
    }
}

/// Panels that get their activation together.
const TOGETHER: usize = 8;

/// The most floats of windows that are copied at a time.
const WINDOWS: usize = 1 << 14;

/// A left side that was laid out in blocks of rows, `[k, rows]` each.
pub(crate) struct Blocks {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Blocks {
    pub fn new(matrix: &Matrix) -> Self {
        let mut values = Vec::with_capacity(matrix.rows * matrix.columns);
        for block in blocks(0..matrix.rows) {
            let rows = block.map(|row| {
                let from = matrix.data.get(row * matrix.row_stride..);
                from.unwrap_or_default()
            });
            interleave(rows, matrix.columns, matrix.column_stride, &mut values);
        }
        Self {
            values,
            rows: matrix.rows,
            columns: matrix.columns,
        }
    }
}

/// Rows in blocks as high as tiles, the highest first.
fn blocks(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let heights = kernel().rows;
    let mut next = rows.start;
    std::iter::from_fn(move || {
        let left = rows.end.checked_sub(next).filter(|&left| left > 0)?;
        let height = heights.iter().find(|&&height| height <= left)?;
        next += height;
        Some(next - height..next)
    })
}

/// Appends rows column by column.
fn interleave<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    columns: usize,
    stride: usize,
    to: &mut Vec<f32>,
) {
    let mut all = [&[][..]; MAX_ROWS];
    let mut number = 0;
    for (slot, row) in all.iter_mut().zip(rows) {
        *slot = row;
        number += 1;
    }
    let rows = all.get(..number).unwrap_or_default();
    if let ([row], 1) = (rows, stride) {
        to.extend_from_slice(row.get(..columns).unwrap_or_default());
        return;
    }
    let start = to.len();
    to.resize(start + columns * number, 0.0);
    for (at, row) in rows.iter().enumerate() {
        let to = to.get_mut(start + at..).unwrap_or_default();
        let to = to.iter_mut().step_by(number.max(1));
        if stride == 1 {
            to.zip(*row).for_each(|(to, from)| *to = *from);
        } else {
            let from = row.iter().step_by(stride.max(1));
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// The left side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    Blocks(&'a Blocks),
    Matrix(Matrix<'a>),
}

/// A right side that was laid out in panels.
pub(crate) struct Packed {
    panels: Floats,
    rows: usize,
    columns: usize,
}

impl Packed {
    pub fn new(matrix: &Matrix) -> Self {
        let width = kernel().width;
        let (rows, columns) = (matrix.rows, matrix.columns);
        let mut panels = Floats::zeros(columns.div_ceil(width) * width * rows);
        for (at, panel) in panels.chunks_exact_mut(width * rows).enumerate() {
            matrix.fill(at * width, width, panel);
        }
        Self {
            panels,
            rows,
            columns,
        }
    }

    /// Rows and columns of the matrix.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels)
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed[{}, {}]", self.rows, self.columns)
    }
}

/// The right side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    Packed(&'a Packed),
    Matrix(Matrix<'a>),
    /// The windows of an image, one per column.
    Patches(&'a Patches<'a>),
}

impl Right<'_> {
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Packed(packed) => packed.shape(),
            Self::Matrix(matrix) => [matrix.rows, matrix.columns],
            Self::Patches(patches) => patches.shape(),
        }
    }
}

/// What is added to a product.
#[derive(Clone, Copy)]
pub(crate) enum Bias<'a> {
    None,
    /// What C holds.
    Held,
    /// One number per row of C.
    Rows(&'a [f32]),
    /// One number per column of C.
    Columns(&'a [f32]),
}

/// Places in C, for threads that each write their own.
#[derive(Clone, Copy)]
pub(super) struct Target(pub(super) *mut f32);

impl Target {
    /// Applies an activation to some columns of some rows, which lie `stride` apart.
    ///
    /// # Safety
    ///
    /// They lie there, and nobody else reads or writes them meanwhile.
    pub(super) unsafe fn activate(
        self,
        activation: Activation,
        rows: Range<usize>,
        columns: Range<usize>,
        stride: usize,
    ) {
        if activation == Activation::None {
            return;
        }
        for row in rows {
            // SAFETY: as the caller promises.
            let part = unsafe {
                let start = self.0.add(row * stride + columns.start);
                std::slice::from_raw_parts_mut(start, columns.len())
            };
            activation.apply(part);
        }
    }

    /// Writes the first `width` numbers of a line, from here on.
    ///
    /// # Safety
    ///
    /// There is room for them, and nobody else reads or writes there meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write<const N: usize>(self, line: &[f32; N], width: usize) {
        // A copy of known length is a few instructions, not a call.
        let count = if width == N { N } else { width.min(N) };
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), self.0, count) };
    }
}

// SAFETY: each thread writes a part of C that no other one touches.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `c = activation(a · right + bias)`, c contiguous. `None` where the shapes do not fit: then
/// nothing is written.
pub(crate) fn gemm(
    left: Left,
    right: Right,
    bias: Bias,
    activation: Activation,
    c: &mut [f32],
) -> Option<()> {
    let kernel = kernel();
    let [k, columns] = right.shape();
    let [rows, left_k] = match left {
        Left::Blocks(blocks) => [blocks.rows, blocks.columns],
        Left::Matrix(matrix) => [matrix.rows, matrix.columns],
    };
    let fits = left_k == k
        && c.len() == rows * columns
        && match bias {
            Bias::None | Bias::Held => true,
            Bias::Rows(bias) => bias.len() == rows,
            Bias::Columns(bias) => bias.len() == columns,
        };
    if !fits || c.is_empty() {
        return fits.then_some(());
    }
    let panels = columns.div_ceil(kernel.width);
    let most = kernel.rows.first().copied().unwrap_or(1);
    let blocks = rows.div_ceil(most);
    let work = rows * columns * k;
    let threads = if work < 2 * WORTH_A_THREAD {
        1
    } else {
        rayon::current_num_threads().min(work / WORTH_A_THREAD)
    };
    let job = Job {
        kernel,
        right,
        bias,
        activation,
        columns,
        c: Target(c.as_mut_ptr()),
    };
    let copy;
    let a = match (left, right) {
        (Left::Blocks(blocks), _) => blocks,
        (Left::Matrix(matrix), Right::Packed(_)) if threads == 1 || rows >= 4 * most * threads => {
            job.in_chunks(&matrix, panels, threads);
            return Some(());
        }
        (Left::Matrix(matrix), _) => {
            copy = Blocks::new(&matrix);
            &copy
        }
    };
    if threads == 1 {
        job.part(a, 0..panels, 0..rows);
        return Some(());
    }
    // Rows are cut where there are few panels: a panel that two threads use is copied twice.
    let cuts = (threads * 2).div_ceil(panels).min(blocks);
    let height = blocks.div_ceil(cuts) * most;
    let runs = panels.div_ceil(panels.min(threads * 4));
    let parts: Vec<_> = (0..panels)
        .step_by(runs)
        .flat_map(|panel| (0..rows).step_by(height).map(move |row| (panel, row)))
        .collect();
    parts.into_par_iter().for_each(|(panel, row)| {
        job.part(
            a,
            panel..(panel + runs).min(panels),
            row..(row + height).min(rows),
        );
    });
    Some(())
}

#[derive(Clone, Copy)]
struct Job<'a> {
    kernel: Kernel,
    right: Right<'a>,
    bias: Bias<'a>,
    activation: Activation,
    columns: usize,
    c: Target,
}

impl Job<'_> {
    /// Computes everything in chunks of rows, each of which is laid out when its turn comes.
    fn in_chunks(&self, a: &Matrix, panels: usize, threads: usize) {
        let most = self.kernel.rows.first().copied().unwrap_or(1);
        let fair = a.rows.div_ceil(threads);
        let height = (CHUNK / a.columns.max(1)).clamp(1, fair);
        let height = height.next_multiple_of(most);
        let chunk = |first: usize| {
            let rows = height.min(a.rows - first);
            let Some(part) = a.part(first, rows) else {
                return;
            };
            let part = Blocks::new(&part);
            let bias = match self.bias {
                Bias::Rows(bias) => Bias::Rows(bias.get(first..).unwrap_or_default()),
                bias => bias,
            };
            // SAFETY: C has these rows, and no other chunk has them.
            let c = Target(unsafe { self.c.0.add(first * self.columns) });
            Job { bias, c, ..*self }.part(&part, 0..panels, 0..rows);
        };
        let firsts = (0..a.rows).step_by(height);
        if threads == 1 {
            firsts.for_each(chunk);
        } else {
            let firsts: Vec<_> = firsts.collect();
            firsts.into_par_iter().for_each(chunk);
        }
    }

    /// Computes some panels of some rows.
    fn part(&self, a: &Blocks, panels: Range<usize>, rows: Range<usize>) {
        let (width, k) = (self.kernel.width, a.columns);
        // Windows are copied for several panels at a time: their runs in the image are longer
        // than a panel is wide. An odd number, so that rows fall on other lines of the cache.
        let together = match self.right {
            Right::Patches(_) => (WINDOWS / (width * k.max(1))).clamp(1, TOGETHER) | 1,
            _ => TOGETHER,
        };
        let mut copy = Vec::new();
        for from in panels.clone().step_by(together) {
            let group = from..(from + together).min(panels.end);
            if let Right::Patches(patches) = self.right {
                copy.resize(group.len() * width * k, 0.0);
                patches.fill(from * width, group.len() * width, &mut copy);
            }
            for panel in group.clone() {
                let first = panel * width;
                let (part, stride) = match self.right {
                    Right::Packed(packed) => {
                        (packed.panels.get(first * k..(first + width) * k), width)
                    }
                    // Whole rows of few: read where they lie.
                    Right::Matrix(matrix)
                        if matrix.column_stride == 1
                            && first + width <= self.columns
                            && (rows.len() <= 2 * MAX_ROWS || matrix.row_stride <= width) =>
                    {
                        (matrix.data.get(first..), matrix.row_stride)
                    }
                    Right::Matrix(matrix) => {
                        copy.resize(width * k, 0.0);
                        matrix.fill(first, width, &mut copy);
                        (Some(copy.as_slice()), width)
                    }
                    Right::Patches(_) => (copy.get((panel - from) * width..), group.len() * width),
                };
                let Some(part) = part else { continue };
                self.panel(a, part, stride, panel, rows.clone());
            }
            let columns = group.start * width..(group.end * width).min(self.columns);
            // SAFETY: C has these rows and columns, and no other thread touches this part.
            unsafe {
                self.c
                    .activate(self.activation, rows.clone(), columns, self.columns);
            }
        }
    }

    fn panel(&self, a: &Blocks, right: &[f32], stride: usize, panel: usize, rows: Range<usize>) {
        let (k, width) = (a.columns, self.kernel.width);
        let first = panel * width;
        let columns = width.min(self.columns - first);
        let mut padded_bias = [0.0; MAX_WIDTH];
        let mut edge = [0.0; MAX_ROWS * MAX_WIDTH];
        for from in (0..k.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(k - from);
            for block in blocks(rows.clone()) {
                let (row, number) = (block.start, block.len());
                let start = match self.bias {
                    Bias::Held => Start::Held,
                    _ if from > 0 => Start::Held,
                    Bias::None => Start::Zero,
                    Bias::Rows(bias) => Start::Rows(bias.get(row..).unwrap_or_default().as_ptr()),
                    Bias::Columns(bias) => {
                        let bias = bias.get(first..).unwrap_or_default();
                        if columns == width {
                            Start::Columns(bias.as_ptr())
                        } else {
                            padded_bias
                                .iter_mut()
                                .zip(bias)
                                .for_each(|(to, from)| *to = *from);
                            Start::Columns(padded_bias.as_ptr())
                        }
                    }
                };
                // SAFETY: `gemm` and `Matrix::new` checked that the blocks of A, the panel and C
                // hold all rows and columns; parts begin at a block. A tile at the right edge goes through `edge`. No other
                // thread has these rows of this panel.
                unsafe {
                    let c = self.c.0.add(row * self.columns + first);
                    let mut tile = Tile {
                        rows: number,
                        k: depth,
                        a: a.values.as_ptr().add(row * k + from * number),
                        b: right.as_ptr().add(from * stride),
                        b_stride: stride,
                        c,
                        c_stride: self.columns,
                        start,
                    };
                    if columns == width {
                        (self.kernel.run)(&tile);
                    } else {
                        tile.c = edge.as_mut_ptr();
                        tile.c_stride = width;
                        if matches!(start, Start::Held) {
                            copy_rows(c, self.columns, tile.c, width, number, columns);
                        }
                        if columns <= width / 2 {
                            (self.kernel.narrow)(&tile);
                        } else {
                            (self.kernel.run)(&tile);
                        }
                        copy_rows(tile.c, width, c, self.columns, number, columns);
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// Both places hold as many rows and columns, and are apart.
unsafe fn copy_rows(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    rows: usize,
    columns: usize,
) {
    for row in 0..rows {
        // SAFETY: as the caller promises.
        unsafe {
            let (from, to) = (from.add(row * from_stride), to.add(row * to_stride));
            std::ptr::copy_nonoverlapping(from, to, columns);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
