//! Products of f32 matrices: C = A · B + bias, then an activation.
//!
//! A is read in blocks of rows and B in panels of columns, as high and as wide as a
//! [tile](super::tile), each lying column by column and row by row as the tile wants it. What is
//! constant is laid out so once, anything else is copied as it is needed: Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication" (2008).

#![allow(unsafe_code, reason = "tiles write through pointers")]

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
    fn fill(&self, first: usize, width: usize, panel: &mut [f32]) {
        let columns = width.min(self.columns - first);
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
}

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
fn blocks(rows: std::ops::Range<usize>) -> impl Iterator<Item = std::ops::Range<usize>> {
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
struct Target(*mut f32);

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
    fn part(&self, a: &Blocks, panels: std::ops::Range<usize>, rows: std::ops::Range<usize>) {
        let (width, k) = (self.kernel.width, a.columns);
        let mut copy = Vec::new();
        for panel in panels {
            let first = panel * width;
            let columns = width.min(self.columns - first);
            let (panel, stride) = match self.right {
                Right::Packed(packed) => {
                    let from = panel * width * k;
                    (packed.panels.get(from..from + width * k), width)
                }
                // Whole rows of few: read where they lie.
                Right::Matrix(matrix)
                    if matrix.column_stride == 1
                        && columns == width
                        && (rows.len() <= 2 * MAX_ROWS || matrix.row_stride <= width) =>
                {
                    (matrix.data.get(first..), matrix.row_stride)
                }
                Right::Matrix(matrix) => {
                    copy.resize(width * k, 0.0);
                    matrix.fill(first, width, &mut copy);
                    (Some(copy.as_slice()), width)
                }
                Right::Patches(patches) => {
                    copy.resize(width * k, 0.0);
                    patches.fill(first, width, &mut copy);
                    (Some(copy.as_slice()), width)
                }
            };
            let Some(panel) = panel else { continue };
            self.panel(a, panel, stride, [first, columns], rows.clone());
        }
    }

    fn panel(
        &self,
        a: &Blocks,
        panel: &[f32],
        stride: usize,
        [first, columns]: [usize; 2],
        rows: std::ops::Range<usize>,
    ) {
        let (k, width) = (a.columns, self.kernel.width);
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
                        b: panel.as_ptr().add(from * stride),
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
        if self.activation != Activation::None {
            for row in rows {
                // SAFETY: the same rows and columns as above, and no other reference to them.
                let part = unsafe {
                    std::slice::from_raw_parts_mut(
                        self.c.0.add(row * self.columns + first),
                        columns,
                    )
                };
                self.activation.apply(part);
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
mod tests {
    use super::super::conv::{Filters, Geometry, conv};
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn near(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let off = (f64::from(found) - expected).abs();
            assert!(off < 1e-4, "element {at}: {found}, expected {expected}");
        }
    }

    #[test]
    fn products_of_all_sizes_are_those_of_the_formula() {
        let sizes = [1, 2, 5, 12, 13, 31, 32, 33, 70];
        for (m, n, k) in sizes
            .iter()
            .flat_map(|&m| sizes.iter().map(move |&n| (m, n)))
            .flat_map(|(m, n)| [1, 3, 64, 2500].map(|k| (m, n, k)))
            .filter(|(m, n, k)| m * n * k < 200_000)
        {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let (rows, columns) = (numbers(m, 3), numbers(n, 4));
            let product = |i: usize, j: usize, b: &dyn Fn(usize, usize) -> f32| -> f64 {
                let terms = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b(p, j)));
                terms.sum()
            };
            let left = Matrix::new(&a, [m, k], [k, 1]).unwrap();
            // As it lies, and transposed.
            for (strides, at) in [([n, 1], [n, 1]), ([1, k], [1, k])] {
                let right = Matrix::new(&b, [k, n], strides).unwrap();
                let element = |p: usize, j: usize| b[p * at[0] + j * at[1]];
                let packed = Packed::new(&right);
                for right in [Right::Matrix(right), Right::Packed(&packed)] {
                    let mut c = vec![f32::NAN; m * n];
                    gemm(
                        Left::Matrix(left),
                        right,
                        Bias::Columns(&columns),
                        Activation::None,
                        &mut c,
                    )
                    .unwrap();
                    let expected: Vec<f64> = (0..m * n)
                        .map(|at| product(at / n, at % n, &element) + f64::from(columns[at % n]))
                        .collect();
                    near(&c, &expected);
                    gemm(
                        Left::Matrix(left),
                        right,
                        Bias::Rows(&rows),
                        Activation::Relu,
                        &mut c,
                    )
                    .unwrap();
                    let expected: Vec<f64> = (0..m * n)
                        .map(|at| product(at / n, at % n, &element) + f64::from(rows[at / n]))
                        .map(|x| x.max(0.0))
                        .collect();
                    near(&c, &expected);
                }
            }
        }
    }

    #[test]
    fn every_kernel_computes_the_same_tile() {
        let kernels = [kernel(), super::super::tile::portable()];
        for kernel in kernels {
            let (k, width) = (37, kernel.width);
            let (a, b) = (numbers(MAX_ROWS * k, 5), numbers(width * k, 6));
            for &rows in kernel.rows {
                let mut c = vec![0.0; rows * width];
                let tile = Tile {
                    rows,
                    k,
                    a: a.as_ptr(),
                    b: b.as_ptr(),
                    b_stride: width,
                    c: c.as_mut_ptr(),
                    c_stride: width,
                    start: Start::Zero,
                };
                // SAFETY: all of these are as large as the tile.
                unsafe { (kernel.run)(&tile) };
                let expected: Vec<f64> = (0..rows * width)
                    .map(|at| {
                        let (i, j) = (at / width, at % width);
                        let terms = (0..k)
                            .map(|p| f64::from(a[p * rows + i]) * f64::from(b[p * width + j]));
                        terms.sum()
                    })
                    .collect();
                near(&c, &expected);
            }
        }
    }

    #[test]
    fn convolutions_of_all_shapes_are_those_of_the_formula() {
        let cases = [
            // channels, made, groups, image, kernel, strides, dilations, begin, end
            (3, 8, 1, [9, 11], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
            (3, 8, 1, [9, 40], [3, 3], [2, 2], [1, 1], [1, 0], [0, 1]),
            (6, 4, 2, [8, 7], [3, 2], [1, 3], [2, 1], [2, 1], [1, 0]),
            (5, 7, 1, [6, 6], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
            (5, 7, 1, [6, 6], [1, 1], [2, 2], [1, 1], [0, 0], [0, 0]),
            (6, 6, 6, [10, 13], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
            (6, 6, 6, [10, 13], [5, 5], [2, 2], [1, 1], [2, 2], [2, 2]),
            (6, 6, 6, [10, 13], [3, 3], [3, 3], [2, 2], [2, 2], [2, 2]),
            (4, 4, 4, [2, 2], [5, 5], [1, 1], [1, 1], [4, 4], [4, 4]),
            (2, 3, 1, [1, 200], [1, 7], [1, 4], [1, 1], [0, 3], [0, 3]),
            (4, 20, 2, [1, 9], [1, 3], [1, 2], [1, 1], [0, 1], [0, 1]),
            (4, 9, 1, [3, 3], [3, 3], [1, 1], [1, 1], [0, 0], [0, 0]),
            (4, 5, 1, [30, 4], [5, 1], [1, 1], [2, 1], [4, 0], [4, 0]),
        ];
        for (channels, made, groups, image, kernel, strides, dilations, begin, end) in cases {
            let output = [0, 1].map(|at| {
                let reach = (kernel[at] - 1) * dilations[at] + 1;
                (image[at] + begin[at] + end[at] - reach) / strides[at] + 1
            });
            let g = Geometry {
                batch: 2,
                channels,
                made,
                groups,
                image,
                kernel,
                strides,
                dilations,
                begin,
                output,
            };
            let per_group = channels / groups;
            let x = numbers(2 * channels * image[0] * image[1], 7);
            let w = numbers(made * per_group * kernel[0] * kernel[1], 8);
            let bias = numbers(made, 9);
            let mut found = vec![f32::NAN; 2 * made * output[0] * output[1]];
            let filters = Filters::new(&w);
            conv(&g, &x, &filters, Some(&bias), Activation::None, &mut found).unwrap();
            let mut expected = Vec::new();
            for (n, m) in (0..2).flat_map(|n| (0..made).map(move |m| (n, m))) {
                for (y, x_at) in (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| (y, x))) {
                    let mut sum = f64::from(bias[m]);
                    for c in 0..per_group {
                        for (i, j) in
                            (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j)))
                        {
                            let row = (y * strides[0] + i * dilations[0]).wrapping_sub(begin[0]);
                            let column =
                                (x_at * strides[1] + j * dilations[1]).wrapping_sub(begin[1]);
                            if row >= image[0] || column >= image[1] {
                                continue;
                            }
                            let channel = n * channels + m / (made / groups) * per_group + c;
                            let from = (channel * image[0] + row) * image[1] + column;
                            let weight = ((m * per_group + c) * kernel[0] + i) * kernel[1] + j;
                            sum += f64::from(x[from]) * f64::from(w[weight]);
                        }
                    }
                    expected.push(sum);
                }
            }
            near(&found, &expected);
        }
    }
}
