//! Regions of interest: boxes in images.

use rayon::prelude::*;

use super::taps::{Real, in_real};
use super::{Args, Result, count};
use crate::error::OpError;
use crate::graph::RoiAlign;
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Samples along an axis of a bin that are not refused.
const MAX_SAMPLES: f32 = 65536.0;

/// `[n, c, h, w]`, none of them zero.
fn image(x: &Value) -> Result<[usize; 4]> {
    let shape = x.shape();
    let found: std::result::Result<[usize; 4], _> = shape.clone().try_into();
    found
        .ok()
        .filter(|found| !found.contains(&0))
        .ok_or_else(|| OpError::Shape(format!("expected an image [n, c, h, w], found {shape:?}")))
}

/// Boxes with `N` numbers each: in f32, as other runtimes compute with them, since rounding
/// decides which elements and how many samples a box has.
fn boxes<const N: usize>(rois: &Value) -> Result<Vec<[f32; N]>> {
    let shape = rois.shape();
    if !matches!(shape.as_slice(), [_, columns] if *columns == N) {
        return Err(OpError::Shape(format!(
            "expected boxes [n, {N}], found {shape:?}"
        )));
    }
    let numbers = rois.elements::<f32>()?;
    if let Some(bad) = numbers.iter().find(|number| !number.is_finite()) {
        return Err(OpError::Value(format!("a box with {bad}")));
    }
    Ok(numbers.as_chunks::<N>().0.to_vec())
}

fn batch(number: i64, size: usize) -> Result<usize> {
    let found = usize::try_from(number).ok().filter(|&at| at < size);
    found.ok_or(OpError::Index {
        index: number,
        size,
    })
}

/// One axis of a box: for each bin, the pairs of neighbouring elements that its samples read,
/// with their weights.
type Bins = Vec<Vec<[(usize, f64); 2]>>;

/// One axis of a box.
#[derive(Clone, Copy)]
struct Side {
    start: f64,
    /// Of each bin.
    width: f64,
    /// Samples of each bin.
    samples: usize,
}

impl Side {
    fn new(start: f32, length: f32, bins: usize, samples: usize) -> Result<Self> {
        let width = length / bins as f32;
        let number = if samples > 0 {
            samples as f32
        } else {
            width.ceil().max(0.0)
        };
        if number > MAX_SAMPLES {
            return Err(OpError::Value(format!(
                "{number} samples along an axis of a box"
            )));
        }
        Ok(Self {
            start: start.into(),
            width: width.into(),
            samples: number as usize,
        })
    }
}

fn bins(side: Side, bins: usize, size: usize) -> Bins {
    let last = size - 1;
    let sample = |x: f64| {
        if x < -1.0 || x > size as f64 {
            return [(0, 0.0); 2];
        }
        let x = x.max(0.0);
        let low = x as usize;
        if low >= last {
            return [(last, 1.0), (last, 0.0)];
        }
        let share = x - low as f64;
        [(low, 1.0 - share), (low + 1, share)]
    };
    let part = side.width / side.samples as f64;
    let bin = |bin: usize| {
        let start = side.start + bin as f64 * side.width;
        (0..side.samples)
            .map(|i| sample(start + (i as f64 + 0.5) * part))
            .collect()
    };
    (0..bins).map(bin).collect()
}

/// `[rois, c, height, width]` from an image `[n, c, h, w]` and boxes `[rois, 4]`.
pub(super) fn align(how: &RoiAlign, x: Value, rois: &Value, batches: &[i64]) -> Result<Value> {
    let [images, channels, ..] = image(&x)?;
    let boxes = boxes::<4>(rois)?;
    if boxes.len() != batches.len() {
        let (boxes, batches) = (boxes.len(), batches.len());
        return Err(OpError::Shape(format!(
            "{batches} batch indices for {boxes} boxes"
        )));
    }
    let [rows, columns] = how.pooled;
    let made = [boxes.len(), channels, rows, columns];
    check_size(DType::F64, &made)?;
    let scale = how.scale;
    let offset = if how.half_pixel { 0.5 } else { 0.0 };
    let plan = boxes
        .into_iter()
        .zip(batches)
        .map(|([x1, y1, x2, y2], &at)| {
            let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(|at| at * scale - offset);
            // Boxes without an area count as one element where nothing is shifted.
            let least = if how.half_pixel {
                f32::NEG_INFINITY
            } else {
                1.0
            };
            let (h, w) = ((y2 - y1).max(least), (x2 - x1).max(least));
            Ok((
                batch(at, images)?,
                Side::new(y1, h, rows, how.samples)?,
                Side::new(x1, w, columns, how.samples)?,
            ))
        });
    let plan = plan.collect::<Result<Vec<_>>>()?;
    in_real!(x.dtype(), align_all(x, &plan, how.max, made))
}

