//! Who may run: a bounded number of requests is inside, and of these a bounded number has an
//! instance.
//!
//! ```text
//!            Place: at once or not at all           Permit: in turn
//! request ──▶ inside: reads its body, loads ──▶ waits ──▶ has an instance ──▶ gone
//!       429, 503 + Retry-After                    504, 503
//! ```
//! A request first takes a [`Place`], so that everything that waits is bounded: for a body, for a
//! cold version, for an instance. Only what is ready to run asks for a [`Permit`], so a slow cold
//! start holds up nobody else.
//!
//! `floor` decides. The realtime tier has reserved places and instances, on-demand shares the rest,
//! batch gets half of that at most and comes last, so that the lowest tier is the first to be
//! refused when places run out. Within a tier, functions take turns, and none can have all.

mod floor;
mod pace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebox_registry::{FunctionName, Tier};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::metrics::{AdmissionMetrics, Metrics};
use crate::problem::Failure;
pub use floor::{ByTier, Claim, TIERS};
use floor::{Floor, Reason, Refusal, Room};

type Reply = oneshot::Sender<Result<Permit, Refusal>>;

/// Places and permits. Cloning gives another handle.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    floor: Mutex<Floor<Reply>>,
    room: Room,
    realtime_wait: Duration,
    metrics: AdmissionMetrics,
}

/// A request that is inside. Dropping it leaves.
pub struct Place {
    admission: Admission,
    function: FunctionName,
}

/// A request that has an instance. Dropping it gives the instance to the next.
pub struct Permit {
    admission: Admission,
    function: FunctionName,
    tier: Tier,
    since: Instant,
}

/// A wait for a permit. Dropping it gives the turn to those behind.
struct Wait<'a> {
    admission: &'a Admission,
    claim: &'a Claim,
    number: u64,
}

impl Admission {
    /// Nobody is inside.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let (instances, queue) = (config.max_instances, config.max_queued);
        let room = Room::new(instances, queue, config.realtime_share);
        Self(Arc::new(Inner {
            floor: Mutex::new(Floor::new(room)),
            room,
            realtime_wait: config.realtime_wait,
            metrics: metrics.admission(),
        }))
    }

    /// Lets a request in, or refuses it with [`Failure::Throttled`] or [`Failure::Overloaded`].
    pub fn enter(&self, claim: &Claim) -> Result<Place, Failure> {
        let entered = self.floor().enter(claim, Instant::now());
        entered.map_err(|refusal| self.refuse(claim, refusal))?;
        Ok(Place {
            admission: self.clone(),
            function: claim.function.clone(),
        })
    }

    /// Waits for an instance, at most until the deadline; a realtime request at most as long as is
    /// set for them.
    pub async fn permit(&self, _inside: &Place, claim: &Claim) -> Result<Permit, Failure> {
        let (reply, granted) = oneshot::channel();
        let asked = self.floor().ask(claim, reply, Instant::now());
        let number = match asked.map_err(|refusal| self.refuse(claim, refusal))? {
            None => return Ok(self.granted(claim.function.clone(), claim.tier)),
            Some(number) => number,
        };
        // It may be its turn already: those before it may be held up by limits of their own.
        self.advance();
        let _wait = Wait {
            admission: self,
            claim,
            number,
        };
        let answer = match claim.tier {
            Tier::Realtime => match tokio::time::timeout(self.0.realtime_wait, granted).await {
                Ok(answer) => answer,
                Err(_) => Ok(Err(Refusal {
                    reason: Reason::Waited,
                    retry_after: self.0.realtime_wait,
                })),
            },
            Tier::OnDemand | Tier::Batch => granted.await,
        };
        match answer {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(refusal)) => Err(self.refuse(claim, refusal)),
            Err(_) => Err(Failure::ShuttingDown),
        }
    }

    fn floor(&self) -> MutexGuard<'_, Floor<Reply>> {
        self.0.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn granted(&self, function: FunctionName, tier: Tier) -> Permit {
        self.0.metrics.running(tier).increment(1.0);
        Permit {
            admission: self.clone(),
            function,
            tier,
            since: Instant::now(),
        }
    }

    /// Tells those whose turn it is.
    fn advance(&self) {
        loop {
            let turn = self.floor().next(Instant::now());
            let Some(turn) = turn else {
                return self.observe();
            };
            let said = turn
                .outcome
                .map(|()| self.granted(turn.function, turn.tier));
            // One that has gone meanwhile lets its permit fall, outside of the lock.
            drop(turn.who.send(said));
        }
    }

    fn observe(&self) {
        let waiting = self.floor().waiting();
        for tier in TIERS {
            self.0.metrics.waiting(tier).set(*waiting.get(tier) as f64);
        }
    }

    fn refuse(&self, claim: &Claim, refusal: Refusal) -> Failure {
        let Refusal {
            reason,
            retry_after,
        } = refusal;
        let (name, function) = (tier_name(claim.tier), &claim.function);
        self.0
            .metrics
            .refused(claim.tier, reason.name())
            .increment(1);
        match reason {
            Reason::Function => Failure::Throttled {
                reason: format!(
                    "function `{function}` has its share of the {} requests that are let in at once",
                    self.0.room.places
                ),
                retry_after,
            },
            Reason::Full => Failure::Overloaded {
                reason: format!(
                    "the server has as many requests of tier {name} as it lets in, of {} places in all",
                    self.0.room.places
                ),
                retry_after,
            },
            Reason::Deadline => Failure::Overloaded {
                reason: format!(
                    "no instance of `{function}` would come free in time for an answer before the \
                     deadline"
                ),
                retry_after,
            },
            Reason::Waited => Failure::Overloaded {
                reason: format!(
                    "no instance came free within {}, which is the longest that tier {name} waits",
                    humantime::format_duration(self.0.realtime_wait)
                ),
                retry_after,
            },
        }
    }
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Full => "full",
            Self::Deadline => "deadline",
            Self::Waited => "waited",
        }
    }
}

