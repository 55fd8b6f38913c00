//! How much may be held, how much is, and who has to go.
//!
//! Two accounts, one for the weights of models and one for mapped code. What is to be loaded is
//! reserved first, and the [`Reservation`] stays with what was loaded until that is dropped. Where
//! there is no room, [`victims`] says which idle versions make some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a loaded model takes at least: its graph and a plan come on top of its weights.
const LEAST_MODEL: u64 = 64 << 10;

/// Bytes of weights as the budget counts them.
pub fn charge(weights: u64) -> u64 {
    weights.max(LEAST_MODEL)
}

/// An amount of both kinds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Weights of models.
    pub models: u64,
    /// Mapped code.
    pub code: u64,
}

impl Amount {
    /// What is missing of `self` where there is `other`.
    pub fn beyond(self, other: Self) -> Self {
        Self {
            models: self.models.saturating_sub(other.models),
            code: self.code.saturating_sub(other.code),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            models: self.models.saturating_add(other.models),
            code: self.code.saturating_add(other.code),
        }
    }

    fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The two accounts. Cloning gives another handle.
#[derive(Clone)]
pub struct Budget {
    limit: Amount,
    held: Arc<Mutex<Amount>>,
}

impl Budget {
    /// With nothing held.
    pub fn new(limit: Amount) -> Self {
        Self {
            limit,
            held: Arc::default(),
        }
    }

    /// How much may be held.
    pub fn limit(&self) -> Amount {
        self.limit
    }

    /// How much is.
    pub fn held(&self) -> Amount {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Amount> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of `need` or nothing.
    ///
    /// # Errors
    /// How much has to go first.
    pub fn reserve(&self, need: Amount) -> Result<Reservation, Amount> {
        let mut held = self.lock();
        let after = held.plus(need);
        let mut short = after.beyond(self.limit);
        // What needs nothing of a kind doesn't wait for room of that kind.
        if need.models == 0 {
            short.models = 0;
        }
        if need.code == 0 {
            short.code = 0;
        }
        if !short.is_none() {
            return Err(short);
        }
        *held = after;
        drop(held);
        Ok(Reservation {
            budget: self.clone(),
            amount: need,
        })
    }
}

/// An amount that is held until this is dropped.
pub struct Reservation {
    budget: Budget,
    amount: Amount,
}

impl Reservation {
    /// How much.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Gives a part of it away, at most all that there is.
    pub fn split(&mut self, part: Amount) -> Self {
        let left = self.amount.beyond(part);
        let part = self.amount.beyond(left);
        self.amount = left;
        Self {
            budget: self.budget.clone(),
            amount: part,
        }
    }

    /// Corrects it to what was measured, also beyond the limit: the memory is taken already.
    pub fn correct(&mut self, measured: Amount) {
        let mut held = self.budget.lock();
        *held = held.beyond(self.amount).plus(measured);
        self.amount = measured;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.budget.lock();
        *held = held.beyond(self.amount);
    }
}

/// An idle version that could go.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// When it was last in use, by any clock.
    pub used: u64,
    /// Its holds on models.
    pub models: Vec<Hold>,
    /// Bytes of code that go with it.
    pub code: u64,
}

/// A hold on a model, which is freed when its last is gone.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Tells models apart.
    pub model: usize,
    /// What the model takes.
    pub bytes: u64,
    /// All holds that there are on it, anywhere.
    pub holds: usize,
}

/// Who goes, as indices: the least recently used that together free `short`, and none whose going
/// would free nothing that is needed. None at all where all of them are not enough.
pub fn victims(candidates: &[Candidate], short: Amount) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&at| candidates.get(at).map(|candidate| candidate.used));
    let mut tally = Tally::default();
    let mut chosen = Vec::new();
    for at in order {
        if short.beyond(tally.freed).is_none() {
            break;
        }
        let Some(candidate) = candidates.get(at) else {
            continue;
        };
        tally.add(candidate);
        chosen.push(at);
    }
    if !short.beyond(tally.freed).is_none() {
        return Vec::new();
    }
    // Those that are not needed after all stay, the most recently used first.
    let mut needed = Vec::with_capacity(chosen.len());
    for at in chosen.into_iter().rev() {
        let Some(candidate) = candidates.get(at) else {
            continue;
        };
        tally.spare(candidate);
        if !short.beyond(tally.freed).is_none() {
            tally.add(candidate);
            needed.push(at);
        }
    }
    needed.reverse();
    needed
}

#[derive(Default)]
struct Tally {
    freed: Amount,
    gone: HashMap<usize, usize>,
}

