//! Calls of versions that answer HTTP requests themselves.
//!
//! The call is over when the response's body is: until then it keeps its place, its instance and
//! the version's models. Its latency is the time to the response's head, as a stream of events
//! lasts as long as its caller listens. It takes no part in the response cache and in shadow
//! traffic.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Waker, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::Response as HttpResponse;
use bytes::Bytes;
use firebox_sandbox::{Context, InvokeError, ResponseBody};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use uuid::Uuid;

use super::{Call, CallModels, Gateway, invoke_failure};
use crate::admission::Permit;
use crate::cost::Meter;
use crate::problem::Failure;
use crate::protocol::body;
use crate::residency::{Lease, Program};
use crate::routing::Version;

/// Headers that are between a server and its caller alone (RFC 9110, section 7.6.1); wasi:http
/// keeps others from guests by itself.
const OF_ONE_HOP: [HeaderName; 3] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

impl Gateway {
    /// Hands a request to the version of a call. The URI has an authority, and the path that the
    /// function shall see.
    pub async fn handle(&self, call: Call, request: Request<Body>) -> HttpResponse {
        let is_head = *request.method() == Method::HEAD;
        let broke = Arc::new(OnceLock::new());
        let waits = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| Sent {
            drain: !waits && !body.is_end_stream(),
            body,
            broke: broke.clone(),
        });
        let answered = call.within(self.head(&call, request)).await;
        let (response, held) = match answered {
            Ok(answered) => answered,
            Err(failure) => {
                // A function that stumbles over a body that broke off is not to blame.
                let failure = broke.get().cloned().unwrap_or(failure);
                return call.close(failure.into_problem());
            }
        };
        let (mut head, body) = response.into_parts();
        drop_one_hop(&mut head.headers);
        let answering = Answering::begin(call, held, body, &mut head);
        let has_body = !is_head
            && head.status != StatusCode::NO_CONTENT
            && head.status != StatusCode::NOT_MODIFIED;
        if has_body {
            return HttpResponse::from_parts(head, Body::new(answering));
        }
        // Nobody will ask for the body, but the function shall come to its end.
        tokio::spawn(answering.read_out());
        HttpResponse::from_parts(head, Body::empty())
    }

    /// Waits for the head of the response.
    async fn head(
        &self,
        call: &Call,
        request: Request<Sent>,
    ) -> Result<(axum::http::Response<ResponseBody>, Held), Failure> {
        call.version.takes_requests()?;
        let (lease, permit) = self.ready(call).await?;
        let terms = call.version.terms.clone();
        let models = CallModels::new(lease.warm.clone(), self.scheduler.clone(), terms);
        let models = Arc::new(models.metered(&call.meter));
        let code = lease.warm.code.clone();
        let Some((code, Program::Http(handler))) = code.as_ref().map(|code| (code, &code.program))
        else {
            return Err(Failure::Internal(
                "the version's code is of another kind than its record says".into(),
            ));
        };
        let limits = &call.version.record.manifest.limits;
        let context = Context {
            limits: self.caps.limits(limits, call.remaining()),
            models: models.clone(),
            assets: code.assets.clone(),
            network: code.network.clone(),
            reuse: false,
            cpu: call.meter.guest.clone(),
        };
        let mut buffer = Uuid::encode_buffer();
        let id = call.id.hyphenated().encode_lower(&mut buffer);
        let answered = handler.handle(id, request, limits.stream(), context);
        let answered = answered.await.map_err(|error| call.refusal(error));
        let held = Held {
            models,
            _lease: lease,
            _permit: permit,
        };
        held.tell(call);
        let answered = answered?;
        match answered.status().is_informational() {
            true => Err(Failure::NoResponse(format!(
                "the function gave no response: its status is {}, and no other follows that",
                answered.status().as_u16()
            ))),
            false => Ok((answered, held)),
        }
    }
}

/// What a call keeps until its instance is gone.
struct Held {
    models: Arc<CallModels>,
    _lease: Lease,
    _permit: Permit,
}

impl Held {
    /// Sets the call's clocks to what was spent so far.
    fn tell(&self, call: &Call) {
        call.clocks.queue.add(self.models.queued.take());
        call.clocks.compute.add(self.models.computed.take());
        let guest = call.meter.guest.get();
        call.clocks
            .guest
            .add(guest.saturating_sub(call.clocks.guest.get()));
    }
}