fn align_all<T: Real>(
    x: Value,
    plan: &[(usize, Side, Side)],
    max: bool,
    made: [usize; 4],
) -> Result<Value> {
    let [_, channels, rows, columns] = made;
    let [_, _, height, width] = image(&x)?;
    let (dtype, device) = (x.dtype(), x.device());
    let values = x.elements::<T>()?;
    let mut results = vec![T::of(0.0); count(&made)];
    let plane = rows * columns;
    let size = height * width;
    let each = results.par_chunks_mut(plane * channels).zip(plan);
    each.for_each(|(to, (image, y, x))| {
        let (rows, columns) = (bins(*y, rows, height), bins(*x, columns, width));
        let from = values.chunks(size).skip(image * channels);
        if max {
            for (to, plane) in to.chunks_mut(plane).zip(from) {
                largest(to, plane, width, &rows, &columns);
            }
        } else {
            let (rows, columns) = (merged(&rows), merged(&columns));
            for (to, plane) in to.chunks_mut(plane).zip(from) {
                average(to, plane, width, &rows, &columns);
            }
        }
    });
    Value::from_vec(results, &made, dtype, &device)
}

/// The average over a bin's samples along one axis as one weight per element.
fn merged(bins: &Bins) -> Vec<Vec<(usize, f64)>> {
    let bin = |samples: &Vec<[(usize, f64); 2]>| {
        let share = 1.0 / samples.len().max(1) as f64;
        let mut taps: Vec<(usize, f64)> = Vec::new();
        // Samples go in order, so that equal places are neighbours or one apart.
        for (place, weight) in samples.iter().flatten() {
            let known = taps.iter_mut().rev().take(2).find(|tap| tap.0 == *place);
            match known {
                Some(tap) => tap.1 += weight * share,
                None => taps.push((*place, weight * share)),
            }
        }
        taps
    };
    bins.iter().map(bin).collect()
}

fn average<T: Real>(
    to: &mut [T],
    plane: &[T],
    width: usize,
    rows: &[Vec<(usize, f64)>],
    columns: &[Vec<(usize, f64)>],
) {
    for (to, row) in to.chunks_mut(columns.len()).zip(rows) {
        for (to, column) in to.iter_mut().zip(columns) {
            let line = |&(y, share): &(usize, f64)| {
                let value = |&(x, share): &(usize, f64)| {
                    plane.get(y * width + x).copied().unwrap_or_default() * T::of(share)
                };
                column.iter().map(value).sum::<T>() * T::of(share)
            };
            *to = row.iter().map(line).sum();
        }
    }
}

/// The largest weighted element, not the largest sample: so ONNX defines it.
fn largest<T: Real>(to: &mut [T], plane: &[T], width: usize, rows: &Bins, columns: &Bins) {
    for (to, row) in to.chunks_mut(columns.len()).zip(rows) {
        for (to, column) in to.iter_mut().zip(columns) {
            let pairs = row
                .iter()
                .flatten()
                .flat_map(|y| column.iter().flatten().map(move |x| (y, x)));
            let each = pairs.map(|(y, x)| {
                plane.get(y.0 * width + x.0).copied().unwrap_or_default() * T::of(y.1 * x.1)
            });
            *to = each
                .reduce(|a, b| if b > a { b } else { a })
                .unwrap_or_default();
        }
    }
}

/// The largest elements of the bins of boxes `[rois, 5]`, the first number of each an image's.
pub(super) fn max_pool(pooled: [usize; 2], scale: f32, x: Value, rois: &Value) -> Result<Value> {
    let [images, channels, height, width] = image(&x)?;
    let boxes = boxes::<5>(rois)?;
    let [rows, columns] = pooled;
    let made = [boxes.len(), channels, rows, columns];
    check_size(DType::F64, &made)?;
    let plan = boxes.into_iter().map(|[at, x1, y1, x2, y2]| {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(|at| (at * scale).round());
        Ok((
            batch(at as i64, images)?,
            ranges(y1, y2, rows, height),
            ranges(x1, x2, columns, width),
        ))
    });
    let plan = plan.collect::<Result<Vec<_>>>()?;
    in_real!(x.dtype(), max_all(x, &plan, made))
}

/// The elements of each bin of an axis, from and to.
fn ranges(start: f32, end: f32, bins: usize, size: usize) -> Vec<(usize, usize)> {
    let width = (end - start + 1.0).max(1.0) / bins as f32;
    let place = |at: f32| (at + start).clamp(0.0, size as f32) as usize;
    let range = |bin: usize| {
        let bin = bin as f32;
        (
            place((bin * width).floor()),
            place(((bin + 1.0) * width).ceil()),
        )
    };
    (0..bins).map(range).collect()
}

type Ranges = Vec<(usize, usize)>;

