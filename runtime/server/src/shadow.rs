//! Shadow traffic: copies of requests go to another version after their answers have gone, what
//! comes back is compared and dropped.
//!
//! ```text
//! gateway ─ question, answer ─▶ [the answer is sent] ─▶ bounded queue ─▶ the shadow's own thread:
//!                                                       full: dropped    ask ▸ compare ▸ count
//! ```
//! A caller never waits for a shadow. One thread of the lowest priority runs one copy at a time, with
//! an event loop, a compute thread and an instance of its own; so copies take only what callers leave.
//! They are the first to go under load: where the queue is full in number or bytes, or callers'
//! model runs wait for a thread.

mod compare;
mod comparison;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use compare::{Difference, compare};
use comparison::count;
pub use comparison::{ComparisonInfo, Comparisons, comparisons};

use crate::gateway::{InstanceCaps, Question, ask};
use crate::metrics::Metrics;
use crate::problem::Failure;
use crate::residency::Residency;
use crate::routing::Version;
use crate::scheduler::{Named, Scheduler, yield_to_callers};

/// Copies that wait at most.
const MAX_WAITING: usize = 256;

/// KiB of questions and answers that wait at most.
const MAX_WAITING_KIB: usize = 64 << 10;

/// Model runs of one copy that may wait.
const MAX_COMPUTE_QUEUE: usize = 64;

/// A question, its answer, and the version that is to be asked as well.
pub struct Copied {
    /// Who answered.
    pub primary: Arc<Version>,
    /// Who is to be asked.
    pub shadow: Arc<Version>,
    /// What was asked.
    pub question: Question,
    /// What was answered.
    pub outputs: Named,
    /// How long the answer took.
    pub took: Duration,
}

impl Copied {
    fn kib(&self) -> u32 {
        let tensors = self.question.inputs.iter().chain(&self.outputs);
        let bytes: usize = tensors.map(|(_, tensor)| tensor.data().len() + 256).sum();
        u32::try_from(bytes >> 10)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }
}

/// What became of a copy.
enum Found {
    Compared(Difference, Duration),
    Failed(Failure),
    Dropped,
}

type Waiting = (Copied, OwnedSemaphorePermit);

/// The way to the shadow's thread. Cloning gives another handle; the thread ends with the last.
#[derive(Clone)]
pub struct Shadow {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    metrics: Metrics,
}

impl Shadow {
    /// Starts the thread. `callers` is the scheduler that runs the callers' models, and the runtime
    /// that this is called in loads versions.
    pub fn start(
        residency: Residency,
        callers: Arc<Scheduler>,
        metrics: Metrics,
        caps: InstanceCaps,
    ) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let worker = Worker {
            residency,
            callers,
            metrics: metrics.clone(),
            caps,
        };
        let thread = std::thread::Builder::new().name("shadow".into());
        thread.spawn(move || {
            if let Err(error) = worker.work(waiting) {
                tracing::error!(%error, "shadow traffic can't be run");
            }
        })?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(MAX_WAITING_KIB)),
            metrics,
        })
    }

    /// Puts a copy into the queue when `response` has been sent.
    pub fn after(&self, response: Response, copied: Copied) -> Response {
        let shadow = self.clone();
        response.map(|body| {
            Body::new(Sent {
                body,
                then: Some((shadow, copied)),
            })
        })
    }

    fn offer(&self, copied: Copied) {
        let room = self.room.clone().try_acquire_many_owned(copied.kib());
        let Ok(room) = room else {
            return count(&self.metrics, &copied, &Found::Dropped);
        };
        if let Err(full) = self.queue.try_send((copied, room)) {
            let (copied, _) = full.into_inner();
            count(&self.metrics, &copied, &Found::Dropped);
        }
    }
}

/// A response's body that lets go of a copy when it is dropped: after its last byte was taken for
/// sending, or its caller has gone.
struct Sent {
    body: Body,
    then: Option<(Shadow, Copied)>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some((shadow, copied)) = self.then.take() {
            shadow.offer(copied);
        }
    }
}

/// What the thread works with.
struct Worker {
    residency: Residency,
    callers: Arc<Scheduler>,
    metrics: Metrics,
    caps: InstanceCaps,
}

impl Worker {
    fn work(self, mut waiting: mpsc::Receiver<Waiting>) -> io::Result<()> {
        yield_to_callers();
        let scheduler = Scheduler::start_in_background(MAX_COMPUTE_QUEUE, self.metrics.clone())?;
        let scheduler = Arc::new(scheduler);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            while let Some((copied, _room)) = waiting.recv().await {
                let found = match self.callers.waiting() {
                    0 => self.compare(&scheduler, &copied).await,
                    _ => Found::Dropped,
                };
                count(&self.metrics, &copied, &found);
            }
        });
        Ok(())
    }

    async fn compare(&self, scheduler: &Arc<Scheduler>, copied: &Copied) -> Found {
        let asked = Instant::now();
        let limit = copied.shadow.record.manifest.limits.deadline;
        let answer = self.ask(scheduler, copied, limit);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok((outputs, cold))) => {
                let difference = compare(&copied.outputs, &outputs);
                Found::Compared(difference, asked.elapsed().saturating_sub(cold))
            }
            Ok(Err(failure)) => Found::Failed(failure),
            Err(_) => Found::Failed(Failure::Deadline { limit }),
        }
    }

    /// The shadow's outputs, and how long it took to load it.
    async fn ask(
        &self,
        scheduler: &Arc<Scheduler>,
        copied: &Copied,
        limit: Duration,
    ) -> Result<(Named, Duration), Failure> {
        let (version, question) = (&copied.shadow, copied.question.clone());
        let asked = Instant::now();
        let lease = self.residency.warm(version).await?;
        let cold = asked.elapsed();
        let limits = &version.record.manifest.limits;
        let limits = self.caps.limits(limits, limit.saturating_sub(cold));
        let (terms, id) = (&version.terms, Uuid::now_v7());
        let answer = ask(version, terms, &lease.warm, scheduler, question, limits, id);
        Ok((answer.await?.outputs, cold))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_wrapped_says_and_gives_the_same() {
        let text = Body::new(Full::new(Bytes::from_static(b"answer")));
        let sent = Sent {
            body: text,
            then: None,
        };
        assert_eq!(sent.size_hint().exact(), Some(6));
        let frames = futures::stream::iter([Ok::<_, io::Error>(http_body::Frame::data(
            Bytes::from_static(b"piece"),
        ))]);
        let streamed = Sent {
            body: Body::new(StreamBody::new(frames)),
            then: None,
        };
        assert_eq!(sent.collect().await.unwrap().to_bytes(), "answer");
        assert_eq!(streamed.collect().await.unwrap().to_bytes(), "piece");
    }
}
