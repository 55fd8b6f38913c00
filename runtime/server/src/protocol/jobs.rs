//! `/v1/functions/{f}/jobs` and `/v1/jobs`: many inputs, submitted at once and answered when there
//! is room.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_registry::{FunctionName, JobId, JobProtocol, JobState, NewJob, VersionNumber};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;
use uuid::Uuid;

use super::control::known;
use super::info::rfc3339;
use super::invoke::Pairs;
use super::{Path, author, bad_request, body, change, header, label, pin, selector};
use crate::jobs::{JobResult, Status, results::is_failure};
use crate::problem::{Failure, Problem};
use crate::routing::{Caller, Selector};
use crate::server::App;

type Result<T> = std::result::Result<T, Failure>;

/// How often an item is tried, where nothing is said.
const ATTEMPTS: u32 = 2;
/// How often it can be tried at all.
const MOST_ATTEMPTS: u32 = 10;

/// Jobs of one answer, where nothing is said, and at most.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 500;

/// Bytes of results that are sent at once.
const BUFFER: usize = 1 << 16;

const NDJSON: &str = "application/x-ndjson";

/// A job.
#[derive(Serialize, ToSchema)]
pub struct JobInfo {
    /// Its id.
    job: JobId,
    /// The function that answers.
    function: FunctionName,
    /// The version that answers, chosen when the job was submitted.
    version: VersionNumber,
    /// How its items are written, and answered.
    protocol: JobProtocol,
    /// What is going on.
    state: JobState,
    /// Why it is paused or has failed, or who cancelled it.
    reason: Option<String>,
    /// How many items it has.
    #[schema(example = 1000)]
    items: u64,
    /// How large they are, as they are kept.
    #[schema(example = 65536)]
    input_bytes: u64,
    /// Items with an answer.
    succeeded: u64,
    /// Items with an error.
    failed: u64,
    /// The share of its items that have a result, from 0 to 1.
    #[schema(example = 0.25)]
    progress: f64,
    /// How long it still takes at its pace; null where it doesn't run, or none is known yet.
    eta_ms: Option<u64>,
    /// Time spent running, by a clock that doesn't jump.
    spent_ms: u64,
    /// How often an item is tried before it counts as failed.
    max_attempts: u32,
    /// Who submitted it.
    #[schema(example = "ann@laptop")]
    author: String,
    /// When it was submitted (RFC 3339).
    #[schema(example = "2026-01-02T03:04:05.678Z")]
    created: String,
    /// When it began to run.
    started: Option<String>,
    /// When it ended.
    ended: Option<String>,
}

impl From<Status> for JobInfo {
    fn from(Status { record, left }: Status) -> Self {
        let finished = record.progress.finished() as f64;
        Self {
            job: record.id,
            function: record.function,
            version: record.version,
            protocol: record.protocol,
            state: record.state,
            reason: record.reason,
            items: record.items,
            input_bytes: record.input_bytes,
            succeeded: record.progress.succeeded,
            failed: record.progress.failed,
            progress: finished / record.items.max(1) as f64,
            eta_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            spent_ms: record.progress.spent_ms,
            max_attempts: record.max_attempts,
            author: record.author,
            created: rfc3339(record.created_unix_ms),
            started: record.started_unix_ms.map(rfc3339),
            ended: record.ended_unix_ms.map(rfc3339),
        }
    }
}

/// Some jobs.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    /// Newest first.
    jobs: Vec<JobInfo>,
    /// Where there are more, the `before` that asks for them.
    next: Option<JobId>,
}

/// Submit a job; the policy says which version answers
///
/// The version is chosen once, for all items. Pairs of the query go to the function with each item,
/// as with an invoke.
#[utoipa::path(
    post, path = "/v1/functions/{f}/jobs", tag = "jobs", operation_id = "submit_job",
    params(
        ("f" = String, Path, description = "The function"),
        ("X-Firebox-Version" = Option<u32>, Header, description = "The version that shall answer"),
        ("X-Firebox-Label" = Option<String>, Header, description = "The label of the version that shall answer"),
        ("X-Firebox-Key" = Option<String>, Header, description = "The caller: one key gets one version"),
        ("X-Firebox-Protocol" = Option<String>, Header, description = "`invoke`, or `v2` where each line is a request of the Open Inference Protocol"),
        ("X-Firebox-Max-Attempts" = Option<u32>, Header, description = "How often an item is tried, from 1 to 10; 2 where nothing is said"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who submits it"),
    ),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "One JSON body a line; or multipart/form-data, one body a part"),
    responses(
        (status = 202, body = JobInfo, description = "It is on the disk, and will be run",
            headers(("Location" = String, description = "Where the job is"))),
        (status = 413, body = Problem, content_type = "application/problem+json",
            description = "The body is over the limit; nothing was kept"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "It has no items, too many, or one that is too large; nothing was kept"),
        Problem,
    ),
)]
pub async fn submit(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    accept(
        &app,
        &function,
        Ok(Selector::Split),
        query.0,
        &headers,
        body,
    )
    .await
}

