//! What comes before the messages of a call: whether it is gRPC, how long it may take, and whether
//! there is room to read it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Version, header};
use axum::response::Response;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::message::{Compression, Messages};
use super::status;
use crate::config::Config;
use crate::connections::Stopping;
use crate::problem::Failure;
use crate::protocol::{header, timeout};
use crate::server::App;

/// Room for what is read before it is known which function is asked, and for streams.
pub struct Rooms {
    most: usize,
    messages: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Rooms {
    /// As many as there are requests inside, as those have their bodies in memory too.
    pub fn new(config: &Config) -> Self {
        let most = (config.max_instances + config.max_queued).min(Semaphore::MAX_PERMITS);
        Self {
            most,
            messages: Arc::new(Semaphore::new(most)),
            streams: Arc::new(Semaphore::new(most)),
        }
    }

    fn enter(&self, room: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = room.clone().try_acquire_owned();
        permit.map_err(|_| Failure::Throttled {
            reason: format!("{} {what} already", self.most),
            retry_after: Duration::from_secs(1),
        })
    }

    /// A place for a stream, for as long as it is open.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.enter(&self.streams, "gRPC streams are open")
    }
}

/// A call before its messages.
pub struct Asked {
    /// Its metadata.
    pub headers: HeaderMap,
    /// How its messages are compressed.
    pub compression: Compression,
    /// Done when the server stops.
    pub stopping: CancellationToken,
    body: Body,
    started: Instant,
}

/// How long a call may take, counted from its head.
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    started: Instant,
    limit: Duration,
}

impl Timeout {
    /// What is left of it, in whole milliseconds.
    pub fn left(&self) -> Duration {
        let left = self.limit.saturating_sub(self.started.elapsed());
        let ms = left.as_nanos().div_ceil(1_000_000);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// When it is over. Far times are cut to what a clock can hold.
    pub fn end(&self) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        self.started + self.limit.min(FAR)
    }

    /// That it is over.
    pub fn failure(&self) -> Failure {
        Failure::Deadline { limit: self.limit }
    }
}

impl Asked {
    /// Takes a request, or says what keeps it from being a gRPC call.
    #[allow(
        clippy::result_large_err,
        reason = "an answer is what is sent in its place, and is moved once"
    )]
    pub fn of(request: Request<Body>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let content = parts.headers.get(header::CONTENT_TYPE);
        let content = content.map_or(&b""[..], |value| value.as_bytes());
        let form = content.strip_prefix(b"application/grpc");
        let known = matches!(form, Some(b"" | b"+proto" | [b';', ..]));
        if parts.version != Version::HTTP_2 || parts.method != Method::POST || !known {
            return Err(status::no_grpc(format!(
                "expected a gRPC call: POST over HTTP/2 with content-type application/grpc; found \
                 {} over {:?} with content-type `{}`",
                parts.method,
                parts.version,
                String::from_utf8_lossy(content)
            )));
        }
        let compression = Compression::of(&parts.headers);
        let compression = compression.map_err(|status| status::refused(&status))?;
        let stopping = parts.extensions.remove::<Stopping>();
        Ok(Self {
            headers: parts.headers,
            compression,
            stopping: stopping.map_or_else(CancellationToken::new, |stopping| stopping.0),
            body,
            started: Instant::now(),
        })
    }

    /// The caller's own bound on the time: the shorter one of `grpc-timeout` and
    /// `x-firebox-timeout-ms`.
    pub fn timeout(&self) -> Result<Option<Timeout>, Failure> {
        let own = timeout(&self.headers)?;
        let standard = header(&self.headers, "grpc-timeout")?.map(grpc_timeout);
        let standard = standard.transpose()?;
        let limit = own.into_iter().chain(standard).min();
        let started = self.started;
        Ok(limit.map(|limit| Timeout { started, limit }))
    }

    /// Its one message, where there is room to read it.
    pub async fn only<T: Message + Default + 'static>(&mut self, app: &App) -> Result<T, Failure> {
        let timeout = self.timeout()?;
        let _room = app
            .grpc
            .enter(&app.grpc.messages, "gRPC calls are being read")?;
        let reading = self.messages(app.config.max_body).only();
        match timeout {
            None => reading.await,
            Some(timeout) => {
                let read = tokio::time::timeout(timeout.left(), reading).await;
                read.unwrap_or_else(|_| Err(timeout.failure()))
            }
        }
    }

    /// Its messages, each of at most `limit` bytes; none where they were taken already.
    pub fn messages<T: Message + Default + 'static>(&mut self, limit: usize) -> Messages<T> {
        Messages::new(std::mem::take(&mut self.body), self.compression, limit)
    }
}

/// A time as gRPC writes it: at most eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn grpc_timeout(text: &str) -> Result<Duration, Failure> {
    let wrong = || {
        Failure::BadRequest(format!(
            "grpc-timeout: expected up to 8 digits and one of H, M, S, m, u and n, found `{text}`"
        ))
    };
    let Some((at, unit)) = text.char_indices().last() else {
        return Err(wrong());
    };
    let digits = text.get(..at).unwrap_or_default();
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    Ok(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<Body> {
        let request = Request::post("/inference.GRPCInferenceService/ModelInfer");
        let request = request.version(Version::HTTP_2);
        let add = |request: axum::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let request = headers.iter().fold(request, add);
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_grpc_over_http_2_is_taken() {
        for content in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;v=1",
        ] {
            assert!(
                Asked::of(request(&[("content-type", content)])).is_ok(),
                "{content}"
            );
        }
        for content in [
            "application/grpc-web",
            "application/grpc+json",
            "text/plain",
        ] {
            let refused = Asked::of(request(&[("content-type", content)]))
                .err()
                .unwrap();
            assert_eq!(refused.status(), 415, "{content}");
        }
        let mut old = request(&[("content-type", "application/grpc")]);
        *old.version_mut() = Version::HTTP_11;
        assert_eq!(Asked::of(old).err().unwrap().status(), 415);
    }

    #[test]
    fn the_shorter_timeout_holds() {
        let limit = |headers: &[(&str, &str)]| {
            let content = [("content-type", "application/grpc")];
            let asked = Asked::of(request(&[&content, headers].concat()))
                .ok()
                .unwrap();
            let timeout = asked.timeout().map_err(|failure| failure.to_string());
            timeout.map(|timeout| timeout.map(|timeout| timeout.limit))
        };
        assert_eq!(limit(&[]), Ok(None));
        let both = [("grpc-timeout", "2S"), ("x-firebox-timeout-ms", "300")];
        assert_eq!(limit(&both), Ok(Some(Duration::from_millis(300))));
        let standard = |text| limit(&[("grpc-timeout", text)]);
        assert_eq!(
            standard("99999999H"),
            Ok(Some(Duration::from_secs(99_999_999 * 3600)))
        );
        assert_eq!(standard("7u"), Ok(Some(Duration::from_micros(7))));
        for wrong in ["", "S", "1", "-1S", "123456789S", "1s", "1x"] {
            assert!(
                standard(wrong).is_err_and(|said| said.contains("8 digits")),
                "{wrong}"
            );
        }
    }
}
