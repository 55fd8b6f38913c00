//! The tests behind verdicts. All are one-sided: how likely is what was seen, or worse, if the new
//! version kept to its guard exactly? The smaller that is, the surer the breach.

use libm::{erfc, lgamma};

/// A breach is taken for real below this probability. It is strict because a rollout is judged many
/// times over, and one false alarm rolls it back.
pub const ALPHA: f64 = 0.001;

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Those that are counted.
    pub hits: u64,
    /// All.
    pub of: u64,
}

impl Count {
    /// The share; 0 of 0 is 0.
    pub fn share(self) -> f64 {
        match self.of {
            0 => 0.0,
            of => self.hits as f64 / of as f64,
        }
    }
}

/// The chance that a standard normal variable exceeds `z`.
fn normal_tail(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// The chance of `count.hits` or more where each of `count.of` is a hit with probability `share`:
/// the exact binomial test.
pub fn binomial_tail(count: Count, share: f64) -> f64 {
    let (k, n) = (count.hits, count.of);
    if k == 0 || share >= 1.0 {
        return 1.0;
    }
    if share <= 0.0 {
        return 0.0;
    }
    let odds = share / (1.0 - share);
    // From the end that is nearer, the terms fall fast, and few need to be summed.
    if k as f64 > n as f64 * share {
        let mut term = binomial_term(k, n, share);
        let (mut sum, mut i) = (term, k);
        while i < n && term > sum * 1e-15 {
            term *= (n - i) as f64 / (i + 1) as f64 * odds;
            sum += term;
            i += 1;
        }
        sum.min(1.0)
    } else {
        let mut term = binomial_term(k - 1, n, share);
        let (mut sum, mut i) = (term, k - 1);
        while i > 0 && term > sum * 1e-15 {
            term *= i as f64 / ((n - i + 1) as f64 * odds);
            sum += term;
            i -= 1;
        }
        (1.0 - sum).max(0.0)
    }
}

fn binomial_term(k: u64, n: u64, share: f64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    let ways = lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0);
    (ways + k * share.ln() + (n - k) * (-share).ln_1p()).exp()
}

/// The two-proportion z test of "the share in `canary` is at most `factor` times that in `stable`
/// plus `margin`", with unpooled variance, as the bound need not be equality. One hit and one miss
/// are added to each side, which keeps the test honest for rare errors and small samples
/// (A. Agresti, B. Caffo, "Simple and effective confidence intervals for proportions and
/// differences of proportions", The American Statistician 54, 2000).
pub fn two_proportions(canary: Count, stable: Count, factor: f64, margin: f64) -> f64 {
    let adjusted = |count: Count| {
        let of = count.of as f64 + 2.0;
        let share = (count.hits as f64 + 1.0) / of;
        (share, share * (1.0 - share) / of)
    };
    let ((canary, canary_variance), (stable, stable_variance)) =
        (adjusted(canary), adjusted(stable));
    let excess = canary - factor * stable - margin;
    normal_tail(excess / (canary_variance + factor * factor * stable_variance).sqrt())
}

