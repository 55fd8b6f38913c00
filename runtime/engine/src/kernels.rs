//! Functions of one number over f32 tensors on the CPU, in one pass, where burn takes several
//! or has no vector code: written so that the compiler makes vector code of them.

#![allow(
    clippy::result_large_err,
    reason = "the error is the tensor, given back"
)]

pub(crate) mod integer;

use burn_backend::TensorMetadata;
use burn_dispatch::backends::flex::{FlexTensor, Layout};
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use rayon::prelude::*;

use crate::graph::Unary;

/// Elements for which it pays to ask other threads.
const PART: usize = 1 << 15;

/// Applies `kind` where there is a kernel for it and for where the tensor lies; else gives
/// the tensor back.
pub(crate) fn unary(kind: Unary, t: DispatchTensor) -> Result<DispatchTensor, DispatchTensor> {
    match kind {
        Unary::Erf => map(t, erf),
        Unary::Gelu { tanh: false } => map(t, |x| {
            0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
        }),
        Unary::Gelu { tanh: true } => map(t, |x| {
            0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x)))
        }),
        Unary::HardSwish => map(t, |x| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0)),
        Unary::Tanh => map(t, tanh),
        _ => Err(t),
    }
}

/// `f` of each element: in place where nobody else reads the tensor.
fn map(
    t: DispatchTensor,
    f: impl Fn(f32) -> f32 + Copy + Sync + Send,
) -> Result<DispatchTensor, DispatchTensor> {
    let DispatchTensor { kind, autodiff } = t;
    let wrap = |t: FlexTensor| DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Float(t)),
        autodiff,
    };
    let mut t = match kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t))
            if t.dtype() == burn_backend::DType::F32 =>
        {
            t
        }
        kind => return Err(DispatchTensor { kind, autodiff }),
    };
    let count = t.shape().num_elements();
    let whole = t.is_contiguous() && t.layout().start_offset() == 0;
    if whole && let Some(values) = t.try_storage_mut::<f32>() {
        let values = values.get_mut(..count).unwrap_or_default();
        if count <= PART {
            values.iter_mut().for_each(|x| *x = f(*x));
        } else {
            let part = |part: &mut [f32]| part.iter_mut().for_each(|x| *x = f(*x));
            values.par_chunks_mut(PART).for_each(part);
        }
        return Ok(wrap(t));
    }
    let t = t.to_contiguous();
    let start = t.layout().start_offset();
    let values = t
        .storage::<f32>()
        .get(start..start + count)
        .unwrap_or_default();
    let made: Vec<f32> = if count <= PART {
        values.iter().map(|x| f(*x)).collect()
    } else {
        let mut made = vec![0.0; count];
        let part = |(to, from): (&mut [f32], &[f32])| {
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = f(*from));
        };
        made.par_chunks_mut(PART)
            .zip(values.par_chunks(PART))
            .for_each(part);
        made
    };
    let layout = Layout::contiguous(t.layout().shape().clone());
    Ok(wrap(FlexTensor::new(
        burn_backend::Bytes::from_elems(made),
        layout,
        burn_backend::DType::F32,
    )))
}

/// `c[0] xⁿ + … + c[n]` by Horner's scheme.
#[inline(always)]
fn polynomial<const N: usize>(c: [f32; N], x: f32) -> f32 {
    c.into_iter().fold(0.0, |sum, c| sum * x + c)
}

/// A rational approximation, off by 4e-7 at most; the coefficients are those of Eigen's
/// vectorised tanh.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let bounded = x.clamp(-7.9, 7.9);
    let square = bounded * bounded;
    let above = polynomial(
        [
            -2.760_768_5e-16,
            2.000_188e-13,
            -8.604_672e-11,
            5.122_297_1e-8,
            1.485_722_4e-5,
            6.372_619_3e-4,
            4.893_525e-3,
        ],
        square,
    );
    let below = polynomial(
        [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3],
        square,
    );
    let y = bounded * above / below;
    // Comparing with itself keeps NaN, which `clamp` alone does too, but not in vector form.
    if x.is_nan() { x } else { y }
}

/// A rational approximation, off by 4e-7 at most; the coefficients are those of Eigen's
/// vectorised erf.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let bounded = x.clamp(-4.0, 4.0);
    let square = bounded * bounded;
    let above = polynomial(
        [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_4e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
        square,
    );
    let below = polynomial(
        [
            -1.456_607_2e-5,
            -2.133_740_6e-4,
            -1.682_827e-3,
            -7.373_329e-3,
            -1.426_473_9e-2,
        ],
        square,
    );
    let y = bounded * above / below;
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximations_are_within_their_bound() {
        for i in -12_000..=12_000 {
            let x = i as f32 / 1000.0;
            let off = f64::from(tanh(x)) - f64::from(x).tanh();
            assert!(off.abs() < 5e-7, "tanh({x}) is off by {off}");
        }
        // erf at a few points, from tables.
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (-2.0, -0.995_322_3),
        ] {
            assert!((erf(x) - y).abs() < 5e-7, "erf({x}) is {}", erf(x));
        }
        assert!(tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        assert_eq!(tanh(f32::INFINITY), tanh(100.0));
    }
}
