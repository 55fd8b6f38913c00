//! Another sample rate, by band-limited interpolation.
//!
//! Each new sample is a weighted sum of the old ones around its place. The weights are a sinc whose
//! cutoff lies just below the lower of the two Nyquist rates, so that nothing folds back into the
//! band, under a Hann window of [`ZERO_CROSSINGS`] to each side. As the two rates have a common
//! divisor, only so many different sets of weights occur, and each is computed once.
//!
//! Source: J. O. Smith, "Digital Audio Resampling" (CCRMA, Stanford).

use std::f64::consts::PI;

/// Zero crossings of the sinc that the window leaves, to each side.
const ZERO_CROSSINGS: f64 = 6.0;

/// The cutoff, as a part of the lower Nyquist rate.
const ROLLOFF: f64 = 0.99;

/// `samples`, taken `from` times a second, as they would be taken `to` times.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to || from == 0 || to == 0 {
        return samples.to_vec();
    }
    let divisor = u64::from(common_divisor(from, to));
    let (from, to) = (u64::from(from) / divisor, u64::from(to) / divisor);

    let cutoff = ROLLOFF * from.min(to) as f64 / from as f64;
    let reach = (ZERO_CROSSINGS / cutoff).ceil() as i32;
    let weights = |phase: u64| -> Vec<f32> {
        let place = phase as f64 / to as f64;
        (-reach..=reach)
            .map(|at| weight(f64::from(at) - place, cutoff) as f32)
            .collect()
    };
    let phases: Vec<Vec<f32>> = (0..to).map(weights).collect();

    let silence = vec![0.0; reach as usize];
    let padded = [&silence, samples, &silence].concat();
    let length = (samples.len() as u64 * to).div_ceil(from);
    let sample = |number: u64| {
        let (centre, phase) = (number * from / to, number * from % to);
        let weights = phases.get(phase as usize).into_iter().flatten();
        let around = padded.get(centre as usize..).unwrap_or_default();
        around
            .iter()
            .zip(weights)
            .map(|(sample, weight)| sample * weight)
            .sum()
    };
    (0..length).map(sample).collect()
}

/// The weight of a sample at `distance`, in samples, from the place asked for.
fn weight(distance: f64, cutoff: f64) -> f64 {
    let x = distance * cutoff;
    if x.abs() >= ZERO_CROSSINGS {
        return 0.0;
    }
    let window = (PI * x / (2.0 * ZERO_CROSSINGS)).cos().powi(2);
    let sinc = if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    };
    cutoff * sinc * window
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frequency: f64, rate: u32) -> Vec<f32> {
        let rate = f64::from(rate);
        (0..rate as usize)
            .map(|at| (2.0 * PI * frequency * at as f64 / rate).sin() as f32)
            .collect()
    }

    /// The largest magnitude away from the ends, where the silence outside is heard.
    fn peak(samples: impl Iterator<Item = f32>) -> f32 {
        samples
            .skip(200)
            .take(15_000)
            .map(f32::abs)
            .fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_below_the_cutoff_stays_itself() {
        for from in [11_025, 22_050, 44_100, 48_000] {
            let resampled = resample(&tone(1000.0, from), from, 16_000);
            assert_eq!(resampled.len(), 16_000);
            let wrong = resampled
                .iter()
                .zip(tone(1000.0, 16_000))
                .map(|(a, b)| a - b);
            assert!(peak(wrong) < 0.01, "{from}");
        }
    }

    #[test]
    fn a_tone_above_the_cutoff_does_not_fold_back() {
        let resampled = resample(&tone(12_000.0, 48_000), 48_000, 16_000);
        assert!(peak(resampled.into_iter()) < 0.01);
    }

    #[test]
    fn the_same_rate_and_no_samples_change_nothing() {
        assert_eq!(resample(&[0.5, -0.5], 16_000, 16_000), [0.5, -0.5]);
        assert!(resample(&[], 48_000, 16_000).is_empty());
    }

    #[test]
    fn rates_without_a_common_divisor_work() {
        assert_eq!(resample(&vec![0.0; 19_199], 191_999, 16_000).len(), 1_600);
    }
}
