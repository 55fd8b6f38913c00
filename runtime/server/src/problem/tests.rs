//! How failures are told.

use std::time::Duration;

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
