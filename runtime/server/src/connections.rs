//! Connections: at most so many, and none that may take its time without end.
//!
//! ```text
//! accept ─ one too many? 503, closed
//!    └─▶ head within `header_timeout` ─▶ body: each piece within `body_timeout`, and faster than
//!        `body_rate` on the whole ─▶ answer: taken within `send_timeout`
//! ```
//! The first bytes say whether it is HTTP/1 or HTTP/2 with prior knowledge. Each stream of the latter
//! is held to the same as a connection of the former; there are at most `max_streams` at once.
//! What is told to stop takes no more connections, closes idle ones, and lets others finish the
//! request that they have begun.

mod again;
mod begin;
mod pace;
mod refuse;
mod taken;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::Request;
use axum::serve::Listener;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::protocol::grpc;
use again::Again;
pub use pace::Stalled;
use pace::{PacedBody, PacedStream};
use refuse::Refuser;
use taken::Untaken;

/// The most bytes of a request's head, so that a connection that only sends heads holds little.
const MAX_HEAD: usize = 64 << 10;

/// Who holds a connection's mark while nothing is owed: the connection and its stream.
const IDLE: usize = 2;

/// How long the last of an answer may be on its way when the server stops.
const FLUSH: Duration = Duration::from_millis(500);

/// How long the other end of an idle HTTP/2 connection has to say that it has heard of its end.
const FAREWELL: Duration = Duration::from_secs(5);

/// An address, and what is answered there.
pub struct Door {
    /// Where connections come in.
    pub listener: TcpListener,
    /// What answers them.
    pub router: Router,
}

/// With each request over HTTP/2: done when the server stops. An answer that waits for something
/// that may never come ends then.
#[derive(Clone, Debug)]
pub struct Stopping(pub CancellationToken);

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
    /// Between two messages of a stream.
    pub stream: Duration,
}

impl Timeouts {
    fn new(config: &Config) -> Self {
        Self {
            header: config.header_timeout,
            body: config.body_timeout,
            body_rate: config.body_rate,
            send: config.send_timeout,
            stream: config.stream_timeout,
        }
    }
}

/// What all connections share.
#[derive(Clone)]
struct House {
    timeouts: Timeouts,
    max_streams: u32,
    metrics: Metrics,
    stopping: CancellationToken,
}

/// Answers connections at all `doors` until `stop`, then waits for those that are left.
pub async fn serve(
    doors: Vec<Door>,
    config: &Config,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(
        config.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let refuser = Refuser::new(config.max_connections);
    let house = House {
        timeouts: Timeouts::new(config),
        max_streams: u32::try_from(config.max_streams).unwrap_or(u32::MAX),
        metrics,
        stopping: CancellationToken::new(),
    };
    let open = TaskTracker::new();
    let doors = doors
        .into_iter()
        .map(|door| admit(door, &room, &refuser, &house, &open));
    let stopped = async {
        stop.await;
        house.stopping.cancel();
    };
    tokio::join!(futures::future::join_all(doors), stopped);
    open.close();
    open.wait().await;
}

/// Takes the connections at one door, until the server stops.
async fn admit(
    mut door: Door,
    room: &Arc<Semaphore>,
    refuser: &Refuser,
    house: &House,
    open: &TaskTracker,
) {
    loop {
        // It waits and tries again by itself where accepting fails, for want of files for one.
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut door.listener) => accepted,
            () = house.stopping.cancelled() => return,
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            house.metrics.connections_refused.increment(1);
            refuser.refuse(stream);
            continue;
        };
        let (router, house) = (door.router.clone(), house.clone());
        open.spawn(async move {
            let connections = house.metrics.connections.clone();
            connections.increment(1.0);
            answer(stream, router, house).await;
            connections.decrement(1.0);
            drop(permit);
        });
    }
}

