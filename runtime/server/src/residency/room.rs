//! Room for what is to be loaded: what is missing is reserved as a whole, before anything is read.
//!
//! Where it doesn't fit, idle versions go, the least recently used first; where those in use fill
//! the budget, the load waits for them, in the order of arrival, as long as somebody waits for it.
//! Looking at the pool of models and taking room for those that aren't in it is one step, so that
//! no two loads hold parts of what both need, and a model that is shared is counted once.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::Residency;
use super::budget::{Amount, Reservation, charge, victims};
use super::load::{ModelFile, ModelKey, Pooled, Taken, forgotten};
use super::state::{Cause, Dropped, Slot, now};
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::routing::Version;

/// How often a load that waits looks again.
const LOOK: Duration = Duration::from_millis(10);

/// What is to be loaded.
pub(super) struct Needs {
    pub(super) models: Vec<ModelFile>,
    /// Bytes of code to map.
    pub(super) code: u64,
}

impl Needs {
    /// All of it, models that stand here twice once.
    pub(super) fn whole(&self) -> Amount {
        let models: HashMap<_, _> = self.models.iter().map(|m| (m.key, m.bytes)).collect();
        Amount {
            models: models.values().map(|&bytes| charge(bytes)).sum(),
            code: self.code,
        }
    }
}

/// Who asks for room.
pub(super) struct Claim<'a> {
    /// How people know it.
    pub(super) name: String,
    /// Whether it may take the room of those who have only just come.
    pub(super) urgent: bool,
    pub(super) patience: Patience<'a>,
}

/// How long a claim waits.
pub(super) enum Patience<'a> {
    /// As long as somebody waits for this version.
    Slot(&'a Slot),
    /// Until then, in milliseconds of [`now`].
    Until(u64),
}

impl Patience<'_> {
    /// For so long, from now.
    pub(super) fn lasting(time: Duration) -> Self {
        Self::Until(now().saturating_add(time.as_millis() as u64))
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Slot(slot) => !slot.is_wanted(),
            Self::Until(until) => now() >= *until,
        }
    }
}

/// Counts a load that waits for room, as long as it does.
struct Waiting<'a> {
    metrics: &'a Metrics,
    slot: Option<&'a Slot>,
}

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics, claim: &Claim<'a>) -> Self {
        let slot = match claim.patience {
            Patience::Slot(slot) => Some(slot),
            Patience::Until(_) => None,
        };
        metrics.waiting_for_room.increment(1.0);
        slot.inspect(|slot| slot.wait_for_room(true));
        Self { metrics, slot }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting_for_room.decrement(1.0);
        self.slot.inspect(|slot| slot.wait_for_room(false));
    }
}

/// Room that was taken, with the models that are there or come.
pub(super) struct Granted {
    pub(super) models: HashMap<ModelKey, Taken>,
    pub(super) code: Reservation,
}

impl Granted {
    /// That of a file that room was taken for.
    pub(super) fn model(&self, file: &ModelFile) -> Result<Taken, Failure> {
        self.models.get(&file.key).cloned().ok_or_else(forgotten)
    }
}

