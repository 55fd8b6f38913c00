//! Who may run: a bounded number of requests is inside, and of these a bounded
//! number has an instance.
//!
//! A request first takes a [`Place`], at once or not at all, so that everything
//! that waits is bounded: for a body, for a cold version, for an instance. Only
//! what is ready to run takes a permit, so a slow cold start holds up nobody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::problem::Failure;

/// Places and permits.
pub struct Admission {
    places: Arc<Semaphore>,
    permits: Semaphore,
    limit: usize,
    max_wait: Duration,
}

/// A request that is inside. Dropping it leaves.
pub struct Place(#[allow(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

impl Admission {
    /// `instances` run at once and `queued` wait, each at most `max_wait`.
    pub fn new(instances: usize, queued: usize, max_wait: Duration) -> Self {
        let limit = instances.saturating_add(queued).min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(limit)),
            permits: Semaphore::new(instances.min(Semaphore::MAX_PERMITS)),
            limit,
            max_wait,
        }
    }

    /// Lets a request in, or refuses it with [`Failure::Busy`].
    pub fn enter(&self) -> Result<Place, Failure> {
        self.places
            .clone()
            .try_acquire_owned()
            .map(Place)
            .map_err(|_| {
                Failure::Busy(format!(
                    "{} requests are running or waiting already",
                    self.limit
                ))
            })
    }

    /// Waits for an instance.
    pub async fn permit(&self, _inside: &Place) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        match tokio::time::timeout(self.max_wait, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Failure::ShuttingDown),
            Err(_) => Err(Failure::Busy(format!(
                "no instance came free within {}",
                humantime::format_duration(self.max_wait)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_than_fits_is_refused_until_somebody_leaves() {
        let admission = Admission::new(1, 1, Duration::from_secs(60));
        let first = admission.enter().unwrap();
        let _second = admission.enter().unwrap();
        assert!(matches!(admission.enter(), Err(Failure::Busy(_))));
        drop(first);
        assert!(admission.enter().is_ok());
    }

    #[tokio::test]
    async fn a_wait_for_an_instance_ends() {
        let admission = Admission::new(1, 1, Duration::from_millis(50));
        let (first, second) = (admission.enter().unwrap(), admission.enter().unwrap());
        let permit = admission.permit(&first).await.unwrap();
        assert!(matches!(
            admission.permit(&second).await,
            Err(Failure::Busy(_))
        ));
        drop(permit);
        assert!(admission.permit(&second).await.is_ok());
    }
}
