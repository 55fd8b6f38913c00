//! The standard health service, `grpc.health.v1.Health`, as Kubernetes' probes and load balancers
//! ask it (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>). A server that was
//! told to stop does not serve.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::response::Response;
use futures::StreamExt;
use prost::{Enumeration, Message};
use tonic::Status;

use super::call::Asked;
use super::message::{single, streamed};
use super::{SERVICE, status, unknown_method};
use crate::problem::Failure;
use crate::server::App;

/// The service's name.
pub const HEALTH: &str = "grpc.health.v1.Health";

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    /// Empty for the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "State", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum State {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

#[derive(Clone, PartialEq, Message)]
struct HealthListRequest {}

#[derive(Clone, PartialEq, Message)]
struct HealthListResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: BTreeMap<String, HealthCheckResponse>,
}

impl From<State> for HealthCheckResponse {
    fn from(serving: State) -> Self {
        Self {
            status: serving as i32,
        }
    }
}

/// Answers a call of the service.
pub async fn answer(app: &App, method: &str, mut asked: Asked) -> Response {
    let compression = asked.compression;
    let answered = match method {
        "Check" => {
            let request = asked.only::<HealthCheckRequest>(app).await;
            request.map(|request| match check(app, &request.service) {
                State::ServiceUnknown => status::refused(&Status::not_found(format!(
                    "there is no service `{}`; expected none, `{SERVICE}` or `{HEALTH}`",
                    request.service
                ))),
                serving => single(HealthCheckResponse::from(serving), compression),
            })
        }
        "List" => {
            let request = asked.only::<HealthListRequest>(app).await;
            request.map(|_| {
                let each = ["", SERVICE, HEALTH];
                let statuses = each.map(|service| (service.into(), check(app, service).into()));
                let statuses = statuses.into();
                single(HealthListResponse { statuses }, compression)
            })
        }
        "Watch" => watch(app, &mut asked).await,
        other => Ok(unknown_method(HEALTH, other)),
    };
    answered.unwrap_or_else(|failure| status::sent(status::failed(failure)))
}

fn check(app: &App, service: &str) -> State {
    match service {
        "" | SERVICE | HEALTH if app.draining.load(Relaxed) => State::NotServing,
        "" | SERVICE | HEALTH => State::Serving,
        _ => State::ServiceUnknown,
    }
}

/// Says how it is, and says it again when the server stops, which is the one change that there is.
async fn watch(app: &App, asked: &mut Asked) -> Result<Response, Failure> {
    let room = app.grpc.stream()?;
    let (compression, stopping) = (asked.compression, asked.stopping.clone());
    let request = asked.only::<HealthCheckRequest>(app).await?;
    let first = check(app, &request.service);
    let last = async move {
        stopping.cancelled().await;
        let _room = room;
        match first {
            State::ServiceUnknown => first,
            _ => State::NotServing,
        }
    };
    let states = futures::stream::iter([first]).chain(futures::stream::once(last));
    let states = states.map(|serving| Ok(HealthCheckResponse::from(serving)));
    Ok(streamed(states, compression))
}
