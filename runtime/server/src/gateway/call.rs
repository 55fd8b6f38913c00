//! One request from its admission to its answer: its deadline, its clocks, and what is said of it
//! when it ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response as HttpResponse;
use firebox_sandbox::InvokeError;
use futures::FutureExt;
use uuid::Uuid;

use super::{Question, invoke_failure};
use crate::admission::Place;
use crate::cache::{Directives, Served};
use crate::cost::{Meter, Prices};
use crate::metrics::{Clock, Metrics, Spent};
use crate::problem::{Failure, Shed};
use crate::rollout::window::Outcome;
use crate::routing::Version;
use crate::scheduler::Named;
use crate::shadow::{Copied, Shadow};
use crate::statistics::Answered;

const VERSION: HeaderName = HeaderName::from_static("x-firebox-version");
const PREDICTION_ID: HeaderName = HeaderName::from_static("x-firebox-prediction-id");
pub(super) const COST: HeaderName = HeaderName::from_static("x-firebox-cost");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// One request that was let in.
pub struct Call {
    /// The version that answers.
    pub version: Arc<Version>,
    /// The prediction id.
    pub id: Uuid,
    pub(super) started: Instant,
    pub(super) limit: Duration,
    pub(super) place: Place,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clocks: Clocks,
    pub(super) meter: Meter,
    /// Given where the caller wants to know what the call costs.
    pub(super) prices: Option<Arc<Prices>>,
    pub(super) recorded: bool,
    /// How long the head of the answer took, where the body is still to come.
    pub(super) answered: Option<Duration>,
    /// Whether the traffic policy chose the version: what callers chose themselves tells nothing
    /// about how versions compare.
    pub(super) by_policy: bool,
    /// What its caller asks of the cache, and what came of it.
    pub(super) directives: Directives,
    pub(super) served: OnceLock<Served>,
    /// Who is asked as well, the way there, and what.
    pub(super) shadow: Option<(Arc<Version>, Shadow)>,
    pub(super) copied: OnceLock<(Question, Named)>,
    /// Given when it has an answer.
    pub(super) ran: OnceLock<Ran>,
}

/// How a call got its answer.
#[derive(Clone, Copy)]
pub(super) struct Ran {
    /// Inferences that it asked for.
    pub(super) rows: u64,
    /// How long after its start it was decoded.
    pub(super) began: Duration,
    /// How long after its start its answer was there.
    pub(super) ended: Duration,
}

/// A request that was let in before its version is known.
pub struct Early {
    pub(super) started: Instant,
    pub(super) limit: Duration,
    pub(super) place: Place,
}

impl Early {
    /// Runs `work`, at most as long as the request may take.
    pub fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        within(self.limit, self.limit, work)
    }
}