/// Submit a job for a version
#[utoipa::path(
    post, path = "/v1/functions/{f}/versions/{n}/jobs", tag = "jobs", operation_id = "submit_job_version",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
        ("X-Firebox-Protocol" = Option<String>, Header, description = "`invoke`, or `v2` where each line is a request of the Open Inference Protocol"),
        ("X-Firebox-Max-Attempts" = Option<u32>, Header, description = "How often an item is tried, from 1 to 10; 2 where nothing is said"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who submits it"),
    ),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "One JSON body a line; or multipart/form-data, one body a part"),
    responses(
        (status = 202, body = JobInfo, description = "It is on the disk, and will be run",
            headers(("Location" = String, description = "Where the job is"))),
        Problem,
    ),
)]
pub async fn submit_version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    accept(&app, &function, pin(&version), query.0, &headers, body).await
}

/// Submit a job for the version that a label names
#[utoipa::path(
    post, path = "/v1/functions/{f}/labels/{l}/jobs", tag = "jobs", operation_id = "submit_job_label",
    params(
        ("f" = String, Path, description = "The function"),
        ("l" = String, Path, description = "The label"),
        ("X-Firebox-Protocol" = Option<String>, Header, description = "`invoke`, or `v2` where each line is a request of the Open Inference Protocol"),
        ("X-Firebox-Max-Attempts" = Option<u32>, Header, description = "How often an item is tried, from 1 to 10; 2 where nothing is said"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who submits it"),
    ),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "One JSON body a line; or multipart/form-data, one body a part"),
    responses(
        (status = 202, body = JobInfo, description = "It is on the disk, and will be run",
            headers(("Location" = String, description = "Where the job is"))),
        Problem,
    ),
)]
pub async fn submit_labelled(
    State(app): State<Arc<App>>,
    Path((function, name)): Path<(String, String)>,
    query: Query<Pairs>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    accept(&app, &function, label(&name), query.0, &headers, body).await
}

async fn accept(
    app: &App,
    function: &str,
    path: Result<Selector>,
    parameters: Pairs,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response> {
    let new = match asked(app, function, path, parameters, headers) {
        Ok(new) => new,
        Err(failure) => {
            body::drain(body);
            return Err(failure);
        }
    };
    let status = app.jobs.submit(new, headers, body).await?;
    let location = format!("/v1/jobs/{}", status.record.id);
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::ACCEPTED, headers, Json(JobInfo::from(status))).into_response())
}

/// What a submission says of a job, before its items.
fn asked(
    app: &App,
    function: &str,
    path: Result<Selector>,
    parameters: Pairs,
    headers: &HeaderMap,
) -> Result<NewJob> {
    let caller = Caller {
        id: Uuid::now_v7(),
        headers,
        body: None,
    };
    let selector = selector(path?, headers)?;
    let version = app.routing.table().resolve(function, &selector, &caller)?;
    version.takes_tensors()?;
    let protocol = protocol(headers)?;
    if protocol == JobProtocol::V2
        && let Some((name, _)) = parameters.first()
    {
        return Err(Failure::BadRequest(format!(
            "the query has `{name}`, but requests of the V2 protocol have parameters of their own; \
             put it into the `parameters` of each item"
        )));
    }
    Ok(NewJob {
        function: version.record.function.clone(),
        version: version.record.number,
        protocol,
        parameters,
        items: 0,
        input_bytes: 0,
        max_attempts: attempts(headers)?,
        author: author(headers)?,
    })
}

fn protocol(headers: &HeaderMap) -> Result<JobProtocol> {
    match header(headers, "x-firebox-protocol")? {
        None | Some("invoke") => Ok(JobProtocol::Invoke),
        Some("v2") => Ok(JobProtocol::V2),
        Some(other) => Err(Failure::BadRequest(format!(
            "header X-Firebox-Protocol: expected `invoke` or `v2`, found `{other}`"
        ))),
    }
}

fn attempts(headers: &HeaderMap) -> Result<u32> {
    let Some(text) = header(headers, "x-firebox-max-attempts")? else {
        return Ok(ATTEMPTS);
    };
    let attempts = text.parse().ok();
    let attempts = attempts.filter(|attempts| (1..=MOST_ATTEMPTS).contains(attempts));
    attempts.ok_or_else(|| {
        Failure::BadRequest(format!(
            "header X-Firebox-Max-Attempts: expected a number from 1 to {MOST_ATTEMPTS}, found `{text}`"
        ))
    })
}

/// Which jobs are wanted.
#[derive(Deserialize)]
pub struct Page {
    limit: Option<usize>,
    before: Option<JobId>,
}

/// The jobs of a function
#[utoipa::path(
    get, path = "/v1/functions/{f}/jobs", tag = "jobs", operation_id = "jobs_of_function",
    params(
        ("f" = String, Path, description = "The function"),
        ("limit" = Option<usize>, Query, description = "How many at most, up to 500; 50 where nothing is said"),
        ("before" = Option<String>, Query, description = "Those submitted before this job"),
    ),
    responses(
        (status = 200, body = JobList, description = "Newest first"),
        Problem,
    ),
)]
pub async fn of_function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    page: std::result::Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    let name = known(&app, &function)?;
    page_of(&app, Some(name), page).await
}

