//! What was seen of one version in the recent past: calls, errors and latencies, in a ring of
//! short slots.
//!
//! Old slots are used again, so a window is some 110 kB however long it is and however much is
//! called. Recording takes one short lock of the present slot, adds to two counters and lets go;
//! a reader copies slot by slot and holds up nobody for longer than one slot's copy.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Slots of a ring; the oldest is dropped whole, so a window is longer or shorter by one of them.
const SLOTS: usize = 30;

/// Buckets up to here hold one microsecond each; then each doubling has this half as many.
const EXACT: u64 = 64;
const HALF: u64 = EXACT / 2;

/// Latencies of this many microseconds (36 minutes) and more fall into the last bucket.
const LONGEST_US: u64 = (1 << 31) - 1;

const BUCKETS: usize = bucket(LONGEST_US) + 1;

/// How a call went, as guards see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// The function refused what the caller sent: 4xx, but for 429.
    Rejected,
    /// The function, its model or the host failed: 5xx.
    Failed,
    /// The caller hung up before there was an answer. Its time is a lower bound.
    Cancelled,
}

/// How long calls took, in microseconds: a histogram with buckets of equal width within each
/// doubling, none wider than 1/32 of its values (the layout of HdrHistogram).
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Box<[u32]>,
    total: u64,
}

/// The bucket of a latency.
const fn bucket(us: u64) -> usize {
    let us = if us < LONGEST_US { us } else { LONGEST_US };
    if us < EXACT {
        return us as usize;
    }
    let doubling = us.ilog2() - HALF.ilog2();
    (doubling as u64 * HALF + (us >> doubling)) as usize
}

/// The highest latency of a bucket.
const fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let doubling = bucket / HALF - 1;
    let step = bucket - doubling * HALF;
    ((step + 1) << doubling) - 1
}

impl Default for Latencies {
    fn default() -> Self {
        let counts = vec![0; BUCKETS].into_boxed_slice();
        Self { counts, total: 0 }
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
        self.total += other.total;
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that the share `quantile` (0 to 1) of all does not exceed, to 1/32 and never too
    /// low. `None` where there are none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.map(|bucket| Duration::from_micros(highest(bucket)))
    }

    /// How many took longer than `limit`; those of its own bucket don't count.
    pub fn above(&self, limit: Duration) -> u64 {
        let us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let longer = self.counts.iter().skip(bucket(us) + 1);
        longer.map(|count| u64::from(*count)).sum()
    }
}

/// What a window has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Calls that were answered, rejected or failed.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were rejected.
    pub rejected: u64,
    /// The times of those that were answered, and of those whose callers hung up.
    pub latencies: Latencies,
}

impl Seen {
    fn record(&mut self, outcome: Outcome, latency: Duration) {
        self.calls += u64::from(outcome != Outcome::Cancelled);
        self.failed += u64::from(outcome == Outcome::Failed);
        self.rejected += u64::from(outcome == Outcome::Rejected);
        // A failure that comes fast must not make a version look fast.
        if matches!(outcome, Outcome::Answered | Outcome::Cancelled) {
            self.latencies.record(latency);
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.rejected += other.rejected;
        self.latencies.add(&other.latencies);
    }
}

#[derive(Default)]
struct Slot {
    /// Which slot of time this is; 0 was never used.
    tick: u64,
    seen: Seen,
}

/// The last seconds or minutes of one version.
pub struct Window {
    start: Instant,
    slot: Duration,
    slots: Box<[Mutex<Slot>]>,
}

impl Window {
    /// An empty window of this length that begins at `start`. Two that are compared begin together,
    /// so that they cover the same time.
    pub fn new(start: Instant, length: Duration) -> Self {
        let slot = (length / SLOTS as u32).max(Duration::from_millis(1));
        let slots = (0..SLOTS).map(|_| Mutex::default()).collect();
        Self { start, slot, slots }
    }

    fn tick(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        let ticks = since.as_nanos() / self.slot.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX - 1) + 1
    }

