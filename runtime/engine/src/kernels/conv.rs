//! Convolutions over one or two axes as products: weights times the windows of the image.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::activation::Activation;
use super::depthwise;
use super::floats::Floats;
use super::gemm::{Bias, Blocks, Left, Matrix, Packed, Right, gemm};
use super::int8::{self, Int8Filters};
use super::simd::vectorised;

/// Sizes of a convolution over two axes; one over one axis has a height of 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub batch: usize,
    /// Input channels of all groups.
    pub channels: usize,
    /// Output channels of all groups.
    pub made: usize,
    pub groups: usize,
    /// Height and width, here and below.
    pub image: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// What is added before the first row and column.
    pub begin: [usize; 2],
    pub output: [usize; 2],
}

impl Geometry {
    pub(super) fn image_len(&self) -> usize {
        self.image[0] * self.image[1]
    }

    pub(super) fn output_len(&self) -> usize {
        self.output[0] * self.output[1]
    }

    fn kernel_len(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each output is made of the input at its own place only.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.strides == [1, 1]
            && self.begin == [0, 0]
            && self.output == self.image
    }
}

impl Geometry {
    /// A convolution down the columns as one along a single axis, in which a row further is a
    /// width further: its windows are long runs of elements.
    fn flattened(&self) -> Option<Self> {
        let width = self.image[1];
        let down = self.kernel[1] == 1
            && self.strides == [1, 1]
            && self.begin[1] == 0
            && self.output[1] == width
            && self.kernel[0] > 1;
        down.then(|| Self {
            image: [1, self.image_len()],
            kernel: [1, self.kernel[0]],
            dilations: [1, self.dilations[0] * width],
            begin: [0, self.begin[0] * width],
            output: [1, self.output_len()],
            ..*self
        })
    }
}

/// The windows of some channels: a matrix `[channels · kernel, output]`, made as it is read.
pub(crate) struct Patches<'a, T = f32> {
    pub(super) image: &'a [T],
    pub(super) channels: usize,
    pub(super) geometry: &'a Geometry,
    /// What stands outside the image.
    pub(super) zero: T,
}

impl<T: Copy> Patches<'_, T> {
    pub(super) fn shape(&self) -> [usize; 2] {
        let geometry = self.geometry;
        [self.channels * geometry.kernel_len(), geometry.output_len()]
    }

    /// Copies columns from `first` on into a panel, with zeros beyond the last column and
    /// outside the image.
    pub(super) fn fill(&self, first: usize, width: usize, panel: &mut [T]) {
        let g = self.geometry;
        let [_, out_width] = g.output;
        let [height, image_width] = g.image;
        let columns = width.min(g.output_len() - first);
        let (first_y, first_x) = (first / out_width, first % out_width);
        let kernel = (0..self.channels)
            .flat_map(|c| (0..g.kernel[0]).map(move |y| (c, y)))
            .flat_map(|(c, y)| (0..g.kernel[1]).map(move |x| (c, y, x)));
        for (to, (channel, kernel_y, kernel_x)) in panel.chunks_exact_mut(width).zip(kernel) {
            let plane = channel * g.image_len();
            let Some(plane) = self.image.get(plane..plane + g.image_len()) else {
                continue;
            };
            let (mut y, mut x) = (first_y, first_x);
            let (mut to, rest) = to.split_at_mut(columns);
            rest.fill(self.zero);
            // One run of the output's row after the other.
            while !to.is_empty() {
                let run = (out_width - x).min(to.len());
                let (part, after) = to.split_at_mut(run);
                let row = (y * g.strides[0] + kernel_y * g.dilations[0])
                    .checked_sub(g.begin[0])
                    .filter(|&row| row < height);
                match row {
                    None => part.fill(self.zero),
                    Some(row) => {
                        let row = plane.get(row * image_width..(row + 1) * image_width);
                        let offset = kernel_x * g.dilations[1];
                        let row = row.unwrap_or_default();
                        let (stride, begin) = (g.strides[1], g.begin[1]);
                        copy_row(row, part, x, [stride, offset, begin], self.zero);
                    }
                }
                to = after;
                (y, x) = (y + 1, 0);
            }
        }
    }
}

