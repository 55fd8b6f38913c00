//! What a failure is in gRPC. The codes follow from the statuses of `problem`'s table, so that
//! both protocols say the same of the same.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};

use crate::problem::Failure;

/// Bytes of a sentence as a header has it. Callers and guests choose words that stand in it, and
/// clients refuse a call whose headers are too long: gRPC's own take 8 KiB by default.
const LONGEST: usize = 2 << 10;

/// When another try may be worth it, as clients with a retry policy read it.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The code for an HTTP status.
pub fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        404 => Code::NotFound,
        405 => Code::Unimplemented,
        408 | 504 => Code::DeadlineExceeded,
        409 | 406 => Code::FailedPrecondition,
        412 => Code::Aborted,
        413 | 429 | 507 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        400..500 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// The failure's code and sentence, with the time to wait where another try may pass.
pub fn of(failure: Failure) -> Status {
    let (status, response) = (failure.status(), failure.clone().into_v2());
    let mut told = Status::new(code(status), clipped(failure.sentence()));
    let after = response.headers().get(header::RETRY_AFTER);
    let seconds = after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if let Some(seconds) = seconds {
        let ms = u64::from(seconds) * 1000;
        let mut wait = HeaderMap::new();
        wait.insert(header::RETRY_AFTER, seconds.into());
        wait.insert(PUSHBACK, ms.into());
        *told.metadata_mut() = tonic::metadata::MetadataMap::from_headers(wait);
    }
    told
}

/// The text, or as much of its start as takes [`LONGEST`] bytes of a header. There, `%` and two
/// digits stand for most bytes but letters and digits
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, `Percent-Encoded`).
fn clipped(mut text: String) -> String {
    let widths = text.bytes().scan(0, |sum, byte| {
        *sum += if byte.is_ascii_alphanumeric() { 1 } else { 3 };
        Some(*sum)
    });
    let fits = widths.take_while(|width| *width <= LONGEST).count();
    if fits < text.len() {
        text.truncate(text.floor_char_boundary(fits));
        text.push('…');
    }
    text
}

/// An answer that is a failure. Its HTTP status is what the failure has over HTTP, for those who
/// record it; [`sent`] puts the one in its place that gRPC has.
pub fn failed(failure: Failure) -> Response {
    let marked = failure.clone().into_v2();
    let (status, extensions) = (marked.status(), marked.extensions().clone());
    let mut response = refused(&of(failure));
    *response.status_mut() = status;
    *response.extensions_mut() = extensions;
    response
}

/// An answer that is a status and no message.
pub fn refused(status: &Status) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let content = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, content);
    if status.add_header(headers).is_err() {
        // Its sentence can't be a header.
        headers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    response
}

/// The answer as gRPC has it: what became of a call stands beside an HTTP status that is always 200.
pub fn sent(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::OK;
    response
}

/// An answer to what is no gRPC: the status that its specification has for that.
pub fn no_grpc(why: String) -> Response {
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, why + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text() -> String {
        "why".into()
    }

    /// The rows of docs/grpc.md.
    #[test]
    fn each_failure_has_the_code_of_the_contract() {
        let limit = Duration::from_secs(1);
        let (retry_after, reason) = (limit, text());
        let unknown = Failure::UnknownFunction {
            name: text(),
            nearest: None,
        };
        let refused = Failure::Refused {
            what: text(),
            reason: text(),
            hint: None,
        };
        for (failure, code) in [
            (Failure::BadBody(text()), Code::InvalidArgument),
            (Failure::BadRequest(text()), Code::InvalidArgument),
            (Failure::WrongTensor(text()), Code::InvalidArgument),
            (Failure::GuestInvalidInput(text()), Code::InvalidArgument),
            (refused, Code::InvalidArgument),
            (unknown, Code::NotFound),
            (Failure::NoRollout { function: text() }, Code::NotFound),
            (Failure::UnknownJob { id: text() }, Code::NotFound),
            (Failure::Method(text()), Code::Unimplemented),
            (Failure::Stalled(text()), Code::DeadlineExceeded),
            (Failure::Deadline { limit }, Code::DeadlineExceeded),
            (Failure::Conflict(text()), Code::FailedPrecondition),
            (Failure::NotAcceptable(text()), Code::FailedPrecondition),
            (Failure::TooLarge { limit: 1 }, Code::ResourceExhausted),
            (Failure::Busy(text()), Code::ResourceExhausted),
            (
                Failure::Throttled {
                    reason,
                    retry_after,
                },
                Code::ResourceExhausted,
            ),
            (Failure::DiskFull(text()), Code::ResourceExhausted),
            (
                Failure::Overloaded {
                    reason: text(),
                    retry_after,
                },
                Code::Unavailable,
            ),
            (Failure::GuestUnavailable(text()), Code::Unavailable),
            (Failure::NoRoom(text()), Code::Unavailable),
            (Failure::ShuttingDown, Code::Unavailable),
            (Failure::GuestInternal(text()), Code::Internal),
            (Failure::Model(text()), Code::Internal),
            (Failure::Load(text()), Code::Internal),
            (Failure::OverBudget(text()), Code::Internal),
            (Failure::Internal(text()), Code::Internal),
            (Failure::Trap(text()), Code::Internal),
            (Failure::Memory { limit: 1 }, Code::Internal),
            (Failure::Cpu { limit }, Code::Internal),
        ] {
            assert_eq!(of(failure.clone()).code(), code, "{failure:?}");
        }
    }

    #[test]
    fn what_may_pass_says_when_to_try_again_and_what_was_refused_for_want_of_room_is_marked() {
        let overloaded = Failure::Overloaded {
            reason: text(),
            retry_after: Duration::from_millis(2100),
        };
        let response = failed(overloaded);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "3000");
        assert!(
            response
                .extensions()
                .get::<crate::problem::Shed>()
                .is_some()
        );
        assert_eq!(sent(response).status(), 200);
    }

    #[test]
    fn a_sentence_is_cut_to_what_a_header_takes() {
        let header = |text: &str| {
            let response = failed(Failure::GuestInternal(text.into()));
            let told = response.headers()["grpc-message"].to_str().unwrap();
            told.to_owned()
        };
        for text in ["x", "é\n", "`", "a% é😀"] {
            let long = header(&text.repeat(100_000));
            assert!((600..2100).contains(&long.len()), "{text}: {}", long.len());
            let cut = Status::from_header_map(
                failed(Failure::GuestInternal(text.repeat(100_000))).headers(),
            );
            let said = cut.unwrap().message().to_owned();
            // Characters are whole: half of one would be replaced.
            assert!(said.ends_with('…') && !said.contains('\u{fffd}'), "{said}");
        }
        let short = Failure::GuestInternal("é".repeat(100));
        assert!(of(short.clone()).message().ends_with(&short.sentence()));
    }

    #[test]
    fn an_unknown_name_comes_with_the_nearest() {
        let unknown = Failure::UnknownFunction {
            name: "fil-type".into(),
            nearest: Some("file-type".into()),
        };
        let said = "there is no function `fil-type`. Did you mean `file-type`?";
        assert_eq!(of(unknown).message(), said);
    }
}
