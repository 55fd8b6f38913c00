//! The discrete Fourier transform in f64, of any length in n log n steps.

use std::f64::consts::TAU;

/// Real and imaginary part.
pub(super) type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

fn turn(part: f64) -> Complex {
    let (sin, cos) = (TAU * part).sin_cos();
    (cos, sin)
}

/// Transforms of one length.
pub(super) struct Fourier {
    length: usize,
    /// `exp(-2πi k / n)` for all k, n being the length where that is a power of two, else that
    /// of the convolution.
    turns: Vec<Complex>,
    /// Bluestein's chirp `exp(-πi k² / length)` and its transform, for other lengths.
    chirp: Option<(Vec<Complex>, Vec<Complex>)>,
}

impl Fourier {
    pub fn new(length: usize) -> Self {
        let turns = |n: usize| (0..n).map(|k| turn(-(k as f64) / n as f64)).collect();
        if length.is_power_of_two() || length == 0 {
            return Self {
                length,
                turns: turns(length),
                chirp: None,
            };
        }
        let wide = (2 * length - 1).next_power_of_two();
        let turns: Vec<Complex> = turns(wide);
        // The square is taken modulo 2 · length, where the angle repeats.
        let angle = |k: usize| (k as u128 * k as u128 % (2 * length as u128)) as f64;
        let chirp: Vec<_> = (0..length)
            .map(|k| turn(-angle(k) / (2 * length) as f64))
            .collect();
        let mut filter = vec![(0.0, 0.0); wide];
        for (k, &(re, im)) in chirp.iter().enumerate() {
            for at in [k, (wide - k) % wide] {
                if let Some(slot) = filter.get_mut(at) {
                    *slot = (re, -im);
                }
            }
        }
        radix_two(&mut filter, &turns);
        Self {
            length,
            turns,
            chirp: Some((chirp, filter)),
        }
    }

    /// `Σ x[n] exp(-2πi k n / length)` for each k.
    pub fn forward(&self, values: &mut Vec<Complex>) {
        values.resize(self.length, (0.0, 0.0));
        let Some((chirp, filter)) = &self.chirp else {
            radix_two(values, &self.turns);
            return;
        };
        let mut wide: Vec<_> = values
            .iter()
            .zip(chirp)
            .map(|(&x, &c)| times(x, c))
            .collect();
        wide.resize(filter.len(), (0.0, 0.0));
        radix_two(&mut wide, &self.turns);
        // Conjugated, the transform forward is the one back.
        for (x, &f) in wide.iter_mut().zip(filter) {
            let (re, im) = times(*x, f);
            *x = (re, -im);
        }
        radix_two(&mut wide, &self.turns);
        let scale = 1.0 / filter.len() as f64;
        for ((to, &(re, im)), &c) in values.iter_mut().zip(&wide).zip(chirp) {
            *to = times((re * scale, -im * scale), c);
        }
    }

    /// `Σ x[k] exp(2πi k n / length) / length` for each n.
    pub fn inverse(&self, values: &mut Vec<Complex>) {
        values.iter_mut().for_each(|x| x.1 = -x.1);
        self.forward(values);
        let scale = 1.0 / self.length.max(1) as f64;
        values
            .iter_mut()
            .for_each(|x| *x = (x.0 * scale, -x.1 * scale));
    }
}

/// Cooley and Tukey's transform of a power of two.
fn radix_two(values: &mut [Complex], turns: &[Complex]) {
    let n = values.len();
    if n < 2 {
        return;
    }
    let bits = n.trailing_zeros();
    for at in 0..n {
        let mirrored = at.reverse_bits() >> (usize::BITS - bits);
        if at < mirrored {
            values.swap(at, mirrored);
        }
    }
    let mut half = 1;
    while half < n {
        let step = n / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            let turns = turns.iter().step_by(step);
            for ((a, b), &turn) in low.iter_mut().zip(high).zip(turns) {
                let turned = times(*b, turn);
                *b = (a.0 - turned.0, a.1 - turned.1);
                *a = (a.0 + turned.0, a.1 + turned.1);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_of_any_length_are_those_of_the_definition() {
        for length in [1, 2, 3, 5, 8, 12, 17, 64, 100] {
            let values: Vec<Complex> = (0..length)
                .map(|i| ((i * i % 7) as f64, (i % 3) as f64))
                .collect();
            let fourier = Fourier::new(length);
            let mut found = values.clone();
            fourier.forward(&mut found);
            for (k, found) in found.iter().enumerate() {
                let terms = values.iter().enumerate();
                let sum = terms.fold((0.0, 0.0), |sum: Complex, (n, &x)| {
                    let term = times(x, turn(-((k * n % length) as f64) / length as f64));
                    (sum.0 + term.0, sum.1 + term.1)
                });
                assert!((sum.0 - found.0).abs() < 1e-9 && (sum.1 - found.1).abs() < 1e-9);
            }
            fourier.inverse(&mut found);
            let same = |(a, b): (&Complex, &Complex)| (a.0 - b.0).abs() + (a.1 - b.1).abs() < 1e-9;
            assert!(values.iter().zip(&found).all(same));
        }
    }
}
