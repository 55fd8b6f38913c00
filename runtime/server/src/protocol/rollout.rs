//! `/v1/functions/{f}/rollout`, `/rollouts` and `/shadow`: traffic moved under guards, and copied.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firebox_registry::{
    BasisPoints, Change, FunctionName, NewRollout, Policy, Revision, RolloutMove, RolloutRecord,
    RolloutState, Shadow, VersionNumber,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::control::{blocking_read, known, write};
use super::info::rfc3339;
use super::{Path, body, change, object, object_or_default};
use crate::problem::{Failure, Problem};
use crate::realtime;
use crate::rollout::guard::{self, Guard};
use crate::rollout::text::Misread;
use crate::rollout::verdict::Verdict;
use crate::rollout::{Live, machine, plan};
use crate::server::App;
use crate::shadow::{self, ComparisonInfo};

type Result<T> = std::result::Result<T, Failure>;

/// The most bytes of a request about a rollout.
const MAX_BODY: usize = 64 << 10;

/// The most guards of a rollout.
const MAX_GUARDS: usize = 32;

/// The fewest calls by which a version is judged, where nothing is said.
const MIN_SAMPLE: u64 = 100;

/// How far guards look back, where nothing is said.
const WINDOW: Duration = Duration::from_secs(60);

/// How far they can look back at all.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// A rollout to begin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// The version that traffic moves to.
    to: VersionNumber,
    /// Shares of the traffic, each with the shortest time at it; the last is 100%. Where they are
    /// left out, `5%:10m,25%:10m,50%:10m,100%`.
    #[schema(example = "5%:10m,25%:10m,100%")]
    steps: Option<String>,
    /// What must hold. Where it is left out, `error_rate<=stable+1%` and `p95<=1.2*stable`.
    #[schema(example = json!(["error_rate<=stable+1%", "p95<=300ms"]))]
    guards: Option<Vec<String>>,
    /// The fewest calls of a version by which it may be judged; 100 where it is left out.
    #[schema(minimum = 1, example = 100)]
    min_sample: Option<u64>,
    /// How far back guards look, from 1s to 1h; 60s where it is left out.
    #[schema(example = "60s")]
    window: Option<String>,
}

impl StartRollout {
    fn checked(self) -> Result<NewRollout> {
        let steps = plan::parse(self.steps.as_deref().unwrap_or(plan::DEFAULT))?;
        let guards = match self.guards {
            Some(guards) => guards,
            None => guard::DEFAULT.map(str::to_owned).to_vec(),
        };
        if guards.len() > MAX_GUARDS {
            let found = guards.len();
            return Err(Failure::BadBody(format!(
                "{found} guards are too many: a rollout has at most {MAX_GUARDS}"
            )));
        }
        let read = guards.iter().map(|text| text.parse::<Guard>());
        let read = read.collect::<std::result::Result<Vec<_>, _>>()?;
        let min_sample = self.min_sample.unwrap_or(MIN_SAMPLE);
        if min_sample == 0 {
            return Err(Failure::BadBody(
                "min_sample is 0: expected 1 or more".into(),
            ));
        }
        let window = match self.window.as_deref().map(humantime::parse_duration) {
            None => WINDOW,
            Some(Ok(window)) if (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) => window,
            Some(_) => {
                return Err(Failure::BadBody(format!(
                    "window `{}`: expected a time from 1s to 1h, such as 60s",
                    self.window.unwrap_or_default()
                )));
            }
        };
        Ok(NewRollout {
            canary: self.to,
            steps,
            guards: read.into_iter().map(|guard| guard.text).collect(),
            min_sample,
            window_ms: ms(window),
        })
    }
}

/// How far to go.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActOnRollout {
    /// `promote` alone: to 100% at once.
    #[serde(default)]
    full: bool,
}

/// A rollout.
#[derive(Serialize, ToSchema)]
pub struct RolloutInfo {
    /// Whose traffic moves.
    function: FunctionName,
    /// Counts the rollouts of a function, from 1.
    #[schema(example = 3)]
    rollout: u64,
    /// The version that traffic moves away from.
    from: VersionNumber,
    /// The version that it moves to.
    to: VersionNumber,
    /// What is going on.
    state: RolloutState,
    /// The present step, from 1.
    step: usize,
    /// All steps.
    steps: Vec<StepInfo>,
    /// The new version's share in the present step.
    share_bp: BasisPoints,
    /// Time spent in the step, by a clock that doesn't jump.
    spent_ms: u64,
    /// What must hold.
    guards: Vec<String>,
    /// The fewest calls of a version by which it is judged.
    min_sample: u64,
    /// How far back guards look.
    window_ms: u64,
    /// Who started it.
    author: String,
    /// When (RFC 3339).
    #[schema(example = "2026-01-02T03:04:05.678Z")]
    started: String,
    /// The revision of the policy that comes back where a guard fails.
    policy_before: Revision,
    /// What it waits for.
    waits: Option<String>,
    /// The latest; where it has ended, those that there were then.
    verdicts: Vec<Verdict>,
    /// How it ended, where it has.
    end: Option<EndInfo>,
}