/// A request's body, of which is remembered how it broke off.
struct Sent {
    body: Body,
    /// Whether there is more of it that its sender sends unasked.
    drain: bool,
    broke: Arc<OnceLock<Failure>>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(waker));
        match &frame {
            Some(Ok(_)) => {}
            None => self.drain = false,
            Some(Err(error)) => {
                self.drain = false;
                let _ = self.broke.set(body::broke_off("the body", error));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    /// A function need not read what it is sent, but its caller is to get the answer all the same.
    fn drop(&mut self) {
        if self.drain && tokio::runtime::Handle::try_current().is_ok() {
            body::drain(std::mem::take(&mut self.body));
        }
    }
}

/// A response's body on its way, and the call that ends with it. Dropping it before its end gives
/// the call up.
struct Answering {
    /// None when it is dropped.
    body: Option<ResponseBody>,
    /// None when it is recorded.
    call: Option<Call>,
    /// None when it is dropped.
    held: Option<Held>,
    status: StatusCode,
    /// Bytes that were announced and are still to come.
    left: Option<u64>,
    told: Told,
}

/// How log lines name a call.
#[derive(Clone)]
struct Told {
    version: Arc<Version>,
    id: Uuid,
    meter: Meter,
}

impl Answering {
    /// Marks the head; the body is to follow.
    fn begin(
        mut call: Call,
        held: Held,
        body: ResponseBody,
        head: &mut axum::http::response::Parts,
    ) -> Self {
        call.mark(&mut head.headers);
        let told = Told {
            version: call.version.clone(),
            id: call.id,
            meter: call.meter.clone(),
        };
        Self {
            body: Some(body),
            call: Some(call),
            held: Some(held),
            status: head.status,
            left: body::announced(&head.headers),
            told,
        }
    }

    /// Reads the body for nobody, no longer than a head may take: nobody waits for its end.
    async fn read_out(mut self) {
        let limit = self.told.version.record.manifest.limits.deadline;
        let reading = async { while let Some(Ok(_)) = self.frame().await {} };
        if tokio::time::timeout(limit, reading).await.is_err() {
            self.conclude(self.status);
            self.body = None;
        }
    }

    /// Records the call.
    fn conclude(&mut self, status: StatusCode) {
        if let (Some(call), Some(held)) = (self.call.take(), &self.held) {
            held.tell(&call);
            call.conclude(status);
        }
    }

    /// Records a body that breaks off; its caller sees that it is not whole.
    fn fail(&mut self, error: InvokeError) -> axum::Error {
        if let Some(call) = &self.call {
            call.metrics.answers_cut.increment(1);
        }
        let failure = self.told.failure(error, "the answer broke off");
        self.conclude(failure.status());
        axum::Error::new(failure)
    }
}

impl Told {
    /// Logs what became of an instance whose answer has begun.
    fn failure(&self, error: InvokeError, what: &'static str) -> Failure {
        let (function, version) = (&self.version.record.function, self.version.record.number);
        let backtrace = match &error {
            InvokeError::Trap { backtrace, .. } => backtrace.as_str(),
            _ => "",
        };
        tracing::error!(prediction_id = %self.id, %function, version = version.get(), %error,
            backtrace, "{what}");
        let limit = match &error {
            InvokeError::Deadline { limit } => *limit,
            _ => Duration::ZERO,
        };
        invoke_failure(error, limit)
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        Poll::Ready(match ready!(Pin::new(body).poll_frame(waker)) {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(this.fail(error))),
            None => {
                this.conclude(this.status);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let ended = |body: &ResponseBody| body.is_end_stream();
        self.left == Some(0) || self.body.as_ref().is_none_or(ended)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.left == Some(0) {
            // All that was announced was sent, and nobody asks whether more comes.
            self.conclude(self.status);
        }
        if self.call.is_some() {
            return;
        }
        let (body, held) = (self.body.take(), self.held.take());
        let Some(rest) = body.and_then(ResponseBody::rest) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let told = self.told.clone();
        runtime.spawn(async move {
            let charged = told.meter.guest.get();
            if let Err(error) = rest.await {
                told.failure(error, "the function failed after its answer");
            }
            let late = told.version.account.meter();
            late.guest
                .add(told.meter.guest.get().saturating_sub(charged));
            drop(held);
        });
    }
}

/// Drops the headers of the connection, and those that it names as such.
pub fn drop_one_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_ONE_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_names_stays_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own"),
            ("keep-alive", "timeout=5"),
            ("x-own", "1"),
            ("x-other", "2"),
            ("te", "trailers"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        drop_one_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["te", "x-other"]);
    }
}
