//! Operators of domain `ai.onnx.ml` that prepare features; models have modules of their own.

use super::{Args, Result, count, index, scores, shape, svm, trees};
use crate::error::OpError;
use crate::graph::{Encoder, Imputed, KeyKind, Ml, Norm, Places, float_key};
use crate::tensor::DType;
use crate::value::{Value, check_size, is_float};

pub(super) fn run(of: &Ml, args: &mut Args) -> Result<Vec<Value>> {
    if matches!(of, Ml::Concat) {
        return Ok(vec![concat(args.all()?)?]);
    }
    let x = args.take(0)?;
    Ok(vec![match of {
        Ml::Trees(forest) => trees::regress(forest, &x)?,
        Ml::TreeClassifier(forest, labels) => return trees::classify(forest, labels, &x),
        Ml::Linear(linear) => svm::regress_linear(linear, &x)?,
        Ml::LinearClassifier(linear, labels) => return svm::classify_linear(linear, labels, &x),
        Ml::Svm(svm) => svm::regress(svm, &x)?,
        Ml::SvmClassifier(svm, labels) => return svm::classify(svm, labels, &x),
        Ml::Scaler { offset, scale } => scaled(&x, offset, scale)?,
        Ml::Normalizer(norm) => normalized(&x, *norm)?,
        Ml::OneHot {
            places,
            categories,
            strict,
        } => one_hot(x, places, *categories, *strict)?,
        Ml::Encoder(encoders) => encode(x, encoders)?,
        Ml::Imputer { floats, ints } => impute(x, floats.as_ref(), ints.as_ref())?,
        Ml::Binarizer { threshold } => {
            let above = |x: f64| if x > f64::from(*threshold) { 1.0 } else { 0.0 };
            mapped(&x, |_, x| above(x))?
        }
        Ml::Extract => {
            let places = args.take(1)?;
            let places = places.clone().reshape(&[places.len()]);
            let rows = match x.rank() {
                1 => shape::unsqueeze(x, &[0])?,
                _ => x,
            };
            index::gather(rows, &places, -1)?
        }
        Ml::Concat => return Err(OpError::MissingInput { index: 0 }),
    }])
}

/// `f` of the place in the row and of each number, in the type of the tensor.
fn mapped(x: &Value, f: impl Fn(usize, f64) -> f64) -> Result<Value> {
    let shape = x.shape();
    let width = shape.last().copied().unwrap_or(1).max(1);
    let values = x.to_floats()?.into_iter().enumerate();
    let made = values.map(|(at, x)| f(at % width, x)).collect();
    let made = Value::from_floats(made, &shape, DType::F64, &x.device())?;
    made.cast(x.dtype())
}

/// The number of a feature in a list of one for all or of one for each.
fn of_feature<T: Copy>(list: &[T], at: usize) -> Option<T> {
    match list {
        [one] => Some(*one),
        list => list.get(at).copied(),
    }
}

fn fits<T>(list: &[T], x: &Value) -> Result<()> {
    let width = x.shape().last().copied().unwrap_or(1);
    if list.len() == 1 || list.len() == width {
        return Ok(());
    }
    Err(OpError::Shape(format!(
        "{} numbers for {width} features",
        list.len()
    )))
}

fn scaled(x: &Value, offset: &[f32], scale: &[f32]) -> Result<Value> {
    fits(offset, x)?;
    fits(scale, x)?;
    let number = |list: &[f32], at| of_feature(list, at).map_or(0.0, f64::from);
    let wide = x.clone().cast(DType::F64)?;
    let made = mapped(&wide, |at, x| (x - number(offset, at)) * number(scale, at))?;
    made.cast(DType::F32)
}

/// Each row divided by its largest element, its sum of absolute values or its length.
fn normalized(x: &Value, norm: Norm) -> Result<Value> {
    let shape = x.shape();
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut values = x.to_floats()?;
    for row in values.chunks_mut(width) {
        let by = match norm {
            Norm::Max => row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::L2 => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
        };
        if by != 0.0 {
            row.iter_mut().for_each(|x| *x /= by);
        }
    }
    Value::from_floats(values, &shape, DType::F32, &x.device())
}

