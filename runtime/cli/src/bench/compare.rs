//! Engines measured in turns within one run: a machine's drift falls on all of them.

use std::time::Duration;

use firebox_engine::Tensors;
use serde::Serialize;

use super::{Difference, Engine};
use crate::failure::{Failure, Result};

/// How long each engine computes in a round.
const ROUND: Duration = Duration::from_millis(400);

/// Runs of an engine in a round, at most.
const MOST: u32 = 2000;

/// How one engine did.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its name.
    pub engine: String,
    /// The middle time of a run, in nanoseconds.
    pub p50_ns: f64,
    /// The time that one run of a hundred takes or exceeds.
    pub p99_ns: f64,
    /// The processor's time for a run, all threads together.
    pub cpu_ns: f64,
    /// How many runs were timed.
    pub runs: usize,
    /// The first engine's middle time over this one's: the least, the middle and the greatest
    /// of the rounds. Nothing for the first one itself.
    pub ratio: Option<[f64; 3]>,
    /// How far the first engine's answer is from this one's. Nothing for the first one itself.
    pub difference: Option<Difference>,
}

/// Measures engines in turns; the first one is compared with each of the others, and so is its
/// answer with theirs.
pub fn compare(engines: &mut [Box<dyn Engine>], rounds: u32) -> Result<Vec<Compared>> {
    let answers = engines.iter_mut().map(|engine| engine.answer());
    let answers: Vec<Tensors> = answers.collect::<Result<_>>()?;
    let differences = answers.iter().enumerate();
    let differences = differences.map(|(number, answer)| match answers.first() {
        Some(ours) if number > 0 => Difference::of(ours, answer).map(Some),
        _ => Ok(None),
    });
    let differences: Vec<_> = differences.collect::<Result<_>>()?;
    let mut counts = Vec::new();
    for engine in engines.iter_mut() {
        // The first runs make plans and touch memory.
        engine.run(2)?;
        let (times, _) = engine.run(1)?;
        let one = times
            .first()
            .copied()
            .unwrap_or_default()
            .max(Duration::from_nanos(1));
        let fit = ROUND.as_nanos() / one.as_nanos();
        counts.push(u32::try_from(fit).unwrap_or(MOST).clamp(1, MOST));
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
    let mut cpu = vec![Duration::ZERO; engines.len()];
    let mut middles: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        let each = engines.iter_mut().zip(&counts);
        let each = each.zip(times.iter_mut().zip(cpu.iter_mut().zip(&mut middles)));
        for ((engine, &count), (times, (cpu, middles))) in each {
            let (mut ran, took) = engine.run(count)?;
            ran.sort_unstable();
            middles.push(at(&ran, 0.5));
            times.extend(ran);
            *cpu += took;
        }
    }
    let first = middles.first().cloned().unwrap_or_default();
    let each = cpu.iter().zip(middles.iter().zip(differences));
    let each = engines.iter().zip(times).zip(each);
    let compared = each.enumerate().map(
        |(number, ((engine, mut times), (cpu, (middles, difference))))| {
            times.sort_unstable();
            if times.is_empty() {
                return Err(Failure::new(format!("{} ran nothing", engine.name())));
            }
            let mut ratios: Vec<f64> = first.iter().zip(middles).map(|(a, b)| a / b).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            let middle = ratios.get(ratios.len() / 2).copied();
            let spread = (ratios.first(), middle, ratios.last());
            Ok(Compared {
                engine: engine.name(),
                p50_ns: at(&times, 0.5),
                p99_ns: at(&times, 0.99),
                cpu_ns: cpu.as_nanos() as f64 / times.len() as f64,
                runs: times.len(),
                ratio: match spread {
                    (Some(&low), Some(middle), Some(&high)) if number > 0 => {
                        Some([low, middle, high])
                    }
                    _ => None,
                },
                difference,
            })
        },
    );
    compared.collect()
}

/// The time at this part of sorted times, in nanoseconds.
fn at(sorted: &[Duration], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * part).round() as usize;
    sorted
        .get(place)
        .map_or(f64::NAN, |time| time.as_nanos() as f64)
}

#[cfg(test)]
mod tests {
    use firebox_engine::Tensor;

    use super::*;

    struct Takes(u64);

    impl Engine for Takes {
        fn name(&self) -> String {
            format!("takes {}", self.0)
        }

        fn answer(&mut self) -> Result<Tensors> {
            let values = [self.0 as f32];
            Ok(vec![(
                "y".into(),
                Tensor::from_f32(vec![1], &values).unwrap(),
            )])
        }

        fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)> {
            let time = Duration::from_millis(self.0);
            Ok((vec![time; count as usize], time * count))
        }
    }

    #[test]
    fn the_first_is_compared_with_each_other() {
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Takes(100)), Box::new(Takes(200))];
        let all = compare(&mut engines, 3).unwrap();
        let ratios: Vec<_> = all.iter().map(|one| one.ratio).collect();
        assert_eq!(ratios, [None, Some([0.5; 3])]);
        let found: Vec<_> = all.iter().map(|one| one.difference).collect();
        let (absolute, relative) = (100.0, 0.5);
        let expected = Difference { absolute, relative };
        assert_eq!(found, [None, Some(expected)]);
        let first = &all[0];
        assert_eq!((first.p50_ns, first.cpu_ns, first.runs), (1e8, 1e8, 12));
    }
}
