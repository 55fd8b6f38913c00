//! One request from its admission to its answer: its deadline, its clocks, and what is said of it
//! when it ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response as HttpResponse;
use firebox_sandbox::InvokeError;
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
    /// Whether the traffic policy chose the version: what callers chose themselves tells nothing
    /// about how versions compare.
    pub(super) by_policy: bool,
    /// What its caller asks of the cache, and what came of it.
    pub(super) directives: Directives,
    pub(super) served: OnceLock<Served>,
    /// Who is asked as well, the way there, and what.
    pub(super) shadow: Option<(Arc<Version>, Shadow)>,
    pub(super) copied: OnceLock<(Question, Named)>,
}

/// A request that was let in before its version is known.
pub struct Early {
    pub(super) started: Instant,
    pub(super) limit: Duration,
    pub(super) place: Place,
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

#[derive(Default)]
pub(super) struct Clocks {
    pub(super) queue: Clock,
    pub(super) cold: Clock,
    pub(super) guest: Clock,
    pub(super) compute: Clock,
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
        // A request that was refused says nothing about the version.
        if response.extensions().get::<Shed>().is_none() {
            self.observe(outcome(response.status()), &spent);
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

    pub(super) fn remaining(&self) -> Duration {
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