/// Runs `work` for the time that is `left` of its `limit`.
fn within<T>(
    left: Duration,
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> impl Future<Output = Result<T, Failure>> {
    // An async function would have room for two of what it is given.
    let work = tokio::time::timeout(left, work);
    work.map(move |outcome| outcome.unwrap_or(Err(Failure::Deadline { limit })))
}

#[derive(Default)]
pub(super) struct Clocks {
    pub(super) queue: Clock,
    pub(super) cold: Clock,
    pub(super) guest: Clock,
    pub(super) compute: Clock,
}

impl Call {
    /// Runs `work`, at most until the deadline.
    pub fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        // A little longer than the sandbox, which can say more about what ran.
        let left = self.remaining() + Duration::from_millis(5);
        within(left, self.limit, work)
    }

    /// Records the answer and marks it with version, prediction id and timing.
    pub fn close(mut self, mut response: HttpResponse) -> HttpResponse {
        let spent = self.spent();
        let shed = response.extensions().get::<Shed>().is_some();
        let succeeded = response.status().is_success();
        self.count(succeeded, &spent);
        self.record(response.status(), shed, &spent);
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
        self.sign(headers);
        let timing = server_timing(&spent, &self.meter, served);
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            headers.insert(SERVER_TIMING, timing);
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

    /// Counts the call among what its version has answered.
    fn count(&self, succeeded: bool, spent: &Spent) {
        let statistics = self.version.statistics();
        let kept = self.served.get().and_then(|served| match served {
            Served::Hit { .. } => Some(true),
            Served::Miss => Some(false),
            Served::Bypass => None,
        });
        match self.ran.get().filter(|_| succeeded) {
            Some(ran) => {
                let answered = Answered {
                    rows: ran.rows,
                    input: ran.began,
                    output: spent.total.saturating_sub(ran.ended),
                    kept,
                };
                statistics.succeeded(&answered, spent);
            }
            None => statistics.failed(spent),
        }
    }

    /// Marks the head of an answer whose body is still to come, as [`close`](Self::close) does; the
    /// call goes on until it is [concluded](Self::conclude).
    pub(super) fn mark(&mut self, headers: &mut HeaderMap) {
        let spent = self.spent();
        self.answered = Some(spent.total);
        // To a function that takes requests as they come, one is one inference and needs no decoding.
        let _ = self.ran.set(Ran {
            rows: 1,
            began: Duration::ZERO,
            ended: spent.total,
        });
        self.sign(headers);
        let timing = server_timing(&spent, &self.meter, None);
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            // The function may have told of its own.
            headers.append(SERVER_TIMING, timing);
        }
    }

    /// Records a call whose head was marked, with the status that its answer came to in the end.
    pub(super) fn conclude(mut self, status: StatusCode) {
        let spent = self.spent();
        // Any answer of its own that is no error counts, also one without a body or elsewhere.
        let succeeded = matches!(outcome(status), Outcome::Answered);
        self.count(succeeded, &spent);
        self.record(status, false, &spent);
    }

    /// Names the version and the prediction.
    fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(VERSION, self.version.record.number.get().into());
        let mut buffer = Uuid::encode_buffer();
        let id = self.id.hyphenated().encode_lower(&mut buffer);
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(PREDICTION_ID, id);
        }
    }

    fn record(&mut self, status: StatusCode, shed: bool, spent: &Spent) {
        self.version
            .metrics(&self.metrics)
            .record(Some(status), spent);
        self.recorded = true;
        // A request that was refused says nothing about the version.
        if !shed {
            self.observe(outcome(status), spent);
        }
        self.version
            .account
            .charge(&self.meter, status.is_success());
    }

    /// Tells whoever watches the version how the call went. An answer that was kept tells nothing:
    /// it is as quick as the cache and never fails, so a version would look the better the more its
    /// callers repeat themselves, and a new one, whose cache is empty, the worse.
    fn observe(&self, outcome: Outcome, spent: &Spent) {
        let kept = matches!(self.served.get(), Some(Served::Hit { .. }));
        if self.by_policy && !kept {
            let now = match self.answered {
                None => self.started + spent.total,
                Some(_) => Instant::now(),
            };
            self.version.observe(now, outcome, spent.total);
        }
    }

    pub(super) fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn spent(&self) -> Spent {
        Spent {
            queue: self.clocks.queue.get(),
            cold: self.clocks.cold.get(),
            guest: self.clocks.guest.get(),
            compute: self.clocks.compute.get(),
            total: self.answered.unwrap_or_else(|| self.started.elapsed()),
        }
    }

    /// What the caller is told; the owner finds the rest in the log.
    pub(super) fn refusal(&self, error: InvokeError) -> Failure {
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
            self.version.statistics().failed(&spent);
            self.version.account.charge(&self.meter, false);
            self.observe(Outcome::Cancelled, &spent);
        }
    }
}

/// How an answer counts for guards.
fn outcome(status: StatusCode) -> Outcome {
    match status {
        status if status.is_server_error() => Outcome::Failed,
        status if status.is_client_error() => Outcome::Rejected,
        _ => Outcome::Answered,
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
