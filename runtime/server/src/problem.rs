//! What can go wrong with a request, and the one table that says how each case
//! is answered: status, title and what to do next (RFC 9457 problem details).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_sandbox::LoadCause;
use serde::Serialize;
use utoipa::openapi::{self, RefOr};
use utoipa::{IntoResponses, ToSchema};

use crate::protocol::info::PolicyInfo;

/// Why a request has no answer of its own.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// A body that is not what the protocol says.
    #[error("{0}")]
    BadBody(String),
    /// A body that is compressed in a way that is not known here.
    #[error("{0}")]
    Coding(String),
    /// A path, query or header that can't be read.
    #[error("{0}")]
    BadRequest(String),
    /// Tensors that do not fit the function's signature.
    #[error("{0}")]
    WrongTensor(String),
    /// The function refused its input.
    #[error("{0}")]
    GuestInvalidInput(String),
    /// No such function.
    #[error("there is no function `{name}`")]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// The most similar name that exists.
        nearest: Option<String>,
    },
    /// No such version of a function.
    #[error("function `{function}` has no version {version}")]
    UnknownVersion {
        /// The function.
        function: String,
        /// The version asked for.
        version: String,
        /// The newest versions there are.
        known: Vec<u32>,
    },
    /// No such label of a function.
    #[error("function `{function}` has no label `{label}`")]
    UnknownLabel {
        /// The function.
        function: String,
        /// The label asked for.
        label: String,
        /// The most similar label that exists.
        nearest: Option<String>,
    },
    /// No policy of this revision is kept.
    #[error("{0}")]
    UnknownPolicy(String),
    /// A function that had no rollout.
    #[error("function `{function}` has had no rollout")]
    NoRollout {
        /// The function.
        function: String,
    },
    /// No such job.
    #[error("there is no job {id}")]
    UnknownJob {
        /// The id asked for.
        id: String,
    },
    /// A guard or steps that can't be read.
    #[error("{0}")]
    Misread(String),
    /// No such path.
    #[error("there is nothing at {0}")]
    UnknownPath(String),
    /// A path that does not take this method.
    #[error("{0}")]
    Method(String),
    /// The answer can't be written in the protocol that was asked.
    #[error("{0}")]
    NotAcceptable(String),
    /// Refused because of the present state.
    #[error("{0}")]
    Conflict(String),
    /// A policy that was changed since the caller read it.
    #[error("{detail}")]
    Stale {
        /// What was expected and found.
        detail: String,
        /// The policy that holds.
        current: Box<PolicyInfo>,
    },
    /// A body over its limit.
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A bundle, component, model or policy that is refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What is refused.
        what: String,
        /// Why.
        reason: String,
        /// What to do next, where more can be said than to correct it.
        hint: Option<&'static str>,
    },
    /// Too much is going on.
    #[error("{0}")]
    Busy(String),
    /// The function has its share of what there is.
    #[error("{reason}")]
    Throttled {
        /// Of what.
        reason: String,
        /// When another try may be worth it.
        retry_after: Duration,
    },
    /// The server has more to do than it can.
    #[error("{reason}")]
    Overloaded {
        /// What there is too much of.
        reason: String,
        /// When another try may be worth it.
        retry_after: Duration,
    },
    /// A body that comes too slowly, or not at all.
    #[error("{0}")]
    Stalled(String),
    /// The function failed.
    #[error("{0}")]
    GuestInternal(String),
    /// A model's graph failed.
    #[error("{0}")]
    Model(String),
    /// The function's instance trapped.
    #[error("{0}")]
    Trap(String),
    /// The function was given a request and gave no response.
    #[error("{0}")]
    NoResponse(String),
    /// The function hit its memory cap.
    #[error("the function needs more than its limit of {} MiB of memory", limit >> 20)]
    Memory {
        /// The cap in bytes.
        limit: usize,
    },
    /// The function used its processor time up.
    #[error("the function needs more than its limit of {} of processor time", humantime::format_duration(*limit))]
    Cpu {
        /// The processor time that it had.
        limit: Duration,
    },
    /// The function says that it can't answer now.
    #[error("{0}")]
    GuestUnavailable(String),
    /// A version that can't be loaded.
    #[error("{0}")]
    Load(String),
    /// A model that can't be loaded.
    #[error("{reason}")]
    BadModel {
        /// Whose fault it is.
        cause: LoadCause,
        /// What is wrong with it.
        reason: String,
    },
    /// A version that needs more memory than the server may ever take for such.
    #[error("{0}")]
    OverBudget(String),
    /// Versions in use leave no room in memory for another.
    #[error("{0}")]
    NoRoom(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No answer in time.
    #[error("no answer within {}", humantime::format_duration(*limit))]
    Deadline {
        /// The time that there was.
        limit: Duration,
    },
    /// No room on the disk.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The server is at fault.
    #[error("{0}")]
    Internal(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull(error.to_string())
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}

/// One line of the table.
struct Row {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    hint: String,
    retry_after: Option<u32>,
}

impl Failure {
    fn row(&self) -> Row {
        let row = |status, kind, title, hint: &str| Row {
            status,
            kind,
            title,
            hint: hint.to_owned(),
            retry_after: None,
        };
        let later = |status, kind, title, hint: &str| Row {
            retry_after: Some(1),
            ..row(status, kind, title, hint)
        };
        use StatusCode as S;
        match self {
            Self::BadBody(_) => row(
                S::BAD_REQUEST,
                "bad-body",
                "The body can't be read",
                "Send the body in the form that the path takes. JSON must be valid UTF-8; write \
                 numbers that JSON lacks as the strings \"NaN\", \"Infinity\" and \"-Infinity\".",
            ),
            Self::Coding(_) => row(
                S::UNSUPPORTED_MEDIA_TYPE,
                "coding",
                "The body is compressed in an unknown way",
                "Send the body as it is, or compressed in a way that the header Accept-Encoding lists.",
            ),
            Self::BadRequest(_) => row(
                S::BAD_REQUEST,
                "bad-request",
                "The request can't be read",
                "Correct the path, query or header that the detail names.",
            ),
            Self::WrongTensor(_) => row(
                S::BAD_REQUEST,
                "wrong-tensor",
                "The tensors do not fit",
                "Compare with the signature: GET /v2/models/{function}.",
            ),
            Self::GuestInvalidInput(_) => row(
                S::BAD_REQUEST,
                "invalid-input",
                "The function refused its input",
                "Correct the input; the same request will fail again.",
            ),
            Self::UnknownFunction { nearest, .. } => Row {
                hint: match nearest {
                    Some(name) => format!("Did you mean `{name}`?"),
                    None => "List the functions: GET /v1/functions.".into(),
                },
                ..row(S::NOT_FOUND, "unknown-function", "No such function", "")
            },
            Self::UnknownVersion { known, .. } => Row {
                hint: match known.as_slice() {
                    [] => "It has no versions; upload one.".into(),
                    known => format!("Its newest versions: {}.", list(known)),
                },
                ..row(S::NOT_FOUND, "unknown-version", "No such version", "")
            },
            Self::UnknownLabel {
                function, nearest, ..
            } => Row {
                hint: match nearest {
                    Some(label) => format!("Did you mean `{label}`?"),
                    None => format!("See its labels: GET /v1/functions/{function}/traffic."),
                },
                ..row(S::NOT_FOUND, "unknown-label", "No such label", "")
            },
            Self::UnknownPolicy(_) => row(
                S::NOT_FOUND,
                "unknown-policy",
                "No such policy",
                "List those that are kept: GET /v1/functions/{function}/policies.",
            ),
            Self::NoRollout { function } => Row {
                hint: format!("Start one: POST /v1/functions/{function}/rollout."),
                ..row(S::NOT_FOUND, "no-rollout", "No rollout", "")
            },
            Self::UnknownJob { .. } => row(
                S::NOT_FOUND,
                "unknown-job",
                "No such job",
                "List those that are kept: GET /v1/jobs. A job is deleted some days after its end.",
            ),
            Self::Misread(_) => row(
                S::BAD_REQUEST,
                "misread",
                "The guard or the steps can't be read",
                "Guards look like error_rate<=stable+1%, p95<=1.2*stable or p95<=300ms, steps like \
                 5%:10m,25%:10m,100%.",
            ),
            Self::UnknownPath(_) => row(
                S::NOT_FOUND,
                "unknown-path",
                "Nothing at this path",
                "Functions are at /v1/functions, the Open Inference Protocol at /v2.",
            ),
            Self::Method(_) => row(
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The path does not take this method",
                "The Allow header lists the methods that it takes.",
            ),
            Self::NotAcceptable(_) => row(
                S::NOT_ACCEPTABLE,
                "not-acceptable",
                "The answer can't be written as JSON",
                "Ask for other outputs, or call POST /v1/functions/{function}/invoke, which sends \
                 a single output `body` as it is.",
            ),
            Self::Conflict(_) => row(
                S::CONFLICT,
                "conflict",
                "Not in the present state",
                "Change what the detail names first, then try again.",
            ),
            Self::Stale { .. } => row(
                S::PRECONDITION_FAILED,
                "stale",
                "The policy was changed meanwhile",
                "Look at the policy that holds now (`current`, or `firebox traffic`), and make the change \
                 on top of it.",
            ),
            Self::TooLarge { .. } => row(
                S::PAYLOAD_TOO_LARGE,
                "too-large",
                "The body is too large",
                "Send less, or raise the server's limit.",
            ),
            Self::Refused { hint, .. } => row(
                S::UNPROCESSABLE_ENTITY,
                "refused",
                "The upload is refused",
                hint.unwrap_or(
                    "Correct what the detail names and send it again; nothing was kept.",
                ),
            ),
            Self::Busy(_) => later(
                S::TOO_MANY_REQUESTS,
                "busy",
                "Too many requests",
                "Try again after the time in Retry-After.",
            ),
            Self::Throttled { retry_after, .. } => Row {
                retry_after: Some(whole_seconds(*retry_after)),
                ..row(
                    S::TOO_MANY_REQUESTS,
                    "busy",
                    "Too many requests",
                    "Try again after the time in Retry-After.",
                )
            },
            Self::Overloaded { retry_after, .. } => Row {
                retry_after: Some(whole_seconds(*retry_after)),
                ..row(
                    S::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "The server is overloaded",
                    "Try again after the time in Retry-After.",
                )
            },
            Self::Stalled(_) => row(
                S::REQUEST_TIMEOUT,
                "stalled",
                "The body comes too slowly",
                "Send the body faster, or raise the server's body_timeout or lower its body_rate.",
            ),
            Self::GuestInternal(_) => row(
                S::INTERNAL_SERVER_ERROR,
                "function-failed",
                "The function failed",
                "The function's owner finds more in the server's log, by prediction id.",
            ),
            Self::Model(_) => row(
                S::INTERNAL_SERVER_ERROR,
                "model-failed",
                "The model failed",
                "The model's graph can't compute these inputs; compare shapes with what it was \
                 made for.",
            ),
            Self::Trap(_) => row(
                S::BAD_GATEWAY,
                "trap",
                "The function stopped",
                "The function's owner finds the backtrace in the server's log, by prediction id.",
            ),
            Self::NoResponse(_) => row(
                S::BAD_GATEWAY,
                "no-response",
                "The function gave no response",
                "The function must set a response and finish its body before it returns.",
            ),
            Self::Memory { .. } => row(
                S::BAD_GATEWAY,
                "memory",
                "The function ran out of memory",
                "Send less, or raise [limits] memory in the function's firebox.toml.",
            ),
            Self::Cpu { .. } => row(
                S::BAD_GATEWAY,
                "cpu",
                "The function ran out of processor time",
                "Send less, or raise [limits] cpu in the function's firebox.toml.",
            ),
            Self::GuestUnavailable(_) => later(
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "The function is unavailable",
                "Try again after the time in Retry-After.",
            ),
            Self::Load(_) | Self::BadModel { .. } => row(
                S::INTERNAL_SERVER_ERROR,
                "load-failed",
                "The version can't be loaded",
                "The next request tries again; if it goes on, check the data directory and the \
                 server's log.",
            ),
            Self::OverBudget(_) => row(
                S::INTERNAL_SERVER_ERROR,
                "over-budget",
                "The version needs more memory than there may be",
                "Raise the server's --model-memory or --code-memory, or give the model less \
                 precision.",
            ),
            Self::NoRoom(_) => later(
                S::SERVICE_UNAVAILABLE,
                "no-room",
                "No room in memory for now",
                "Try again after the time in Retry-After; the server's --model-memory and \
                 --code-memory say how much there is.",
            ),
            Self::ShuttingDown => later(
                S::SERVICE_UNAVAILABLE,
                "shutting-down",
                "The server is shutting down",
                "Send the request to another server, or again after the restart.",
            ),
            Self::Deadline { .. } => row(
                S::GATEWAY_TIMEOUT,
                "deadline",
                "No answer in time",
                "Send less, or raise [limits] deadline in firebox.toml or X-Firebox-Timeout-Ms.",
            ),
            Self::DiskFull(_) => row(
                S::INSUFFICIENT_STORAGE,
                "disk-full",
                "No room on the server's disk",
                "Delete versions that are not needed, or make room below the data directory.",
            ),
            Self::Internal(_) => row(
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "The server failed",
                "This is a defect of the server; its log has more, by prediction id.",
            ),
        }
    }

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

/// At least one: callers that come back at once are what an overload is made of.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs_f64().ceil().clamp(1.0, 3600.0);
    seconds as u32
}

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

fn list(numbers: &[u32]) -> String {
    numbers
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn text() -> String {
        "why".into()
    }

    #[test]
    fn each_failure_has_the_status_of_the_contract() {
        let limit = Duration::from_secs(1);
        let stale = Failure::Stale {
            detail: text(),
            current: Box::default(),
        };
        let unknown = Failure::UnknownFunction {
            name: text(),
            nearest: None,
        };
        for (failure, status) in [
            (Failure::GuestInvalidInput(text()), 400),
            (Failure::BadBody(text()), 400),
            (Failure::WrongTensor(text()), 400),
            (Failure::Misread(text()), 400),
            (Failure::NoRollout { function: text() }, 404),
            (Failure::UnknownJob { id: text() }, 404),
            (unknown, 404),
            (Failure::Conflict(text()), 409),
            (stale, 412),
            (Failure::TooLarge { limit: 1 }, 413),
            (Failure::Coding(text()), 415),
            (
                Failure::Refused {
                    what: text(),
                    reason: text(),
                    hint: None,
                },
                422,
            ),
            (Failure::Busy(text()), 429),
            (
                Failure::Throttled {
                    reason: text(),
                    retry_after: limit,
                },
                429,
            ),
            (
                Failure::Overloaded {
                    reason: text(),
                    retry_after: limit,
                },
                503,
            ),
            (Failure::Stalled(text()), 408),
            (Failure::Cpu { limit }, 502),
            (Failure::GuestInternal(text()), 500),
            (Failure::Trap(text()), 502),
            (Failure::NoResponse(text()), 502),
            (Failure::Memory { limit: 1 }, 502),
            (Failure::GuestUnavailable(text()), 503),
            (Failure::OverBudget(text()), 500),
            (Failure::NoRoom(text()), 503),
            (Failure::ShuttingDown, 503),
            (Failure::Deadline { limit }, 504),
            (Failure::DiskFull(text()), 507),
        ] {
            assert_eq!(failure.status().as_u16(), status, "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_problem_has_all_members_and_its_media_type() {
        let failure = Failure::UnknownFunction {
            name: "fil-type".into(),
            nearest: Some("file-type".into()),
        };
        let response = failure.into_problem();
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = body(response).await;
        assert_eq!(body["type"], "urn:firebox:problem:unknown-function");
        assert_eq!(body["status"], 404);
        assert_eq!(body["title"], "No such function");
        assert_eq!(body["detail"], "there is no function `fil-type`");
        assert_eq!(body["hint"], "Did you mean `file-type`?");
    }

    #[tokio::test]
    async fn what_may_pass_by_itself_says_when_to_try_again() {
        assert_eq!(
            Failure::Busy(text()).into_problem().headers()["retry-after"],
            "1"
        );
        let overloaded = Failure::Overloaded {
            reason: text(),
            retry_after: Duration::from_millis(2100),
        };
        assert_eq!(overloaded.into_problem().headers()["retry-after"], "3");
        let v2 = Failure::ShuttingDown.into_v2();
        assert_eq!(v2.headers()["retry-after"], "1");
        assert_eq!(body(v2).await["error"], "the server is shutting down");
    }
}
