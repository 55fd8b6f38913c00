//! Rollouts: traffic that moves from one version to another step by step, under guards, and back.
//!
//! ```text
//! gateway ─ outcome, latency ─▶ window of each version
//!                                   │ every quarter of a second
//!                                   ▼
//!             guards ─▶ verdicts ─▶ machine ─▶ registry: rollout and policy in one write ─▶ routing
//! ```
//! [`plan`] and [`guard`] read what people write, [`window`] is what was seen of a version,
//! [`verdict`] judges it by the tests of [`stats`], and [`machine`] says what comes next. This file
//! carries that out. What must outlive the server is in the registry: the step, the time spent in
//! it, the policy before. What was seen is not; after a restart it is gathered anew, and a step is
//! not left before there is enough of it again.

pub mod guard;
pub mod machine;
pub mod plan;
mod stats;
pub mod text;
pub mod verdict;
pub mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebox_registry::{
    Change, FunctionName, Registry, RegistryError, RolloutMove, RolloutRecord, RolloutState,
};

use guard::Guard;
use machine::Next;
use verdict::{Compared, Verdict};
pub use window::Latencies;
use window::Window;

use crate::metrics::Metrics;
use crate::routing::{Routing, Version};

/// How often rollouts are judged.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// How much time in a step may go uncounted by a crash.
const SAVED_EVERY: Duration = Duration::from_secs(5);

/// The author of what a rollout does by itself.
const ITSELF: &str = "rollout";

/// The rollouts that are under way, with what was seen of their versions.
pub struct Rollouts {
    registry: Registry,
    routing: Arc<Routing>,
    metrics: Metrics,
    active: Mutex<BTreeMap<FunctionName, Active>>,
}

/// One of them.
struct Active {
    rollout: RolloutRecord,
    guards: Vec<Guard>,
    canary: Watched,
    stable: Watched,
    clock: StepClock,
    /// How much of the clock the registry knows.
    saved: Duration,
    verdicts: Vec<Verdict>,
}

/// A version whose calls are noted. They are no longer when this is dropped.
struct Watched {
    version: Arc<Version>,
    window: Arc<Window>,
}

impl Watched {
    fn new(version: Arc<Version>, window: Window) -> Self {
        let window = Arc::new(window);
        version.watch(window.clone());
        Self { version, window }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.version.unwatch(&self.window);
    }
}

/// The time spent in a step, by a clock that doesn't jump.
#[derive(Clone, Copy, Debug)]
struct StepClock {
    spent: Duration,
    /// When it was read last; none while it stands still.
    runs_since: Option<Instant>,
}

impl StepClock {
    fn new(spent: Duration, runs: bool, now: Instant) -> Self {
        Self {
            spent,
            runs_since: runs.then_some(now),
        }
    }

    fn read(&mut self, now: Instant) -> Duration {
        if let Some(since) = &mut self.runs_since {
            self.spent += now.saturating_duration_since(*since);
            *since = now.max(*since);
        }
        self.spent
    }

    fn run(&mut self, runs: bool, now: Instant) {
        self.read(now);
        self.runs_since = runs.then_some(now);
    }
}

/// A move that is due.
struct Due {
    function: FunctionName,
    /// The number and step that it was decided by.
    seen: (u64, usize),
    to: RolloutMove,
    change: Change,
    verdicts: serde_json::Value,
}

/// How a rollout stands, beyond its record.
pub struct Live {
    /// The rollout's number, and the step that it is in.
    pub at: (u64, usize),
    /// Time spent in the step.
    pub spent: Duration,
    /// The latest verdicts.
    pub verdicts: Vec<Verdict>,
    /// What it waits for.
    pub waits: Option<String>,
}

