//! The way of a request behind its protocol: resolve ▸ admit ▸ kept answer, or run ▸ record.
//!
//! [`Gateway::open`] resolves the version and lets the request in; the protocol
//! then reads and decodes the body, calls [`Gateway::run`], encodes the answer,
//! all [`within`](Call::within) the call's deadline; and [`Call::close`] records
//! how it went. A call that is dropped instead, because its caller hung up, is
//! recorded as cancelled, and everything that it waited for is withdrawn.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use firebox_sandbox::{Limits, Parameter};
use uuid::Uuid;

use call::{COST, Clocks, Ran};

use crate::admission::{Admission, Claim, Permit};
use crate::cache::{Directives, ResponseCache};
use crate::config::Config;
use crate::cost::{Meter, Prices};
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::residency::{Cause, Lease, Residency};
use crate::routing::{Caller, Routing, Selector, Version, resolve};
use crate::scheduler::{Named, Scheduler};
use crate::shadow::Shadow;

mod call;
mod handler;
mod models;

pub use call::{Call, Early};
pub use handler::drop_one_hop;
pub use models::{CallModels, ask, invoke_failure};

/// What a function is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The caller's id, or none for the prediction id.
    pub id: Option<String>,
    /// Named tensors.
    pub inputs: Named,
    /// Named values beside them.
    pub parameters: Vec<(String, Parameter)>,
}

/// What it answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Named tensors.
    pub outputs: Named,
    /// Named values beside them.
    pub parameters: Vec<(String, Parameter)>,
}

/// Runs calls.
pub struct Gateway {
    routing: Arc<Routing>,
    residency: Residency,
    scheduler: Arc<Scheduler>,
    admission: Admission,
    cache: ResponseCache,
    shadow: Shadow,
    metrics: Arc<Metrics>,
    prices: Arc<Prices>,
    caps: InstanceCaps,
}

/// The most that an instance is given, whatever its manifest says.
#[derive(Clone, Copy, Debug)]
pub struct InstanceCaps {
    memory: usize,
    tensors: usize,
}

impl InstanceCaps {
    /// As they are set up.
    pub fn new(config: &Config) -> Self {
        Self {
            memory: config.max_instance_memory,
            tensors: config.max_instance_tensors,
        }
    }

    /// What an instance of this manifest is given, with this much time left.
    pub fn limits(self, manifest: &firebox_registry::Limits, deadline: Duration) -> Limits {
        let bytes =
            |size: firebox_registry::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        Limits {
            memory: bytes(manifest.memory).min(self.memory),
            tensors: bytes(manifest.tensors).min(self.tensors),
            cpu: manifest.cpu,
            deadline,
        }
    }
}

/// What came of opening a call.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are calls, which are moved once more"
)]
pub enum Opened {
    /// It can run.
    Call(Call),
    /// Its body is needed first.
    Early(Early),
}

/// What is known of who asks.
pub struct Asker<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Its body, where it was read early.
    pub body: Option<&'a [u8]>,
}

impl Gateway {
    /// Wires the parts together.
    pub fn new(
        config: &Config,
        routing: Arc<Routing>,
        residency: Residency,
        scheduler: Arc<Scheduler>,
        cache: ResponseCache,
        shadow: Shadow,
        metrics: Metrics,
    ) -> Self {
        let admission = Admission::new(config, &metrics);
        let caps = InstanceCaps::new(config);
        let prices = Arc::new(config.prices.clone());
        Self {
            routing,
            residency,
            scheduler,
            admission,
            cache,
            shadow,
            metrics: Arc::new(metrics),
            prices,
            caps,
        }
    }

