//! `/v1/functions/{f}/traffic`, `/policies` and `/rollback`: who takes a function's traffic, who
//! set it so, and back.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use firebox_registry::{Policy, PolicyRecord, RegistryError, Revision};
use serde::Deserialize;
use utoipa::ToSchema;

use super::control::{blocking_read, known, write};
use super::info::{Policies, PolicyInfo, etag};
use super::{Path, body, change, header, object, object_or_default};
use crate::problem::{Failure, Problem};
use crate::realtime;
use crate::server::App;

type Result<T> = std::result::Result<T, Failure>;

/// The most bytes of a policy, and of a rollback's body.
const MAX_BODY: usize = 1 << 20;

/// The policy that holds
#[utoipa::path(
    get, path = "/v1/functions/{f}/traffic", tag = "traffic",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Policy, description = "The policy; its ETag is that of its revision",
            headers(("ETag" = String, description = "The revision in quotes, for `If-Match`")),
            example = json!({"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}})),
        Problem,
    ),
)]
pub async fn traffic(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    Ok(tagged(&route.current, Json(route.policy())))
}

/// Replace the policy as a whole
#[utoipa::path(
    put, path = "/v1/functions/{f}/traffic", tag = "traffic",
    params(
        ("f" = String, Path, description = "The function"),
        ("If-Match" = Option<String>, Header, description = "The ETag that was read: refused with 412 where the policy was changed since"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who changes it"),
        ("X-Firebox-Reason" = Option<String>, Header, description = "Why"),
    ),
    request_body(content = Policy, example = json!({
        "weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1, "canary": 2},
        "shadow": {"version": 2, "share_bp": 500}, "sticky": {"cookie": "session"}, "default": "stable",
    })),
    responses(
        (status = 200, body = Policy, description = "The policy as it is kept",
            headers(("ETag" = String, description = "The new revision in quotes"))),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "The policy was changed since it was read; `current` is the one that holds"),
        Problem,
    ),
)]
pub async fn set_traffic(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let (if_match, change) = (if_match(&headers)?, change(&headers)?);
    let body = body::read(&headers, body, MAX_BODY).await?;
    let form = "a traffic policy like {\"weights\": {\"1\": 9000, \"2\": 1000}, \
                \"labels\": {\"stable\": 1}}";
    let policy: Policy = object(&body, form)?;
    // What is stale already loads nothing; what becomes so meanwhile is refused below.
    let of = name.clone();
    let current = blocking_read(&app, move |app| app.registry.check_current(&of, if_match));
    if let Err(failure) = current.await {
        return counted(&app, Err(failure), false);
    }
    let ready = realtime::before(&app, &name, &policy).await;
    let _ready = ready.inspect_err(|_| app.metrics.policies_refused.increment(1))?;
    let set = write(&app, name, move |app, name| {
        app.registry.set_policy(name, policy, change, if_match)
    });
    let record = counted(&app, set.await, false)?;
    Ok(tagged(&record, Json(&record.policy)))
}

/// The policies there were, with who set them, when and why
#[utoipa::path(
    get, path = "/v1/functions/{f}/policies", tag = "traffic",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Policies, description = "The last 100, newest first"),
        Problem,
    ),
)]
pub async fn policies(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let records = blocking_read(&app, move |app| app.registry.policies(&name)).await?;
    let policies = records.iter().map(PolicyInfo::new).collect();
    Ok(Json(Policies { policies }).into_response())
}

/// One of the policies there were
#[utoipa::path(
    get, path = "/v1/functions/{f}/policies/{revision}", tag = "traffic",
    params(
        ("f" = String, Path, description = "The function"),
        ("revision" = u64, Path, description = "Which policy"),
    ),
    responses(
        (status = 200, body = PolicyInfo, description = "The policy"),
        Problem,
    ),
)]
pub async fn policy(
    State(app): State<Arc<App>>,
    Path((function, revision)): Path<(String, String)>,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let revision: Revision = revision.parse().map_err(|_| {
        let found: String = revision.chars().take(32).collect();
        Failure::BadRequest(format!(
            "{found:?} isn't the revision of a policy, a number"
        ))
    })?;
    let record = blocking_read(&app, move |app| app.registry.policy_at(&name, revision)).await?;
    Ok(tagged(&record, Json(PolicyInfo::new(&record))))
}

/// Where to go back to.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The revision of the policy to bring back; without it, the one before the present.
    to_policy: Option<Revision>,
}

