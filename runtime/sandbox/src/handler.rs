//! Components that answer HTTP requests: `wasi:http/incoming-handler` of WASI 0.2.
//!
//! ```text
//! handle ─ instance ─ runs ──▶ head ──▶ ResponseBody: runs on ──▶ end ──▶ Rest: what is left of it
//! ```
//! An instance is made for one request. Once it has given the response's head, it lives in the
//! response's [body](ResponseBody), and runs while that is asked for pieces: a caller that takes
//! nothing holds the guest up, and one that hangs up stops it. What the guest wants to do after the
//! end of its response is a [future](ResponseBody::rest) that the embedder may run, or drop.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::component::{Call, map};
use crate::engine::Inner;
use crate::state::{Grants, State};
use crate::{Context, InvokeError, LinkError, Sandbox};

/// An error of the request's body, of whatever kind.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The guest at work. Where it returns, its instance is left, which holds what the guest let lie.
type Guest = BoxFuture<'static, Result<Call, InvokeError>>;

/// How a guest sets a response, or says why it has none.
type Head = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

/// The code of a component that answers HTTP requests, ready to make instances. Cloning it is
/// cheap.
#[derive(Clone)]
pub struct Handler {
    inner: Arc<Inner>,
    pre: ProxyPre<State>,
}

impl Sandbox {
    /// Maps a file of [`Compiled::code`](crate::Compiled::code) of the kind
    /// [`Http`](crate::Kind::Http) and resolves its imports. As for [`link`](Sandbox::link), the
    /// file must come from `compile` and must not change.
    ///
    /// # Errors
    /// As [`link`](Sandbox::link).
    pub fn link_handler(&self, cwasm: &Path) -> Result<Handler, LinkError> {
        let component = map(&self.inner.engine, cwasm)?;
        let pre = self.inner.linker.instantiate_pre(&component);
        let pre = pre.and_then(ProxyPre::new);
        let pre = pre.map_err(|error| LinkError::Imports {
            path: cwasm.to_owned(),
            reason: format!("{error:#}"),
        })?;
        Ok(Handler {
            inner: self.inner.clone(),
            pre,
        })
    }
}

impl Handler {
    /// Hands a request to an instance of its own and waits for the head of its response, at most
    /// as long as the limits' deadline. `id` stands beside the guest's log lines; `stream` is how
    /// long the response's body may go on after its head.
    ///
    /// The request's URI needs an authority, and its body is read while the guest asks for it.
    ///
    /// # Errors
    /// See [`InvokeError`]; [`InvokeError::NoResponse`] where the guest ended without one.
    pub async fn handle<B>(
        &self,
        id: &str,
        request: http::Request<B>,
        stream: Duration,
        context: Context,
    ) -> Result<http::Response<ResponseBody>, InvokeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let deadline = context.limits.deadline;
        let until = Instant::now() + deadline;
        let (sender, mut head) = oneshot::channel();
        let mut guest = self.guest(id, request, stream, context, sender)?;
        let answer = async {
            tokio::select! {
                biased;
                ended = &mut guest => (head.try_recv().ok(), Some(ended)),
                set = &mut head => match set {
                    Ok(set) => (Some(set), None),
                    // It let go of the means to answer; how it ends may say why.
                    Err(_) => (None, Some((&mut guest).await)),
                },
            }
        };
        let (head, ended) = match timeout_at(until, answer).await {
            Ok(answer) => answer,
            Err(_) => return Err(InvokeError::Deadline { limit: deadline }),
        };
        // Nothing has been sent, so a failure can still be told in full.
        let ended = ended.transpose();
        let ended = ended.map_err(|error| told(error, deadline))?;
        let head = head.ok_or_else(|| InvokeError::NoResponse {
            reason: "it ended without setting one".into(),
        })?;
        let response = head.map_err(|code| InvokeError::NoResponse {
            reason: format!("it answered with the error {code:?}"),
        })?;
        let guest = ended.is_none().then_some(guest);
        Ok(response.map(|body| ResponseBody::new(body, guest, ended, stream)))
    }

    /// An instance and its work, from its making to the return of `handle`.
    fn guest<B>(
        &self,
        id: &str,
        request: http::Request<B>,
        stream: Duration,
        mut context: Context,
        sender: oneshot::Sender<Head>,
    ) -> Result<Guest, InvokeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        // The time to the head is watched from outside: this one bounds the whole.
        let deadline = &mut context.limits.deadline;
        *deadline = deadline.saturating_add(stream);
        let grants = Grants::of_call(id, &context);
        let mut call = Call::new(&self.inner, grants)?.metered(context.cpu);
        let host = |error: wasmtime::Error| InvokeError::Host(format!("{error:#}"));
        let request = request.map(|body| body.map_err(broken));
        let mut http = call.store.data_mut().http();
        let request = http
            .new_incoming_request(Scheme::Http, request)
            .map_err(host)?;
        let out = http.new_response_outparam(sender).map_err(host)?;
        let pre = self.pre.clone();
        let guest = async move {
            call.run(async |store| {
                let proxy = pre.instantiate_async(&mut *store).await?;
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(store, request, out).await
            })
            .await?;
            Ok(call)
        };
        Ok(guest.boxed())
    }
}

