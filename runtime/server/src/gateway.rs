//! The way of a request behind its protocol: resolve ▸ admit ▸ kept answer, or run ▸ record.
//!
//! [`Gateway::open`] resolves the version and lets the request in; the protocol
//! then reads and decodes the body, calls [`Gateway::run`], encodes the answer,
//! all [`within`](Call::within) the call's deadline; and [`Call::close`] records
//! how it went. A call that is dropped instead, because its caller hung up, is
//! recorded as cancelled, and everything that it waited for is withdrawn.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response as HttpResponse;
use firebox_engine::{RunError, Signature};
use firebox_sandbox::{
    Context, ErrorCode, InvokeError, Limits, ModelError, Models, Parameter, Request, Response,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::admission::{Admission, Claim, Place};
use crate::cache::{Directives, ResponseCache, Served};
use crate::config::Config;
use crate::cost::{Meter, Prices};
use crate::metrics::{Clock, Metrics, Spent};
use crate::problem::{Failure, Shed};
use crate::residency::{Cause, Code, Lease, Loaded, Residency, Warm};
use crate::rollout::window::Outcome;
use crate::routing::{Caller, Routing, Selector, Version, resolve};
use crate::scheduler::{ComputeError, Named, Scheduler, Terms};
use crate::shadow::{Copied, Shadow};

const VERSION: HeaderName = HeaderName::from_static("x-firebox-version");
const PREDICTION_ID: HeaderName = HeaderName::from_static("x-firebox-prediction-id");
const COST: HeaderName = HeaderName::from_static("x-firebox-cost");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

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
    metrics: Metrics,
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

/// One request that was let in.
pub struct Call {
    /// The version that answers.
    pub version: Arc<Version>,
    /// The prediction id.
    pub id: Uuid,
    started: Instant,
    limit: Duration,
    place: Place,
    metrics: Metrics,
    clocks: Clocks,
    meter: Meter,
    /// Given where the caller wants to know what the call costs.
    prices: Option<Arc<Prices>>,
    recorded: bool,
    /// Whether the traffic policy chose the version: what callers chose themselves tells nothing
    /// about how versions compare.
    by_policy: bool,
    /// What its caller asks of the cache, and what came of it.
    directives: Directives,
    served: OnceLock<Served>,
    /// Who is asked as well, the way there, and what.
    shadow: Option<(Arc<Version>, Shadow)>,
    copied: OnceLock<(Question, Named)>,
}

/// A request that was let in before its version is known.
pub struct Early {
    started: Instant,
    limit: Duration,
    place: Place,
}

impl Early {
    /// Runs `work`, at most as long as the request may take.
    pub async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = tokio::time::timeout(self.limit, work).await;
        outcome.unwrap_or(Err(Failure::Deadline { limit: self.limit }))
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

#[derive(Default)]
struct Clocks {
    queue: Clock,
    cold: Clock,
    guest: Clock,
    compute: Clock,
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
            metrics,
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
            by_policy,
            directives: Directives::of(asker.headers),
            served: OnceLock::new(),
            shadow,
            copied: OnceLock::new(),
        }))
    }

    /// Answers one call: by what is kept, where the version keeps answers; else it is computed.
    pub async fn run(&self, call: &Call, question: Question) -> Result<Answer, Failure> {
        call.version.check(&question.inputs)?;
        let Some(key) = ResponseCache::key(&call.version, &question) else {
            return self.compute(call, question).await;
        };
        let computed = self.compute(call, question);
        let answer = self.cache.answer(key, &call.directives, computed).await;
        let (answer, served) = answer?;
        let _ = call.served.set(served);
        Ok(answer)
    }

    /// Loads the version if need be, waits for an instance, runs.
    async fn compute(&self, call: &Call, question: Question) -> Result<Answer, Failure> {
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
        let _permit = self.admission.permit(&call.place, &claim).await?;
        call.clocks.queue.add(asked.elapsed());
        // Tensors share their bytes: a copy costs next to nothing.
        let copy = call.shadow.as_ref().map(|_| question.clone());
        let answer = match &lease.warm.code {
            Some(code) => self.run_component(call, code, &lease, question).await,
            None => self.run_model(call, &lease, question).await,
        }?;
        if let Some(question) = copy {
            let _ = call.copied.set((question, answer.outputs.clone()));
        }
        Ok(answer)
    }

    async fn run_model(
        &self,
        call: &Call,
        lease: &Lease,
        question: Question,
    ) -> Result<Answer, Failure> {
        let Some((name, model)) = lease.warm.models.iter().next() else {
            return Err(Failure::Internal(
                "the version has neither code nor a model".into(),
            ));
        };
        let computed = self
            .scheduler
            .run(&call.version.terms, name, model.clone(), question.inputs)
            .await?;
        call.clocks.queue.add(computed.queued);
        call.clocks.compute.add(computed.compute);
        call.meter.computed(&computed);
        Ok(Answer {
            outputs: computed.outputs,
            parameters: vec![],
        })
    }

    async fn run_component(
        &self,
        call: &Call,
        code: &Code,
        lease: &Lease,
        question: Question,
    ) -> Result<Answer, Failure> {
        let terms = call.version.terms.clone();
        let models = CallModels::new(lease.warm.clone(), self.scheduler.clone(), terms);
        let models = Arc::new(models.metered(&call.meter));
        let manifest = &call.version.record.manifest;
        let limits = self.caps.limits(&manifest.limits, call.remaining());
        let reuse = manifest
            .function
            .as_ref()
            .is_some_and(|function| function.reuse);
        let request = Request {
            id: question.id.unwrap_or_else(|| call.id.to_string()),
            inputs: question.inputs,
            parameters: question.parameters,
        };
        let result = models.clone().invoke(code, limits, reuse, request).await;
        call.clocks.queue.add(models.queued.get());
        call.clocks.compute.add(models.computed.get());
        match result {
            Ok(response) => {
                call.clocks.guest.add(response.usage.guest);
                Ok(Answer {
                    outputs: response.outputs,
                    parameters: response.parameters,
                })
            }
            Err(error) => Err(call.refusal(error)),
        }
    }
}

