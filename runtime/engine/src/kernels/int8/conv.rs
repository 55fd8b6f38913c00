//! Convolutions with filters of 8 bits: filters as rows, windows of the image as columns. An
//! image is quantised as a whole, and then holds four channels in each element, so that a window
//! is read four channels at a time.

#![allow(
    unsafe_code,
    reason = "panels of a result are written through pointers"
)]

use std::sync::OnceLock;

use rayon::prelude::*;

use super::super::activation::Activation;
use super::super::conv::{FEW, Geometry, Patches, each_group, turn_round};
use super::super::floats::Numbers;
use super::super::gemm::Target;
use super::super::integer::panel::{COLUMNS, DEPTH, Kernel, Signed};
use super::super::simd::vectorised;
use super::codes::{Coding, encode_fours, weight_code, weight_scale};
use super::linear::Int8;
use super::{MOST, threads};

/// Weights of a group of filters below which quantising an image costs what it brings.
const FEWEST: usize = 2048;

/// Whether filters `[made, channels / groups, …]` are large enough for what quantising costs,
/// and their channels enough to be taken four at a time.
pub(crate) fn pays(shape: &[usize], groups: usize) -> bool {
    let &[made, channels, ref kernel @ ..] = shape else {
        return false;
    };
    let depth = kernel
        .iter()
        .fold(channels, |depth, &size| depth.saturating_mul(size));
    groups > 0
        && channels >= 3
        && made / groups >= 8
        && depth >= 16
        && (made / groups).saturating_mul(depth) >= FEWEST
}

/// Filters as codes of i8, with a scale for each.
pub(crate) struct Int8Filters {
    groups: Vec<Group>,
    /// Elements of a filter, four channels each.
    depth: usize,
}

struct Group {
    /// `[made, depth · DEPTH]`.
    codes: Numbers<u8>,
    scales: Vec<f32>,
    /// Of the codes of each filter.
    sums: Vec<i32>,
    /// The filters as columns, made when they are first used so.
    columns: OnceLock<Option<Int8>>,
}

impl std::fmt::Debug for Int8Filters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Filters[{}]", self.groups.len())
    }
}

impl Int8Filters {
    /// `None` where a weight isn't finite, the shape is no filter's, or a filter is too large
    /// for sums of 32 bits.
    pub fn new(weights: &[f32], shape: &[usize], groups: usize) -> Option<Self> {
        let &[made, channels, ref kernel @ ..] = shape else {
            return None;
        };
        let kernel = kernel.iter().try_fold(1usize, |n, &k| n.checked_mul(k))?;
        let depth = channels.div_ceil(DEPTH).checked_mul(kernel)?;
        let length = channels.checked_mul(kernel)?;
        let usable = (1..=MOST / DEPTH).contains(&depth)
            && made.checked_rem(groups) == Some(0)
            && made.checked_mul(length) == Some(weights.len())
            && made > 0
            && weights.iter().all(|x| x.is_finite());
        if !usable {
            return None;
        }
        let group = |weights: &[f32]| {
            let mut codes = Numbers::zeros(made / groups * depth * DEPTH);
            let (mut scales, mut sums) = (Vec::new(), Vec::new());
            let filters = weights.chunks_exact(length);
            for (to, filter) in codes.chunks_exact_mut(depth * DEPTH).zip(filters) {
                let most = filter.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let scale = weight_scale(most);
                let mut sum = 0;
                for (channel, places) in filter.chunks_exact(kernel).enumerate() {
                    let first = channel / DEPTH * kernel * DEPTH + channel % DEPTH;
                    let to = to.iter_mut().skip(first).step_by(DEPTH);
                    for (to, weight) in to.zip(places) {
                        let code = weight_code(*weight, scale);
                        *to = code.cast_unsigned();
                        sum += i32::from(code);
                    }
                }
                scales.push(scale);
                sums.push(sum);
            }
            let columns = OnceLock::new();
            Group {
                codes,
                scales,
                sums,
                columns,
            }
        };
        let groups = weights.chunks_exact(made / groups * length).map(group);
        Some(Self {
            groups: groups.collect(),
            depth,
        })
    }