impl Rollouts {
    /// Goes on with the rollouts that were under way when the server stopped. Blocking.
    pub fn open(
        registry: Registry,
        routing: Arc<Routing>,
        metrics: Metrics,
    ) -> Result<Self, RegistryError> {
        let rollouts = Self {
            registry,
            routing,
            metrics,
            active: Mutex::default(),
        };
        for function in rollouts.registry.functions_with_rollouts()? {
            rollouts.refresh(&function)?;
        }
        Ok(rollouts)
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<FunctionName, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a function's latest rollout again, after the registry or the routes have changed.
    /// Blocking.
    pub fn refresh(&self, function: &FunctionName) -> Result<(), RegistryError> {
        let mut active = self.active();
        let latest = match self.registry.rollout(function) {
            Ok(latest) => latest,
            Err(RegistryError::FunctionNotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(rollout) = &latest {
            self.metrics.rollout(rollout);
            let known = active.get(function);
            let was_active = known.is_some_and(|known| known.rollout.number == rollout.number);
            if was_active && !rollout.state.is_active() {
                self.metrics.rollout_ended(rollout);
            }
        }
        let Some(rollout) = latest.filter(|rollout| rollout.state.is_active()) else {
            active.remove(function);
            return Ok(());
        };
        let now = Instant::now();
        let runs = rollout.state == RolloutState::Running;
        if let Some(known) = active.get_mut(function)
            && (known.rollout.number, known.rollout.step) == (rollout.number, rollout.step)
        {
            known.clock.run(runs, now);
            known.rollout = rollout;
            return Ok(());
        }
        match self.begin(rollout, runs, now) {
            Some(begun) => active.insert(function.clone(), begun),
            None => active.remove(function),
        };
        Ok(())
    }

    /// Watches the versions of a rollout from now on.
    fn begin(&self, rollout: RolloutRecord, runs: bool, now: Instant) -> Option<Active> {
        let table = self.routing.table();
        let window = Duration::from_millis(rollout.window_ms);
        let watch = |number| {
            let version = table.version(rollout.function.as_str(), number);
            match version {
                Ok(version) => Some(Watched::new(version, Window::new(now, window))),
                Err(failure) => {
                    tracing::error!(function = %rollout.function, rollout = rollout.number, %failure,
                        "a rollout can't go on");
                    None
                }
            }
        };
        let (canary, stable) = (watch(rollout.canary)?, watch(rollout.stable)?);
        let guards = rollout.guards.iter().map(|text| text.parse());
        let guards = match guards.collect::<Result<Vec<Guard>, _>>() {
            Ok(guards) => guards,
            // They could be read when it began; never go on without one of them.
            Err(error) => {
                tracing::error!(function = %rollout.function, rollout = rollout.number, %error,
                    "a rollout stays where it is: this Firebox can't read its guards");
                return None;
            }
        };
        let spent = Duration::from_millis(rollout.spent_ms);
        let mut active = Active {
            guards,
            canary,
            stable,
            clock: StepClock::new(spent, runs, now),
            saved: spent,
            verdicts: Vec::new(),
            rollout,
        };
        active.judge(now);
        Some(active)
    }

    /// Judges every rollout, and carries out what is due. Blocking.
    pub fn tick(&self, now: Instant) {
        let due: Vec<Due> = {
            let mut active = self.active();
            let all = active.values_mut();
            all.filter_map(|active| active.next(now, &self.metrics))
                .collect()
        };
        for due in due {
            let function = due.function.clone();
            if let Err(error) = self.carry_out(due) {
                // It is due again at the next tick.
                tracing::error!(%function, %error, "a rollout can't move");
            }
        }
    }

    fn carry_out(&self, due: Due) -> Result<(), RegistryError> {
        let Due {
            function,
            seen,
            to,
            change,
            verdicts,
        } = due;
        let spends = matches!(to, RolloutMove::Spend(_));
        let reason = change.reason.clone();
        let moved = self
            .registry
            .move_rollout(&function, Some(seen), to, change, verdicts);
        match moved {
            Ok(_) if spends => return Ok(()),
            Ok(rollout) => {
                tracing::info!(%function, rollout = rollout.number, state = rollout.state.name(),
                    step = rollout.step + 1, reason, "the rollout moves");
            }
            // Somebody was faster.
            Err(RegistryError::NoRollout { .. } | RegistryError::FunctionNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.routing.refresh(&function)?;
        self.refresh(&function)
    }

    /// Notes the time spent in steps, so that an orderly stop loses none. Blocking.
    pub fn save(&self) {
        let now = Instant::now();
        let spent: Vec<_> = {
            let mut active = self.active();
            let all = active.values_mut();
            all.map(|active| active.spend(now)).collect()
        };
        for due in spent {
            let function = due.function.clone();
            if let Err(error) = self.carry_out(due) {
                tracing::warn!(%function, %error, "the time spent in a step can't be noted");
            }
        }
    }

    /// How a function's rollout stands now, if one is under way.
    pub fn live(&self, function: &FunctionName) -> Option<Live> {
        let mut all = self.active();
        let active = all.get_mut(function)?;
        let spent = active.clock.read(Instant::now());
        let waits = match machine::next(&active.rollout, spent, &active.verdicts) {
            Next::Wait(what) => Some(what),
            Next::Move(..) | Next::Nothing => None,
        };
        Some(Live {
            at: (active.rollout.number, active.rollout.step),
            spent,
            verdicts: active.verdicts.clone(),
            waits,
        })
    }
}

impl Active {
    /// Judges the guards by what the windows hold now.
    fn judge(&mut self, now: Instant) {
        let (canary, stable) = (self.canary.window.read(now), self.stable.window.read(now));
        let compared = Compared {
            canary: &canary,
            stable: &stable,
            min_sample: self.rollout.min_sample,
        };
        let guards = self.guards.iter();
        let judged = guards.filter(|guard| machine::applies(&self.rollout, guard));
        self.verdicts = judged.map(|guard| guard.judge(&compared)).collect();
    }

    /// Judges the guards; gives the move that is due.
    fn next(&mut self, now: Instant, metrics: &Metrics) -> Option<Due> {
        let spent = self.clock.read(now);
        self.judge(now);
        metrics.verdicts(self.rollout.function.as_str(), &self.verdicts);
        let (to, reason) = match machine::next(&self.rollout, spent, &self.verdicts) {
            Next::Move(to, reason) => (to, reason),
            Next::Wait(_) if spent >= self.saved + SAVED_EVERY => return Some(self.spend(now)),
            Next::Wait(_) | Next::Nothing => return None,
        };
        Some(self.due(to, reason))
    }

    /// The time in the step, to be noted.
    fn spend(&mut self, now: Instant) -> Due {
        self.saved = self.clock.read(now);
        let ms = u64::try_from(self.saved.as_millis()).unwrap_or(u64::MAX);
        self.due(RolloutMove::Spend(ms), String::new())
    }

    fn due(&self, to: RolloutMove, reason: String) -> Due {
        Due {
            function: self.rollout.function.clone(),
            seen: (self.rollout.number, self.rollout.step),
            to,
            change: Change::new(format!("{ITSELF} {}", self.rollout.number), reason),
            verdicts: serde_json::to_value(&self.verdicts).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_a_step_is_counted_only_while_it_runs() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = StepClock::new(Duration::from_secs(7), true, start);
        assert_eq!(clock.read(at(10)), Duration::from_secs(17));
        clock.run(false, at(20));
        assert_eq!(clock.read(at(500)), Duration::from_secs(27));
        clock.run(true, at(600));
        assert_eq!(clock.read(at(601)), Duration::from_secs(28));
        // A reading that comes late by another thread's hand takes nothing away.
        assert_eq!(clock.read(at(600)), Duration::from_secs(28));
        assert_eq!(clock.read(at(602)), Duration::from_secs(29));
    }
}
