//! Numbers as codes of 8 bits.

use rayon::prelude::*;

use super::super::PART;
use super::super::activation::bound;
use super::super::simd::vectorised;

/// What codes of u8 stand for: `scale · (code − zero)`. Zero itself has a code, so that what
/// pads an image stays zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coding {
    /// NaN where a number isn't finite.
    pub scale: f32,
    pub zero: i32,
}

impl Coding {
    /// The finest one that reaches all numbers.
    pub fn of(values: &[f32]) -> Self {
        Self::between(extent(values))
    }

    /// The same, by several threads where it is much.
    pub fn of_many(values: &[f32]) -> Self {
        if values.len() <= PART {
            return Self::of(values);
        }
        let parts = values.par_chunks(PART).map(extent);
        let join = |a: [f32; 3], b: [f32; 3]| [a[0].min(b[0]), a[1].max(b[1]), a[2] + b[2]];
        Self::between(parts.reduce(|| [0.0; 3], join))
    }

    fn between([low, high, trace]: [f32; 3]) -> Self {
        if trace.is_nan() {
            return Self {
                scale: f32::NAN,
                zero: 0,
            };
        }
        // Each divided first: their difference may be too large for f32.
        let scale = (high / 255.0 - low / 255.0).max(f32::MIN_POSITIVE);
        let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
        Self {
            scale,
            zero: zero as i32,
        }
    }
}

/// Numbers that are compared side by side.
const LANES: usize = 32;

vectorised! {
    /// The least and the greatest number, zero included, and NaN where one isn't finite.
    fn extent(values: &[f32]) -> [f32; 3] {
        let mut low = [0.0f32; LANES];
        let mut high = [0.0f32; LANES];
        let mut trace = [0.0f32; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        let mut last = [0.0f32; LANES];
        last.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
        for lanes in whole.iter().chain([&last]) {
            let kept = low.iter_mut().zip(&mut high).zip(&mut trace);
            for (((low, high), trace), &x) in kept.zip(lanes) {
                *low = if x < *low { x } else { *low };
                *high = if x > *high { x } else { *high };
                *trace += x * 0.0;
            }
        }
        [
            low.into_iter().fold(0.0, f32::min),
            high.into_iter().fold(0.0, f32::max),
            trace.into_iter().sum(),
        ]
    }
}

/// A code, in the lowest byte: what is added leaves no bits behind the point and the number in
/// the lowest bits, which unlike a call that rounds becomes a vector instruction everywhere.
#[inline(always)]
fn code(x: f32, inverse: f32, zero: f32) -> u32 {
    const SHIFT: f32 = 12_582_912.0;
    let shifted = bound(x * inverse + zero, 0.0, 255.0) + SHIFT;
    shifted.to_bits() & 0xff
}

vectorised! {
    /// The codes of numbers.
    pub(super) fn encode(values: &[f32], by: Coding, to: &mut [u8]) {
        let (inverse, zero) = (1.0 / by.scale, by.zero as f32);
        to.iter_mut()
            .zip(values)
            .for_each(|(to, x)| *to = code(*x, inverse, zero) as u8);
    }
}

vectorised! {
    /// The codes of four channels, those of one place together.
    pub(super) fn encode_fours(channels: [&[f32]; 4], by: Coding, to: &mut [u32]) {
        let (inverse, zero) = (1.0 / by.scale, by.zero as f32);
        let [a, b, c, d] = channels;
        let places = a.iter().zip(b).zip(c.iter().zip(d));
        for (to, ((a, b), (c, d))) in to.iter_mut().zip(places) {
            let [a, b, c, d] = [a, b, c, d].map(|x| code(*x, inverse, zero));
            *to = (a | b << 8 | c << 16 | d << 24).to_le();
        }
    }
}

/// The scale of weights of this size at most, whose codes are symmetric.
pub(super) fn weight_scale(most: f32) -> f32 {
    most / 127.0
}

/// The code of a weight, as a byte of an i8. Where the scale has lost its precision, all are
/// zero.
pub(super) fn weight_code(weight: f32, scale: f32) -> i8 {
    if scale < f32::MIN_POSITIVE {
        return 0;
    }
    (weight / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn codes_are_half_a_step_off_at_most() {
        for (low, high) in [
            (-1.0f32, 3.0f32),
            (0.0, 6.0),
            (-5.0, 0.0),
            (-1e38, 2e38),
            (1e-30, 2e-30),
        ] {
            let values: Vec<f32> = (0..77)
                .map(|i| low + (high - low) * (i as f32 / 76.0))
                .collect();
            let by = Coding::of(&values);
            let mut codes = vec![0; values.len()];
            encode(&values, by, &mut codes);
            let mut fours = vec![0; values.len()];
            encode_fours([&values; 4], by, &mut fours);
            for ((x, code), four) in values.iter().zip(codes).zip(fours) {
                let back = by.scale * (i32::from(code) - by.zero) as f32;
                assert!((back - x).abs() <= by.scale * 1.01, "{x} became {back}");
                assert_eq!(four.to_le_bytes(), [code; 4]);
            }
        }
    }

    #[test]
    fn nothing_becomes_zero_and_what_is_not_finite_has_no_scale() {
        let by = Coding::of(&[0.0; 50]);
        let mut codes = [9; 50];
        encode(&[0.0; 50], by, &mut codes);
        assert!(codes.iter().all(|&code| i32::from(code) == by.zero));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 31, 32, 49] {
                let mut values = vec![1.0; 50];
                values[at] = odd;
                assert!(Coding::of(&values).scale.is_nan());
            }
            let mut many = vec![1.0; 3 * PART];
            many[2 * PART] = odd;
            assert!(Coding::of_many(&many).scale.is_nan());
        }
        let huge = Coding::of(&[f32::MAX, f32::MIN]);
        assert!(huge.scale.is_finite());
    }
}
