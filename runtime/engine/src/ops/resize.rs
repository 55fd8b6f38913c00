//! Resizing: each axis on its own, one after the other, since all its modes are separable.

use super::taps::{Row, along};
use super::{Result, axis};
use crate::error::OpError;
use crate::graph::{Aspect, Coordinates, NearestMode, Resize, ResizeMode};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// How one axis is resized.
struct Axis {
    at: usize,
    /// Elements before.
    size: usize,
    /// Elements after.
    made: usize,
    scale: f32,
    /// The part that is kept, from 0 to 1.
    roi: (f32, f32),
}

pub(super) fn resize(
    how: &Resize,
    x: Value,
    roi: Option<Value>,
    scales: Option<Value>,
    sizes: Option<Value>,
) -> Result<Value> {
    let axes = axes(how, &x.shape(), roi, scales, sizes)?;
    let mut plan = Vec::new();
    let mut shape = x.shape();
    // From the last axis on, so that the long rows of the others come last.
    for axis in axes.iter().rev() {
        shape
            .iter_mut()
            .skip(axis.at)
            .take(1)
            .for_each(|size| *size = axis.made);
        check_size(DType::F64, &shape)?;
        // A plan of each element takes more memory than the element.
        check_size(DType::F64, &[axis.made, 16])?;
        let whole = how.coordinates != Coordinates::CropAndResize || axis.roi == (0.0, 1.0);
        if axis.size == axis.made && axis.scale == 1.0 && whole {
            continue;
        }
        if axis.size == 0 && axis.made > 0 {
            return Err(OpError::Shape(format!("axis {} has no elements", axis.at)));
        }
        let rows: Vec<_> = (0..axis.made).map(|to| row(how, axis, to)).collect();
        plan.push((axis.at, rows));
    }
    // What gets smaller first, so that the others have less to do.
    let size = |at: usize| x.shape().get(at).copied().unwrap_or(1);
    plan.sort_by_key(|(at, rows)| rows.len() >= size(*at));
    let floats = matches!(x, Value::Float(_));
    if let (ResizeMode::Nearest(_), false) = (how.mode, floats) {
        return select(x, &plan);
    }
    along(x, &plan)
}

/// Elements of any type, each the copy of one.
fn select(x: Value, plan: &[(usize, Vec<Row>)]) -> Result<Value> {
    plan.iter().try_fold(x, |x, (at, rows)| {
        let places = rows.iter().map(|row| match row.taps.as_slice() {
            [(place, _)] => Ok(*place as i64),
            _ => Err(x.unexpected("floats, to extrapolate")),
        });
        let places = places.collect::<Result<Vec<_>>>()?;
        if places.is_empty() || x.len() == 0 {
            let mut shape = x.shape();
            shape
                .iter_mut()
                .skip(*at)
                .take(1)
                .for_each(|size| *size = places.len());
            return Value::full(x.dtype(), &shape, 0.0, &x.device());
        }
        let places = Value::indices(&places, &x.device()).int()?;
        Ok(x.select(*at, places))
    })
}

/// The numbers of an input with `count` of them per axis; nothing where it is empty.
fn numbers(value: Option<Value>, expected: usize, what: &str) -> Result<Option<Vec<f64>>> {
    let Some(value) = value.filter(|value| value.len() > 0) else {
        return Ok(None);
    };
    let found = value.to_floats()?;
    if found.len() != expected {
        return Err(OpError::Shape(format!(
            "{} numbers of {what}, expected {expected}",
            found.len()
        )));
    }
    Ok(Some(found))
}

fn axes(
    how: &Resize,
    shape: &[usize],
    roi: Option<Value>,
    scales: Option<Value>,
    sizes: Option<Value>,
) -> Result<Vec<Axis>> {
    let places = match &how.axes {
        None => (0..shape.len()).collect(),
        Some(given) => {
            // The order is that of the inputs.
            super::axes(given, shape.len())?;
            let each = given.iter().map(|&at| axis(at, shape.len()));
            each.collect::<Result<Vec<_>>>()?
        }
    };
    let number = places.len();
    let roi = match how.coordinates {
        Coordinates::CropAndResize => numbers(roi, 2 * number, "roi")?,
        _ => None,
    };
    let scales = numbers(scales, number, "scales")?;
    let sizes = numbers(sizes, number, "sizes")?;
    let given = scales.as_ref().or(sizes.as_ref());
    let given =
        given.ok_or_else(|| OpError::Value("expected scales or sizes, found none".into()))?;
    if let Some(bad) = given.iter().find(|n| !n.is_finite() || **n < 0.0) {
        return Err(OpError::Value(format!("a scale or size of {bad}")));
    }
    let by_scale = scales.is_some();
    let mut axes: Vec<_> = places
        .into_iter()
        .zip(given)
        .enumerate()
        .map(|(i, (at, &given))| {
            let size = shape.get(at).copied().unwrap_or(0);
            let bound = |at: usize, default: f32| {
                roi.as_ref()
                    .and_then(|roi| Some(*roi.get(at)? as f32))
                    .unwrap_or(default)
            };
            let (scale, made) = if by_scale {
                // In f32, in which exporters choose scales such that the product is whole.
                (given as f32, (given as f32 * size as f32).floor() as usize)
            } else {
                (given as f32 / size as f32, given as usize)
            };
            let roi = (bound(i, 0.0), bound(i + number, 1.0));
            Axis {
                at,
                size,
                made,
                scale,
                roi,
            }
        })
        .collect();
    if axes.iter().any(|axis| by_scale && axis.scale == 0.0) {
        return Err(OpError::Value("a scale of 0".into()));
    }
    if !by_scale && how.aspect != Aspect::Stretch {
        let scales = axes.iter().map(|axis| axis.scale);
        let scale = match how.aspect {
            Aspect::NotSmaller => scales.fold(f32::NEG_INFINITY, f32::max),
            _ => scales.fold(f32::INFINITY, f32::min),
        };
        for axis in &mut axes {
            axis.scale = scale;
            axis.made = (scale * axis.size as f32 + 0.5) as usize;
        }
    }
    Ok(axes)
}

