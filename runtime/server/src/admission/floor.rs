//! Who is inside, who runs, who waits and who is next. It knows no clock and no waiting: it is told
//! the time, and `admission.rs` carries out what it says.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use firebox_registry::{FunctionName, Tier};

use super::pace::Pace;

/// How many times as much as what stays free a function may hold: with dynamic thresholds of this
/// kind (Choudhury and Hahne, 1998) one function alone can have 7/8, and the more functions
/// want something, the less each gets; something stays free for one that has nothing yet.
const OVER_FREE: usize = 7;

/// The batch tier's part of what is not reserved: one half.
const BATCH_PART: usize = 2;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Instances that run at once.
    pub instances: usize,
    /// Of these, how many only the realtime tier takes.
    pub reserved_instances: usize,
    /// Requests that are inside at once, running or waiting for anything.
    pub places: usize,
    /// Of these, how many only the realtime tier takes.
    pub reserved_places: usize,
}

impl Room {
    /// `realtime_share` per cent are reserved.
    pub fn new(instances: usize, queue: usize, realtime_share: u8) -> Self {
        let (instances, places) = (instances.max(1), instances.max(1).saturating_add(queue));
        let reserved = |all: usize| {
            let share = all as u128 * u128::from(realtime_share) / 100;
            usize::try_from(share).unwrap_or(all).min(all - 1)
        };
        Self {
            instances,
            reserved_instances: reserved(instances),
            places,
            reserved_places: reserved(places),
        }
    }

    /// Up to how many may be inside, all tiers together, for one more of this tier to come in.
    fn ceiling(&self, tier: Tier) -> usize {
        let shared = self.places - self.reserved_places;
        match tier {
            Tier::Realtime => self.places,
            Tier::OnDemand => shared,
            Tier::Batch => shared.div_ceil(BATCH_PART),
        }
    }

    /// How many instances the tier can have at most.
    fn instances(&self, tier: Tier) -> usize {
        let shared = self.instances - self.reserved_instances;
        match tier {
            Tier::Realtime => self.instances,
            Tier::OnDemand => shared,
            Tier::Batch => shared.div_ceil(BATCH_PART),
        }
    }
}

/// The tiers, the most urgent first.
pub const TIERS: [Tier; 3] = [Tier::Realtime, Tier::OnDemand, Tier::Batch];

/// Something for each tier, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByTier<T>([T; 3]);

impl<T> ByTier<T> {
    /// What `each` says of the tiers.
    pub fn of(each: impl FnMut(Tier) -> T) -> Self {
        Self(TIERS.map(each))
    }

    /// What the tier has.
    pub fn get(&self, tier: Tier) -> &T {
        let [realtime, on_demand, batch] = &self.0;
        match tier {
            Tier::Realtime => realtime,
            Tier::OnDemand => on_demand,
            Tier::Batch => batch,
        }
    }

    fn get_mut(&mut self, tier: Tier) -> &mut T {
        let [realtime, on_demand, batch] = &mut self.0;
        match tier {
            Tier::Realtime => realtime,
            Tier::OnDemand => on_demand,
            Tier::Batch => batch,
        }
    }
}

impl ByTier<usize> {
    fn all(&self) -> usize {
        self.0.iter().sum()
    }

    /// The sum of this tier and of more urgent ones.
    fn down_to(&self, tier: Tier) -> usize {
        let [realtime, on_demand, batch] = self.0;
        match tier {
            Tier::Realtime => realtime,
            Tier::OnDemand => realtime + on_demand,
            Tier::Batch => realtime + on_demand + batch,
        }
    }
}

/// Who wants to come in and run.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The function.
    pub function: FunctionName,
    /// The tier of the version that answers.
    pub tier: Tier,
    /// The most instances that the function may have by its manifest.
    pub concurrency: Option<usize>,
    /// When an answer is of no use any more.
    pub deadline: Instant,
}

/// Why a request is not let in, and how long until it may be worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// How long to wait.
    pub retry_after: Duration,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The function has its share of the places.
    Function,
    /// There are no places left for the tier.
    Full,
    /// The deadline would pass before the answer.
    Deadline,
    /// A realtime request has waited as long as one may.
    Waited,
}

/// One that waits for an instance.
#[derive(Debug)]
struct Ticket<T> {
    number: u64,
    concurrency: Option<usize>,
    deadline: Instant,
    who: T,
}

/// What a function has.
#[derive(Debug)]
struct Share<T> {
    inside: usize,
    running: usize,
    waiting: ByTier<VecDeque<Ticket<T>>>,
    pace: Pace,
}