/// Elements `(x + i) · stride + offset − begin` of a row, zeros outside it.
fn copy_row<T: Copy>(
    row: &[T],
    to: &mut [T],
    x: usize,
    [stride, offset, begin]: [usize; 3],
    zero: T,
) {
    // The first and the one past the last element that lie inside.
    let inside = |at: usize| at.saturating_sub(x);
    let low = inside(begin.saturating_sub(offset).div_ceil(stride)).min(to.len());
    let high = inside((row.len() + begin).saturating_sub(offset).div_ceil(stride)).min(to.len());
    let (head, rest) = to.split_at_mut(low);
    let (middle, tail) = rest.split_at_mut(high.saturating_sub(low));
    head.fill(zero);
    tail.fill(zero);
    let from = ((x + low) * stride + offset).saturating_sub(begin);
    let from = row.get(from..).unwrap_or_default();
    match stride {
        1 => {
            let from = from.get(..middle.len()).unwrap_or_default();
            middle
                .iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = *from);
        }
        2 => every_second(from, middle),
        _ => {
            let from = from.iter().step_by(stride);
            middle
                .iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = *from);
        }
    }
}

vectorised! {
    fn every_second<T: Copy>(from: &[T], to: &mut [T]) {
        let (pairs, last) = from.as_chunks::<2>();
        let count = to.len();
        let (whole, rest) = to.split_at_mut(pairs.len().min(count));
        whole.iter_mut().zip(pairs).for_each(|(to, [from, _])| *to = *from);
        rest.iter_mut().zip(last).for_each(|(to, from)| *to = *from);
    }
}

/// The weights of a convolution, as f32 or quantised.
#[derive(Debug)]
pub(crate) enum Filters {
    Plain(Plain),
    Int8(Int8Filters),
}

/// Weights `[made, channels / groups, kernel]`, and what they are laid out as when they are
/// first used so.
pub(crate) struct Plain {
    weights: Floats,
    /// Rows of each group for products with windows as columns.
    blocks: OnceLock<Option<Vec<Blocks>>>,
    /// Columns of each group for products with windows as rows.
    panels: OnceLock<Option<Vec<Packed>>>,
}

impl Filters {
    pub fn new(weights: &[f32]) -> Self {
        Self::Plain(Plain {
            weights: Floats::copied(weights),
            blocks: OnceLock::new(),
            panels: OnceLock::new(),
        })
    }

    /// Bytes of the weights as they came, or as they were quantised.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Plain(plain) => size_of_val(&*plain.weights),
            Self::Int8(filters) => filters.bytes(),
        }
    }
}

impl Plain {
    fn groups(&self, groups: usize, size: [usize; 2]) -> impl Iterator<Item = Option<Matrix<'_>>> {
        let [made, depth] = size;
        let parts = self.weights.chunks_exact((made * depth).max(1));
        parts
            .take(groups)
            .map(move |part| Matrix::new(part, size, [depth, 1]))
    }

    fn blocks(&self, groups: usize, size: [usize; 2]) -> Option<&[Blocks]> {
        let make = || {
            let each = self.groups(groups, size);
            each.map(|part| Some(Blocks::new(&part?))).collect()
        };
        self.blocks.get_or_init(make).as_deref()
    }

    fn panels(&self, groups: usize, size: [usize; 2]) -> Option<&[Packed]> {
        let make = || {
            let each = self.groups(groups, size);
            each.map(|part| Some(Packed::new(&part?.transposed())))
                .collect()
        };
        self.panels.get_or_init(make).as_deref()
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain[{}]", self.weights.len())
    }
}

/// Windows up to which they are the rows of a product, and not its columns, of which a tile
/// would be mostly empty.
pub(super) const FEW: usize = 8;