/// The upper confidence limit of a quantile: the quantile that exceeds it with 95 % confidence in a
/// sample of `sample`, whatever the distribution (W. J. Conover, "Practical Nonparametric
/// Statistics", 3rd edition, section 3.2; the normal approximation of the binomial ranks).
pub fn quantile_limit(quantile: f64, sample: u64) -> f64 {
    const Z95: f64 = 1.645;
    let spread = (quantile * (1.0 - quantile) / sample.max(1) as f64).sqrt();
    (quantile + Z95 * spread).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(hits: u64, of: u64) -> Count {
        Count { hits, of }
    }

    /// The sum over all outcomes, term by term.
    fn slow_tail(count: Count, share: f64) -> f64 {
        (count.hits..=count.of)
            .map(|k| binomial_term(k, count.of, share))
            .sum()
    }

    #[test]
    fn the_binomial_tail_is_that_of_the_tables() {
        // P(X >= 2 | n = 3, p = 1/2) = 4/8; P(X >= 5 | n = 20, p = 0.05) of the usual tables.
        assert!((binomial_tail(count(2, 3), 0.5) - 0.5).abs() < 1e-12);
        assert!((binomial_tail(count(5, 20), 0.05) - 0.002574).abs() < 1e-6);
        assert_eq!(binomial_tail(count(1, 20), 0.0), 0.0);
        assert_eq!(binomial_tail(count(0, 20), 0.0), 1.0);
        assert_eq!(binomial_tail(count(20, 20), 1.0), 1.0);
    }

    #[test]
    fn normal_tails_are_those_of_the_tables() {
        assert!((normal_tail(1.959964) - 0.025).abs() < 1e-7);
        assert!((normal_tail(3.090232) - 0.001).abs() < 1e-8);
    }

    #[test]
    fn a_tenth_of_errors_against_none_shows_within_a_few_hundred_calls() {
        let p = |errors, calls| two_proportions(count(errors, calls), count(0, 2000), 1.0, 0.01);
        assert!(p(3, 30) > ALPHA);
        assert!(p(20, 200) < ALPHA);
        assert!(p(2, 200) > 0.01, "1% is within the margin");
    }

    /// How often the test errs, worked out over all outcomes: errors of the same small rate on both
    /// sides, and of a rate at the very edge of the guard.
    #[test]
    fn a_version_that_keeps_its_guard_is_seldom_called_a_breach() {
        for (n, m, rate, margin) in [
            (100, 1900, 0.001, 0.0),
            (200, 3800, 0.01, 0.0),
            (500, 500, 0.02, 0.0),
            (300, 5700, 0.05, 0.01),
        ] {
            let mut wrong = 0.0;
            for x in 0..=n {
                for y in 0..=m.min(200) {
                    let (canary, stable) = (count(x, n), count(y, m));
                    if two_proportions(canary, stable, 1.0, margin) < ALPHA {
                        wrong += binomial_term(x, n, rate + margin) * binomial_term(y, m, rate);
                    }
                }
            }
            // Not above the stated level by more than the approximation's error.
            assert!(wrong < 2.0 * ALPHA, "{wrong} at {n}, {m}, {rate}");
        }
    }

    /// Runs of ten minutes, judged every second over the last minute, in which two versions with
    /// the same share of errors end with a false alarm.
    fn false_alarms(runs: u64, rate: f64, margin: f64) -> usize {
        let (canary_calls, stable_calls) = (20, 80);
        let run = |seed: u64| {
            let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut errors = |calls: usize| {
                let failed = (0..calls).filter(|_| {
                    // Xorshift (Marsaglia, 2003).
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    ((state >> 11) as f64) < rate * (1u64 << 53) as f64
                });
                failed.count() as u64
            };
            let (mut canary, mut stable) = (Vec::new(), Vec::new());
            (0..600).any(|second| {
                canary.push(errors(canary_calls));
                stable.push(errors(stable_calls));
                let from = canary.len().saturating_sub(60);
                let seconds = (canary.len() - from) as u64;
                let sum = |errors: &[u64], calls: usize| {
                    count(errors[from..].iter().sum(), seconds * calls as u64)
                };
                let sides = (sum(&canary, canary_calls), sum(&stable, stable_calls));
                second >= 5 && two_proportions(sides.0, sides.1, 1.0, margin) < ALPHA
            })
        };
        (0..runs).filter(|seed| run(*seed)).count()
    }

    #[test]
    fn ten_minutes_of_judging_equal_versions_raise_few_false_alarms_and_none_with_a_margin() {
        let (without, with) = (false_alarms(100, 0.02, 0.0), false_alarms(100, 0.02, 0.01));
        println!("of 100 runs: {without} without a margin, {with} with one of a point");
        assert!(without <= 15 && with == 0, "{without} {with}");
    }

    proptest! {
        #[test]
        fn tails_add_up_to_the_slow_sum(hits in 0u64..60, more in 0u64..60, share in 0.001f64..0.999) {
            let count = count(hits, hits + more);
            let (fast, slow) = (binomial_tail(count, share), slow_tail(count, share));
            prop_assert!((fast - slow).abs() < 1e-9, "{fast} {slow}");
        }

        #[test]
        fn more_errors_are_never_less_suspicious(hits in 0u64..99, stable in 0u64..100) {
            let p = |hits| two_proportions(count(hits, 100), count(stable, 100), 1.0, 0.0);
            prop_assert!(p(hits + 1) <= p(hits));
            prop_assert!(binomial_tail(count(hits + 1, 100), 0.05) <= binomial_tail(count(hits, 100), 0.05));
        }

        #[test]
        fn tails_of_many_calls_are_quick_and_probabilities(hits in 0u64..2_000_000, share in 0.0f64..=1.0) {
            let p = binomial_tail(count(hits, 2_000_000), share);
            prop_assert!((0.0..=1.0).contains(&p), "{p}");
        }
    }
}
