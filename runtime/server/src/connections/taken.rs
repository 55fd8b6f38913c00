//! Whether answers on one HTTP/2 connection are taken. Its streams have windows of their own: the
//! connection can be in good health while the other end takes nothing of one answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// The most bytes that are handed on at once, so that progress with a large answer shows.
const PIECE: usize = 64 << 10;

/// The answers of a connection that are handed on and not taken yet, and since when.
#[derive(Clone, Default)]
pub struct Untaken(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last: u64,
    since: HashMap<u64, Instant>,
}

impl Untaken {
    /// Watches one more answer.
    pub fn watch(&self, body: Body) -> WatchedBody {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last += 1;
        WatchedBody {
            body,
            rest: Bytes::new(),
            id: state.last,
            untaken: self.clone(),
        }
    }

    /// Done when the other end has taken nothing of some answer for so long.
    pub async fn for_longer_than(&self, patience: Duration) {
        let pause = (patience / 4).max(Duration::from_millis(1));
        loop {
            tokio::time::sleep(pause).await;
            let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.since.values().any(|since| since.elapsed() > patience) {
                return;
            }
        }
    }

    fn handed_on(&self, id: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.insert(id, Instant::now());
    }

    fn taken(&self, id: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.remove(&id);
    }
}

/// An answer's body in pieces. Asking for the next one says that the last is taken.
pub struct WatchedBody {
    body: Body,
    rest: Bytes,
    id: u64,
    untaken: Untaken,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.untaken.taken(this.id);
        if this.rest.is_empty() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame);
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(frame) => {
                    this.untaken.handed_on(this.id);
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        this.untaken.handed_on(this.id);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.untaken.taken(self.id);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_untaken_from_one_piece_to_the_next() {
        const MOMENT: Duration = Duration::from_millis(40);
        let untaken = Untaken::default();
        let mut body = untaken.watch(Body::from(vec![7; PIECE + 1]));
        assert_eq!(body.size_hint().exact(), Some(PIECE as u64 + 1));
        let stalls = || tokio::time::timeout(6 * MOMENT, untaken.for_longer_than(MOMENT));
        assert!(stalls().await.is_err(), "nothing was handed on");
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), body.size_hint().exact()), (PIECE, Some(1)));
        assert!(stalls().await.is_ok(), "the first piece is not taken");
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(last.len(), 1);
        assert!(body.frame().await.is_none());
        assert!(stalls().await.is_err(), "all is taken");
    }
}