impl<T> Share<T> {
    fn waits(&self) -> usize {
        TIERS.iter().map(|tier| self.waiting.get(*tier).len()).sum()
    }
}

/// What is to be said to one that waited.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn<T> {
    /// Who.
    pub who: T,
    /// Of which function.
    pub function: FunctionName,
    /// Of which tier.
    pub tier: Tier,
    /// Run, or go.
    pub outcome: Result<(), Refusal>,
}

/// All requests that are inside. `T` is how one that waits is reached.
#[derive(Debug)]
pub struct Floor<T> {
    room: Room,
    inside: usize,
    running: ByTier<usize>,
    waiting: ByTier<usize>,
    functions: HashMap<FunctionName, Share<T>>,
    pace: Pace,
    tickets: u64,
}

impl<T> Floor<T> {
    /// Nobody is inside.
    pub fn new(room: Room) -> Self {
        Self {
            room,
            inside: 0,
            running: ByTier::default(),
            waiting: ByTier::default(),
            functions: HashMap::new(),
            pace: Pace::default(),
            tickets: 0,
        }
    }

    /// Those that run.
    #[cfg(test)]
    pub fn running(&self) -> ByTier<usize> {
        self.running
    }

    /// Those that wait for an instance.
    pub fn waiting(&self) -> ByTier<usize> {
        self.waiting
    }

    /// Whether anybody waits for an instance.
    pub fn anybody_waits(&self) -> bool {
        self.waiting.all() > 0
    }

    /// Lets a request in, or not.
    pub fn enter(&mut self, claim: &Claim, now: Instant) -> Result<(), Refusal> {
        let wait = self.wait(claim);
        let refused = |reason| Refusal {
            reason,
            retry_after: wait.max(self.pace.hold()),
        };
        let free = self.room.ceiling(claim.tier).saturating_sub(self.inside);
        if free == 0 {
            return Err(refused(Reason::Full));
        }
        let has = self.functions.get(&claim.function);
        if !fair(has.map_or(0, |share| share.inside), free) {
            return Err(refused(Reason::Function));
        }
        if self.too_late(claim, wait, now) {
            return Err(refused(Reason::Deadline));
        }
        self.inside += 1;
        self.share(&claim.function).inside += 1;
        Ok(())
    }

    /// A request has gone.
    pub fn leave(&mut self, function: &FunctionName) {
        self.inside = self.inside.saturating_sub(1);
        let Some(share) = self.functions.get_mut(function) else {
            return;
        };
        share.inside = share.inside.saturating_sub(1);
        if share.inside == 0 {
            self.functions.remove(function);
        }
    }

    /// Gives an instance to a request that is inside, if one is free for it: `None`. Else it waits,
    /// and `who` is given back in a [`Turn`] of [`next`](Self::next); the number can
    /// [`withdraw`](Self::withdraw) it.
    pub fn ask(&mut self, claim: &Claim, who: T, now: Instant) -> Result<Option<u64>, Refusal> {
        let queued = self.waiting.down_to(claim.tier) > 0;
        if !queued && self.can_run(&claim.function, claim.tier, claim.concurrency) {
            self.start(&claim.function, claim.tier);
            return Ok(None);
        }
        let wait = self.wait(claim);
        if self.too_late(claim, wait, now) {
            return Err(Refusal {
                reason: Reason::Deadline,
                retry_after: wait,
            });
        }
        self.tickets += 1;
        let number = self.tickets;
        *self.waiting.get_mut(claim.tier) += 1;
        let ticket = Ticket {
            number,
            concurrency: claim.concurrency,
            deadline: claim.deadline,
            who,
        };
        self.share(&claim.function)
            .waiting
            .get_mut(claim.tier)
            .push_back(ticket);
        Ok(Some(number))
    }

    /// One that waited has given up; `false` where it waited no longer.
    pub fn withdraw(&mut self, function: &FunctionName, tier: Tier, number: u64) -> bool {
        let Some(share) = self.functions.get_mut(function) else {
            return false;
        };
        let queue = share.waiting.get_mut(tier);
        // Numbers rise along a queue.
        let Ok(at) = queue.binary_search_by_key(&number, |ticket| ticket.number) else {
            return false;
        };
        queue.remove(at);
        *self.waiting.get_mut(tier) -= 1;
        true
    }

    /// An instance has come free, after `held`.
    pub fn done(&mut self, function: &FunctionName, tier: Tier, held: Duration) {
        let running = self.running.get_mut(tier);
        *running = running.saturating_sub(1);
        self.pace.note(held);
        if let Some(share) = self.functions.get_mut(function) {
            share.running = share.running.saturating_sub(1);
            share.pace.note(held);
        }
    }