impl Call {
    /// Runs `work`, at most until the deadline.
    pub async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        // A little longer than the sandbox, which can say more about what ran.
        let limit = self.remaining() + Duration::from_millis(5);
        let outcome = tokio::time::timeout(limit, work).await;
        outcome.unwrap_or(Err(Failure::Deadline { limit: self.limit }))
    }

    /// Records the answer and marks it with version, prediction id and timing.
    pub fn close(mut self, mut response: HttpResponse) -> HttpResponse {
        let spent = self.spent();
        self.version
            .metrics(&self.metrics)
            .record(Some(response.status()), &spent);
        self.recorded = true;
        if response.extensions().get::<Shed>().is_none()
            && let Some(outcome) = outcome(response.status())
        {
            self.observe(outcome, &spent);
        }
        let succeeded = response.status().is_success();
        self.version.account.charge(&self.meter, succeeded);
        let served = self.served.get().copied();
        let headers = response.headers_mut();
        if let (Some(served), Some(cache), true) = (served, &self.version.cache, succeeded) {
            served.tell(cache, &self.directives, headers);
        }
        if let Some(cost) = self.prices.as_deref().map(|prices| self.meter.cost(prices))
            && let Ok(cost) = HeaderValue::from_str(&cost)
        {
            headers.insert(COST, cost);
        }
        headers.insert(VERSION, self.version.record.number.get().into());
        let mut buffer = Uuid::encode_buffer();
        let id = self.id.hyphenated().encode_lower(&mut buffer);
        for (name, text) in [
            (PREDICTION_ID, &*id),
            (SERVER_TIMING, &server_timing(&spent, &self.meter, served)),
        ] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        match (self.shadow.take(), self.copied.take()) {
            (Some((shadow, way)), Some((question, outputs))) if succeeded => {
                let copied = Copied {
                    primary: self.version.clone(),
                    shadow,
                    question,
                    outputs,
                    took: spent.total,
                };
                way.after(response, copied)
            }
            _ => response,
        }
    }

    /// Tells whoever watches the version how the call went. An answer that was kept tells nothing:
    /// it is as quick as the cache and never fails, so a version would look the better the more its
    /// callers repeat themselves, and a new one, whose cache is empty, the worse.
    fn observe(&self, outcome: Outcome, spent: &Spent) {
        let kept = matches!(self.served.get(), Some(Served::Hit { .. }));
        if self.by_policy && !kept {
            let now = self.started + spent.total;
            self.version.observe(now, outcome, spent.total);
        }
    }

    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn spent(&self) -> Spent {
        Spent {
            queue: self.clocks.queue.get(),
            cold: self.clocks.cold.get(),
            guest: self.clocks.guest.get(),
            compute: self.clocks.compute.get(),
            total: self.started.elapsed(),
        }
    }

    /// What the caller is told; the owner finds the rest in the log.
    fn refusal(&self, error: InvokeError) -> Failure {
        if let InvokeError::Trap {
            message,
            stderr,
            backtrace,
        } = &error
        {
            tracing::error!(prediction_id = %self.id, function = %self.version.record.function,
                version = self.version.record.number.get(), message, stderr, backtrace,
                "the function trapped");
            return Failure::Trap(format!("the function stopped: {message}"));
        }
        if let InvokeError::Host(reason) = &error {
            tracing::error!(prediction_id = %self.id, reason, "the host failed to run a function");
        }
        invoke_failure(error, self.limit)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.in_flight.decrement(1.0);
        if !self.recorded {
            let spent = self.spent();
            self.version.metrics(&self.metrics).record(None, &spent);
            self.version.account.charge(&self.meter, false);
            self.observe(Outcome::Cancelled, &spent);
        }
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

/// How an answer counts for guards; 429 says nothing about the version.
fn outcome(status: StatusCode) -> Option<Outcome> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => None,
        status if status.is_server_error() => Some(Outcome::Failed),
        status if status.is_client_error() => Some(Outcome::Rejected),
        _ => Some(Outcome::Answered),
    }
}

