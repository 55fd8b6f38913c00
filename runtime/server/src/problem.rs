//! What can go wrong with a request, and the one table that says how each case
//! is answered: status, title and what to do next (RFC 9457 problem details).

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{self, RefOr};
use utoipa::{IntoResponses, ToSchema};

use crate::protocol::info::PolicyInfo;

mod failure;
mod table;

pub use failure::Failure;
use table::Row;

impl Failure {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Whether the same question may get an answer another time.
    pub fn may_pass(&self) -> bool {
        match self {
            // These follow from the question, or from the version.
            Self::Memory { .. } | Self::Cpu { .. } | Self::Model(_) | Self::OverBudget(_) => false,
            failure => {
                let status = failure.status();
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }

    /// Whether there was no room for the question, so that nobody was asked.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(
            self,
            Self::Busy(_) | Self::Throttled { .. } | Self::Overloaded { .. } | Self::NoRoom(_)
        )
    }

    /// Problem details.
    pub fn problem(self) -> Problem {
        let Row {
            status,
            kind,
            title,
            hint,
            ..
        } = self.row();
        Problem {
            kind: format!("urn:firebox:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: self.to_string(),
            hint,
            current: match self {
                Self::Stale { current, .. } => Some(current),
                _ => None,
            },
        }
    }

    /// As the protocol has it that a path belongs to.
    pub fn into_response_at(self, path: &str) -> Response {
        match path.starts_with("/v2") {
            true => self.into_v2(),
            false => self.into_problem(),
        }
    }

    /// As problem details.
    pub fn into_problem(self) -> Response {
        let Row {
            status,
            retry_after,
            ..
        } = self.row();
        let shed = self.is_for_want_of_room();
        let problem = self.problem();
        let json = HeaderValue::from_static("application/problem+json");
        let etag = problem.current.as_ref().map(|policy| policy.etag());
        let mut response = (status, [(header::CONTENT_TYPE, json)], Json(problem)).into_response();
        if let Some(etag) = etag {
            response.headers_mut().insert(header::ETAG, etag);
        }
        // Axum's `Json` sets its own media type only where none stands yet.
        with_retry_after(response, retry_after, shed)
    }

    /// What went wrong in a sentence, for protocols that have nothing else: with the hint where that
    /// names what there is.
    pub fn sentence(&self) -> String {
        match self {
            Self::UnknownFunction { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownLabel { .. } => format!("{self}. {}", self.row().hint),
            _ => self.to_string(),
        }
    }

    /// As the Open Inference Protocol's `{"error": …}`.
    pub fn into_v2(self) -> Response {
        let Row {
            status,
            retry_after,
            ..
        } = self.row();
        let shed = self.is_for_want_of_room();
        let error = self.sentence();
        let response = (status, Json(V2Problem { error })).into_response();
        with_retry_after(response, retry_after, shed)
    }
}

/// Marks an answer of a request that was refused for [want of room](Failure::is_for_want_of_room).
#[derive(Clone, Copy, Debug)]
pub struct Shed;

fn with_retry_after(mut response: Response, seconds: Option<u32>, shed: bool) -> Response {
    if shed {
        response.extensions_mut().insert(Shed);
    }
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.into_problem()
    }
}

/// What went wrong (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// The same for all errors of a kind.
    #[serde(rename = "type")]
    #[schema(example = "urn:firebox:problem:unknown-function")]
    kind: String,
    /// The kind, for people.
    #[schema(example = "No such function")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What was expected, and what was found.
    #[schema(example = "there is no function `fil-type`")]
    detail: String,
    /// What to do next.
    #[schema(example = "Did you mean `file-type`?")]
    hint: String,
    /// With status 412: the policy that holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Box<PolicyInfo>>,
}

impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        refusals(&Self::name(), "application/problem+json")
    }
}

/// What went wrong, as the Open Inference Protocol has it.
#[derive(Serialize, ToSchema)]
pub struct V2Problem {
    /// One sentence.
    #[schema(example = "there is no function `fil-type`")]
    error: String,
}

impl IntoResponses for V2Problem {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        refusals(&Self::name(), "application/json")
    }
}

/// What an operation may answer instead of what it is for.
fn refusals(schema: &str, media_type: &str) -> BTreeMap<String, RefOr<openapi::Response>> {
    let content = openapi::Content::new(Some(openapi::Ref::from_schema_name(schema)));
    let response = openapi::ResponseBuilder::new()
        .description("What went wrong")
        .content(media_type, content);
    BTreeMap::from([("default".to_owned(), response.build().into())])
}

#[cfg(test)]
mod tests;