/// Bring an earlier policy back
#[utoipa::path(
    post, path = "/v1/functions/{f}/rollback", tag = "traffic",
    params(
        ("f" = String, Path, description = "The function"),
        ("If-Match" = Option<String>, Header, description = "The ETag that was read: refused with 412 where the policy was changed since"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who goes back"),
        ("X-Firebox-Reason" = Option<String>, Header, description = "Why"),
    ),
    request_body(content = Option<Rollback>, example = json!({"to_policy": 7})),
    responses(
        (status = 200, body = PolicyInfo, description = "The policy that holds now",
            headers(("ETag" = String, description = "The new revision in quotes"))),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "The policy was changed since it was read; `current` is the one that holds"),
        Problem,
    ),
)]
pub async fn rollback(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let (if_match, change) = (if_match(&headers)?, change(&headers)?);
    let body = body::read(&headers, body, MAX_BODY).await?;
    let wanted: Rollback = object_or_default(&body, "nothing, or {\"to_policy\": 7}")?;
    let restored = write(&app, name, move |app, name| {
        app.registry
            .restore_policy(name, wanted.to_policy, change, if_match)
    });
    let record = counted(&app, restored.await, true)?;
    Ok(tagged(&record, Json(PolicyInfo::new(&record))))
}

fn tagged(record: &PolicyRecord, answer: impl IntoResponse) -> Response {
    ([(header::ETAG, etag(record.revision))], answer).into_response()
}

/// Counts how a change of a policy went.
fn counted<T>(app: &App, outcome: Result<T>, restored: bool) -> Result<T> {
    let counter = match &outcome {
        Ok(_) if restored => &app.metrics.policies_restored,
        Ok(_) => &app.metrics.policies_set,
        Err(Failure::Stale { .. }) => &app.metrics.policies_stale,
        Err(_) => &app.metrics.policies_refused,
    };
    counter.increment(1);
    outcome
}

/// The revision that `If-Match` asks for; `None` where the change may come on top of any.
fn if_match(headers: &HeaderMap) -> Result<Option<Revision>> {
    let Some(text) = header(headers, "if-match")? else {
        return Ok(None);
    };
    if text == "*" {
        return Ok(None);
    }
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let revision = quoted.and_then(|digits| digits.parse().ok());
    revision.map(Some).ok_or_else(|| {
        let found: String = text.chars().take(80).collect();
        Failure::BadRequest(format!(
            "header If-Match: expected the ETag of the policy, such as \"7\" with its quotes, \
             found {found}"
        ))
    })
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::FunctionNotFound { name, nearest } => Self::UnknownFunction {
                name: name.to_string(),
                nearest: nearest.map(|name| name.to_string()),
            },
            RegistryError::VersionNotFound {
                function,
                number,
                known,
            } => Self::UnknownVersion {
                function: function.to_string(),
                version: number.to_string(),
                known: known
                    .iter()
                    .rev()
                    .take(5)
                    .map(|number| number.get())
                    .collect(),
            },
            RegistryError::StalePolicy { ref current, .. } => Self::Stale {
                detail: error.to_string(),
                current: Box::new(PolicyInfo::new(current)),
            },
            RegistryError::PolicyNotFound { .. } => Self::UnknownPolicy(error.to_string()),
            RegistryError::JobNotFound { id } => Self::UnknownJob { id: id.to_string() },
            RegistryError::VersionInUse { .. }
            | RegistryError::VersionHasJob { .. }
            | RegistryError::JobConflict { .. }
            | RegistryError::NumbersUsedUp { .. }
            | RegistryError::NoEarlierPolicy { .. }
            | RegistryError::PolicyGone { .. }
            | RegistryError::BundleNotKept { .. }
            | RegistryError::RolloutUnderWay { .. }
            | RegistryError::NoRollout { .. }
            | RegistryError::RolloutImpossible { .. } => Self::Conflict(error.to_string()),
            RegistryError::Policy(error) => Self::Refused {
                what: "the traffic policy".into(),
                reason: error.to_string(),
                hint: Some(error.hint()),
            },
            RegistryError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            RegistryError::BlobDamaged { .. } | RegistryError::BlobMissing { .. } => {
                Self::Load(error.to_string())
            }
            error => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &'static str) -> Result<Option<Revision>> {
        if_match(&HeaderMap::from_iter([(
            header::IF_MATCH,
            value.parse().unwrap(),
        )]))
    }

    #[test]
    fn if_match_takes_the_etag_of_a_policy_or_a_star() {
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
        assert_eq!(asked("*").unwrap(), None);
        assert_eq!(asked("\"7\"").unwrap(), Some(Revision::from(7)));
        for text in ["7", "W/\"7\"", "\"seven\"", "\"1\", \"2\"", "\"", ""] {
            let error = asked(text).unwrap_err();
            assert!(matches!(error, Failure::BadRequest(_)), "{text}: {error}");
        }
    }
}
