//! `ModelStreamInfer`: questions and answers over one call. Several are under way at once, and are
//! answered in the order in which they were asked; each answer carries its question's id. What goes
//! wrong with one is its answer alone, the stream goes on.
//!
//! Each question has a task of its own. What is in an answer's body runs only as fast as its caller
//! takes that: a question there would keep its place and its instance beyond its deadline.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, Stream, StreamExt};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::call::{Asked, Timeout};
use super::infer::{ask, open};
use super::message::{Messages, streamed};
use super::status;
use super::wire::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, Parameters,
    Value,
};
use crate::problem::Failure;
use crate::server::{App, panicked};

/// How many questions of a stream are under way at once. No more are read.
const UNDER_WAY: usize = 16;

/// With this in a request, an answer says that it is its question's last; others have one answer
/// as well, so they need not be told.
const WANTS_FINAL: &str = "triton_enable_empty_final_response";
const IS_FINAL: &str = "triton_final_response";

/// Where each answer's prediction id is: a stream's headers are gone before.
const PREDICTION_ID: &str = "firebox_prediction_id";

/// With this in its metadata, a stream ends with the status of the first failure.
const ENDS_BY_STATUS: &str = "triton_grpc_error";

/// Answers a stream.
pub fn answer(app: Arc<App>, mut asked: Asked) -> Response {
    let opened = asked
        .timeout()
        .and_then(|timeout| Ok((timeout, app.grpc.stream()?)));
    let (timeout, room) = match opened {
        Ok(opened) => opened,
        Err(failure) => return status::sent(status::failed(failure)),
    };
    let requests = asked.messages(app.config.max_body);
    let requests = until_stopped(requests, asked.stopping.cancelled_owned());
    let (headers, compression) = (Arc::new(asked.headers), asked.compression);
    let strict = headers
        .get(ENDS_BY_STATUS)
        .is_some_and(|value| value == "true");
    let open_streams = app.metrics.grpc_streams.clone();
    let answers = requests.map(move |request| {
        let (app, headers) = (app.clone(), headers.clone());
        let work = async move {
            match request {
                Ok(request) => one(&app, &headers, timeout, request, strict).await,
                Err(status) => Err(status),
            }
        };
        // The caller who goes drops the handles of what it has asked.
        let work = AbortOnDropHandle::new(tokio::spawn(work));
        work.map(|ended| ended.unwrap_or_else(|error| Err(status::of(ended_early(error)))))
    });
    let answers = until_over(answers.buffered(UNDER_WAY), timeout);
    let guard = Guard::new(open_streams, room);
    let answers = answers.map(move |answer| {
        let _ = &guard;
        answer
    });
    streamed(answers, compression)
}

/// An open stream: its place, and its part in the count.
struct Guard {
    open: metrics::Gauge,
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl Guard {
    fn new(open: metrics::Gauge, room: tokio::sync::OwnedSemaphorePermit) -> Self {
        open.increment(1.0);
        Self { open, _room: room }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

/// The questions, to the first that can't be read or to the server's stop.
fn until_stopped(
    messages: Messages<ModelInferRequest>,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<ModelInferRequest, Status>> + Send {
    let state = Some((messages, Box::pin(stopping)));
    futures::stream::unfold(state, |state| async move {
        let (mut messages, mut stopping) = state?;
        let read = tokio::select! {
            read = messages.next() => read,
            () = &mut stopping => Err(Failure::ShuttingDown),
        };
        match read {
            Ok(None) => None,
            Ok(Some(request)) => Some((Ok(request), Some((messages, stopping)))),
            Err(failure) => Some((Err(status::of(failure)), None)),
        }
    })
}

/// The answers, to the first status or to the end of the time that there is.
fn until_over<T>(
    answers: impl Stream<Item = Result<T, Status>> + Send,
    timeout: Option<Timeout>,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let state = Some(Box::pin(answers));
    futures::stream::unfold(state, move |state| async move {
        let mut answers = state?;
        let next = match timeout {
            None => answers.next().await,
            Some(timeout) => {
                let end = timeout.end().into();
                let next = tokio::time::timeout_at(end, answers.next()).await;
                next.unwrap_or_else(|_| Some(Err(status::of(timeout.failure()))))
            }
        }?;
        let more = next.is_ok().then_some(answers);
        Some((next, more))
    })
}

/// Answers one question.
async fn one(
    app: &App,
    headers: &HeaderMap,
    timeout: Option<Timeout>,
    request: ModelInferRequest,
    strict: bool,
) -> Result<ModelStreamInferResponse, Status> {
    let (function, id) = (request.model_name.clone(), request.id.clone());
    let is_final = wants_final(&request.parameters);
    let answer = match open(
        app,
        &request,
        headers,
        timeout.map(|timeout| timeout.left()),
    ) {
        Err(failure) => Err(failure),
        Ok(call) => {
            let answer = call.within(ask(app, &call, request)).await;
            let prediction = call.id.to_string();
            // Only what is recorded of it is sent on: dropping it says that it is on its way.
            let response = match &answer {
                Ok(_) => (StatusCode::OK, Body::empty()).into_response(),
                Err(failure) => status::failed(failure.clone()),
            };
            drop(call.close(response));
            answer.map(|answer| (answer, prediction))
        }
    };
    match answer {
        Ok((mut answer, prediction)) => {
            note(&mut answer, PREDICTION_ID, Value::Text(prediction));
            if is_final {
                note(&mut answer, IS_FINAL, Value::Bool(true));
            }
            Ok(ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(answer),
            })
        }
        Err(failure) if strict => Err(status::of(failure)),
        Err(failure) => Ok(ModelStreamInferResponse {
            error_message: failure.sentence(),
            infer_response: Some(ModelInferResponse {
                model_name: function,
                id,
                ..ModelInferResponse::default()
            }),
        }),
    }
}

/// Why a question's task has no answer.
fn ended_early(error: JoinError) -> Failure {
    match error.try_into_panic() {
        Ok(panic) => panicked(panic),
        Err(error) => Failure::Internal(error.to_string()),
    }
}

fn wants_final(parameters: &Parameters) -> bool {
    let wanted = parameters.get(WANTS_FINAL);
    wanted.is_some_and(|wanted| wanted.value == Some(Value::Bool(true)))
}

fn note(answer: &mut ModelInferResponse, name: &str, value: Value) {
    let value = InferParameter { value: Some(value) };
    answer.parameters.insert(name.into(), value);
}
