//! Times of one thing, and the comparison of two.

use std::fmt;
use std::time::{Duration, Instant};

/// Times of the same thing, sorted.
#[derive(Clone, Debug, Default)]
pub struct Series {
    sorted: Vec<Duration>,
}

impl Series {
    /// Sorts them.
    pub fn new(mut times: Vec<Duration>) -> Series {
        times.sort_unstable();
        Series { sorted: times }
    }

    /// The time that a share of all stays below; `quantile(0.5)` is the median.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self
            .sorted
            .len()
            .checked_sub(1)
            .expect("a series has times");
        self.sorted[(last as f64 * share).round() as usize]
    }

    /// The median.
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }
}

/// `p50 1.234 ms   p99 1.500 ms`
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {}   p99 {}",
            millis(self.p50()),
            millis(self.quantile(0.99))
        )
    }
}

/// A figure of several rounds: its median, and the lowest and the highest.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The median round.
    pub median: f64,
    /// The lowest and the highest round.
    pub range: (f64, f64),
}

impl Spread {
    /// Of one figure a round.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Spread {
            median: sorted[last / 2],
            range: (sorted[0], sorted[last]),
        }
    }

    /// How much longer `a` took than `b`, in milliseconds, of each round's medians.
    pub fn of_difference(a: &[Series], b: &[Series]) -> Spread {
        let pairs = a.iter().zip(b);
        Spread::of(pairs.map(|(a, b)| (a.p50().as_secs_f64() - b.p50().as_secs_f64()) * 1e3))
    }

    /// How many times as long `a` took as `b`, of each round's medians.
    pub fn of_ratio(a: &[Series], b: &[Series]) -> Spread {
        let pairs = a.iter().zip(b);
        Spread::of(pairs.map(|(a, b)| a.p50().as_secs_f64() / b.p50().as_secs_f64()))
    }
}

/// `0.123 (0.110 to 0.140)`
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} ({:.3} to {:.3})",
            self.median, self.range.0, self.range.1
        )
    }
}

/// A time in milliseconds, to the microsecond.
pub fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// Measures several things in turns: in each of `rounds`, each thing is done `times` in a row, after
/// one try that doesn't count. Returns the rounds of each thing.
pub fn in_turns<const N: usize>(
    rounds: usize,
    times: [usize; N],
    mut things: [&mut dyn FnMut(); N],
) -> [Vec<Series>; N] {
    let mut results = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for ((thing, times), result) in things.iter_mut().zip(times).zip(&mut results) {
            thing();
            let once = |_| {
                let began = Instant::now();
                thing();
                began.elapsed()
            };
            result.push(Series::new((0..times).map(once).collect()));
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let series = Series::new([5, 1, 4, 2, 3].map(Duration::from_millis).to_vec());
        assert_eq!(series.p50(), Duration::from_millis(3));
        assert_eq!(series.quantile(1.0), Duration::from_millis(5));
    }

    #[test]
    fn a_comparison_is_made_round_by_round() {
        let of = |millis: u64| Series::new(vec![Duration::from_millis(millis)]);
        let difference = Spread::of_difference(&[of(12), of(30)], &[of(10), of(20)]);
        assert!((difference.range.0 - 2.0).abs() < 1e-9);
        assert!((difference.range.1 - 10.0).abs() < 1e-9);
        assert_eq!(Spread::of_ratio(&[of(30)], &[of(20)]).median, 1.5);
    }
}