/// One step.
#[derive(Serialize, ToSchema)]
pub struct StepInfo {
    /// The new version's share.
    share_bp: BasisPoints,
    /// The shortest time in the step; 0 where its guards alone decide.
    hold_ms: u64,
}

/// How a rollout ended.
#[derive(Serialize, ToSchema)]
pub struct EndInfo {
    /// When (RFC 3339).
    time: String,
    /// Who ended it: a person, or the rollout itself.
    author: String,
    /// Why.
    reason: String,
}

/// The rollouts of a function.
#[derive(Serialize, ToSchema)]
pub struct Rollouts {
    /// The last 20, newest first.
    rollouts: Vec<RolloutInfo>,
}

impl RolloutInfo {
    fn new(record: RolloutRecord, live: Option<Live>) -> Self {
        let share = record.present().map(|step| step.share);
        let steps = record.steps.iter().map(|step| StepInfo {
            share_bp: step.share,
            hold_ms: step.hold_ms,
        });
        let steps = steps.collect();
        let (spent_ms, waits, latest) = match live {
            Some(live) => (ms(live.spent), live.waits, live.verdicts),
            None => (record.spent_ms, None, Vec::new()),
        };
        let (verdicts, end) = match record.end {
            None => (latest, None),
            Some(end) => {
                let info = EndInfo {
                    time: rfc3339(end.unix_ms),
                    author: end.author,
                    reason: end.reason,
                };
                // Where there were none, it was ended by hand.
                let kept = serde_json::from_value(end.verdicts).unwrap_or_default();
                (kept, Some(info))
            }
        };
        Self {
            function: record.function,
            rollout: record.number,
            from: record.stable,
            to: record.canary,
            state: record.state,
            step: record.step + 1,
            steps,
            share_bp: share.unwrap_or(BasisPoints::NONE),
            spent_ms,
            guards: record.guards,
            min_sample: record.min_sample,
            window_ms: record.window_ms,
            author: record.author,
            started: rfc3339(record.started_unix_ms),
            policy_before: record.before.revision,
            waits,
            verdicts,
            end,
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn info(app: &App, name: &FunctionName, record: RolloutRecord) -> RolloutInfo {
    let live = match record.state.is_active() {
        true => app.rollouts.live(name),
        false => None,
    };
    // Of the step before, it would tell that step's time as this one's.
    let live = live.filter(|live| live.at == (record.number, record.step));
    RolloutInfo::new(record, live)
}

async fn latest(app: &Arc<App>, name: FunctionName) -> Result<RolloutInfo> {
    let function = name.to_string();
    let found = blocking_read(app, move |app| {
        let latest = app.registry.rollout(&name)?;
        // A step that is in the registry may not be in the routing table yet: what is told holds.
        app.routing.refresh(&name)?;
        Ok(latest.map(|record| info(app, &name, record)))
    });
    found.await?.ok_or(Failure::NoRollout { function })
}

/// How the latest rollout stands
#[utoipa::path(
    get, path = "/v1/functions/{f}/rollout", tag = "rollouts",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = RolloutInfo, description = "The rollout, with its latest verdicts"),
        Problem,
    ),
)]
pub async fn status(State(app): State<Arc<App>>, Path(function): Path<String>) -> Result<Response> {
    let name = known(&app, &function)?;
    Ok(Json(latest(&app, name).await?).into_response())
}

/// The rollouts there were
#[utoipa::path(
    get, path = "/v1/functions/{f}/rollouts", tag = "rollouts",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Rollouts, description = "The last 20, newest first"),
        Problem,
    ),
)]
pub async fn history(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let rollouts = blocking_read(&app, move |app| {
        let kept = app.registry.rollouts(&name)?.into_iter();
        Ok(kept.map(|record| info(app, &name, record)).collect())
    });
    let rollouts = rollouts.await?;
    Ok(Json(Rollouts { rollouts }).into_response())
}