/// The places of the elements; `None` where an element is no key.
fn find(x: Value, places: &Places) -> Result<Vec<Option<usize>>> {
    let place = |key: &[u8]| places.of.get(key).copied();
    Ok(match places.kind {
        KeyKind::Text => x.strings()?.iter().map(|key| place(key)).collect(),
        KeyKind::Int => {
            let ints = x.to_ints()?;
            ints.iter().map(|key| place(&key.to_le_bytes())).collect()
        }
        KeyKind::Float => {
            let floats = x.to_floats()?;
            floats.iter().map(|&key| place(&float_key(key))).collect()
        }
    })
}

/// A row of zeros with a one at the element's category.
fn one_hot(x: Value, places: &Places, categories: usize, strict: bool) -> Result<Value> {
    let mut shape = x.shape();
    shape.push(categories);
    check_size(DType::F64, &shape)?;
    let device = x.device();
    let mut made = vec![0.0; count(&shape)];
    let found = find(x, places)?;
    for (row, place) in made.chunks_mut(categories.max(1)).zip(found) {
        match place.and_then(|place| row.get_mut(place)) {
            Some(slot) => *slot = 1.0,
            None if strict => return Err(OpError::Value("an element of no category".into())),
            None => {}
        }
    }
    Value::from_floats(made, &shape, DType::F32, &device)
}

fn encode(x: Value, encoders: &[Encoder]) -> Result<Value> {
    let kind = match &x {
        Value::Text(..) => KeyKind::Text,
        Value::Float(_) => KeyKind::Float,
        _ => KeyKind::Int,
    };
    let encoder = encoders.iter().find(|encoder| encoder.places.kind == kind);
    let Some(encoder) = encoder else {
        return Err(x.unexpected("the type of the keys"));
    };
    let shape = x.shape();
    let other = encoder.values.len().saturating_sub(1);
    let found = find(x, &encoder.places)?.into_iter();
    let found: Vec<_> = found.map(|at| at.unwrap_or(other) as i64).collect();
    let found = Value::from_ints(&found, &shape, &encoder.values.device());
    index::gather(encoder.values.clone(), &found, 0)
}

fn impute(x: Value, floats: Option<&Imputed<f32>>, ints: Option<&Imputed<i64>>) -> Result<Value> {
    let lacking = || OpError::Value(format!("nothing to put into a tensor of {}", x.dtype()));
    if is_float(x.dtype()) {
        let Imputed { replaced, by } = floats.ok_or_else(lacking)?;
        fits(by, &x)?;
        let replaced = f64::from(*replaced);
        let gone = |x: f64| x == replaced || (x.is_nan() && replaced.is_nan());
        return mapped(&x, |at, x| match of_feature(by, at) {
            Some(by) if gone(x) => f64::from(by),
            _ => x,
        });
    }
    let Imputed { replaced, by } = ints.ok_or_else(lacking)?;
    fits(by, &x)?;
    let (shape, dtype) = (x.shape(), x.dtype());
    let width = shape.last().copied().unwrap_or(1).max(1);
    let values = x.to_ints()?.into_iter().enumerate();
    let made = values.map(|(at, x)| match of_feature(by, at % width) {
        Some(by) if x == *replaced => by,
        _ => x,
    });
    let made: Vec<_> = made.collect();
    Value::from_ints(&made, &shape, &x.device()).cast(dtype)
}

/// Rows side by side; a vector is one row.
fn concat(values: Vec<Value>) -> Result<Value> {
    let parts = values.into_iter().map(|value| {
        let (rows, features) = scores::rows(&value)?;
        Ok(value.cast(DType::F32)?.reshape(&[rows, features]))
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    shape::concat(parts, 1)
}
