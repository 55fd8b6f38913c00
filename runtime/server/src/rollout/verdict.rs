//! Judging a guard: pass, fail, or not enough data; never a guess.
//!
//! A guard *fails* where its breach is beyond chance: the stated test gives what was seen a
//! probability below [`ALPHA`], supposing that the version kept to its guard exactly. It *passes*
//! where the figures themselves keep to it. In between, over the bound but perhaps by chance, and
//! below the minimum sample, there is *not enough data*.
//!
//! | bound | rates | latencies |
//! |---|---|---|
//! | fixed | exact binomial test | exact binomial test of how many calls took longer than the bound |
//! | by the stable version | two-proportion z test | the same, the bound taken at the upper confidence limit of the stable version's percentile |

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::{Guard, Unit};
use super::stats::{self, ALPHA, Count};
use super::window::{Latencies, Seen};

/// What was seen of both versions in the same time.
pub struct Compared<'a> {
    /// The new version.
    pub canary: &'a Seen,
    /// The one before.
    pub stable: &'a Seen,
    /// The fewest calls of a version by which it may be judged.
    pub min_sample: u64,
}

/// Whether a guard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VerdictOutcome)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It is broken, beyond chance.
    Fail,
    /// It can't be told yet.
    NotEnoughData,
}

impl Outcome {
    /// For metrics and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotEnoughData => "not_enough_data",
        }
    }
}

/// One version's figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Figure {
    /// The calls that it is of.
    pub sample: u64,
    /// A share from 0 to 1, or milliseconds.
    pub value: f64,
}

/// A guard's verdict with the numbers that it stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// The guard, as it was written.
    #[schema(example = "error_rate<=stable+1%")]
    pub guard: String,
    /// The verdict.
    pub verdict: Outcome,
    /// Why, in a sentence.
    pub reason: String,
    /// The new version's figure.
    pub canary: Option<Figure>,
    /// The stable version's figure, where the guard is about it.
    pub stable: Option<Figure>,
    /// The most that was allowed: a share, or milliseconds.
    pub limit: Option<f64>,
    /// The test that was made.
    pub test: Option<String>,
    /// The probability of what was seen, or worse, within the guard.
    pub p_value: Option<f64>,
}

impl Verdict {
    /// Not enough data, for this reason.
    pub fn undecided(guard: &Guard, reason: String) -> Verdict {
        Verdict {
            guard: guard.text.clone(),
            verdict: Outcome::NotEnoughData,
            reason,
            canary: None,
            stable: None,
            limit: None,
            test: None,
            p_value: None,
        }
    }
}

/// The fixed parts of a verdict, before it is decided.
struct Evidence<'a> {
    guard: &'a Guard,
    canary: Figure,
    stable: Option<Figure>,
    limit: f64,
    test: &'static str,
    p_value: f64,
    /// Whether the figures themselves keep to the guard.
    within: bool,
}

impl Evidence<'_> {
    fn verdict(self) -> Verdict {
        let shown = |value: f64| match self.guard.kind.unit {
            Unit::Share => format!("{:.2}%", value * 100.0),
            Unit::Time => format!("{value:.2} ms"),
        };
        let (canary, limit) = (shown(self.canary.value), shown(self.limit));
        let beside = self.stable.map_or(String::new(), |stable| {
            format!(
                "; stable {} over {} calls",
                shown(stable.value),
                stable.sample
            )
        });
        let (verdict, how) = if self.p_value < ALPHA {
            (Outcome::Fail, "is over")
        } else if self.within {
            (Outcome::Pass, "keeps to")
        } else {
            (Outcome::NotEnoughData, "may by chance be over")
        };
        let reason = format!(
            "{} of {canary} over {} calls {how} the limit of {limit}{beside} (p = {})",
            self.guard.name,
            self.canary.sample,
            match self.p_value {
                p if p < ALPHA => format!("{p:.1e}"),
                p => format!("{p:.3}"),
            }
        );
        Verdict {
            guard: self.guard.text.clone(),
            verdict,
            reason,
            canary: Some(self.canary),
            stable: self.stable,
            limit: Some(self.limit),
            test: Some(self.test.to_owned()),
            p_value: Some(self.p_value),
        }
    }
}