/// What a guest is told of a request's body that does not come to its end.
fn broken(error: impl Into<BodyError>) -> wasmtime_wasi_http::Error {
    wasmtime_wasi_http::Error::InternalError(Some(error.into().to_string()))
}

/// The instance has one deadline for all that it does, and callers know that of a part.
fn told(error: InvokeError, limit: Duration) -> InvokeError {
    match error {
        InvokeError::Deadline { .. } => InvokeError::Deadline { limit },
        error => error,
    }
}

/// The body of a response, and the instance that makes it. Dropping it stops the instance.
pub struct ResponseBody {
    body: HyperOutgoingBody,
    /// None when it has ended.
    guest: Option<Guest>,
    /// What is left of it: a body that it has not finished stays open as long as this is there.
    left: Option<Call>,
    /// How it ended, where that is badly; told after the pieces that it gave before.
    failure: Option<InvokeError>,
    ended: bool,
    stream: Duration,
    until: Instant,
    /// Made at the first wait: most bodies are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    fn new(
        body: HyperOutgoingBody,
        guest: Option<Guest>,
        left: Option<Call>,
        stream: Duration,
    ) -> Self {
        Self {
            body,
            guest,
            left,
            failure: None,
            ended: false,
            stream,
            until: Instant::now() + stream,
            timer: None,
        }
    }

    /// What the guest still wants to do, at most until the body's time is over; none where it has
    /// ended. A body that is not read to its end is broken off.
    pub fn rest(self) -> Option<impl Future<Output = Result<(), InvokeError>> + Send + 'static> {
        let Self {
            body,
            guest,
            stream,
            until,
            ..
        } = self;
        let guest = guest?;
        Some(async move {
            drop(body);
            let limit = stream;
            match timeout_at(until, guest).await {
                Ok(ended) => ended.map(drop).map_err(|error| told(error, limit)),
                Err(_) => Err(InvokeError::Deadline { limit }),
            }
        })
    }

    /// Lets the guest work.
    fn work(&mut self, waker: &mut Waker<'_>) {
        let Some(guest) = &mut self.guest else {
            return;
        };
        let Poll::Ready(ended) = guest.poll_unpin(waker) else {
            return;
        };
        self.guest = None;
        match ended {
            Ok(left) => self.left = Some(left),
            Err(error) => self.failure = Some(told(error, self.stream)),
        }
    }

    /// The next piece that the guest has written already.
    fn written(
        &mut self,
        waker: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(waker));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            // It is finished, or its guest has failed: the channel closes with the instance.
            None => {
                let failure = self.failure.take();
                self.end(failure)
            }
            Some(Err(_)) => self.unfinished("it dropped its body unfinished"),
        })
    }

    /// Ends a body that is not whole; why the guest failed says more than what came of it.
    fn unfinished(&mut self, reason: &str) -> Option<Result<Frame<Bytes>, InvokeError>> {
        let failure = self.failure.take();
        let unfinished = || InvokeError::NoResponse {
            reason: reason.into(),
        };
        self.end(Some(failure.unwrap_or_else(unfinished)))
    }

    fn end(&mut self, failure: Option<InvokeError>) -> Option<Result<Frame<Bytes>, InvokeError>> {
        self.ended = true;
        self.left = None;
        if failure.is_some() {
            self.guest = None;
        }
        failure.map(Err)
    }

    /// Asks to be polled again when the body's time is over; true where it is.
    fn late(&mut self, waker: &mut Waker<'_>) -> bool {
        let until = self.until;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        timer.as_mut().poll(waker).is_ready()
    }

    /// Cuts a body whose time is over.
    fn cut(&mut self) -> Option<Result<Frame<Bytes>, InvokeError>> {
        let limit = self.stream;
        self.end(Some(InvokeError::Deadline { limit }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = InvokeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvokeError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        // A guest that always has more to say is never waited for.
        if Instant::now() >= this.until {
            return Poll::Ready(this.cut());
        }
        // What is there goes first: the guest shall not run ahead.
        if let Poll::Ready(frame) = this.written(waker) {
            return Poll::Ready(frame);
        }
        this.work(waker);
        match this.written(waker) {
            Poll::Ready(frame) => Poll::Ready(frame),
            // Nobody is there who could write or finish it.
            Poll::Pending if this.guest.is_none() => {
                Poll::Ready(this.unfinished("it returned with its body unfinished"))
            }
            Poll::Pending if this.late(waker) => Poll::Ready(this.cut()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("ended", &self.ended)
            .field("running", &self.guest.is_some())
            .finish_non_exhaustive()
    }
}
