//! Many callers at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use reqwest::Request;
use tokio::net::TcpStream;

use crate::Series;

/// `callers` ask for as long as `lasts`, each on a connection of its own and again as soon as it is
/// answered. Returns the answers a second of all, and how long each took.
pub async fn load(request: &Request, callers: usize, lasts: Duration) -> (f64, Series) {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..callers {
        let mut caller = Caller::connect(request).await;
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < lasts {
                times.push(caller.call().await);
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a caller ends well"));
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    (rate, Series::new(times))
}

/// Asks the same again and again, on one connection. It takes as little of the processor as it can:
/// it shares it with the server that is measured.
pub struct Caller {
    request: http::Request<Full<Bytes>>,
    sender: SendRequest<Full<Bytes>>,
}

impl Caller {
    /// Connects to the request's host.
    pub async fn connect(request: &Request) -> Self {
        let stream = TcpStream::connect(address(request)).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("an option of TCP");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        let request = bare(request);
        Self { request, sender }
    }

    /// How long the answer takes, which must be a success.
    pub async fn call(&mut self) -> Duration {
        self.sender.ready().await.expect("the connection is kept");
        let asked = Instant::now();
        let answer = self.sender.send_request(self.request.clone()).await;
        let answer = answer.expect("the server answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        let body = answer.into_body().collect().await;
        body.expect("the answer is whole");
        asked.elapsed()
    }
}

fn address(request: &Request) -> String {
    let (host, port) = (request.url().host_str(), request.url().port());
    format!("{}:{}", host.expect("a host"), port.expect("a port"))
}

/// The same request for a connection to its host.
fn bare(request: &Request) -> http::Request<Full<Bytes>> {
    let url = request.url();
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let body = request.body().and_then(|body| body.as_bytes());
    let body = Bytes::copy_from_slice(body.unwrap_or_default());
    let mut bare = http::Request::builder()
        .method(request.method())
        .uri(path)
        .header(HOST, address(request));
    if let Some(headers) = bare.headers_mut() {
        headers.extend(request.headers().clone());
    }
    bare.body(Full::new(body)).expect("a request")
}