/// An answer's body; while there is one, its caller is owed it.
struct Owed {
    body: Body,
    _busy: Option<Arc<()>>,
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

async fn answer(stream: TcpStream, router: Router, house: House) {
    // Answers are small and complete: waiting to merge them only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is refused");
    }
    let stalled = house.metrics.answers_stalled.clone();
    let busy = Arc::new(());
    let mut stream = PacedStream::new(stream, house.timeouts.send, busy.clone(), stalled);
    let begun = tokio::select! {
        begun = begin::read(&mut stream, house.timeouts.header) => begun,
        // Nothing was asked yet.
        () = house.stopping.cancelled() => return,
    };
    let ended = match begun {
        Ok((version, begun)) => {
            stream.give_back(begun);
            match version {
                begin::Version::Http1 => http_1(stream, router, house, busy).await,
                begin::Version::Http2 => http_2(stream, router, house, busy).await,
            }
        }
        Err(error) => {
            tracing::debug!(%error, "a connection asked nothing");
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn http_1(
    stream: PacedStream<TcpStream>,
    router: Router,
    house: House,
    busy: Arc<()>,
) -> hyper::Result<()> {
    let House { timeouts, .. } = house;
    let service = service_fn(|request: Request<Incoming>| {
        let stalled = house.metrics.bodies_stalled.clone();
        let paced = |body| Body::new(PacedBody::new(body, timeouts, stalled));
        let (answer, busy) = (router.clone().call(request.map(paced)), Some(busy.clone()));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Owed { body, _busy: busy })) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_header_size(MAX_HEAD)
        .header_read_timeout(timeouts.header);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let again = Again::new();
    tokio::select! {
        ended = poll_fn(|cx| again.poll(connection.as_mut(), cx)) => return ended,
        () = house.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    finish(connection, FLUSH, &busy).await
}

async fn http_2(
    stream: PacedStream<TcpStream>,
    router: Router,
    house: House,
    busy: Arc<()>,
) -> hyper::Result<()> {
    let untaken = Untaken::default();
    let begun = Arc::new(AtomicU64::new(0));
    let timeouts = house.timeouts;
    let service = {
        // Only what is owed keeps it.
        let (busy, untaken, begun) = (Arc::downgrade(&busy), untaken.clone(), begun.clone());
        let (stalled, stopping) = (house.metrics.bodies_stalled.clone(), house.stopping.clone());
        service_fn(move |mut request: Request<Incoming>| {
            begun.fetch_add(1, Relaxed);
            let stalled = stalled.clone();
            let stopping = Stopping(stopping.clone());
            request.extensions_mut().insert(stopping);
            let paced = match request.uri().path() == grpc::STREAM {
                true => PacedBody::of_messages,
                false => PacedBody::new,
            };
            let paced = |body| Body::new(paced(body, timeouts, stalled));
            let (answer, busy) = (router.clone().call(request.map(paced)), busy.upgrade());
            let untaken = untaken.clone();
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Owed {
                    body: Body::new(untaken.watch(body)),
                    _busy: busy,
                }))
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(house.max_streams)
        // One whose other end is gone is found out, streams or not.
        .keep_alive_interval(timeouts.header)
        .keep_alive_timeout(timeouts.send);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let idle = async {
        let mut last = begun.load(Relaxed);
        loop {
            tokio::time::sleep(timeouts.header).await;
            let now = begun.load(Relaxed);
            if Arc::strong_count(&busy) == IDLE && now == last {
                return;
            }
            last = now;
        }
    };
    let patience = tokio::select! {
        ended = connection.as_mut() => return ended,
        () = house.stopping.cancelled() => FLUSH,
        () = idle => FAREWELL,
        () = untaken.for_longer_than(timeouts.send) => return stalled(&house),
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = finish(connection, patience, &busy) => ended,
        () = untaken.for_longer_than(timeouts.send) => stalled(&house),
    }
}

/// One of its answers was not taken.
fn stalled(house: &House) -> hyper::Result<()> {
    house.metrics.answers_stalled.increment(1);
    Ok(())
}

/// Waits for the end of a connection that takes no more requests.
async fn finish(
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    patience: Duration,
    busy: &Arc<()>,
) -> hyper::Result<()> {
    loop {
        match tokio::time::timeout(patience, connection.as_mut()).await {
            Ok(ended) => return ended,
            // A head that was begun and not ended is owed no answer.
            Err(_) if Arc::strong_count(busy) == IDLE => return Ok(()),
            Err(_) => {}
        }
    }
}
