//! Counts of what a version has answered since the server started, for the statistics extension of
//! the Open Inference Protocol. Unlike the series of `metrics`, they can be read back one by one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::metrics::Spent;

/// The most sizes of runs that are told apart: manifests can allow any.
const MAX_SIZES: usize = 256;

/// How often something happened, and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(ns(time));
    }
}

/// A [`Sum`] that many add to.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Tally {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(ns(time), Relaxed);
    }

    /// What it has come to.
    pub fn sum(&self) -> Sum {
        Sum {
            count: self.count.load(Relaxed),
            ns: self.ns.load(Relaxed),
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The requests to one version.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Answered.
    pub success: Tally,
    /// Refused or failed.
    pub fail: Tally,
    /// Waiting, also for a cold start.
    pub queue: Tally,
    /// Receiving and decoding.
    pub input: Tally,
    /// Computing, in the component and its models.
    pub infer: Tally,
    /// Encoding.
    pub output: Tally,
    /// Answered by the cache.
    pub hit: Tally,
    /// Looked up in the cache in vain.
    pub miss: Tally,
    inferences: AtomicU64,
    last_unix_ms: AtomicU64,
}

/// An answered request.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Inferences in it.
    pub rows: u64,
    /// Until it was decoded.
    pub input: Duration,
    /// Since its answer was there.
    pub output: Duration,
    /// Whether the cache had its answer, where it was asked.
    pub kept: Option<bool>,
}

impl Statistics {
    /// Counts a request that was answered.
    pub fn succeeded(&self, answered: &Answered, spent: &Spent) {
        self.success.add(spent.total);
        self.input.add(answered.input);
        self.output.add(answered.output);
        match answered.kept {
            Some(true) => self.hit.add(spent.total),
            kept => {
                if kept.is_some() {
                    self.miss.add(Duration::ZERO);
                }
                self.queue.add(spent.queue + spent.cold);
                self.infer.add(spent.guest + spent.compute);
            }
        }
        self.inferences.fetch_add(answered.rows, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        self.last_unix_ms
            .fetch_max(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts one that was not.
    pub fn failed(&self, spent: &Spent) {
        self.fail.add(spent.total);
    }

    /// Inferences that were answered.
    pub fn inferences(&self) -> u64 {
        self.inferences.load(Relaxed)
    }

    /// When the last one was answered, in milliseconds since 1970; 0 where none was.
    pub fn last_unix_ms(&self) -> u64 {
        self.last_unix_ms.load(Relaxed)
    }
}

/// Runs of models with so many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunSums {
    /// Putting rows together.
    pub stack: Sum,
    /// Computing.
    pub infer: Sum,
    /// Taking rows apart.
    pub split: Sum,
}

/// Runs of models, by their rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Up to 256 sizes; further ones are only counted.
    pub by_rows: BTreeMap<usize, RunSums>,
    further: u64,
}

impl Runs {
    /// How many they are.
    pub fn count(&self) -> u64 {
        let each = self.by_rows.values().map(|sums| sums.infer.count);
        each.sum::<u64>() + self.further
    }
}

/// [`Runs`] that threads add to.
#[derive(Debug, Default)]
pub struct RunTally(Mutex<Runs>);

impl RunTally {
    /// Counts a run that has outputs.
    pub fn add(&self, rows: usize, stack: Duration, infer: Duration, split: Duration) {
        let mut runs = self.lock();
        if runs.by_rows.len() >= MAX_SIZES && !runs.by_rows.contains_key(&rows) {
            runs.further += 1;
            return;
        }
        let sums = runs.by_rows.entry(rows).or_default();
        sums.stack.add(stack);
        sums.infer.add(infer);
        sums.split.add(split);
    }

    /// What they have come to.
    pub fn sums(&self) -> Runs {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_the_cache_answers_waits_for_nothing_and_computes_nothing() {
        let statistics = Statistics::default();
        let answered = |kept| Answered {
            rows: 3,
            input: MS,
            output: MS,
            kept,
        };
        let spent = Spent {
            queue: MS,
            cold: MS,
            guest: MS,
            compute: MS,
            total: 9 * MS,
        };
        for kept in [None, Some(false), Some(true)] {
            statistics.succeeded(&answered(kept), &spent);
        }
        statistics.failed(&spent);
        let sum = |count, ms: u64| Sum {
            count,
            ns: ms * 1_000_000,
        };
        assert_eq!(statistics.success.sum(), sum(3, 27));
        assert_eq!(statistics.fail.sum(), sum(1, 9));
        assert_eq!(statistics.queue.sum(), sum(2, 4));
        assert_eq!(statistics.infer.sum(), sum(2, 4));
        assert_eq!(statistics.hit.sum(), sum(1, 9));
        assert_eq!(statistics.miss.sum().count, 1);
        assert_eq!(statistics.inferences(), 9);
        assert!(statistics.last_unix_ms() > 0);
    }

    #[test]
    fn runs_of_ever_more_sizes_are_counted_and_no_more_are_kept() {
        let tally = RunTally::default();
        for rows in 1..=1000 {
            tally.add(rows, MS, MS, MS);
        }
        let runs = tally.sums();
        assert_eq!((runs.by_rows.len(), runs.count()), (MAX_SIZES, 1000));
    }
}
