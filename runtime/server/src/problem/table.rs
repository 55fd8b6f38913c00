//! How each failure is told: its status, its kind, and what to do next.

use std::time::Duration;

use axum::http::StatusCode;

use super::Failure;

/// One line of the table.
pub(super) struct Row {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) hint: String,
    /// Seconds.
    pub(super) retry_after: Option<u32>,
}

impl Failure {
    pub(super) fn row(&self) -> Row {
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
}

/// At least one: callers that come back at once are what an overload is made of.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs_f64().ceil().clamp(1.0, 3600.0);
    seconds as u32
}

fn list(numbers: &[u32]) -> String {
    numbers
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