impl Tally {
    fn add(&mut self, candidate: &Candidate) {
        self.freed.code = self.freed.code.saturating_add(candidate.code);
        for hold in &candidate.models {
            let gone = self.gone.entry(hold.model).or_default();
            *gone += 1;
            if *gone == hold.holds {
                self.freed.models = self.freed.models.saturating_add(hold.bytes);
            }
        }
    }

    /// Takes back what was added.
    fn spare(&mut self, candidate: &Candidate) {
        self.freed.code = self.freed.code.saturating_sub(candidate.code);
        for hold in &candidate.models {
            let gone = self.gone.entry(hold.model).or_default();
            if *gone == hold.holds {
                self.freed.models = self.freed.models.saturating_sub(hold.bytes);
            }
            *gone = gone.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn models(models: u64) -> Amount {
        Amount { models, code: 0 }
    }

    /// What is freed when all of these go.
    fn freed<'a>(going: impl Iterator<Item = &'a Candidate>) -> Amount {
        let mut tally = Tally::default();
        going.for_each(|candidate| tally.add(candidate));
        tally.freed
    }

    /// A version with one model of its own.
    fn own(model: usize, used: u64, bytes: u64) -> Candidate {
        Candidate {
            used,
            models: vec![Hold {
                model,
                bytes,
                holds: 1,
            }],
            code: 0,
        }
    }

    fn shared(used: u64, holds: usize) -> Candidate {
        let hold = Hold {
            model: 99,
            bytes: 50,
            holds,
        };
        Candidate {
            used,
            models: vec![hold],
            code: 0,
        }
    }

    #[test]
    fn what_is_reserved_is_held_until_it_is_dropped() {
        let budget = Budget::new(models(100));
        let mut first = budget.reserve(models(60)).unwrap();
        assert_eq!(budget.reserve(models(60)).err(), Some(models(20)));
        first.correct(models(30));
        let second = budget.reserve(models(60)).unwrap();
        let part = first.split(models(10));
        drop(first);
        assert_eq!(budget.held(), models(70));
        drop((second, part));
        assert_eq!(budget.held(), models(0));
    }

    #[test]
    fn a_full_account_does_not_hold_up_what_needs_nothing_of_it() {
        let limit = Amount {
            models: 10,
            code: 10,
        };
        let budget = Budget::new(limit);
        let mut over = budget.reserve(models(10)).unwrap();
        over.correct(models(12));
        let code = Amount { models: 0, code: 5 };
        assert!(budget.reserve(code).is_ok());
        assert_eq!(budget.reserve(models(1)).err(), Some(models(3)));
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let all = [own(1, 30, 10), own(2, 10, 10), own(3, 20, 10)];
        assert_eq!(victims(&all, models(5)), [1]);
        assert_eq!(victims(&all, models(15)), [1, 2]);
        assert_eq!(victims(&all, models(31)), [0; 0], "in vain");
        // The small ones that were used before the large one are not needed then.
        let all = [own(1, 1, 1), own(2, 2, 1), own(3, 3, 100)];
        assert_eq!(victims(&all, models(50)), [2]);
    }

    #[test]
    fn a_shared_model_is_freed_by_the_last_that_holds_it() {
        let pair = [shared(1, 2), shared(2, 2)];
        assert_eq!(victims(&pair, models(50)), [0, 1]);
        let third_elsewhere = [shared(1, 3), shared(2, 3), own(1, 3, 50)];
        assert_eq!(victims(&third_elsewhere, models(50)), [2]);
    }

    #[test]
    fn code_is_counted_by_itself() {
        let linked = Candidate {
            used: 9,
            models: vec![],
            code: 7,
        };
        let all = [own(1, 1, 10), linked];
        let short = Amount { models: 0, code: 7 };
        assert_eq!(victims(&all, short), [1]);
    }

    proptest! {
        #[test]
        fn victims_free_enough_or_nobody_goes(
            ages in prop::collection::vec((0_u64..100, 0_usize..6, 1_u64..50), 0..12),
            short in 1_u64..200,
        ) {
            // Versions share models by number; a model has one size.
            let holds = |model| ages.iter().filter(|(_, other, _)| *other == model).count();
            let size = |model: usize| model as u64 * 7 + 3;
            let all: Vec<_> = ages.iter().map(|&(used, model, code)| Candidate {
                used,
                models: vec![Hold { model, bytes: size(model), holds: holds(model) }],
                code,
            }).collect();
            let going = victims(&all, models(short));
            let freed_by = |going: &[usize]| freed(going.iter().map(|&at| &all[at])).models;
            if going.is_empty() {
                prop_assert!(freed(all.iter()).models < short);
            } else {
                prop_assert!(freed_by(&going) >= short);
                for leave in 0..going.len() {
                    let mut fewer = going.clone();
                    fewer.remove(leave);
                    prop_assert!(freed_by(&fewer) < short, "one went in vain");
                }
            }
        }
    }
}