/// Milliseconds, as the Server Timing specification has them.
fn server_timing(spent: &Spent, meter: &Meter, served: Option<Served>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let cache = served.map_or(String::new(), |served| {
        format!("cache;desc={}, ", served.name())
    });
    format!(
        "{cache}queue;dur={:.3}, cold;dur={:.3}, guest;dur={:.3}, compute;dur={:.3}, cpu;dur={:.3}",
        ms(spent.queue),
        ms(spent.cold),
        ms(spent.guest),
        ms(spent.compute),
        ms(meter.cpu())
    )
}

/// Asks a loaded version aside from the way of a request: nobody waits at a connection for the
/// answer, and no place is taken. Its models run on `terms`; `id` names the answer in logs.
pub async fn ask(
    version: &Version,
    terms: &Arc<Terms>,
    warm: &Arc<Warm>,
    scheduler: &Arc<Scheduler>,
    question: Question,
    limits: Limits,
    id: Uuid,
) -> Result<Answer, Failure> {
    version.check(&question.inputs)?;
    if let Some(code) = &warm.code {
        // What it uses is its version's cost, as that of any call.
        let meter = version.account.meter();
        let models = CallModels::new(warm.clone(), scheduler.clone(), terms.clone());
        let models = models.metered(&meter);
        let deadline = limits.deadline;
        let request = Request {
            id: question.id.unwrap_or_else(|| id.to_string()),
            inputs: question.inputs,
            parameters: question.parameters,
        };
        // It must not change what the version's callers find in an instance that is kept.
        let response = Arc::new(models).invoke(code, limits, false, request).await;
        let response = response.map_err(|error| {
            tracing::debug!(prediction_id = %id, ?error, "a call aside from callers failed");
            invoke_failure(error, deadline)
        })?;
        return Ok(Answer {
            outputs: response.outputs,
            parameters: response.parameters,
        });
    }
    let model = warm.models.iter().next();
    let missing = || Failure::Internal("the version has no model".into());
    let (name, model) = model.ok_or_else(missing)?;
    let run = scheduler.run(terms, name, model.clone(), question.inputs);
    Ok(Answer {
        outputs: run.await?.outputs,
        parameters: vec![],
    })
}

