//! The Open Inference Protocol, version 2, over gRPC, with Triton's extensions for streams, the
//! model repository, statistics and the model's configuration
//! (<https://github.com/kserve/open-inference-protocol>,
//! <https://github.com/triton-inference-server/server/tree/main/docs/protocol>), and the standard
//! health service. Functions are its models, and what REST says in headers stands in the metadata.
//!
//! [`call`] takes a request and [`message`] reads and writes its messages, which are in [`wire`];
//! [`infer`] and [`stream`] ask functions, [`tensor`] reads their inputs; [`models`] and
//! [`repository`] say what there is to ask; [`status`] is what a failure is in gRPC.

mod call;
mod health;
mod infer;
mod message;
mod models;
mod repository;
mod status;
mod stream;
mod tensor;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use axum::routing::any;
use prost::Message;
use tonic::Status;
use tower_http::catch_panic::CatchPanicLayer;

use super::v2;
use super::v2::server::EXTENSIONS;
use crate::problem::Failure;
use crate::routing::Selector;
use crate::server::{App, panicked};
use call::Asked;
pub use call::Rooms;
use health::HEALTH;

/// The service's name.
const SERVICE: &str = "inference.GRPCInferenceService";

/// The path whose requests are of many messages.
pub const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The one extension that is of REST alone: bytes are raw here either way.
const OF_REST: &str = "binary_tensor_data";

/// The paths of both services.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(&format!("/{SERVICE}/{{method}}"), any(inference))
        .route(&format!("/{HEALTH}/{{method}}"), any(health))
        .layer(CatchPanicLayer::custom(|panic| {
            status::sent(status::failed(panicked(panic)))
        }))
}

/// These paths alone, for an address where nothing else is answered.
pub fn router(app: Arc<App>) -> Router {
    routes().fallback(unknown_service).with_state(app)
}

/// What a path ends with: the method.
fn method(request: &Request<Body>) -> String {
    let path = request.uri().path();
    let method = path.rsplit('/').next().unwrap_or_default();
    method.chars().take(100).collect()
}

async fn health(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let method = method(&request);
    match Asked::of(request) {
        Ok(asked) => health::answer(&app, &method, asked).await,
        Err(refused) => refused,
    }
}

async fn inference(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let method = method(&request);
    let mut asked = match Asked::of(request) {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    match method.as_str() {
        "ModelInfer" => infer::answer(&app, asked).await,
        "ModelStreamInfer" => stream::answer(app, asked),
        other => about(&app, other, &mut asked).await,
    }
}

/// Answers what is asked about the server and its functions.
async fn about(app: &App, method: &str, asked: &mut Asked) -> Response {
    let headers = &asked.headers.clone();
    match method {
        "ServerLive" => answer(app, asked, |_: Nothing| Ok(Live { live: true })).await,
        "ServerReady" => {
            let ready = !app.draining.load(Relaxed);
            answer(app, asked, |_: Nothing| Ok(Ready { ready })).await
        }
        "ServerMetadata" => answer(app, asked, |_: Nothing| Ok(metadata())).await,
        "ModelReady" => answer(app, asked, |which| models::ready(app, headers, &which)).await,
        "ModelMetadata" => answer(app, asked, |which| models::metadata(app, headers, &which)).await,
        "ModelConfig" => answer(app, asked, |which| models::config(app, headers, &which)).await,
        "ModelStatistics" => {
            answer(app, asked, |which| {
                repository::statistics(app, headers, &which)
            })
            .await
        }
        "RepositoryIndex" => answer(app, asked, |ask| Ok(repository::index(app, &ask))).await,
        "RepositoryModelLoad" => answer_later(app, asked, |ask| repository::load(app, ask)).await,
        "RepositoryModelUnload" => {
            answer_later(app, asked, |ask| repository::unload(app, ask)).await
        }
        other => unknown_method(SERVICE, other),
    }
}

/// Answers a call of one message by one message.
async fn answer<Q, A>(
    app: &App,
    asked: &mut Asked,
    to: impl FnOnce(Q) -> Result<A, Failure>,
) -> Response
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    answer_later(app, asked, |question| std::future::ready(to(question))).await
}

/// The same where the answer takes a while: no longer than the caller waits.
async fn answer_later<Q, A, F>(app: &App, asked: &mut Asked, to: impl FnOnce(Q) -> F) -> Response
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Failure>>,
{
    let (compression, timeout) = (asked.compression, asked.timeout());
    let answered = async {
        let answer = to(asked.only(app).await?);
        match timeout? {
            None => answer.await,
            Some(timeout) => {
                let answer = tokio::time::timeout(timeout.left(), answer).await;
                answer.unwrap_or_else(|_| Err(timeout.failure()))
            }
        }
    };
    match answered.await {
        Ok(answer) => message::single(answer, compression),
        Err(failure) => status::sent(status::failed(failure)),
    }
}

fn unknown_method(service: &str, method: &str) -> Response {
    let said =
        format!("`{service}` has no method `{method}` here; docs/grpc.md lists those it has");
    status::refused(&Status::unimplemented(said))
}

async fn unknown_service(request: Request<Body>) -> Response {
    match Asked::of(request) {
        Ok(_) => status::refused(&Status::unimplemented(format!(
            "there is no such service; expected `{SERVICE}` or `{HEALTH}`"
        ))),
        Err(refused) => refused,
    }
}

/// The version that a message asks for: what the protocol calls one, or a label; empty for what the
/// metadata or else the policy says.
fn version(text: &str) -> Result<Selector, Failure> {
    match text {
        "" => Ok(Selector::Split),
        text => v2::version_or_label(text),
    }
}

/// A message that says nothing.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Live {
    #[prost(bool, tag = "1")]
    live: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Ready {
    #[prost(bool, tag = "1")]
    ready: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ServerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, repeated, tag = "3")]
    extensions: Vec<String>,
}

fn metadata() -> ServerMetadata {
    let extensions = EXTENSIONS.iter().copied().filter(|name| *name != OF_REST);
    ServerMetadata {
        name: "firebox".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: extensions.map(str::to_string).collect(),
    }
}
