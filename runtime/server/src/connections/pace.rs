//! Bodies that come in pace, and answers that are taken in pace.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Timeouts;

/// A body that comes too slowly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stalled(String);

/// A request's body, of which each piece must come in time, and the whole at a least rate. Only the
/// time that it is waited for counts, so that a slow reader is not held against the sender.
pub struct PacedBody<B = Incoming> {
    body: B,
    pause: Duration,
    rate: usize,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    stalled: Counter,
}

impl<B> PacedBody<B> {
    /// Wraps a body; `stalled` counts.
    pub fn new(body: B, timeouts: Timeouts, stalled: Counter) -> Self {
        Self {
            body,
            pause: timeouts.body,
            rate: timeouts.body_rate,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            stalled,
        }
    }

    /// How long the next piece may be waited for.
    fn patience(&self) -> Duration {
        if self.rate == 0 {
            return self.pause;
        }
        // A pause's time in advance: a rate says nothing about a first moment.
        let earned = Duration::from_secs_f64(self.received as f64 / self.rate as f64);
        let left = (self.pause + earned).saturating_sub(self.waited);
        left.min(self.pause)
    }
}

impl<B> Body for PacedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed();
            }
            let frame = frame.map(|frame| frame.map_err(Into::into));
            if let Some(Ok(frame)) = &frame {
                this.received += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            return Poll::Ready(frame);
        }
        if this.waiting.is_none() {
            let now = Instant::now();
            let sleep = Box::pin(tokio::time::sleep_until(now + this.patience()));
            this.waiting = Some((now, sleep));
        }
        let Some((since, sleep)) = &mut this.waiting else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().poll(cx));
        this.waited += since.elapsed();
        this.waiting = None;
        this.stalled.increment(1);
        let said = format!(
            "{} bytes of the body came in {:.1} s; expected a piece each {} and {} bytes a second",
            this.received,
            this.waited.as_secs_f64(),
            humantime::format_duration(this.pause),
            this.rate
        );
        Poll::Ready(Some(Err(Stalled(said).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose other end must take what is sent: where it takes nothing for too long, the
/// connection breaks off.
pub struct PacedStream<S> {
    stream: S,
    patience: Duration,
    /// While the other end is waited for, with what says that it is owed something.
    waiting: Option<(Pin<Box<Sleep>>, Arc<()>)>,
    busy: Arc<()>,
    stalled: Counter,
}

impl<S> PacedStream<S> {
    /// Wraps a connection; `stalled` counts, and `busy` has another holder while something is sent.
    pub fn new(stream: S, patience: Duration, busy: Arc<()>, stalled: Counter) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
            busy,
            stalled,
        }
    }

    /// Bounds a wait for the other end.
    fn bound<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let (sleep, _) = self.waiting.get_or_insert_with(|| {
            let sleep = tokio::time::sleep(self.patience);
            (Box::pin(sleep), self.busy.clone())
        });
        ready!(sleep.as_mut().poll(cx));
        self.waiting = None;
        self.stalled.increment(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.bound(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.bound(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bound(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A moment, long enough for a busy machine.
    const MOMENT: Duration = Duration::from_millis(50);

    /// What comes of a body of pieces of so many bytes, each after a pause; at least 10 bytes a
    /// moment, and a piece each 4 moments.
    async fn read(pieces: usize, bytes: usize, pause: Duration) -> Result<usize, String> {
        let stream = futures::stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; bytes])))
        });
        let timeouts = Timeouts {
            header: MOMENT,
            body: 4 * MOMENT,
            body_rate: 10 * 20,
            send: MOMENT,
        };
        let body = PacedBody::new(StreamBody::new(Box::pin(stream)), timeouts, Counter::noop());
        let whole = body.collect().await;
        whole
            .map(|whole| whole.to_bytes().len())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_and_one_that_is_slow_but_sure_is_not() {
        assert_eq!(read(20, 100, MOMENT).await.unwrap(), 2000);
        let trickle = read(20, 5, MOMENT).await.unwrap_err();
        assert!(trickle.contains("200 bytes a second"), "{trickle}");
        let pause = read(2, 1 << 20, 6 * MOMENT).await.unwrap_err();
        assert!(
            pause.starts_with("0 bytes of the body came in 0.2 s"),
            "{pause}"
        );
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_breaks_its_connection_off() {
        let (near, far) = tokio::io::duplex(16);
        let mut near = PacedStream::new(near, MOMENT, Arc::default(), Counter::noop());
        near.write_all(&[0; 16]).await.unwrap();
        let began = Instant::now();
        let error = near.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= MOMENT);
        drop(far);
    }
}