    pub fn bytes(&self) -> usize {
        let groups = self.groups.iter();
        groups
            .map(|group| group.codes.len() + 8 * group.scales.len())
            .sum()
    }
}

/// Image `[batch, channels, height, width]` gives `[batch, made, output]`, as
/// [`conv`](super::super::conv::conv) does.
pub(in super::super) fn conv(
    g: &Geometry,
    image: &[f32],
    filters: &Int8Filters,
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) -> Option<()> {
    let (channels, made) = (g.channels / g.groups, g.made / g.groups);
    let (image_len, output_len) = (channels * g.image_len(), made * g.output_len());
    let one = |at: usize, output: &mut [f32]| {
        let number = at % g.groups;
        let bias = match bias {
            None => None,
            Some(bias) => Some(bias.get(number * made..(number + 1) * made)?),
        };
        let image = image.get(at * image_len..(at + 1) * image_len)?;
        let (coding, fours) = fours(image, channels, g.image_len());
        let zero = [u8::try_from(coding.zero).ok()?; DEPTH];
        let patches = Patches {
            image: &fours,
            channels: channels.div_ceil(DEPTH),
            geometry: g,
            zero: u32::from_le_bytes(zero),
        };
        let [depth, windows] = patches.shape();
        let group = filters.groups.get(number)?;
        let fits = depth == filters.depth
            && group.scales.len() == made
            && output.len() == made * windows
            && bias.is_none_or(|bias| bias.len() == made);
        if !fits {
            return None;
        }
        if windows <= FEW && made > FEW {
            return windows_as_rows(&patches, coding, group, bias, activation, output);
        }
        let job = Job {
            kernel: Kernel::best(),
            patches: &patches,
            pointwise: g.is_pointwise(),
            group,
            lines: lines(group, coding, bias),
            activation,
            output: Target(output.as_mut_ptr()),
        };
        let panels = windows.div_ceil(COLUMNS);
        let threads = threads(made * windows * depth * DEPTH);
        if threads == 1 {
            job.part(0..panels);
        } else {
            let run = panels.div_ceil(4 * threads);
            let firsts: Vec<_> = (0..panels).step_by(run).collect();
            let parts = firsts.into_par_iter();
            parts.for_each(|first| job.part(first..(first + run).min(panels)));
        }
        Some(())
    };
    each_group(g, output, output_len, one)
}

/// Planes of an image as codes, `[⌈channels / 4⌉, plane]`, four channels in each. Channels that
/// the last four lack are copies, which meet weights of zero.
fn fours(image: &[f32], channels: usize, plane: usize) -> (Coding, Vec<u32>) {
    let coding = Coding::of_many(image);
    let mut fours = vec![0; channels.div_ceil(DEPTH) * plane];
    if plane == 0 {
        // Windows of nothing but padding.
        return (coding, fours);
    }
    let one = |(to, from): (&mut [u32], &[f32])| {
        let mut planes = from.chunks_exact(plane);
        let first = planes.next().unwrap_or_default();
        let [b, c, d] = std::array::from_fn(|_| planes.next().unwrap_or(first));
        encode_fours([first, b, c, d], coding, to);
    };
    if image.len() <= super::super::PART {
        let each = fours.chunks_exact_mut(plane);
        each.zip(image.chunks(DEPTH * plane)).for_each(one);
    } else {
        let each = fours.par_chunks_exact_mut(plane);
        each.zip(image.par_chunks(DEPTH * plane)).for_each(one);
    }
    (coding, fours)
}

/// What brings the sums of a filter back to numbers: `(sum − shift) · scale + bias`.
#[derive(Clone, Copy)]
struct Line {
    shift: i32,
    scale: f32,
    bias: f32,
}

