//! A request's body, taken piece by piece, so that a tensor in it is copied once at most before its
//! function gets it.
//!
//! A piece that came in one frame of the connection shares the frame. One that came in several is
//! put together in a buffer of its own, which goes on as it is: what a component gets is moved into
//! its memory from there, without another copy in between.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::problem::Failure;
use crate::protocol::body;

/// The most that is set aside for a piece before any of it has come.
const ON_A_PROMISE: usize = 4 << 20;

/// What is left of a body.
pub struct Pieces {
    body: Body,
    /// What has come and was not taken.
    frame: Bytes,
    /// How much has come.
    came: usize,
    limit: usize,
}

impl Pieces {
    /// Of a body of at most `limit` bytes.
    pub fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, Failure> {
        if body::announced(headers).is_some_and(|bytes| bytes > limit as u64) {
            return Err(body::refuse(body, limit as u64));
        }
        Ok(Self {
            body,
            frame: Bytes::new(),
            came: 0,
            limit,
        })
    }

    /// Of a body that has come as a whole.
    pub fn of(whole: Bytes) -> Self {
        Self {
            body: Body::empty(),
            came: whole.len(),
            limit: whole.len(),
            frame: whole,
        }
    }

    /// The next `size` bytes; `None` where the body ends before.
    pub async fn take(&mut self, size: usize) -> Result<Option<Bytes>, Failure> {
        if self.frame.is_empty() && size > 0 && !self.more().await? {
            return Ok(None);
        }
        if self.frame.len() >= size {
            return Ok(Some(self.frame.split_to(size)));
        }
        if size - self.frame.len() > self.limit - self.came {
            // It can't all come.
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(size.min(ON_A_PROMISE));
        loop {
            let part = self.frame.len().min(size - piece.len());
            if piece.capacity() - piece.len() < part {
                piece.reserve_exact(size - piece.len());
            }
            piece.extend_from_slice(&self.frame.split_to(part));
            if piece.len() == size {
                return Ok(Some(piece.into()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// All that is left.
    pub async fn rest(mut self) -> Result<Bytes, Failure> {
        let mut whole = std::mem::take(&mut self.frame);
        let mut pieces = Vec::new();
        while self.more().await? {
            if pieces.is_empty() {
                let promised = usize::try_from(self.body.size_hint().lower());
                let promised = promised.unwrap_or(usize::MAX).min(ON_A_PROMISE);
                pieces.reserve_exact(whole.len() + self.frame.len() + promised);
                pieces.extend_from_slice(&whole);
                whole = Bytes::new();
            }
            pieces.extend_from_slice(&self.frame);
        }
        Ok(if pieces.is_empty() {
            whole
        } else {
            pieces.into()
        })
    }

    /// Whether all was taken.
    pub async fn at_end(&mut self) -> Result<bool, Failure> {
        Ok(self.frame.is_empty() && !self.more().await?)
    }

    /// How much has come so far and was not taken.
    pub fn left(&self) -> usize {
        self.frame.len()
    }

    /// Reads on what was refused, so that its sender gets to see why.
    pub fn drain(self) {
        body::drain(self.body);
    }

    /// Replaces the frame, which was taken, by the next one that holds something.
    async fn more(&mut self) -> Result<bool, Failure> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| body::broke_off("the body", &error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.is_empty() {
                continue;
            }
            if data.len() > self.limit - self.came {
                let body = std::mem::take(&mut self.body);
                return Err(body::refuse(body, self.limit as u64));
            }
            self.came += data.len();
            self.frame = data;
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(frames: &[Bytes], limit: usize) -> Pieces {
        let frames: Vec<_> = frames
            .iter()
            .cloned()
            .map(Ok::<_, std::io::Error>)
            .collect();
        let body = Body::from_stream(futures::stream::iter(frames));
        Pieces::new(&HeaderMap::new(), body, limit).unwrap()
    }

    /// How often its bytes are copied until they are a vector, which is what a component is given.
    fn copies(piece: Bytes, frames: &[Bytes]) -> usize {
        let at = piece.as_ptr();
        let shares = |frame: &Bytes| frame.as_ptr_range().contains(&at);
        let put_together = usize::from(!frames.iter().any(shares));
        put_together + usize::from(Vec::from(piece).as_ptr() != at)
    }

    #[tokio::test]
    async fn no_piece_is_copied_more_than_once_before_a_component_gets_it() {
        let frames: Vec<Bytes> = (0..9u8).map(|n| vec![n; 1000].into()).collect();
        // Within a frame, over two, over many, to the end of one, and a whole one.
        let mut left = pieces(&frames, 9000);
        for size in [10, 500, 1000, 4490, 1000, 2000] {
            let piece = left.take(size).await.unwrap().unwrap();
            assert_eq!(piece.len(), size);
            assert!(copies(piece, &frames) <= 1, "a piece of {size} bytes");
        }
        assert!(left.at_end().await.unwrap());
    }

    #[tokio::test]
    async fn pieces_are_the_body_in_order() {
        let text = Bytes::from_static(b"abcdefghijklmnopqrstuvwxyz");
        for step in 1..=26 {
            let frames = (0..26)
                .step_by(step)
                .map(|at| text.slice(at..(at + step).min(26)));
            let frames: Vec<_> = frames.collect();
            let mut left = pieces(&frames, 26);
            let mut joined = Vec::new();
            for size in [0, 1, 7, 5] {
                joined.extend_from_slice(&left.take(size).await.unwrap().unwrap());
            }
            joined.extend_from_slice(&left.rest().await.unwrap());
            assert_eq!(joined, text, "in frames of {step}");
        }
    }

    #[tokio::test]
    async fn what_does_not_come_is_none_and_what_is_too_much_is_refused() {
        let frames = [Bytes::from_static(b"abc"), Bytes::from_static(b"def")];
        assert_eq!(pieces(&frames, 100).take(7).await.unwrap(), None);
        assert_eq!(pieces(&frames, 6).take(usize::MAX).await.unwrap(), None);
        assert_eq!(pieces(&[], 6).take(1).await.unwrap(), None);
        let error = pieces(&frames, 5).rest().await.unwrap_err();
        assert!(matches!(error, Failure::TooLarge { limit: 5 }));
    }
}
