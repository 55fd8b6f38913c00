//! Reads a request's body, bounded.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::BodyExt;

use crate::connections::Stalled;
use crate::problem::Failure;

/// The longest that a refused body is read on, so that its sender gets the answer.
const LINGER: Duration = Duration::from_secs(10);

/// Reads at most `limit` bytes.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    if announced(headers).is_some_and(|bytes| bytes > limit as u64) {
        return Err(refuse(body, limit as u64));
    }
    let mut body = body;
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broke_off("the body", &error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let had = first.as_ref().map_or(0, Bytes::len) + whole.len();
        if had + data.len() > limit {
            return Err(refuse(body, limit as u64));
        }
        // A body of one piece is passed on as it came.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(start) => {
                whole.reserve(expected(headers, limit));
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// Why a body, or what it holds, did not come to its end.
pub fn broke_off(what: &str, error: &axum::Error) -> Failure {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(stalled) = error.downcast_ref::<Stalled>() {
            return Failure::Stalled(stalled.to_string());
        }
        cause = error.source();
    }
    Failure::BadBody(format!("{what} broke off: {error}"))
}

/// The length that the head announces.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// How much to set aside: what was announced, but not much on a mere promise.
fn expected(headers: &HeaderMap, limit: usize) -> usize {
    announced(headers).map_or(0, |bytes| {
        usize::try_from(bytes).unwrap_or(limit).min(4 << 20)
    })
}

/// Refuses a body that is too large.
pub fn refuse(body: Body, limit: u64) -> Failure {
    drain(body);
    Failure::TooLarge { limit }
}

/// Reads what still comes of a refused body and drops it, for a while: closing at once would reset
/// the connection, and a sender that is not done would never see why.
pub fn drain(body: Body) {
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        let mut rest = body.into_data_stream();
        while let Some(Ok(_)) = rest.next().await {}
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok::<_, std::io::Error>(*p)).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn the_limit_holds_for_announced_and_for_chunked_bodies() {
        let none = HeaderMap::new();
        let body = read(&none, pieces(&["ab", "cd", "e"]), 5).await.unwrap();
        assert_eq!(body, "abcde");
        let error = read(&none, pieces(&["ab", "cd", "ef"]), 5)
            .await
            .unwrap_err();
        assert!(matches!(error, Failure::TooLarge { limit: 5 }));
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, 6.into())]);
        let error = read(&announced, Body::empty(), 5).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the body is larger than the limit of 5 bytes"
        );
    }
}
