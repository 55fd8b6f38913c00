//! What a test says to a server, and what it hears.
//!
//! Connections are not kept: a shared server is called from the runtimes of many tests, and a
//! connection dies with the runtime that opened it.

use std::sync::LazyLock;
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::Value;

use crate::{Bundle, Server};

static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    ready();
    let client = Client::builder().pool_max_idle_per_host(0).no_proxy();
    client
        .timeout(Duration::from_secs(120))
        .build()
        .expect("a client can be made")
});

/// Chooses the process's cryptography for TLS, without which no client can be made. A started
/// [`Server`] has done it.
pub fn ready() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A whole answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "the answer was: {}", self.text());
        self
    }

    /// Fails the test unless this is a problem (RFC 9457) with this status, which says each of
    /// `words` in its title, detail or hint.
    #[track_caller]
    pub fn refused(self, status: u16, words: &[&str]) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{problem}");
        let text: String = ["title", "detail", "hint"]
            .iter()
            .filter_map(|member| problem[member].as_str())
            .collect::<Vec<_>>()
            .join("\n");
        for word in words {
            assert!(text.contains(word), "'{word}' is not said in:\n{text}");
        }
        answer
    }

    /// The same below `/v2`, where an error is `{"error": "…"}`.
    #[track_caller]
    pub fn refused_v2(self, status: u16, words: &[&str]) -> Answer {
        let answer = self.expect(status);
        let body = answer.json();
        let text = body["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no error in {body}"));
        for word in words {
            assert!(text.contains(word), "'{word}' is not said in:\n{text}");
        }
        answer
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The version that answered: `X-Firebox-Version`.
    #[track_caller]
    pub fn version(&self) -> u32 {
        let text = self.header("x-firebox-version");
        text.parse()
            .unwrap_or_else(|_| panic!("no version in '{text}': {}", self.text()))
    }
}

impl Server {
    /// A request to `path`, to be filled and [`send`]ed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        CLIENT.request(method, format!("{}{path}", self.url()))
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::PUT, path).json(body)).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// Whether `/v2/health/ready` says so.
    pub async fn is_ready(&self) -> bool {
        let request = self.request(Method::GET, "/v2/health/ready");
        let answer = request.timeout(Duration::from_secs(2)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Uploads bytes as a version of a function.
    pub async fn upload(&self, function: &str, bundle: impl Into<Body>) -> Answer {
        let path = format!("/v1/functions/{function}/versions");
        send(self.request(Method::POST, &path).body(bundle)).await
    }

    /// Uploads a bundle that must be accepted as a new version; returns its number.
    #[track_caller]
    pub fn deploy(&self, function: &str, bundle: &Bundle) -> impl Future<Output = u32> {
        let bytes = bundle.tar(function);
        async move {
            let info = self.upload(function, bytes).await.expect(201).json();
            u32::try_from(info["version"].as_u64().expect("a version has a number")).unwrap()
        }
    }

    /// Calls a function with a raw body.
    pub async fn invoke(&self, function: &str, body: impl Into<Body>) -> Answer {
        self.invoke_at(&format!("/v1/functions/{function}/invoke"), body)
            .await
    }

    /// The same at a full path: with a query, a version or a label.
    pub async fn invoke_at(&self, path: &str, body: impl Into<Body>) -> Answer {
        send(self.request(Method::POST, path).body(body)).await
    }

    /// The sum of the samples of a metric whose labels hold each of `labels`.
    pub async fn metric(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.expect(200).text();
        total(&text, metric, labels)
    }

    /// A V2 inference with this JSON body.
    pub async fn infer(&self, function: &str, body: &Value) -> Answer {
        self.post(&format!("/v2/models/{function}/infer"), body)
            .await
    }
}

/// The sum of the samples of a metric in `/metrics` whose labels hold each of `labels`.
pub fn total(text: &str, metric: &str, labels: &[&str]) -> f64 {
    let of_metric = |line: &&str| line.split(['{', ' ']).next() == Some(metric);
    let lines = text.lines().filter(of_metric);
    let samples = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    samples.map(value).sum()
}

/// Sends a request and reads the answer to its end.
pub async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.expect("the server answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.expect("the answer is whole").to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

/// A body that arrives in pieces of 64 KiB with a pause before each, as over a slow line.
pub fn slow_body(bytes: Vec<u8>, pause: Duration) -> Body {
    let pieces: Vec<Vec<u8>> = bytes.chunks(64 << 10).map(<[u8]>::to_vec).collect();
    Body::wrap_stream(futures::stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(piece)
    }))
}

/// A body of `bytes` zeros, made as it is sent, so that neither side need hold it.
pub fn long_body(bytes: u64) -> Body {
    let piece: &[u8] = &[0; 64 << 10];
    let pieces = bytes.div_ceil(piece.len() as u64);
    Body::wrap_stream(futures::stream::iter(0..pieces).map(move |_| Ok::<_, std::io::Error>(piece)))
}
