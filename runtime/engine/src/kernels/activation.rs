//! Functions of one number, applied to slices of f32 with the widest vectors.

use super::simd::vectorised;
use crate::graph::Unary;

/// What a product or a tensor goes through at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Activation {
    #[default]
    None,
    Relu,
    /// Between two bounds.
    Clamp {
        low: f32,
        high: f32,
    },
    LeakyRelu {
        alpha: f32,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    Sigmoid,
    Silu,
    Tanh,
    Erf,
    Gelu {
        tanh: bool,
    },
}

impl Activation {
    /// The activation that is this function, if there is one.
    pub fn of(kind: Unary) -> Option<Self> {
        Some(match kind {
            Unary::Relu => Self::Relu,
            Unary::LeakyRelu { alpha } => Self::LeakyRelu { alpha },
            Unary::HardSigmoid { alpha, beta } => Self::HardSigmoid { alpha, beta },
            Unary::HardSwish => Self::HardSwish,
            Unary::Sigmoid => Self::Sigmoid,
            Unary::Silu => Self::Silu,
            Unary::Tanh => Self::Tanh,
            Unary::Erf => Self::Erf,
            Unary::Gelu { tanh } => Self::Gelu { tanh },
            _ => return None,
        })
    }

    /// Replaces each number by the function of it.
    ///
    /// The loops pay for runs of some hundred numbers: they are unrolled beyond shorter ones.
    pub fn apply(self, values: &mut [f32]) {
        if self != Self::None {
            apply(self, values);
        }
    }
}

vectorised! {
    fn apply(activation: Activation, values: &mut [f32]) {
        match activation {
            Activation::None => {}
            Activation::Relu => map(values, |x| if x < 0.0 { 0.0 } else { x }),
            Activation::Clamp { low, high } => map(values, |x| bound(x, low, high)),
            Activation::LeakyRelu { alpha } => {
                map(values, |x| if x < 0.0 { x * alpha } else { x });
            }
            Activation::HardSigmoid { alpha, beta } => {
                map(values, |x| bound(x * alpha + beta, 0.0, 1.0));
            }
            Activation::HardSwish => {
                map(values, |x| x * bound(x * (1.0 / 6.0) + 0.5, 0.0, 1.0));
            }
            Activation::Sigmoid => map(values, sigmoid),
            Activation::Silu => map(values, |x| x * sigmoid(x)),
            Activation::Tanh => map(values, tanh),
            Activation::Erf => map(values, erf),
            Activation::Gelu { tanh: false } => map(values, |x| {
                0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
            }),
            // (1 + tanh(y)) / 2 = sigmoid(2y)
            Activation::Gelu { tanh: true } => map(values, |x| {
                x * sigmoid(1.595_769 * (x + 0.044_715 * x * x * x))
            }),
        }
    }
}

#[inline(always)]
fn map(values: &mut [f32], f: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|x| *x = f(*x));
}

/// `clamp` in a form that becomes two vector instructions and keeps NaN.
#[inline(always)]
pub(super) fn bound(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `c[0] xⁿ + … + c[n]` by Horner's scheme.
#[inline(always)]
fn polynomial<const N: usize>(c: [f32; N], x: f32) -> f32 {
    c.into_iter().fold(0.0, |sum, c| sum * x + c)
}

/// eˣ, off by 2e-7 relative; below -87.3 it is 0 or next to it, above 88.3 it stops growing.
///
/// 2ⁿ times a polynomial for the rest, whose coefficients are those of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = bound(x, -87.336, 88.37);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let rest = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let series = polynomial(
        [
            1.987_569_1e-4,
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
            1.0,
            1.0,
        ],
        rest,
    );
    series * power
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// A rational approximation, off by 4e-7 at most; the coefficients are those of Eigen's
/// vectorised tanh.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let bounded = bound(x, -7.9, 7.9);
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
    bounded * above / below
}

/// A rational approximation, off by 4e-7 at most; the coefficients are those of Eigen's
/// vectorised erf.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let bounded = bound(x, -4.0, 4.0);
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
    bounded * above / below
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
            let off = f64::from(exp(x)) / f64::from(x).exp() - 1.0;
            assert!(off.abs() < 5e-7, "exp({x}) is off by {off}");
            let off = f64::from(sigmoid(x)) - 1.0 / (1.0 + f64::from(-x).exp());
            assert!(off.abs() < 5e-7, "sigmoid({x}) is off by {off}");
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
    }

    #[test]
    fn nothing_is_lost_at_the_ends() {
        for activation in [
            Activation::Relu,
            Activation::HardSwish,
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Gelu { tanh: false },
            Activation::Gelu { tanh: true },
            Activation::Clamp {
                low: -1.0,
                high: 1.0,
            },
        ] {
            let mut values = [f32::NAN; 19];
            activation.apply(&mut values);
            assert!(values.iter().all(|x| x.is_nan()), "{activation:?}");
        }
        let mut values = [f32::NEG_INFINITY, -200.0, 200.0, f32::INFINITY];
        Activation::Sigmoid.apply(&mut values);
        assert_eq!((values[2], values[3]), (1.0, 1.0));
        assert!(values[0] < 1e-37 && values[1] < 1e-37);
        assert_eq!(tanh(f32::INFINITY), tanh(100.0));
    }
}
