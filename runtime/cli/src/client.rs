//! The way to a server: URLs, requests, and refusals turned into failures.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use crate::api::Problem;
use crate::failure::{Context, Exit, Failure, Result, causes};
use crate::silence::{Pulse, within};
use crate::tls;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest silence of a server: longer than the compilation of any component and the dry run
/// of any model that a deadline allows.
const SILENCE: Duration = Duration::from_secs(900);
/// What a refusal may say.
const PROBLEM_BYTES: usize = 64 << 10;

/// A server, spoken to over HTTP.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// For bodies that may be long on the way: [`within`] is their timeout.
    uploads: reqwest::Client,
    base: Url,
    author: String,
}

impl Client {
    /// A client of the server at this URL. Nothing is sent yet.
    pub fn new(server: &str) -> Result<Client> {
        let wrong = |why: &str| {
            Failure::usage(format!("'{server}' is not a server's address: {why}"))
                .hint("an address looks like http://127.0.0.1:8080")
        };
        let base = Url::parse(server).map_err(|error| wrong(&error.to_string()))?;
        if base.scheme() != "http" {
            return Err(wrong("it must begin with http://"));
        }
        let host = base.host_str().ok_or_else(|| wrong("it names no host"))?;
        tls::ready();
        let builder = || {
            // No TLS is spoken here, so no authority need be loaded, or be there at all.
            let http = reqwest::Client::builder()
                .tls_certs_only([])
                .connect_timeout(CONNECT);
            match is_loopback(host) {
                true => http.no_proxy(),
                false => http,
            }
        };
        let unmade = || "the HTTP client can't be set up".into();
        Ok(Client {
            http: builder().read_timeout(SILENCE).build().context(unmade)?,
            uploads: builder().build().context(unmade)?,
            base,
            author: user(),
        })
    }

    /// The same, making changes in the name of `author`.
    pub fn by(self, author: Option<String>) -> Client {
        let author = author.unwrap_or(self.author);
        Client { author, ..self }
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to the path made of these segments, which are escaped.
    pub fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.http.request(method, url)
    }

    /// `GET` of a JSON answer.
    pub async fn get(&self, path: &[&str]) -> Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    /// `GET` of a JSON answer, and its ETag.
    pub async fn get_tagged(&self, path: &[&str]) -> Result<(Value, Option<HeaderValue>)> {
        let answer = self.send(self.request(Method::GET, path)).await?;
        let etag = answer.headers().get(ETAG).cloned();
        Ok((self.read(answer).await?, etag))
    }

    /// A change by a JSON body; the answer is JSON.
    pub async fn change(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
        change: &Change,
    ) -> Result<Value> {
        let mut request = self.signed(self.request(method, path).json(body));
        if !change.reason.is_empty() {
            request = request.header("x-firebox-reason", change.reason.as_bytes());
        }
        if let Some(etag) = &change.if_match {
            request = request.header(IF_MATCH, etag);
        }
        self.json(request).await
    }

    /// The same request with the name of who makes it.
    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match self.author.as_str() {
            "" => request,
            author => request.header("x-firebox-author", author.as_bytes()),
        }
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &[&str]) -> Result {
        self.send(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// Uploads a bundle of `bytes` bytes; the answer is the version's `VersionInfo`.
    pub async fn upload(
        &self,
        function: &str,
        bundle: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        bytes: u64,
    ) -> Result<Value> {
        let request = self.request(Method::POST, &["v1", "functions", function, "versions"]);
        let request = request.header(CONTENT_TYPE, "application/x-tar");
        self.submit(request.header(CONTENT_LENGTH, bytes), bundle)
            .await
    }

    /// A request of the author's with a body in pieces, which may be as long on the way as it takes;
    /// the answer is JSON.
    pub async fn submit(
        &self,
        request: RequestBuilder,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Value> {
        let pulse = Pulse::start();
        let beating = pulse.clone();
        let pieces = pieces.inspect(move |_| beating.beat());
        let request = self.signed(request).body(Body::wrap_stream(pieces));
        let request = request
            .build()
            .context(|| "the request can't be made".into())?;
        let answered = async {
            let answer = self.accepted(self.uploads.execute(request).await).await?;
            self.read(answer).await
        };
        let answered = within(SILENCE, &pulse, answered).await;
        answered.unwrap_or_else(|| Err(self.unreachable(self.silent())))
    }

    /// A request with an answer in JSON.
    pub async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let answer = self.send(request).await?;
        self.read(answer).await
    }

    async fn read(&self, answer: Response) -> Result<Value> {
        answer
            .json()
            .await
            .context(|| format!("{} gave no whole answer", self.server()))
    }

    /// Sends a request. An answer that is an error becomes a failure with what it says.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response> {
        self.accepted(request.send().await).await
    }

    async fn accepted(&self, answer: reqwest::Result<Response>) -> Result<Response> {
        let answer = answer.map_err(|error| self.no_answer(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER);
        let retry_after = retry_after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Err(refusal(
            status,
            retry_after.as_deref(),
            &beginning(answer).await,
        ))
    }

    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        let server = self.server();
        if error.is_connect() {
            return Failure::new(format!("no server answers at {server}"))
                .with_exit(Exit::Unreachable)
                .hint(
                    "start one with `firebox serve`, or name it with --server or FIREBOX_SERVER",
                );
        }
        self.unreachable(match error.is_timeout() {
            true => self.silent(),
            false => format!("{server} broke the connection off: {}", causes(error)),
        })
    }

    fn silent(&self) -> String {
        format!("{} was silent for {} s", self.server(), SILENCE.as_secs())
    }

    fn unreachable(&self, what: String) -> Failure {
        Failure::new(what)
            .with_exit(Exit::Unreachable)
            .hint("the server's log may say why")
    }
}