fn max_all<T: Real>(x: Value, plan: &[(usize, Ranges, Ranges)], made: [usize; 4]) -> Result<Value> {
    let [_, channels, rows, columns] = made;
    let [_, _, height, width] = image(&x)?;
    let (dtype, device) = (x.dtype(), x.device());
    let values = x.elements::<T>()?;
    let mut results = vec![T::of(0.0); count(&made)];
    let each = results.par_chunks_mut(rows * columns * channels).zip(plan);
    each.for_each(|(to, (image, rows, columns))| {
        let from = values.chunks(height * width).skip(image * channels);
        for (to, plane) in to.chunks_mut(rows.len() * columns.len()).zip(from) {
            let bins = rows
                .iter()
                .flat_map(|row| columns.iter().map(move |column| (row, column)));
            for (to, (row, column)) in to.iter_mut().zip(bins) {
                let line = |y: usize| plane.get(y * width + column.0..y * width + column.1);
                let bin = (row.0..row.1).filter_map(line).flatten().copied();
                // An empty bin gives zero.
                *to = bin
                    .reduce(|a, b| if b > a { b } else { a })
                    .unwrap_or_default();
            }
        }
    });
    Value::from_vec(results, &made, dtype, &device)
}

/// A box as its corners.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn new([a, b, c, d]: [f32; 4], centered: bool) -> Self {
        if centered {
            let (x, y) = (c / 2.0, d / 2.0);
            return Self {
                low: [a - x, b - y],
                high: [a + x, b + y],
            };
        }
        Self {
            low: [a.min(c), b.min(d)],
            high: [a.max(c), b.max(d)],
        }
    }

    fn area(&self) -> f32 {
        let [[a, b], [c, d]] = [self.low, self.high];
        (c - a) * (d - b)
    }

    /// Whether the shared area is more than this part of the area of both.
    fn overlaps(&self, other: &Self, threshold: f32) -> bool {
        let [[a, b], [c, d]] = [self.low, self.high];
        let [[e, f], [g, h]] = [other.low, other.high];
        let (width, height) = (c.min(g) - a.max(e), d.min(h) - b.max(f));
        if width <= 0.0 || height <= 0.0 {
            return false;
        }
        let shared = width * height;
        let all = self.area() + other.area() - shared;
        all > 0.0 && shared / all > threshold
    }
}

/// `[found, 3]`: batch, class and box of boxes `[n, boxes, 4]` with scores `[n, classes,
/// boxes]` that don't overlap a better one of their class.
pub(super) fn suppress(centered: bool, args: &mut Args) -> Result<Value> {
    let (boxes, scores) = (args.take(0)?, args.take(1)?);
    let (b, s) = (boxes.shape(), scores.shape());
    let ([batches, number, 4], [groups, classes, scored]) = (b.as_slice(), s.as_slice()) else {
        return Err(OpError::Shape(format!("boxes {b:?} with scores {s:?}")));
    };
    if batches != groups || number != scored {
        return Err(OpError::Shape(format!("boxes {b:?} with scores {s:?}")));
    }
    let limit = args
        .optional_ints(2)?
        .and_then(|limit| limit.first().copied());
    let limit = usize::try_from(limit.unwrap_or(0)).unwrap_or(0);
    let mut threshold = |index: usize| -> Result<Option<f32>> {
        let Some(value) = args.optional(index)? else {
            return Ok(None);
        };
        Ok(value.elements::<f32>()?.first().copied())
    };
    let (overlap, least) = (threshold(3)?.unwrap_or(0.0), threshold(4)?);
    let device = boxes.device();
    let boxes = boxes.elements::<f32>()?;
    let corners = boxes.as_chunks::<4>().0.iter();
    let corners: Vec<_> = corners
        .map(|&corners| Corners::new(corners, centered))
        .collect();
    let scores = scores.elements::<f32>()?;
    let found: Vec<_> = (0..batches * classes)
        .into_par_iter()
        .map(|at| {
            let (batch, class) = (at / classes, at % classes);
            let part = |start: usize| start..start + number;
            let corners = corners.get(part(batch * number)).unwrap_or_default();
            let scores = scores.get(part(at * number)).unwrap_or_default();
            let kept = best(corners, scores, limit, overlap, least);
            let row = move |kept| [batch as i64, class as i64, kept as i64];
            kept.into_iter().flat_map(row).collect::<Vec<_>>()
        })
        .collect();
    let found = found.concat();
    Ok(Value::from_ints(&found, &[found.len() / 3, 3], &device))
}

fn best(
    corners: &[Corners],
    scores: &[f32],
    limit: usize,
    overlap: f32,
    least: Option<f32>,
) -> Vec<usize> {
    let mut order: Vec<_> = scores
        .iter()
        .copied()
        .zip(corners)
        .enumerate()
        .filter(|(_, (score, _))| least.is_none_or(|least| *score > least))
        .collect();
    // Stable: of equal scores, the first comes first.
    order.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let mut kept: Vec<(usize, &Corners)> = Vec::new();
    for (at, (_, corners)) in order {
        if kept.len() >= limit {
            break;
        }
        if !kept
            .iter()
            .any(|(_, better)| corners.overlaps(better, overlap))
        {
            kept.push((at, corners));
        }
    }
    kept.into_iter().map(|(at, _)| at).collect()
}