    /// Whose turn it is: the most urgent tier, of it the function that has the fewest instances, of
    /// equals the one that has waited longest. One whose answer would come too late is told to go
    /// instead. `None` where nobody is left that can run.
    pub fn next(&mut self, now: Instant) -> Option<Turn<T>> {
        for tier in TIERS {
            if *self.waiting.get(tier) == 0 {
                continue;
            }
            let able = self.functions.iter().filter_map(|(name, share)| {
                let first = share.waiting.get(tier).front()?;
                let late = first.deadline <= now + share.pace.likely();
                let able = late || self.can_run(name, tier, first.concurrency);
                able.then_some((!late, share.running, first.number, name))
            });
            let first = able.min_by_key(|(able, running, number, _)| (*able, *running, *number));
            let Some((in_time, _, _, name)) = first else {
                continue;
            };
            let name = name.clone();
            let share = self.functions.get_mut(&name)?;
            let hold = share.pace.likely();
            let ticket = share.waiting.get_mut(tier).pop_front()?;
            *self.waiting.get_mut(tier) -= 1;
            let outcome = if in_time {
                self.start(&name, tier);
                Ok(())
            } else {
                Err(Refusal {
                    reason: Reason::Deadline,
                    retry_after: hold,
                })
            };
            return Some(Turn {
                who: ticket.who,
                function: name,
                tier,
                outcome,
            });
        }
        None
    }

    fn share(&mut self, function: &FunctionName) -> &mut Share<T> {
        // How long it holds an instance is its own: others may be much slower.
        let nothing = || Share {
            inside: 0,
            running: 0,
            waiting: ByTier(Default::default()),
            pace: Pace::default(),
        };
        self.functions
            .entry(function.clone())
            .or_insert_with(nothing)
    }

    fn start(&mut self, function: &FunctionName, tier: Tier) {
        *self.running.get_mut(tier) += 1;
        if let Some(share) = self.functions.get_mut(function) {
            share.running += 1;
        }
    }

    /// Instances that the tier can still take.
    fn free(&self, tier: Tier) -> usize {
        let all = self.room.instances.saturating_sub(self.running.all());
        let lower = *self.running.get(Tier::OnDemand) + *self.running.get(Tier::Batch);
        let shared = self.room.instances(Tier::OnDemand).saturating_sub(lower);
        match tier {
            Tier::Realtime => all,
            Tier::OnDemand => all.min(shared),
            Tier::Batch => {
                let batch = *self.running.get(Tier::Batch);
                let part = self.room.instances(Tier::Batch).saturating_sub(batch);
                all.min(shared).min(part)
            }
        }
    }

    fn can_run(&self, function: &FunctionName, tier: Tier, concurrency: Option<usize>) -> bool {
        let share = self.functions.get(function);
        let running = share.map_or(0, |share| share.running);
        let free = self.free(tier);
        free > 0 && concurrency.is_none_or(|most| running < most) && fair(running, free)
    }

    /// How long a request of this kind would wait for an instance now, by how fast they have come
    /// free of late (Little's law); zero where one is free.
    fn wait(&self, claim: &Claim) -> Duration {
        let tier = claim.tier;
        let share = self.functions.get(&claim.function);
        let own = share.map_or(0, Share::waits);
        let ahead = self.waiting.down_to(tier);
        if ahead == 0 && self.can_run(&claim.function, tier, claim.concurrency) {
            return Duration::ZERO;
        }
        let free = self.free(tier);
        let mut wait = Duration::ZERO;
        if free == 0 {
            let waiters = self.functions.values().filter(|share| share.waits() > 0);
            // Functions take turns: those behind in other functions' queues come later.
            let turns = ahead.min((own + 1) * waiters.count());
            wait = self.pace.wait(turns + 1, *self.running.get(tier));
        }
        if let Some(share) = share {
            let limited = claim.concurrency.is_some_and(|most| share.running >= most);
            if limited || free > 0 && !fair(share.running, free) {
                wait = wait.max(share.pace.wait(own + 1, share.running));
            }
        }
        wait
    }

    /// Whether the answer would come after the deadline. Where nobody waits, that is not known
    /// before it is tried.
    fn too_late(&self, claim: &Claim, wait: Duration, now: Instant) -> bool {
        let share = self.functions.get(&claim.function);
        let hold = share.map_or(Duration::ZERO, |share| share.pace.likely());
        !wait.is_zero() && now + wait + hold > claim.deadline
    }
}

/// Whether one that has `held` may take one more of the `free` ones.
fn fair(held: usize, free: usize) -> bool {
    free > 0 && (held == 0 || held < OVER_FREE * (free - 1))
}

#[cfg(test)]
mod tests;