/// A function's failure as a request's; `limit` is the deadline that it had.
pub fn invoke_failure(error: InvokeError, limit: Duration) -> Failure {
    match error {
        InvokeError::Guest(error) => match error.code {
            ErrorCode::InvalidInput => Failure::GuestInvalidInput(error.message),
            ErrorCode::Unavailable => Failure::GuestUnavailable(error.message),
            ErrorCode::Internal => Failure::GuestInternal(error.message),
        },
        InvokeError::Deadline { .. } => Failure::Deadline { limit },
        InvokeError::Memory { limit } => Failure::Memory { limit },
        InvokeError::Cpu { limit } => Failure::Cpu { limit },
        InvokeError::Busy { .. } => Failure::Busy(error.to_string()),
        InvokeError::Trap { .. } => Failure::Trap(error.to_string()),
        InvokeError::Host(_) => Failure::Internal("the host failed to run the function".into()),
    }
}

impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Full { .. } => Self::Busy(error.to_string()),
            ComputeError::Run(RunError::Input(error)) => Self::WrongTensor(error.to_string()),
            ComputeError::Run(_) | ComputeError::Panic(_) => Self::Model(error.to_string()),
            ComputeError::Stopped => Self::ShuttingDown,
        }
    }
}

/// The models of one call: runs them on the scheduler and adds up the time.
pub struct CallModels {
    warm: Arc<Warm>,
    scheduler: Arc<Scheduler>,
    terms: Arc<Terms>,
    queued: Clock,
    computed: Clock,
    meter: Meter,
}

impl CallModels {
    /// For one call of a loaded version.
    pub fn new(warm: Arc<Warm>, scheduler: Arc<Scheduler>, terms: Arc<Terms>) -> Self {
        Self {
            warm,
            scheduler,
            terms,
            queued: Clock::default(),
            computed: Clock::default(),
            meter: Meter::default(),
        }
    }

    /// What is used from now on is counted by `meter`.
    pub fn metered(self, meter: &Meter) -> Self {
        Self {
            meter: meter.clone(),
            ..self
        }
    }

    /// Runs a component in an instance of its own, or with `reuse` in one that has answered before;
    /// it uses these models.
    pub async fn invoke(
        self: Arc<Self>,
        code: &Code,
        limits: Limits,
        reuse: bool,
        request: Request,
    ) -> Result<Response, InvokeError> {
        let context = Context {
            limits,
            cpu: self.meter.guest.clone(),
            models: self,
            assets: code.assets.clone(),
            network: code.network.clone(),
            reuse,
        };
        code.component.invoke(request, context).await
    }

    fn find(&self, name: &str) -> Result<&Arc<Loaded>, ModelError> {
        self.warm
            .models
            .get(name)
            .ok_or_else(|| ModelError::NotFound {
                name: name.to_owned(),
                known: self.warm.models.keys().cloned().collect(),
            })
    }
}

impl Models for CallModels {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        std::future::ready(self.find(name).map(|model| model.signature.clone())).boxed()
    }

    fn run<'a>(&'a self, name: &'a str, inputs: Named) -> BoxFuture<'a, Result<Named, ModelError>> {
        let run = async move {
            let model = self.find(name)?.clone();
            match self.scheduler.run(&self.terms, name, model, inputs).await {
                Ok(computed) => {
                    self.queued.add(computed.queued);
                    self.computed.add(computed.compute);
                    self.meter.computed(&computed);
                    Ok(computed.outputs)
                }
                Err(error) => Err(model_error(name.to_owned(), error)),
            }
        };
        run.boxed()
    }
}

fn model_error(model: String, error: ComputeError) -> ModelError {
    match error {
        ComputeError::Run(RunError::Input(error)) => ModelError::Input { model, error },
        ComputeError::Run(_) | ComputeError::Panic(_) => ModelError::Failed {
            model,
            reason: error.to_string(),
        },
        ComputeError::Full { .. } | ComputeError::Stopped => ModelError::Unavailable {
            model,
            reason: error.to_string(),
        },
    }
}