/// Begin to move traffic to a version, step by step
#[utoipa::path(
    post, path = "/v1/functions/{f}/rollout", tag = "rollouts",
    params(
        ("f" = String, Path, description = "The function"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who starts it"),
        ("X-Firebox-Reason" = Option<String>, Header, description = "Why"),
    ),
    request_body(content = StartRollout, example = json!({
        "to": 2, "steps": "5%:10m,25%:10m,100%", "guards": ["error_rate<=stable+1%", "p95<=300ms"],
    })),
    responses(
        (status = 201, body = RolloutInfo, description = "It has begun"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another is under way, or the version takes all the traffic already"),
        Problem,
    ),
)]
pub async fn start(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let change = change(&headers)?;
    let body = body::read(&headers, body, MAX_BODY).await?;
    let form = format!(
        "a rollout like {{\"to\": 2, \"steps\": \"{}\", \"guards\": [\"{}\"]}}",
        plan::DEFAULT,
        guard::DEFAULT.join("\", \""),
    );
    let asked: StartRollout = object(&body, &form)?;
    let new = asked.checked()?;
    // Callers shall not wait for it to load, and one that can't be loaded gets none.
    let version = app.routing.table().version(&function, new.canary)?;
    let _ready = realtime::before(&app, &name, &with(&app, &function, new.canary)?).await?;
    let _lease = app.residency.warm(&version).await?;
    write(&app, name.clone(), move |app, name| {
        app.registry.start_rollout(name, new, change)
    })
    .await?;
    let location = format!("/v1/functions/{name}/rollout");
    let info = latest(&app, name).await?;
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(info)).into_response())
}

/// The policy that holds, and the new version with it.
fn with(app: &App, function: &str, canary: VersionNumber) -> Result<Policy> {
    let table = app.routing.table();
    let mut policy = table.route(function)?.1.policy().clone();
    policy.weights.entry(canary).or_insert(BasisPoints::NONE);
    Ok(policy)
}

/// Pause, resume, promote or abort the rollout
#[utoipa::path(
    post, path = "/v1/functions/{f}/rollout/{action}", tag = "rollouts",
    params(
        ("f" = String, Path, description = "The function"),
        ("action" = String, Path, description = "`pause`, `resume`, `promote` (to the next step) or `abort`"),
        ("X-Firebox-Author" = Option<String>, Header, description = "Who does it"),
        ("X-Firebox-Reason" = Option<String>, Header, description = "Why"),
    ),
    request_body(content = Option<ActOnRollout>, example = json!({"full": true})),
    responses(
        (status = 200, body = RolloutInfo, description = "How it stands now"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "None is under way"),
        Problem,
    ),
)]
pub async fn act(
    State(app): State<Arc<App>>,
    Path((function, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let name = known(&app, &function)?;
    let Change { author, reason } = change(&headers)?;
    let body = body::read(&headers, body, MAX_BODY).await?;
    let asked: ActOnRollout = object_or_default(&body, "nothing, or {\"full\": true}")?;
    let (decide, done): (fn(&RolloutRecord) -> RolloutMove, _) = match action.as_str() {
        "pause" => (|_| RolloutMove::Pause, "paused"),
        "resume" => (|_| RolloutMove::Resume, "resumed"),
        "promote" if asked.full => (|_| RolloutMove::Succeed, "promoted to all traffic"),
        "promote" => (machine::forward, "promoted to the next step"),
        "abort" => (|_| RolloutMove::Abort, "aborted"),
        _ => {
            return Err(Failure::UnknownPath(format!(
                "/v1/functions/{name}/rollout/{}; a rollout takes pause, resume, promote and abort",
                action.chars().take(40).collect::<String>()
            )));
        }
    };
    if asked.full && action != "promote" {
        return Err(Failure::BadBody("`full` is for promote alone".into()));
    }
    let reason = match reason.is_empty() {
        true => done.to_owned(),
        false => format!("{done}: {reason}"),
    };
    write(&app, name.clone(), move |app, name| {
        let verdicts = app.rollouts.live(name).map(|live| live.verdicts);
        let verdicts = serde_json::to_value(verdicts).unwrap_or_default();
        let rollout = app.registry.rollout(name)?;
        // Decided by what it saw: two who promote at once take one step.
        let (seen, to) = match &rollout {
            Some(rollout) => (Some((rollout.number, rollout.step)), decide(rollout)),
            None => (None, RolloutMove::Abort),
        };
        let change = Change::new(author, reason);
        app.registry.move_rollout(name, seen, to, change, verdicts)
    })
    .await?;
    Ok(Json(latest(&app, name).await?).into_response())
}

/// A function's shadow, and how it compares.
#[derive(Serialize, ToSchema)]
pub struct ShadowInfo {
    /// Who gets copies of which share of the requests.
    shadow: Option<Shadow>,
    /// What was found since the server started.
    pairs: Vec<ComparisonInfo>,
}

/// How versions that get copies of requests compare
#[utoipa::path(
    get, path = "/v1/functions/{f}/shadow", tag = "rollouts",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = ShadowInfo, description = "By pairs of versions"),
        Problem,
    ),
)]
pub async fn shadow(State(app): State<Arc<App>>, Path(function): Path<String>) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    let versions = route.versions.values();
    let info = ShadowInfo {
        shadow: route.policy().shadow,
        pairs: versions.flat_map(|v| shadow::comparisons(v)).collect(),
    };
    Ok(Json(info).into_response())
}

impl From<Misread> for Failure {
    fn from(misread: Misread) -> Self {
        Self::Misread(misread.to_string())
    }
}
