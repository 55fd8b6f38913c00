//! Convolutions whose channels do not mix: one filter each.
//!
//! A channel is copied into a plane with its padding around it, or, where the filter moves
//! several elements at a time, into one plane for each remainder of row and column. Then each
//! weight stands at a fixed distance in the planes, and the output is the sum of a few long
//! runs, whose ends that wrap around the rows are left out at the end.

use rayon::prelude::*;

use super::activation::Activation;
use super::conv::Geometry;
use super::simd::vectorised;

/// Multiplications for which it pays to ask another thread.
const WORTH_A_THREAD: usize = 1 << 17;

/// Outputs that are summed up side by side.
const RUN: usize = 64;

/// As [`conv`](super::conv::conv) with as many groups as input and output channels.
pub(super) fn conv(
    g: &Geometry,
    image: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let planes = Planes::new(g);
    let image_len = g.image[0] * g.image[1];
    let output_len = g.output[0] * g.output[1];
    let taps = g.kernel[0] * g.kernel[1];
    let one = |room: &mut Room, at: usize, output: &mut [f32]| {
        let channel = at % g.channels;
        let image = image.get(at * image_len..(at + 1) * image_len);
        let weights = weights.get(channel * taps..(channel + 1) * taps);
        let bias = bias.and_then(|bias| bias.get(channel)).copied();
        if let (Some(image), Some(weights)) = (image, weights) {
            planes.filter(room, image, weights, bias.unwrap_or(0.0), output);
            activation.apply(output);
        }
    };
    let work = g.batch * g.channels * output_len * taps;
    let threads = rayon::current_num_threads();
    if work < WORTH_A_THREAD || threads == 1 {
        let mut room = planes.room();
        let each = output.chunks_exact_mut(output_len).enumerate();
        each.for_each(|(at, output)| one(&mut room, at, output));
    } else {
        let share = (g.batch * g.channels).div_ceil(threads * 4);
        let each = output.par_chunks_exact_mut(output_len).enumerate();
        each.with_min_len(share)
            .for_each_init(|| planes.room(), |room, (at, output)| one(room, at, output));
    }
}

/// Where things lie in the planes of a channel.
struct Planes<'a> {
    g: &'a Geometry,
    /// Rows and columns of one plane.
    size: [usize; 2],
    /// Where each weight's first element lies.
    offsets: Vec<usize>,
    /// Where the elements of each of the image's rows go: a place for each remainder of the
    /// column.
    rows: Vec<usize>,
}

/// Memory for one channel.
struct Room {
    planes: Vec<f32>,
    sums: Vec<f32>,
}

impl<'a> Planes<'a> {
    fn new(g: &'a Geometry) -> Self {
        let along = |[kernel, dilation, stride]: [usize; 3], held: usize, made: usize| {
            let reach = (kernel - 1) * dilation / stride;
            held.div_ceil(stride).max(made + reach)
        };
        let down = [g.kernel[0], g.dilations[0], g.strides[0]];
        let right = [g.kernel[1], g.dilations[1], g.strides[1]];
        let size = [
            along(down, g.begin[0] + g.image[0], g.output[0]),
            along(right, g.begin[1] + g.image[1], g.output[1]),
        ];
        let plane = size[0] * size[1];
        let place = |[y, x]: [usize; 2]| {
            let [down, right] = g.strides;
            (y % down * right + x % right) * plane + y / down * size[1] + x / right
        };
        let taps = (0..g.kernel[0]).flat_map(|y| (0..g.kernel[1]).map(move |x| [y, x]));
        let offsets = taps.map(|[y, x]| place([y * g.dilations[0], x * g.dilations[1]]));
        let rows = (0..g.image[0]).flat_map(|y| {
            (0..g.strides[1]).map(move |phase| {
                // The first column whose place has this remainder.
                let first = (phase + g.strides[1] - g.begin[1] % g.strides[1]) % g.strides[1];
                place([g.begin[0] + y, g.begin[1] + first])
            })
        });
        let (offsets, rows) = (offsets.collect(), rows.collect());
        Self {
            g,
            size,
            offsets,
            rows,
        }
    }

    fn room(&self) -> Room {
        let plane = self.size[0] * self.size[1];
        let sums = (self.g.output[0] * self.size[1]).next_multiple_of(RUN);
        let phases = self.g.strides[0] * self.g.strides[1];
        Room {
            // Runs at the end read beyond the last plane.
            planes: vec![0.0; phases * plane + sums + plane],
            sums: vec![0.0; sums],
        }
    }

    fn filter(
        &self,
        room: &mut Room,
        image: &[f32],
        weights: &[f32],
        bias: f32,
        output: &mut [f32],
    ) {
        self.spread(&mut room.planes, image);
        sum(&mut room.sums, &room.planes, &self.offsets, weights, bias);
        let rows = room.sums.chunks_exact(self.size[1]);
        for (to, from) in output.chunks_exact_mut(self.g.output[1]).zip(rows) {
            to.copy_from_slice(from.get(..to.len()).unwrap_or_default());
        }
    }

    /// Copies the image to its places; what lies around them stays zero.
    fn spread(&self, planes: &mut [f32], image: &[f32]) {
        let (right, begin) = (self.g.strides[1], self.g.begin[1]);
        let rows = image.chunks_exact(self.g.image[1]);
        for (row, places) in rows.zip(self.rows.chunks_exact(right)) {
            for (phase, &place) in places.iter().enumerate() {
                let first = (phase + right - begin % right) % right;
                let from = row.get(first..).unwrap_or_default();
                let to = planes.get_mut(place..).unwrap_or_default();
                if right == 1 {
                    let to = to.get_mut(..from.len()).unwrap_or_default();
                    to.copy_from_slice(from);
                } else {
                    let from = from.iter().step_by(right);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

vectorised! {
    /// Adds up runs of elements, each a weight's distance further.
    fn sum(sums: &mut [f32], planes: &[f32], offsets: &[usize], weights: &[f32], bias: f32) {
        let (runs, _) = sums.as_chunks_mut::<RUN>();
        for (at, run) in runs.iter_mut().enumerate() {
            let mut sums = [bias; RUN];
            for (&offset, &weight) in offsets.iter().zip(weights) {
                let from = planes.get(offset + at * RUN..);
                let Some(from) = from.and_then(|from| from.first_chunk::<RUN>()) else {
                    continue;
                };
                for (sum, x) in sums.iter_mut().zip(from) {
                    *sum += weight * x;
                }
            }
            *run = sums;
        }
    }
}
