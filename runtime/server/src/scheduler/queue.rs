//! Which run comes next.
//!
//! Runs of one model wait in a lane. Of the lanes with work, `realtime` comes before `on-demand`;
//! so that the latter doesn't starve, it is owed a [share](ON_DEMAND_SHARE) of the time that
//! `realtime` takes while it waits. `batch` has a thread of its own, which the system lets run when
//! nobody else does. Within a tier, functions share time equally: each has an account of the time
//! it used, and the one that used least comes first; one that was away starts level with the
//! others (start-time fair queueing; Goyal, Vin and Cheng, 1996). What a function's jobs use is not
//! held against its callers: the batch tier has accounts of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebox_registry::{Batching, FunctionName, Tier};

use super::batch::Batch;
use super::{ComputeError, Job};

/// Of each second of `realtime` while `on-demand` waits, what the latter is owed.
const ON_DEMAND_SHARE: f64 = 0.25;

/// Of all places in the queue, what one function can have.
const FUNCTION_SHARE: usize = 2;

/// Accounts from which on those that are level with the others are forgotten.
const MANY_ACCOUNTS: usize = 1024;

/// What a run is expected to take before one was seen, in seconds.
const FIRST_GUESS: f64 = 0.001;

/// What a thread is to do.
pub(super) enum Next {
    /// Run these together.
    Run(Run),
    /// Look again then.
    At(Instant),
    /// Wait for work.
    Idle,
}

/// Jobs that share a run.
pub(super) struct Run {
    /// In the order of their rows; at least one.
    pub jobs: Vec<Job>,
    /// What they are together; none where there is one job only.
    pub batch: Option<Batch>,
}

/// The jobs of a model that may share a run.
struct Lane {
    function: FunctionName,
    tier: Tier,
    /// Where the model lies, which the jobs hold.
    model: usize,
    batching: Option<Arc<Batching>>,
    jobs: VecDeque<Job>,
}

impl Lane {
    fn takes(&self, job: &Job) -> bool {
        let batching = job.stack.as_ref().map(|(batching, _)| batching);
        self.model == job.model_id()
            && self.tier == job.terms.tier
            && self.function == job.terms.function
            && self.batching.as_ref() == batching
    }

    /// Forgets those at the front that nobody waits for any more.
    fn forget_gone(&mut self) {
        while self.jobs.front().is_some_and(Job::is_gone) {
            self.jobs.pop_front();
        }
    }

    /// When its first run may start: at once, or when it has waited long enough for others.
    fn ready_at(&self) -> Option<Instant> {
        let first = self.jobs.front()?;
        let Some((batching, shape)) = &first.stack else {
            return Some(first.queued_at);
        };
        if batching.max_queue_delay.is_zero() {
            return Some(first.queued_at);
        }
        let most = batching.max_batch_size as usize;
        let mut batch = Batch::new(shape);
        for job in self.jobs.iter().skip(1) {
            if batch.rows() >= most {
                break;
            }
            if let Some((_, shape)) = &job.stack {
                batch.add(shape, most);
            }
        }
        match batch.rows() >= most {
            true => Some(first.queued_at),
            false => Some(first.queued_at + batching.max_queue_delay),
        }
    }

    /// The first job, and those that can share its run.
    fn take(&mut self) -> Option<Run> {
        let first = self.jobs.pop_front()?;
        let stack = first.stack.clone();
        let mut jobs = vec![first];
        let Some((batching, shape)) = stack else {
            return Some(Run { jobs, batch: None });
        };
        let most = batching.max_batch_size as usize;
        let mut batch = Batch::new(&shape);
        let mut left = VecDeque::with_capacity(self.jobs.len());
        for job in self.jobs.drain(..) {
            if job.is_gone() {
                continue;
            }
            let shape = job.stack.as_ref().map(|(_, shape)| shape);
            if shape.is_some_and(|shape| batch.add(shape, most)) {
                jobs.push(job);
            } else {
                left.push_back(job);
            }
        }
        self.jobs = left;
        let batch = (jobs.len() > 1).then_some(batch);
        Some(Run { jobs, batch })
    }
}

/// What a function used, in seconds.
struct Account {
    used: f64,
    /// What a run of it takes, of late.
    typical: f64,
}

/// The accounts of those that share time with each other.
#[derive(Default)]
struct Accounts {
    of: HashMap<FunctionName, Account>,
    /// What those who are served used when they were served.
    level: f64,
}

/// The accounts of callers, and those of the batch tier.
#[derive(Default)]
struct Books {
    callers: Accounts,
    batch: Accounts,
}

impl Books {
    fn of(&mut self, tier: Tier) -> &mut Accounts {
        match tier {
            Tier::Batch => &mut self.batch,
            Tier::Realtime | Tier::OnDemand => &mut self.callers,
        }
    }
}

/// All that waits.
pub(super) struct Queue {
    lanes: Vec<Lane>,
    books: Books,
    /// Seconds that `on-demand` is owed.
    owed: f64,
    waiting: usize,
    limit: usize,
    pub stopped: bool,
}

impl Queue {
    /// At most `limit` runs wait.
    pub fn new(limit: usize) -> Self {
        Self {
            lanes: vec![],
            books: Books::default(),
            owed: 0.0,
            waiting: 0,
            limit,
            stopped: false,
        }
    }