/// Says so where a version has too few calls to be judged.
fn too_few(guard: &Guard, compared: &Compared<'_>, calls: fn(&Seen) -> u64) -> Option<Verdict> {
    let sides = [
        ("the new version", compared.canary, true),
        ("the stable version", compared.stable, guard.compares()),
    ];
    let few = sides
        .into_iter()
        .find(|(_, seen, counts)| *counts && calls(seen) < compared.min_sample.max(1));
    few.map(|(who, seen, _)| {
        let (calls, needed) = (calls(seen), compared.min_sample.max(1));
        let reason = format!("{who} has {calls} of the {needed} calls that are needed");
        Verdict::undecided(guard, reason)
    })
}

/// Judges how many calls are `hits`.
pub fn rate(guard: &Guard, compared: &Compared<'_>, hits: fn(&Seen) -> u64) -> Verdict {
    if let Some(verdict) = too_few(guard, compared, |seen| seen.calls) {
        return verdict;
    }
    let count = |seen: &Seen| Count {
        hits: hits(seen),
        of: seen.calls,
    };
    let figure = |count: Count| Figure {
        sample: count.of,
        value: count.share(),
    };
    let (canary, stable) = (count(compared.canary), count(compared.stable));
    let fixed = guard.bound.fixed;
    let (limit, test, p_value) = match guard.bound.factor {
        None => (fixed, "exact binomial", stats::binomial_tail(canary, fixed)),
        Some(factor) => (
            factor * stable.share() + fixed,
            "two-proportion z",
            stats::two_proportions(canary, stable, factor, fixed),
        ),
    };
    let evidence = Evidence {
        guard,
        canary: figure(canary),
        stable: guard.compares().then(|| figure(stable)),
        limit,
        test,
        p_value,
        within: canary.share() <= limit,
    };
    evidence.verdict()
}