/// A tier's name, as manifests have it.
pub fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Realtime => "realtime",
        Tier::OnDemand => "on-demand",
        Tier::Batch => "batch",
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.floor().leave(&self.function);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        self.admission.0.metrics.running(self.tier).decrement(1.0);
        let waits = {
            let mut floor = self.admission.floor();
            floor.done(&self.function, self.tier, held);
            floor.anybody_waits()
        };
        if waits {
            self.admission.advance();
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Claim { function, tier, .. } = self.claim;
        let withdrawn = {
            let mut floor = self.admission.floor();
            floor.withdraw(function, *tier, self.number)
        };
        // One whose turn has come was told by who gave it, who looked at those behind too.
        if withdrawn {
            self.admission.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(function: &str, tier: Tier) -> Claim {
        Claim {
            function: function.parse().unwrap(),
            tier,
            concurrency: None,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    fn admission(set: impl FnOnce(&mut Config)) -> Admission {
        let mut config = Config::new("data");
        (config.max_instances, config.realtime_share) = (1, 0);
        set(&mut config);
        Admission::new(&config, &Metrics::new())
    }

    #[tokio::test]
    async fn one_more_than_fits_is_refused_until_somebody_leaves() {
        let admission = admission(|config| config.max_queued = 1);
        let (a, b) = (claim("a", Tier::OnDemand), claim("b", Tier::OnDemand));
        let first = admission.enter(&a).unwrap();
        let _second = admission.enter(&b).unwrap();
        let refused = admission.enter(&claim("c", Tier::OnDemand)).err().unwrap();
        assert!(matches!(refused, Failure::Overloaded { .. }), "{refused}");
        drop(first);
        assert!(admission.enter(&a).is_ok());
    }

    #[tokio::test]
    async fn a_permit_goes_to_the_next_even_where_one_gave_up() {
        let admission = admission(|config| config.max_queued = 8);
        let ask = claim("a", Tier::OnDemand);
        let place = admission.enter(&ask).unwrap();
        let held = admission.permit(&place, &ask).await.unwrap();
        let waiting = |admission: Admission| async move {
            let ask = claim("a", Tier::OnDemand);
            let place = admission.enter(&ask).unwrap();
            admission.permit(&place, &ask).await.map(drop)
        };
        let gone = tokio::spawn(waiting(admission.clone()));
        let last = tokio::spawn(waiting(admission.clone()));
        while admission.floor().waiting().get(Tier::OnDemand) < &2 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        let _ = gone.await;
        assert_eq!(*admission.floor().waiting().get(Tier::OnDemand), 1);
        drop(held);
        last.await.unwrap().unwrap();
        assert_eq!(*admission.floor().running().get(Tier::OnDemand), 0);
    }

    #[tokio::test]
    async fn a_realtime_request_waits_only_as_long_as_is_set() {
        let admission = admission(|config| config.realtime_wait = Duration::from_millis(20));
        let ask = claim("a", Tier::Realtime);
        let place = admission.enter(&ask).unwrap();
        let held = admission.permit(&place, &ask).await.unwrap();
        let refused = admission.permit(&place, &ask).await.err().unwrap();
        assert!(refused.to_string().contains("within 20ms"), "{refused}");
        drop(held);
        assert!(admission.permit(&place, &ask).await.is_ok());
    }

    #[tokio::test]
    async fn a_permit_that_comes_too_late_to_be_taken_is_not_lost() {
        let admission = admission(|_| {});
        let ask = claim("a", Tier::OnDemand);
        let place = admission.enter(&ask).unwrap();
        let held = admission.permit(&place, &ask).await.unwrap();
        {
            let mut wait = Box::pin(admission.permit(&place, &ask));
            assert!(futures::poll!(wait.as_mut()).is_pending());
            drop(held);
            // Granted, and dropped before it is looked at.
        }
        assert!(admission.permit(&place, &ask).await.is_ok());
    }
}
