//! Instances that are made before they are asked for.
//!
//! ```text
//! call ─ takes the spare, or makes an instance ─▶ answer ┈┈▶ behind it: the used instance goes, and
//!                                                            a new spare is made of the same component
//! ```
//! A caller waits neither for the last instance to go nor for the next one to come. A spare has
//! seen no request, and answers one like any other instance. Spares have slots of the pool beside
//! those of calls; where all of these are taken, the spare that has waited longest goes, if it has
//! waited for a while: components that are called all the time don't take them from each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Limits;
use crate::reuse::Kept;

/// How long a spare has waited that makes room for another.
const LONG: Duration = Duration::from_secs(1);

/// The spares of all components.
pub(crate) struct Spares {
    pub(crate) slots: Arc<Semaphore>,
    /// As many calls of one component as run at once on this machine find one.
    most_each: usize,
    components: AtomicU64,
    /// The one that has waited longest first.
    made: Mutex<VecDeque<(u64, Spare)>>,
}

/// An instance that has not been asked anything.
pub(crate) struct Spare {
    pub(crate) instance: Kept,
    /// What it was made with.
    pub(crate) limits: Limits,
    /// Processor time that making it took; its call has it on its account.
    pub(crate) cpu: Duration,
    /// One of the slots that are for spares.
    pub(crate) _slot: OwnedSemaphorePermit,
    /// When it was made.
    pub(crate) since: Instant,
}

impl Spares {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(most as usize)),
            most_each: std::thread::available_parallelism().map_or(1, usize::from),
            components: AtomicU64::default(),
            made: Mutex::default(),
        })
    }

    fn made(&self) -> MutexGuard<'_, VecDeque<(u64, Spare)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spares of one component, which go when it goes.
pub(crate) struct SparesOf {
    component: u64,
    all: Arc<Spares>,
}

impl SparesOf {
    pub(crate) fn new(all: Arc<Spares>) -> Self {
        let component = all.components.fetch_add(1, Relaxed);
        Self { component, all }
    }

    /// A spare that was made with as much memory; others of this component are of no use.
    pub(crate) fn take(&self, limits: &Limits) -> Option<Spare> {
        let mut made = self.all.made();
        let at = made.iter().rposition(|one| self.owns(one))?;
        let (_, spare) = made.remove(at)?;
        drop(made);
        let alike = |made: &Limits| (made.memory, made.tensors) == (limits.memory, limits.tensors);
        alike(&spare.limits).then_some(spare)
    }

    /// Whether one more would be of use.
    pub(crate) fn wanted(&self) -> bool {
        let made = self.all.made();
        made.iter().filter(|one| self.owns(one)).count() < self.all.most_each
    }

    fn owns(&self, (component, _): &(u64, Spare)) -> bool {
        *component == self.component
    }

    /// A slot beside those of calls.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = &self.all.slots;
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return Some(slot);
        }
        let mut made = self.all.made();
        let (_, oldest) = made.front()?;
        let gone = (oldest.since.elapsed() > LONG).then(|| made.pop_front());
        drop(made);
        drop(gone);
        slots.clone().try_acquire_owned().ok()
    }

    pub(crate) fn put(&self, spare: Spare) {
        self.all.made().push_back((self.component, spare));
    }
}

impl Drop for SparesOf {
    fn drop(&mut self) {
        self.all.made().retain(|one| !self.owns(one));
    }
}