fn lines(group: &Group, coding: Coding, bias: Option<&[f32]>) -> Vec<Line> {
    let bias = bias.unwrap_or_default().iter().copied();
    let bias = bias.chain(std::iter::repeat(0.0));
    let each = group.sums.iter().zip(&group.scales).zip(bias);
    each.map(|((sum, scale), bias)| Line {
        shift: sum.wrapping_mul(coding.zero),
        scale: scale * coding.scale,
        bias,
    })
    .collect()
}

struct Job<'a> {
    kernel: Kernel,
    patches: &'a Patches<'a, u32>,
    pointwise: bool,
    group: &'a Group,
    lines: Vec<Line>,
    activation: Activation,
    output: Target,
}

impl Job<'_> {
    /// Computes some panels of windows.
    fn part(&self, panels: std::ops::Range<usize>) {
        let [depth, windows] = self.patches.shape();
        let mut panel = vec![0; depth * COLUMNS];
        let mut made = vec![0; self.lines.len() * COLUMNS];
        for number in panels.clone() {
            let first = number * COLUMNS;
            let width = COLUMNS.min(windows - first);
            if self.pointwise {
                let planes = self.patches.image.chunks_exact(windows);
                for (to, plane) in panel.chunks_exact_mut(COLUMNS).zip(planes) {
                    let from = plane.get(first..first + width).unwrap_or_default();
                    match <&[u32; COLUMNS]>::try_from(from) {
                        Ok(whole) => to.copy_from_slice(whole),
                        Err(_) => to.iter_mut().zip(from).for_each(|(to, x)| *to = *x),
                    }
                }
            } else {
                self.patches.fill(first, COLUMNS, &mut panel);
            }
            made.fill(0);
            let codes = bytemuck::cast_slice(&panel);
            let rows = &self.group.codes;
            self.kernel
                .panel(Signed::Left, rows, codes, &mut made, depth);
            // SAFETY: `conv` checked that the output has as many rows of all windows; no other
            // part has these windows.
            let to = Target(unsafe { self.output.0.add(first) });
            scale_back(&made, &self.lines, to, windows, width);
        }
        let columns = panels.start * COLUMNS..(panels.end * COLUMNS).min(windows);
        // SAFETY: the same elements as above, and no other reference to them.
        unsafe {
            self.output
                .activate(self.activation, 0..self.lines.len(), columns, windows)
        };
    }
}

vectorised! {
    /// Sums `[made, COLUMNS]` as numbers, of which `width` are written to rows that lie `stride`
    /// apart.
    fn scale_back(made: &[i32], lines: &[Line], to: Target, stride: usize, width: usize) {
        for (row, (made, line)) in made.as_chunks::<COLUMNS>().0.iter().zip(lines).enumerate() {
            let numbers = made.map(|sum| {
                sum.wrapping_sub(line.shift) as f32 * line.scale + line.bias
            });
            // SAFETY: the caller's output holds these rows and columns, and nobody else writes
            // them.
            unsafe { Target(to.0.add(row * stride)).write(&numbers, width) };
        }
    }
}

/// A product of few windows, turned round at the end.
fn windows_as_rows(
    patches: &Patches<u32>,
    coding: Coding,
    group: &Group,
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) -> Option<()> {
    let [depth, windows] = patches.shape();
    let mut columns = vec![0; depth * windows];
    patches.fill(0, windows, &mut columns);
    let rows = (0..windows).flat_map(|at| columns.iter().skip(at).step_by(windows.max(1)));
    let rows: Vec<u32> = rows.copied().collect();
    let weights = group
        .columns
        .get_or_init(|| Int8::of_codes(&group.codes, &group.scales, depth * DEPTH));
    let (codes, codings) = (bytemuck::cast_slice(&rows), vec![coding; windows]);
    let weights = weights.as_ref()?;
    if windows == 1 {
        return weights.multiply(codes, &codings, bias, activation, output);
    }
    let mut turned = vec![0.0; output.len()];
    weights.multiply(codes, &codings, bias, activation, &mut turned)?;
    turn_round(&turned, windows, output)
}

#[cfg(test)]
mod tests;