    /// How many wait, of these tiers.
    pub fn waiting(&self, tiers: &[Tier]) -> usize {
        let lanes = self.lanes.iter().filter(|lane| tiers.contains(&lane.tier));
        lanes.map(|lane| lane.jobs.len()).sum()
    }

    pub fn push(&mut self, job: Job) -> Result<(), ComputeError> {
        if self.stopped {
            return Err(ComputeError::Stopped);
        }
        if self.refusal(&job.terms.function).is_some() {
            for lane in &mut self.lanes {
                lane.jobs.retain(|job| !job.is_gone());
            }
            self.count();
        }
        if let Some(refusal) = self.refusal(&job.terms.function) {
            return Err(refusal);
        }
        let accounts = self.books.of(job.terms.tier);
        let level = accounts.level;
        let account = accounts.of.entry(job.terms.function.clone());
        let account = account.or_insert(Account {
            used: level,
            typical: FIRST_GUESS,
        });
        account.used = account.used.max(level);
        self.waiting += 1;
        match self.lanes.iter_mut().find(|lane| lane.takes(&job)) {
            Some(lane) => lane.jobs.push_back(job),
            None => self.lanes.push(Lane {
                function: job.terms.function.clone(),
                tier: job.terms.tier,
                model: job.model_id(),
                batching: job.stack.as_ref().map(|(batching, _)| batching.clone()),
                jobs: VecDeque::from([job]),
            }),
        }
        Ok(())
    }

    /// Why one more of this function can't wait.
    fn refusal(&self, function: &FunctionName) -> Option<ComputeError> {
        if self.waiting >= self.limit {
            return Some(ComputeError::Full { limit: self.limit });
        }
        let share = self.limit.div_ceil(FUNCTION_SHARE);
        let lanes = self.lanes.iter().filter(|lane| lane.function == *function);
        let own: usize = lanes.map(|lane| lane.jobs.len()).sum();
        (own >= share && self.waiting > own).then_some(ComputeError::Full { limit: share })
    }

    /// What to run now.
    pub fn next(&mut self, tiers: &[Tier], now: Instant) -> Next {
        self.lanes.iter_mut().for_each(Lane::forget_gone);
        self.count();
        let owed = [Tier::OnDemand];
        let owed = owed.iter().filter(|_| self.owed > 0.0);
        let mut soonest: Option<Instant> = None;
        for tier in owed.chain(tiers) {
            let accounts = self.books.of(*tier);
            let mut first: Option<(f64, Instant, usize)> = None;
            for (at, lane) in self.lanes.iter().enumerate() {
                if lane.tier != *tier || !tiers.contains(tier) {
                    continue;
                }
                let Some(ready) = lane.ready_at() else {
                    continue;
                };
                if ready > now {
                    soonest = Some(soonest.map_or(ready, |soonest| soonest.min(ready)));
                    continue;
                }
                let account = accounts.of.get(&lane.function);
                let used = account.map_or(accounts.level, |account| account.used);
                let queued = lane.jobs.front().map_or(now, |job| job.queued_at);
                if first.is_none_or(|(least, oldest, _)| (used, queued) < (least, oldest)) {
                    first = Some((used, queued, at));
                }
            }
            if let Some((used, _, at)) = first
                && let Some(lane) = self.lanes.get_mut(at)
                && let Some(run) = lane.take()
            {
                accounts.level = accounts.level.max(used);
                if let Some(account) = accounts.of.get_mut(&lane.function) {
                    // Corrected when it is done: another thread that looks meanwhile sees that
                    // this function was served.
                    account.used += account.typical;
                }
                self.count();
                return Next::Run(run);
            }
        }
        soonest.map_or(Next::Idle, Next::At)
    }

    /// Notes what a run took.
    pub fn done(&mut self, function: &FunctionName, tier: Tier, took: Duration) {
        let took = took.as_secs_f64();
        let accounts = self.books.of(tier);
        if let Some(account) = accounts.of.get_mut(function) {
            account.used += took - account.typical;
            account.typical += (took - account.typical) / 8.0;
        }
        match tier {
            Tier::Realtime if self.waiting(&[Tier::OnDemand]) > 0 => {
                self.owed += took * ON_DEMAND_SHARE;
            }
            // What it got while nobody else wanted anything is not held against it.
            Tier::OnDemand => self.owed = (self.owed - took).max(-took),
            _ => {}
        }
        if self.waiting(&[Tier::OnDemand]) == 0 {
            self.owed = 0.0;
        }
        let (accounts, lanes) = (self.books.of(tier), &self.lanes);
        if accounts.of.len() > MANY_ACCOUNTS {
            let level = accounts.level;
            accounts.of.retain(|function, account| {
                account.used > level || lanes.iter().any(|lane| lane.function == *function)
            });
        }
    }

    /// Answers all with `Stopped`, by dropping them.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.lanes.clear();
        self.waiting = 0;
    }

    fn count(&mut self) {
        self.lanes.retain(|lane| !lane.jobs.is_empty());
        self.waiting = self.lanes.iter().map(|lane| lane.jobs.len()).sum();
    }
}
