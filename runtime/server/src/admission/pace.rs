//! How long instances are held, and what that says about the next ones to come free.

use std::time::Duration;

/// The weight of one more figure; so about the last twenty count.
const WEIGHT: f64 = 0.1;

/// How many mean deviations above the mean most figures keep below.
const MOST: f64 = 2.0;

/// Exponentially weighted means of how long instances were held, and of how far single ones were
/// off, as TCP keeps them of its round trips (Jacobson, 1988).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    seconds: Option<f64>,
    deviation: f64,
}

impl Pace {
    /// An instance was held this long.
    pub fn note(&mut self, held: Duration) {
        let held = held.as_secs_f64();
        let Some(mean) = self.seconds else {
            self.seconds = Some(held);
            return;
        };
        let off = held - mean;
        self.seconds = Some(mean + WEIGHT * off);
        self.deviation += WEIGHT * (off.abs() - self.deviation);
    }

    /// How long one is held; zero where nothing is known.
    pub fn hold(&self) -> Duration {
        seconds(self.seconds.unwrap_or_default())
    }

    /// How long most are held at most.
    pub fn likely(&self) -> Duration {
        seconds(self.seconds.unwrap_or_default() + MOST * self.deviation)
    }

    /// How long until `instances`, all held, have come free `turns` times between them.
    pub fn wait(&self, turns: usize, instances: usize) -> Duration {
        seconds(self.seconds.unwrap_or_default() * turns as f64 / instances.max(1) as f64)
    }
}

/// At most a day, so that no rounding makes one that can't be.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_happened_of_late() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(5, 1), Duration::ZERO);
        pace.note(Duration::from_millis(100));
        assert_eq!(pace.wait(4, 2), Duration::from_millis(200));
        assert_eq!(pace.likely(), Duration::from_millis(100));
        for _ in 0..60 {
            pace.note(Duration::from_millis(10));
        }
        assert!(pace.hold() < Duration::from_millis(11), "{:?}", pace.hold());
        pace.note(Duration::from_millis(50));
        assert!(pace.likely() > pace.hold() + Duration::from_millis(5));
    }
}