/// Judges the latency that the share `quantile` of calls keeps within.
pub fn latency(guard: &Guard, compared: &Compared<'_>, quantile: f64) -> Verdict {
    if let Some(verdict) = too_few(guard, compared, |seen| seen.latencies.total()) {
        return verdict;
    }
    let (canary, stable) = (&compared.canary.latencies, &compared.stable.latencies);
    let figure = |latencies: &Latencies| Figure {
        sample: latencies.total(),
        value: ms(latencies.quantile(quantile).unwrap_or_default()),
    };
    let at = |quantile: f64| {
        let scaled = guard.bound.factor.map_or(Duration::ZERO, |factor| {
            scaled(stable.quantile(quantile).unwrap_or_default(), factor)
        });
        scaled + Duration::from_secs_f64(guard.bound.fixed)
    };
    let slower = |limit| Count {
        hits: canary.above(limit),
        of: canary.total(),
    };
    let limit = at(quantile);
    let sure = at(stats::quantile_limit(quantile, stable.total()));
    let evidence = Evidence {
        guard,
        canary: figure(canary),
        stable: guard.compares().then(|| figure(stable)),
        limit: ms(limit),
        test: "exact binomial on calls over the limit",
        p_value: stats::binomial_tail(slower(sure), 1.0 - quantile),
        within: slower(limit).share() <= 1.0 - quantile,
    };
    evidence.verdict()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A factor that a person wrote may be any number.
fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::window::Window;
    use super::*;
    use std::time::Instant;

    /// `calls` calls of which `failed` fail; the others take 1 ms to `slowest`, evenly.
    fn seen(calls: u64, failed: u64, slowest: u64) -> Seen {
        let start = Instant::now();
        let window = Window::new(start, Duration::from_secs(60));
        for n in 0..calls {
            use super::super::window::Outcome::{Answered, Failed};
            let outcome = if n < failed { Failed } else { Answered };
            let latency = Duration::from_micros(1000 + n * (slowest - 1000) / calls);
            window.record(start, outcome, latency);
        }
        window.read(start)
    }

    fn judge(guard: &str, canary: &Seen, stable: &Seen) -> Verdict {
        let compared = Compared {
            canary,
            stable,
            min_sample: 100,
        };
        guard.parse::<Guard>().unwrap().judge(&compared)
    }

    #[test]
    fn errors_beyond_chance_fail_and_the_numbers_are_told() {
        let (bad, good) = (seen(300, 30, 2000), seen(5000, 5, 2000));
        let verdict = judge("error_rate<=stable+1%", &bad, &good);
        assert_eq!(verdict.verdict, Outcome::Fail, "{verdict:?}");
        let (sample, value) = (300, 0.1);
        assert_eq!(verdict.canary, Some(Figure { sample, value }));
        assert!((verdict.limit.unwrap() - 0.011).abs() < 1e-9);
        assert!(verdict.p_value.unwrap() < ALPHA);
        assert_eq!(verdict.test.as_deref(), Some("two-proportion z"));
        for part in ["10.00%", "300 calls", "1.10%", "5000 calls"] {
            assert!(verdict.reason.contains(part), "{}", verdict.reason);
        }
    }

    #[test]
    fn a_version_as_good_as_the_other_passes() {
        let (canary, stable) = (seen(300, 1, 2000), seen(5000, 20, 2000));
        for guard in [
            "error_rate<=stable+1%",
            "error_rate<=2%",
            "p95<=1.2*stable",
            "p95<=300ms",
        ] {
            let verdict = judge(guard, &canary, &stable);
            assert_eq!(verdict.verdict, Outcome::Pass, "{verdict:?}");
        }
    }

    #[test]
    fn below_the_minimum_sample_nothing_is_judged_however_bad_it_looks() {
        let (bad, good) = (seen(99, 99, 2000), seen(5000, 0, 2000));
        let verdict = judge("error_rate<=0%", &bad, &good);
        assert_eq!(verdict.verdict, Outcome::NotEnoughData);
        assert!(verdict.reason.contains("99 of the 100"), "{verdict:?}");
        // A fixed bound needs no calls of the stable version; a comparison does.
        let (enough, none) = (seen(100, 0, 2000), Seen::default());
        let fixed = judge("error_rate<=1%", &enough, &none);
        assert_eq!(fixed.verdict, Outcome::Pass);
        let compared = judge("error_rate<=stable", &enough, &none);
        assert_eq!(compared.verdict, Outcome::NotEnoughData);
        assert!(compared.reason.contains("the stable version has 0"));
    }

    #[test]
    fn what_may_be_chance_is_neither_pass_nor_fail() {
        let (canary, stable) = (seen(100, 3, 2000), seen(5000, 50, 2000));
        for guard in ["error_rate<=stable+1%", "error_rate<=2%"] {
            let verdict = judge(guard, &canary, &stable);
            assert_eq!(verdict.verdict, Outcome::NotEnoughData, "{verdict:?}");
            assert!(verdict.reason.contains("by chance"), "{verdict:?}");
        }
    }

    #[test]
    fn slower_calls_fail_by_comparison_and_by_a_fixed_limit() {
        let (slow, fast) = (seen(400, 0, 40_000), seen(5000, 0, 20_000));
        for guard in ["p95<=1.2*stable", "p50<=stable+1ms", "p99<=20ms"] {
            let verdict = judge(guard, &slow, &fast);
            assert_eq!(verdict.verdict, Outcome::Fail, "{verdict:?}");
        }
        let verdict = judge("p95<=3*stable", &slow, &fast);
        assert_eq!(verdict.verdict, Outcome::Pass, "{verdict:?}");
        let verdict = judge("p95<=100000000000000000000*stable", &slow, &fast);
        assert_eq!(verdict.verdict, Outcome::Pass, "{verdict:?}");
    }

    #[test]
    fn calls_that_fail_fast_do_not_look_fast() {
        let (failing, fast) = (seen(400, 300, 40_000), seen(5000, 0, 20_000));
        let verdict = judge("p50<=stable", &failing, &fast);
        assert_eq!(verdict.verdict, Outcome::Fail, "{verdict:?}");
        assert_eq!(verdict.canary.unwrap().sample, 100);
    }

    proptest! {
        /// The same distribution on both sides: false alarms are about as rare as stated.
        #[test]
        fn equal_versions_are_not_called_slow(seed in 0u64..u64::MAX) {
            let mut state = seed | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                1000 + state % 100_000
            };
            let mut sides = [Seen::default(), Seen::default()];
            for (side, calls) in sides.iter_mut().zip([200, 1000]) {
                for _ in 0..calls {
                    side.calls += 1;
                    side.latencies.record(Duration::from_micros(random()));
                }
            }
            let verdict = judge("p95<=1.2*stable", &sides[0], &sides[1]);
            prop_assert_ne!(verdict.verdict, Outcome::Fail, "{:?}", verdict);
        }
    }
}
