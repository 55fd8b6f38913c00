//! Connections: at most so many, and none that may take its time without end.
//!
//! ```text
//! accept ─ one too many? 503, closed
//!    └─▶ head within `header_timeout` ─▶ body: each piece within `body_timeout`, and faster than
//!        `body_rate` on the whole ─▶ answer: taken within `send_timeout`
//! ```
//! What is told to stop takes no more connections, closes idle ones, and lets others finish the
//! request that they have begun.

mod pace;
mod refuse;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::Request;
use axum::serve::Listener;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::config::Config;
use crate::metrics::Metrics;
pub use pace::Stalled;
use pace::{PacedBody, PacedStream};
use refuse::Refuser;

/// The most bytes of a request's head, so that a connection that only sends heads holds little.
const MAX_HEAD: usize = 64 << 10;

/// Who holds a connection's mark while nothing is owed: the connection and its stream.
const IDLE: usize = 2;

/// How long the last of an answer may be on its way when the server stops.
const FLUSH: Duration = Duration::from_millis(500);

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a request's head is whole, from the answer before or the connection's start.
    pub header: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// The fewest bytes a second of a body.
    pub body_rate: usize,
    /// While nothing of an answer is taken.
    pub send: Duration,
}

impl Timeouts {
    fn new(config: &Config) -> Self {
        Self {
            header: config.header_timeout,
            body: config.body_timeout,
            body_rate: config.body_rate,
            send: config.send_timeout,
        }
    }
}

/// Answers connections of `listener` until `stop`, then waits for those that are left.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    config: &Config,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(
        config.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let refuser = Refuser::new(config.max_connections);
    let timeouts = Timeouts::new(config);
    let (stopping, open) = (CancellationToken::new(), TaskTracker::new());
    let mut stop = pin!(stop);
    loop {
        // It waits and tries again by itself where accepting fails, for want of files for one.
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            metrics.connections_refused.increment(1);
            refuser.refuse(stream);
            continue;
        };
        let router = router.clone();
        let (metrics, stopping) = (metrics.clone(), stopping.clone());
        open.spawn(async move {
            metrics.connections.increment(1.0);
            answer(stream, router, timeouts, &metrics, stopping).await;
            metrics.connections.decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    stopping.cancel();
    open.close();
    open.wait().await;
}

/// An answer's body; while there is one, its caller is owed it.
struct Owed {
    body: Body,
    _busy: Arc<()>,
}

impl HttpBody for Owed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn answer(
    stream: TcpStream,
    router: Router,
    timeouts: Timeouts,
    metrics: &Metrics,
    stopping: CancellationToken,
) {
    // Answers are small and complete: waiting to merge them only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is refused");
    }
    let stalled = metrics.answers_stalled.clone();
    let busy = Arc::new(());
    let stream = PacedStream::new(stream, timeouts.send, busy.clone(), stalled);
    let service = service_fn(|request: Request<Incoming>| {
        let stalled = metrics.bodies_stalled.clone();
        let paced = |body| Body::new(PacedBody::new(body, timeouts, stalled));
        let (answer, busy) = (router.clone().call(request.map(paced)), busy.clone());
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Owed { body, _busy: busy })) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_header_size(MAX_HEAD)
        .header_read_timeout(timeouts.header);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(FLUSH, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    // A head that was begun and not ended is owed no answer.
                    Err(_) if Arc::strong_count(&busy) == IDLE => break Ok(()),
                    Err(_) => {}
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
