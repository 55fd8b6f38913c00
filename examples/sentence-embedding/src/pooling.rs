//! From one vector a token to one vector a sentence.

/// The mean of the tokens' vectors, scaled to length 1.
///
/// `hidden` is row-major [tokens, `width`]; rows from `tokens` on are padding and don't count.
pub fn sentence_vector(hidden: &[f32], tokens: usize, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for row in hidden.chunks_exact(width.max(1)).take(tokens) {
        for (total, value) in sum.iter_mut().zip(row) {
            *total += value;
        }
    }
    // The length of the sum and that of the mean differ by a factor that the scaling takes away.
    let length = sum
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt()
        .max(1e-12);
    sum.into_iter().map(|value| value / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_count() {
        let hidden = [3.0, 0.0, 0.0, 4.0, 100.0, -100.0];
        assert_eq!(sentence_vector(&hidden, 2, 2), [0.6, 0.8]);
    }

    #[test]
    fn a_vector_of_zeros_stays_finite() {
        assert_eq!(sentence_vector(&[0.0, 0.0], 1, 2), [0.0, 0.0]);
    }
}