/// What goes with a change.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Why.
    pub reason: String,
    /// The ETag of what was read.
    pub if_match: Option<HeaderValue>,
}

/// `ann@laptop`, as far as the system tells.
fn user() -> String {
    let name = ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match (name, host.trim()) {
        (Some(name), "") => name,
        (Some(name), host) => format!("{name}@{host}"),
        (None, host) => host.to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The first bytes of an answer that need not be whole.
async fn beginning(mut answer: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        bytes.extend(piece.iter().take(PROBLEM_BYTES - bytes.len()));
        if bytes.len() == PROBLEM_BYTES {
            break;
        }
    }
    bytes
}

fn refusal(status: StatusCode, retry_after: Option<&str>, body: &[u8]) -> Failure {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let plain = (!text.trim().is_empty() && !text.trim_start().starts_with(['{', '<']))
        .then(|| text.trim().to_owned());
    let what = problem.detail.or(problem.error).or(problem.title).or(plain);
    let class = status.canonical_reason().unwrap_or("an error");
    let what = match what {
        Some(what) => format!("{what} ({} {class})", status.as_u16()),
        None => format!("the server answered {} {class}", status.as_u16()),
    };
    let again = || retry_after.map(|seconds| format!("try again in {seconds} s"));
    let failure = Failure::new(what).with_exit(Exit::Refused);
    match problem.hint.or_else(again) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_the_detail_and_the_hint() {
        let body = br#"{"title": "Not Found", "status": 404,
                        "detail": "there is no function 'addr'", "hint": "did you mean 'adder'?"}"#;
        let failure = refusal(StatusCode::NOT_FOUND, None, body);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.what, "there is no function 'addr' (404 Not Found)");
        assert_eq!(failure.hint.as_deref(), Some("did you mean 'adder'?"));
    }

    #[test]
    fn a_refusal_without_a_problem_is_told_by_its_status_or_text() {
        let failure = refusal(StatusCode::TOO_MANY_REQUESTS, Some("2"), b"");
        assert_eq!(failure.what, "the server answered 429 Too Many Requests");
        assert_eq!(failure.hint.as_deref(), Some("try again in 2 s"));
        let failure = refusal(StatusCode::BAD_GATEWAY, None, b"upstream is down\n");
        assert_eq!(failure.what, "upstream is down (502 Bad Gateway)");
    }

    #[test]
    fn path_segments_are_escaped() {
        let client = Client::new("http://localhost:8080/behind/").unwrap();
        let request = client.request(Method::GET, &["v1", "functions", "a/b ?"]);
        let request = request.build().unwrap();
        let url = request.url().as_str();
        assert_eq!(url, "http://localhost:8080/behind/v1/functions/a%2Fb%20%3F");
    }

    #[test]
    fn an_address_that_is_none_is_a_wrong_command_line() {
        for address in ["127.0.0.1:8080", "https://host", "host", ""] {
            let failure = Client::new(address).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{address}");
            assert!(failure.hint.unwrap().contains("http://"));
        }
    }
}