impl Residency {
    /// Waits until there is room for what `needs` has that isn't in memory yet, and takes it;
    /// models that are missing begin to load.
    pub(super) async fn room(&self, needs: &Needs, claim: &Claim<'_>) -> Result<Granted, Failure> {
        self.fits_at_all(&claim.name, needs.whole())?;
        // What brings no weights shall not stand behind what waits for room for some.
        if !self.lacks_models(needs)
            && let Ok(granted) = self.take(needs)
        {
            return Ok(granted);
        }
        let _waiting = Waiting::new(&self.0.metrics, claim);
        let mut turn = pin!(self.0.turn.lock());
        let _turn = loop {
            match tokio::time::timeout(LOOK, turn.as_mut()).await {
                Ok(turn) => break turn,
                Err(_) if claim.patience.is_over() => {
                    return Err(self.no_room(&claim.name, needs));
                }
                Err(_) => {}
            }
        };
        loop {
            let short = match self.take(needs) {
                Ok(granted) => return Ok(granted),
                Err(short) => short,
            };
            let going = self.evict(short, claim);
            if !going.is_empty() {
                let residency = self.clone();
                let freed = tokio::task::spawn_blocking(move || residency.free(going));
                freed.await.map_err(|_| Failure::ShuttingDown)?;
            } else if claim.patience.is_over() || self.is_pinned_away(short) {
                return Err(self.no_room(&claim.name, needs));
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Whether a model is neither in memory nor on its way.
    fn lacks_models(&self, needs: &Needs) -> bool {
        let pool = self.pool();
        let is_there = |file: &ModelFile| match pool.get(&file.key) {
            Some(Pooled::Loading(_)) => true,
            Some(Pooled::Loaded(model)) => model.strong_count() > 0,
            None => false,
        };
        !needs.models.iter().all(is_there)
    }

    /// Reserves what is missing; models that are missing begin to load.
    fn take(&self, needs: &Needs) -> Result<Granted, Amount> {
        let mut pool = self.pool();
        let mut models = HashMap::new();
        let mut missing: HashMap<ModelKey, &ModelFile> = HashMap::new();
        for file in &needs.models {
            match pool.get(&file.key) {
                Some(Pooled::Loading(flight)) => {
                    models.insert(file.key, Taken::Coming(flight.clone()));
                }
                Some(Pooled::Loaded(model)) if let Some(model) = model.upgrade() => {
                    models.insert(file.key, Taken::Here(model));
                }
                _ => {
                    missing.insert(file.key, file);
                }
            }
        }
        let need = Amount {
            models: missing.values().map(|file| charge(file.bytes)).sum(),
            code: needs.code,
        };
        let mut room = self.0.budget.reserve(need)?;
        for (key, file) in missing {
            let part = room.split(Amount {
                models: charge(file.bytes),
                code: 0,
            });
            let flight = self.open(file.clone(), part);
            pool.insert(key, Pooled::Loading(flight.clone()));
            models.insert(key, Taken::Coming(flight));
        }
        Ok(Granted { models, code: room })
    }

    /// Takes from idle versions what makes room; from nobody where that is not enough.
    fn evict(&self, short: Amount, claim: &Claim<'_>) -> Vec<Dropped> {
        let mut idle = Vec::new();
        let mut candidates = Vec::new();
        for version in self.loaded() {
            if let Some(candidate) = version.slot.candidate(claim.urgent) {
                idle.push(version);
                candidates.push(candidate);
            }
        }
        let going = victims(&candidates, short);
        let going = going.into_iter().filter_map(|at| idle.get(at));
        going
            .filter_map(|version| self.unload_for(version, short, claim))
            .collect()
    }

    /// Whether pinned versions, which never go, leave too little for it: then waiting is in vain.
    fn is_pinned_away(&self, short: Amount) -> bool {
        let pinned = self.loaded().into_iter().filter(|v| v.slot.is_pinned());
        let (mut models, mut code) = (HashMap::new(), 0_u64);
        for version in pinned {
            let inner = version.slot.lock();
            let loaded = inner.warm.iter().flat_map(|warm| warm.models.values());
            models.extend(loaded.map(|model| (Arc::as_ptr(model).addr(), model.bytes())));
            code += inner.code.as_ref().map_or(0, |code| code.bytes());
        }
        let pinned = Amount {
            models: models.values().sum(),
            code,
        };
        let can_go = self.0.budget.held().beyond(pinned);
        short.beyond(can_go) != Amount::default()
    }

    fn unload_for(&self, version: &Version, short: Amount, claim: &Claim<'_>) -> Option<Dropped> {
        let by = claim.name.clone();
        let metrics = &self.0.metrics;
        // Code that needn't go makes the next start quicker.
        let all = short.code > 0;
        let dropped = version.slot.unload(all, &Cause::Evicted { by }, metrics)?;
        metrics.evictions.increment(1);
        tracing::info!(function = %version.record.function, version = version.record.number.get(),
            by = claim.name, "evicted");
        Some(dropped)
    }

    /// Refuses what doesn't fit even into an empty budget.
    pub(super) fn fits_at_all(&self, name: &str, need: Amount) -> Result<(), Failure> {
        let limit = self.0.budget.limit();
        let over = |what, need, limit| {
            Err(Failure::OverBudget(format!(
                "{name} needs {} for its {what}, and the server's budget for {what} is {}",
                size(need),
                size(limit)
            )))
        };
        if need.models > limit.models {
            return over("models", need.models, limit.models);
        }
        if need.code > limit.code {
            return over("code", need.code, limit.code);
        }
        Ok(())
    }

    pub(super) fn no_room(&self, name: &str, needs: &Needs) -> Failure {
        let (need, limit, held) = (needs.whole(), self.0.budget.limit(), self.0.budget.held());
        let (what, need, limit, held) = match need.code.saturating_add(held.code) > limit.code {
            true => ("code", need.code, limit.code, held.code),
            false => ("models", need.models, limit.models, held.models),
        };
        Failure::NoRoom(format!(
            "{name} needs {} for its {what}, and versions in use or pinned hold {} of the server's {}",
            size(need),
            size(held),
            size(limit)
        ))
    }

    /// The versions of which something is loaded.
    pub(crate) fn loaded(&self) -> Vec<Arc<Version>> {
        let warm = self.warm_versions();
        warm.values()
            .filter_map(|version| version.upgrade())
            .collect()
    }
}

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / (1_u64 << 20) as f64),
        _ => format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_in_the_unit_that_fits() {
        assert_eq!(size(1), "1 KiB");
        assert_eq!(size(1 << 20), "1.0 MiB");
        assert_eq!(size(90 << 20), "90.0 MiB");
        assert_eq!(size(3 << 29), "1.50 GiB");
    }
}
