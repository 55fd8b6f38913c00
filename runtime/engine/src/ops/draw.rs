//! Drawn numbers.

use std::f64::consts::TAU;
use std::hash::{BuildHasher, Hasher, RandomState};

use burn_dispatch::DispatchDevice;

use super::{Args, Result, elementwise};
use crate::error::OpError;
use crate::graph::{Binary, Draw, DrawKind};
use crate::tensor::DType;
use crate::value::{Value, check_size};

/// Steele, Lea and Flood's SplitMix64.
struct Generator(u64);

impl Generator {
    /// From a seed, or from the system's entropy.
    fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's way.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }
}

pub(super) fn run(draw: &Draw, args: &mut Args, device: &DispatchDevice) -> Result<Value> {
    let mut generator = Generator::new(draw.seed.map(|seed| u64::from(seed.to_bits())));
    // What it draws from, or as many of.
    let input = args.optional(0)?;
    let (found, device) = match &input {
        Some(input) => (input.dtype(), input.device()),
        None => (DType::F32, device.clone()),
    };
    let dtype = draw.dtype.unwrap_or(found);
    let wanted = |shape: &Option<Vec<usize>>| match (shape, &input) {
        (Some(shape), _) => Ok(shape.clone()),
        (None, Some(input)) => Ok(input.shape()),
        (None, None) => Err(OpError::MissingInput { index: 0 }),
    };
    let many =
        |shape: &[usize], mut one: Box<dyn FnMut(&mut Generator) -> f64>, generator: &mut _| {
            check_size(DType::F64, shape)?;
            Ok::<_, OpError>(
                (0..super::count(shape))
                    .map(|_| one(generator))
                    .collect::<Vec<_>>(),
            )
        };
    let (values, shape) = match &draw.kind {
        DrawKind::Normal { mean, scale, shape } => {
            let (shape, mean, scale) = (wanted(shape)?, f64::from(*mean), f64::from(*scale));
            let one = Box::new(move |g: &mut Generator| mean + scale * g.normal());
            (many(&shape, one, &mut generator)?, shape)
        }
        DrawKind::Uniform { low, high, shape } => {
            let (shape, low, high) = (wanted(shape)?, f64::from(*low), f64::from(*high));
            let one = Box::new(move |g: &mut Generator| low + (high - low) * g.uniform());
            (many(&shape, one, &mut generator)?, shape)
        }
        DrawKind::Bernoulli => {
            let input = input.ok_or(OpError::MissingInput { index: 0 })?;
            let hit = |p: f64| f64::from(generator.uniform() < p);
            let values = input.to_floats()?.into_iter().map(hit).collect();
            (values, input.shape())
        }
        DrawKind::Multinomial { samples } => {
            let input = input.ok_or(OpError::MissingInput { index: 0 })?;
            multinomial(&input, *samples, &mut generator)?
        }
    };
    if dtype == DType::Bool {
        let values = values.into_iter().map(|value| value != 0.0).collect();
        return Ok(Value::from_bools(values, &shape, &device));
    }
    Value::from_vec(values, &shape, dtype, &device)
}

/// Classes drawn by the logarithms of their probabilities, `[batch, classes]`.
fn multinomial(
    input: &Value,
    samples: usize,
    generator: &mut Generator,
) -> Result<(Vec<f64>, Vec<usize>)> {
    let shape = input.shape();
    let [batch, classes @ 1..=usize::MAX] = shape.as_slice() else {
        return Err(OpError::Shape(format!(
            "expected [batch, classes], found {shape:?}"
        )));
    };
    let made = vec![*batch, samples];
    check_size(DType::F64, &made)?;
    let mut values = Vec::with_capacity(super::count(&made));
    for row in input.to_floats()?.chunks(*classes) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sums = row.iter().scan(0.0, |sum, x| {
            *sum += (x - largest).exp();
            Some(*sum)
        });
        let sums: Vec<_> = sums.collect();
        let all = sums.last().copied().unwrap_or(0.0);
        values.extend((0..samples).map(|_| {
            let point = generator.uniform() * all;
            sums.partition_point(|sum| *sum <= point).min(classes - 1) as f64
        }));
    }
    Ok((values, made))
}

/// Outputs: x, in training with a part of its elements zero and the rest grown to make up for
/// these; mask of what was kept.
pub(super) fn dropout(
    x: Value,
    ratio: f64,
    training: bool,
    seed: Option<i64>,
) -> Result<Vec<Value>> {
    if !(0.0..1.0).contains(&ratio) {
        return Err(OpError::Value(format!(
            "a ratio of {ratio}, expected one from 0 to below 1"
        )));
    }
    if !matches!(x, Value::Float(_)) {
        return Err(x.unexpected("floats"));
    }
    if !training || ratio == 0.0 {
        let mask = Value::full(DType::Bool, &x.shape(), 1.0, &x.device())?;
        return Ok(vec![x, mask]);
    }
    let mut generator = Generator::new(seed.map(i64::cast_unsigned));
    let kept = (0..x.len()).map(|_| generator.uniform() >= ratio).collect();
    let mask = Value::from_bools(kept, &x.shape(), &x.device());
    let scale = Value::full(x.dtype(), &[], 1.0 / (1.0 - ratio), &x.device())?;
    let grown = elementwise::binary(Binary::Mul, x, scale)?;
    let zeros = Value::full(grown.dtype(), &grown.shape(), 0.0, &grown.device())?;
    Ok(vec![elementwise::choose(mask.clone(), grown, zeros)?, mask])
}
