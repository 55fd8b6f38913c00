//! Instances that have answered and may answer again, with what they keep in memory.
//!
//! Only a call that asks for it ([`Context::reuse`](crate::Context::reuse)) takes one or leaves
//! one. They belong to one linked [`Component`](crate::Component), so what they keep never gets from
//! one version to another, and go when it goes. All components together keep a bounded number.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;

use crate::bindings::Function;
use crate::state::State;

/// An instance between two calls.
pub(crate) struct Kept {
    pub(crate) store: Store<State>,
    pub(crate) function: Function,
}

/// The kept instances of one component; the last that came goes first, as its memory is still in
/// the processor's caches.
#[derive(Clone)]
pub(crate) struct Idle {
    room: Arc<Semaphore>,
    kept: Arc<Mutex<Vec<(Kept, OwnedSemaphorePermit)>>>,
}

impl Idle {
    /// `room` is shared by all components.
    pub(crate) fn new(room: Arc<Semaphore>) -> Self {
        Self {
            room,
            kept: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().map(|(instance, _)| instance)
    }

    /// Keeps an instance, or drops it where there is no room.
    pub(crate) fn put(&self, instance: Kept) {
        if let Ok(permit) = self.room.clone().try_acquire_owned() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push((instance, permit));
        }
    }
}