/// Where an element of the result lies in the input: in f32, as other runtimes compute it,
/// since rounding decides which of two elements is the nearest.
fn source(how: &Resize, axis: &Axis, to: usize) -> f32 {
    let (to, size) = (to as f32, axis.size as f32);
    // Scales may ask for a part of an element, which is cut off.
    let made = axis.scale * size;
    match how.coordinates {
        Coordinates::HalfPixel => (to + 0.5) / axis.scale - 0.5,
        Coordinates::HalfPixelSymmetric => {
            let offset = size / 2.0 * (1.0 - axis.made as f32 / made);
            offset + (to + 0.5) / axis.scale - 0.5
        }
        Coordinates::PytorchHalfPixel if axis.made <= 1 => 0.0,
        Coordinates::PytorchHalfPixel => (to + 0.5) / axis.scale - 0.5,
        Coordinates::TfHalfPixelForNearest => (to + 0.5) / axis.scale,
        Coordinates::AlignCorners if axis.made <= 1 => 0.0,
        Coordinates::AlignCorners => to * (size - 1.0) / (made - 1.0),
        Coordinates::Asymmetric => to / axis.scale,
        Coordinates::CropAndResize => {
            let (start, end) = axis.roi;
            let inside = if axis.made <= 1 {
                (end - start) * (size - 1.0) / 2.0
            } else {
                to * (end - start) * (size - 1.0) / (made - 1.0)
            };
            start * (size - 1.0) + inside
        }
    }
}

fn row(how: &Resize, axis: &Axis, to: usize) -> Row {
    let x = f64::from(source(how, axis, to));
    let last = axis.size.saturating_sub(1) as f64;
    if how.coordinates == Coordinates::CropAndResize && (x < 0.0 || x > last) {
        return Row {
            taps: Vec::new(),
            constant: how.extrapolation.into(),
        };
    }
    let place = |at: f64| at.clamp(0.0, last) as usize;
    if let ResizeMode::Nearest(rounding) = how.mode {
        return Row::of(place(match rounding {
            NearestMode::Floor => x.floor(),
            NearestMode::Ceil => x.ceil(),
            NearestMode::HalfDown => (x - 0.5).ceil(),
            NearestMode::HalfUp => (x + 0.5).floor(),
        }));
    }
    // Downsampling stretches the filter, so that all elements count.
    let stretch = if how.antialias {
        f64::from(axis.scale.min(1.0))
    } else {
        1.0
    };
    let reach = match how.mode {
        ResizeMode::Cubic { .. } => 2.0,
        _ => 1.0,
    };
    let reach = reach / stretch;
    let first = (x - reach).floor() + 1.0;
    let number = ((x + reach).ceil() - first).max(0.0) as usize;
    let near = (0..number).map(|i| first + i as f64);
    let near = near.filter(|&at| !how.exclude_outside || (0.0..=last).contains(&at));
    let mut taps: Vec<_> = near
        .map(|at| (place(at), weight(how.mode, (at - x) * stretch)))
        .filter(|tap| tap.1 != 0.0)
        .collect();
    let sum: f64 = taps.iter().map(|tap| tap.1).sum();
    if (how.antialias || how.exclude_outside) && sum != 0.0 {
        taps.iter_mut().for_each(|tap| tap.1 /= sum);
    }
    Row {
        taps,
        constant: 0.0,
    }
}

/// The filter at a distance from its middle.
fn weight(mode: ResizeMode, distance: f64) -> f64 {
    match mode {
        ResizeMode::Cubic { a } => cubic(a.into(), distance),
        _ => (1.0 - distance.abs()).max(0.0),
    }
}

/// Keys' cubic convolution.
pub(super) fn cubic(a: f64, distance: f64) -> f64 {
    let x = distance.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