/// All jobs
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", operation_id = "jobs",
    params(
        ("limit" = Option<usize>, Query, description = "How many at most, up to 500; 50 where nothing is said"),
        ("before" = Option<String>, Query, description = "Those submitted before this job"),
    ),
    responses(
        (status = 200, body = JobList, description = "Newest first"),
        Problem,
    ),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    page: std::result::Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    page_of(&app, None, page).await
}

async fn page_of(
    app: &App,
    function: Option<FunctionName>,
    page: std::result::Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    let Query(page) = page.map_err(|error| bad_request(error.body_text()))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Failure::BadRequest(format!(
            "query `limit`: expected a number from 1 to {LARGEST_PAGE}, found {limit}"
        )));
    }
    let (found, more) = app.jobs.list(function, page.before, limit).await?;
    let jobs: Vec<JobInfo> = found.into_iter().map(JobInfo::from).collect();
    let last = jobs.last().map(|job| job.job);
    let next = last.filter(|_| more);
    Ok(Json(JobList { jobs, next }).into_response())
}

/// One job
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "job",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, body = JobInfo, description = "How it stands"),
        Problem,
    ),
)]
pub async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response> {
    let status = app.jobs.status(job(&id)?).await?;
    Ok(Json(JobInfo::from(status)).into_response())
}

/// End a job
///
/// Results that it has are kept.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(
        ("id" = String, Path, description = "The job"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who ends it"),
        ("X-Firebox-Reason" = Option<String>, Header, description = "Why"),
    ),
    responses(
        (status = 200, body = JobInfo, description = "It has ended"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It had ended already"),
        Problem,
    ),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let change = change(&headers)?.tidied();
    let mut reason = match change.author.as_str() {
        "" => "cancelled".to_owned(),
        author => format!("cancelled by {author}"),
    };
    if !change.reason.is_empty() {
        reason = format!("{reason}: {}", change.reason);
    }
    let status = app.jobs.cancel(job(&id)?, reason).await?;
    Ok(Json(JobInfo::from(status)).into_response())
}

/// Try the items without an answer again
///
/// Items that failed lose their errors; those that a job had not come to when it was cancelled are
/// answered too.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, body = JobInfo, description = "It is queued again"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It has not ended, or every item has an answer"),
        Problem,
    ),
)]
pub async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response> {
    let status = app.jobs.retry(job(&id)?).await?;
    Ok(Json(JobInfo::from(status)).into_response())
}

/// Delete a job that has ended, with its results
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "delete_job",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It has not ended"),
        Problem,
    ),
)]
pub async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    app.jobs.delete(job(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which results are wanted.
#[derive(Deserialize)]
pub struct Which {
    #[serde(default)]
    failed: bool,
}

/// Download the results that a job has
///
/// A line for each item, in the order in which they were completed. While a job runs, its results are
/// up to a second behind.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/results", tag = "jobs", operation_id = "job_results",
    params(
        ("id" = String, Path, description = "The job"),
        ("failed" = Option<bool>, Query, description = "Those of failed items alone"),
    ),
    responses(
        (status = 200, body = JobResult, content_type = "application/x-ndjson", description = "The results, one a line"),
        Problem,
    ),
)]
pub async fn results(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    which: std::result::Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    let Query(which) = which.map_err(|error| bad_request(error.body_text()))?;
    let id = job(&id)?;
    let mut response = match app.jobs.results(id).await? {
        None => Body::empty().into_response(),
        Some((file, bytes)) => {
            let results = tokio::fs::File::from_std(file).take(bytes);
            match which.failed {
                true => Body::from_stream(failures(results)).into_response(),
                false => {
                    let pieces = ReaderStream::with_capacity(results, BUFFER);
                    let mut response = Body::from_stream(pieces).into_response();
                    response
                        .headers_mut()
                        .insert(header::CONTENT_LENGTH, bytes.into());
                    response
                }
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.ndjson\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// The lines that tell of a failure, some at once.
fn failures(
    results: impl tokio::io::AsyncRead + Unpin + Send + 'static,
) -> impl futures::Stream<Item = std::io::Result<Vec<u8>>> {
    let lines = BufReader::with_capacity(BUFFER, results);
    futures::stream::try_unfold(lines, |mut lines| async move {
        let (mut piece, mut line) = (Vec::new(), Vec::new());
        while piece.len() < BUFFER {
            line.clear();
            if lines.read_until(b'\n', &mut line).await? == 0 {
                break;
            }
            if is_failure(&line) == Some(true) {
                piece.extend_from_slice(&line);
            }
        }
        Ok((!piece.is_empty()).then_some((piece, lines)))
    })
}

/// A job's id in a path.
fn job(id: &str) -> Result<JobId> {
    id.parse().map_err(|_| Failure::UnknownJob {
        id: id.chars().take(80).collect(),
    })
}