/// Image `[batch, channels, height, width]`, contiguous, gives `[batch, made, output]`. The
/// sizes fit each other and the filters.
pub(crate) fn conv(
    g: &Geometry,
    image: &[f32],
    filters: &Filters,
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) -> Option<()> {
    if let Filters::Plain(filters) = filters
        && (g.groups == g.channels && g.groups == g.made && g.groups > 1)
    {
        depthwise::conv(g, image, &filters.weights, bias, activation, output);
        return Some(());
    }
    let flat = g.flattened();
    let g = flat.as_ref().unwrap_or(g);
    let filters = match filters {
        Filters::Plain(filters) => filters,
        Filters::Int8(filters) => {
            return int8::conv(g, image, filters, bias, activation, output);
        }
    };
    let (channels, made) = (g.channels / g.groups, g.made / g.groups);
    let depth = channels * g.kernel_len();
    let image_len = channels * g.image_len();
    let output_len = made * g.output_len();
    let few = g.output_len() <= FEW && made > FEW;
    let (blocks, panels) = if few {
        (None, Some(filters.panels(g.groups, [made, depth])?))
    } else {
        (Some(filters.blocks(g.groups, [made, depth])?), None)
    };
    let one = |at: usize, output: &mut [f32]| {
        let group = at % g.groups;
        let image = image.get(at * image_len..(at + 1) * image_len)?;
        let bias = match bias {
            None => None,
            Some(bias) => Some(bias.get(group * made..(group + 1) * made)?),
        };
        if let Some(panels) = panels {
            let bias = bias.map_or(Bias::None, Bias::Columns);
            let patches = Patches {
                image,
                channels,
                geometry: g,
                zero: 0.0,
            };
            return windows_as_rows(&patches, panels.get(group)?, bias, activation, output);
        }
        let bias = bias.map_or(Bias::None, Bias::Rows);
        let left = Left::Blocks(blocks?.get(group)?);
        if g.is_pointwise() {
            let shape = [channels, g.image_len()];
            let right = Matrix::new(image, shape, [g.image_len(), 1])?;
            return gemm(left, Right::Matrix(right), bias, activation, output);
        }
        let patches = Patches {
            image,
            channels,
            geometry: g,
            zero: 0.0,
        };
        gemm(left, Right::Patches(&patches), bias, activation, output)
    };
    each_group(g, output, output_len, one)
}

/// Makes the output of each group of each image: by several threads where they are enough, else
/// one after the other, each by several.
pub(super) fn each_group(
    g: &Geometry,
    output: &mut [f32],
    output_len: usize,
    one: impl Fn(usize, &mut [f32]) -> Option<()> + Sync,
) -> Option<()> {
    let parts = g.batch * g.groups;
    if parts >= rayon::current_num_threads() && parts > 1 {
        let each = output.par_chunks_exact_mut(output_len).enumerate();
        return each.map(|(at, output)| one(at, output)).collect();
    }
    let mut each = output.chunks_exact_mut(output_len).enumerate();
    each.try_for_each(|(at, output)| one(at, output))
}

/// A product of few windows, turned round at the end.
fn windows_as_rows(
    patches: &Patches,
    panels: &Packed,
    bias: Bias,
    activation: Activation,
    output: &mut [f32],
) -> Option<()> {
    let [depth, windows] = patches.shape();
    let mut columns = vec![0.0; depth * windows];
    patches.fill(0, windows, &mut columns);
    let left = Matrix::new(&columns, [windows, depth], [1, windows])?;
    if windows == 1 {
        return gemm(
            Left::Matrix(left),
            Right::Packed(panels),
            bias,
            activation,
            output,
        );
    }
    let mut turned = vec![0.0; output.len()];
    let right = Right::Packed(panels);
    gemm(Left::Matrix(left), right, bias, activation, &mut turned)?;
    turn_round(&turned, windows, output)
}

/// `[windows, made]` as `[made, windows]`.
pub(super) fn turn_round(turned: &[f32], windows: usize, output: &mut [f32]) -> Option<()> {
    let made = output.len() / windows;
    for (at, to) in output.chunks_exact_mut(windows).enumerate() {
        let from = turned.get(at..)?.iter().step_by(made);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    Some(())
}