    /// Adds a call that ended at `now`.
    pub fn record(&self, now: Instant, outcome: Outcome, latency: Duration) {
        let tick = self.tick(now);
        let Some(slot) = self.slots.get((tick % SLOTS as u64) as usize) else {
            return;
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.tick < tick {
            slot.tick = tick;
            let seen = &mut slot.seen;
            (seen.calls, seen.failed, seen.rejected) = (0, 0, 0);
            seen.latencies.counts.fill(0);
            seen.latencies.total = 0;
        }
        // A slower thread may come with a time that the ring has gone past; it counts as now.
        slot.seen.record(outcome, latency);
    }

    /// The sum of what the window holds at `now`.
    pub fn read(&self, now: Instant) -> Seen {
        let tick = self.tick(now);
        let mut sum = Seen::default();
        for slot in &self.slots {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.tick > 0 && slot.tick + SLOTS as u64 > tick {
                sum.add(&slot.seen);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_at_most_a_thirtysecond_below_its_highest(us in 0..LONGEST_US / 2) {
            let top = highest(bucket(us));
            prop_assert!(us <= top && (top - us) as f64 <= us as f64 / 32.0);
            prop_assert_eq!(bucket(top), bucket(us));
            prop_assert_eq!(bucket(top + 1), bucket(us) + 1);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_latencies(
            us in prop::collection::vec(0u64..3_000_000, 1..200),
            quantile in 0.01f64..1.0,
        ) {
            let mut latencies = Latencies::default();
            us.iter().for_each(|us| latencies.record(Duration::from_micros(*us)));
            let mut sorted = us;
            sorted.sort_unstable();
            let exact = sorted[((quantile * sorted.len() as f64).ceil() as usize).max(1) - 1];
            let found = latencies.quantile(quantile).unwrap().as_micros() as u64;
            prop_assert!(exact <= found && found as f64 <= exact as f64 * (1.0 + 1.0 / 32.0));
        }

        #[test]
        fn what_is_above_a_limit_is_counted_to_the_bucket(
            us in prop::collection::vec(0u64..3_000_000, 0..200),
            limit in 0u64..3_000_000,
        ) {
            let mut latencies = Latencies::default();
            us.iter().for_each(|us| latencies.record(Duration::from_micros(*us)));
            let above = latencies.above(Duration::from_micros(limit));
            let surely = us.iter().filter(|us| **us > limit + limit / 32).count() as u64;
            let at_most = us.iter().filter(|us| **us > limit).count() as u64;
            prop_assert!((surely..=at_most).contains(&above));
        }
    }

    #[test]
    fn the_longest_calls_share_the_last_bucket() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        assert_eq!(latencies.total(), 1);
        assert_eq!(latencies.above(Duration::from_secs(60)), 1);
        assert_eq!(Latencies::default().quantile(0.95), None);
    }

    #[test]
    fn calls_are_counted_by_outcome_and_failures_have_no_latency() {
        let start = Instant::now();
        let window = Window::new(start, Duration::from_secs(3));
        for outcome in [
            Outcome::Answered,
            Outcome::Failed,
            Outcome::Rejected,
            Outcome::Cancelled,
        ] {
            window.record(start, outcome, MS);
        }
        let seen = window.read(start);
        assert_eq!((seen.calls, seen.failed, seen.rejected), (3, 1, 1));
        assert_eq!(seen.latencies.total(), 2);
    }

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let start = Instant::now();
        let window = Window::new(start, Duration::from_secs(3));
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            for _ in 0..10 {
                window.record(now, Outcome::Answered, MS);
            }
            let expected = 10 * (second + 1).min(3);
            assert_eq!(window.read(now).calls, expected, "second {second}");
        }
        assert_eq!(window.read(start + Duration::from_secs(63)).calls, 0);
        assert_eq!(window.read(start + Duration::from_secs(600)).calls, 0);
    }

    #[test]
    fn calls_of_many_threads_are_all_counted() {
        let window = Window::new(Instant::now(), Duration::from_secs(60));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..1000 {
                        window.record(Instant::now(), Outcome::Answered, MS);
                    }
                });
            }
        });
        assert_eq!(window.read(Instant::now()).calls, 8000);
    }
}
