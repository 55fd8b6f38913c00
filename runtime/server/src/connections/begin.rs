//! What a connection speaks, told by its first bytes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2, known beforehand rather than agreed on.
    Http2,
}

/// Reads no more than it takes to tell, within `patience`, and gives back what it has read.
///
/// # Errors
/// Where nothing came in time, or the connection broke off.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    patience: Duration,
) -> io::Result<(Version, Bytes)> {
    let mut begun = BytesMut::with_capacity(PREFACE.len());
    let told = async {
        loop {
            // Its room is that of the preface, so no more is read.
            if stream.read_buf(&mut begun).await? == 0 {
                return Ok(Version::Http1);
            }
            if begun.as_ref() == PREFACE {
                return Ok(Version::Http2);
            }
            if !PREFACE.starts_with(&begun) {
                return Ok(Version::Http1);
            }
        }
    };
    let told: io::Result<Version> = tokio::time::timeout(patience, told)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    Ok((told?, begun.freeze()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is told of pieces that come one after the other.
    async fn told(pieces: &[&[u8]]) -> io::Result<(Version, Bytes)> {
        let (mut near, mut far) = tokio::io::duplex(1);
        let send = async {
            for piece in pieces {
                // Whoever knows enough reads no further.
                let sent = near.write_all(piece);
                let _ = tokio::time::timeout(Duration::from_millis(20), sent).await;
            }
        };
        let read = read(&mut far, Duration::from_millis(500));
        let (told, ()) = tokio::join!(read, send);
        told
    }

    #[tokio::test]
    async fn the_preface_means_http_2_and_anything_else_http_1() {
        let (version, begun) = told(&[b"PRI * HT", b"TP/2.0\r\n\r\n", b"SM\r\n\r\nmore"])
            .await
            .unwrap();
        assert_eq!((version, begun.as_ref()), (Version::Http2, PREFACE));
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND /", b"PRI * HTTP/1.1"] {
            let (version, begun) = told(&[other]).await.unwrap();
            assert_eq!(version, Version::Http1);
            assert!(other.starts_with(&begun), "what was read is given back");
        }
    }

    #[tokio::test]
    async fn one_that_does_not_say_in_time_is_not_waited_for() {
        let error = told(&[b"PRI *"]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