    /// Resolves the version and lets the request in. `timeout` can only shorten
    /// the deadline of the version's manifest. Where the body must be read to say
    /// which version answers, the request is let in [early](Early), and opened
    /// again with its body.
    pub fn open(
        &self,
        function: &str,
        selector: &Selector,
        asker: &Asker<'_>,
        timeout: Option<Duration>,
        early: Option<Early>,
    ) -> Result<Opened, Failure> {
        let table = self.routing.table();
        let (name, route) = table.route(function)?;
        if early.is_none() && route.reads_body(selector) {
            let versions = route.versions.values();
            let limit = versions.map(|v| v.record.manifest.limits.deadline).max();
            let limit = limit.unwrap_or_default();
            let limit = timeout.map_or(limit, |timeout| timeout.min(limit));
            let started = Instant::now();
            let claim = Claim {
                function: name.clone(),
                tier: route.most_urgent_tier(),
                concurrency: None,
                deadline: started + limit,
            };
            return Ok(Opened::Early(Early {
                started,
                limit,
                place: self.admission.enter(&claim)?,
            }));
        }
        let id = Uuid::now_v7();
        let caller = Caller {
            id,
            headers: asker.headers,
            body: asker.body,
        };
        let version = resolve(name, route, selector, &caller)?;
        let by_policy = *selector == Selector::Split;
        let shadow = match by_policy {
            true => route.shadow(id, &version),
            false => None,
        };
        let shadow = shadow.map(|version| (version, self.shadow.clone()));
        let deadline = version.record.manifest.limits.deadline;
        let limit = timeout.map_or(deadline, |timeout| timeout.min(deadline));
        let started = early
            .as_ref()
            .map_or_else(Instant::now, |early| early.started);
        let place = match early {
            Some(early) => early.place,
            None => self.admission.enter(&claim_of(&version, started + limit))?,
        };
        self.metrics.in_flight.increment(1.0);
        let (metrics, clocks) = (self.metrics.clone(), Clocks::default());
        Ok(Opened::Call(Call {
            version,
            id,
            started,
            limit,
            place,
            metrics,
            clocks,
            meter: Meter::default(),
            prices: asker.headers.get(COST).map(|_| self.prices.clone()),
            recorded: false,
            answered: None,
            by_policy,
            directives: Directives::of(asker.headers),
            served: OnceLock::new(),
            shadow,
            copied: OnceLock::new(),
            ran: OnceLock::new(),
        }))
    }

    /// Answers one call: by what is kept, where the version keeps answers; else it is computed.
    pub async fn run(&self, call: &Call, question: Question) -> Result<Answer, Failure> {
        call.version.check(&question.inputs)?;
        let rows = call.version.rows(&question.inputs);
        let began = call.started.elapsed();
        let answer = self.kept_or_computed(call, question).await?;
        let ended = call.started.elapsed();
        let _ = call.ran.set(Ran { rows, began, ended });
        Ok(answer)
    }

    async fn kept_or_computed(&self, call: &Call, question: Question) -> Result<Answer, Failure> {
        let key = ResponseCache::key(&call.version, &question);
        // In place: it is large, and what takes it would have room for two.
        let computed = pin!(self.compute(call, question));
        let Some(key) = key else {
            return computed.await;
        };
        let answer = self.cache.answer(key, &call.directives, computed).await;
        let (answer, served) = answer?;
        let _ = call.served.set(served);
        Ok(answer)
    }

    /// Loads the version if need be, and waits for an instance.
    async fn ready(&self, call: &Call) -> Result<(Lease, Permit), Failure> {
        let lease = match self.residency.resident(&call.version) {
            Some(lease) => lease,
            None => {
                let asked = Instant::now();
                let (version, patience) = (&call.version, call.remaining());
                let loading = self
                    .residency
                    .warm_within(version, patience, Cause::Request);
                let lease = loading.await?;
                call.clocks.cold.add(asked.elapsed());
                lease
            }
        };
        let asked = Instant::now();
        let claim = claim_of(&call.version, call.started + call.limit);
        let permit = self.admission.permit(&call.place, &claim).await?;
        call.clocks.queue.add(asked.elapsed());
        Ok((lease, permit))
    }

    /// Runs one call of a version that takes tensors.
    async fn compute(&self, call: &Call, question: Question) -> Result<Answer, Failure> {
        let (lease, _permit) = self.ready(call).await?;
        // Tensors share their bytes: a copy costs next to nothing.
        let copy = call.shadow.as_ref().map(|_| question.clone());
        let terms = call.version.terms.clone();
        let models = CallModels::new(lease.warm.clone(), self.scheduler.clone(), terms);
        let models = Arc::new(models.metered(&call.meter));
        let manifest = &call.version.record.manifest;
        let limits = self.caps.limits(&manifest.limits, call.remaining());
        let function = manifest.function.as_ref();
        let reuse = function.is_some_and(|function| function.reuse);
        let refusal = |error| call.refusal(error);
        let asked = models
            .clone()
            .ask(question, limits, reuse, &call.id, refusal);
        let answer = asked.await;
        call.clocks.queue.add(models.queued.get());
        call.clocks.compute.add(models.computed.get());
        call.clocks.guest.add(models.guest.get());
        let answer = answer?;
        if let Some(question) = copy {
            let _ = call.copied.set((question, answer.outputs.clone()));
        }
        Ok(answer)
    }
}

/// How a call of a version asks to be let in.
fn claim_of(version: &Version, deadline: Instant) -> Claim {
    let manifest = &version.record.manifest;
    let concurrency = manifest.limits.concurrency;
    Claim {
        function: version.record.function.clone(),
        tier: manifest.tier,
        concurrency: concurrency.map(|most| most.get() as usize),
        deadline,
    }
}
