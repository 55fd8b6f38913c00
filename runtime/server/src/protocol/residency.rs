//! `/v1/residency` and `/v1/functions/{f}/versions/{n}/residency`: what is in memory, and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use firebox_registry::{FunctionName, Tier, VersionNumber};
use serde::Serialize;
use utoipa::ToSchema;

use super::info::rfc3339;
use super::version_number;
use crate::problem::{Failure, Problem};
use crate::protocol::Path;
use crate::residency::{Move, Warmth};
use crate::routing::Version;
use crate::server::App;

/// What is in memory, and how much may be.
#[derive(Serialize, ToSchema)]
pub struct ServerResidency {
    /// The weights of models; a model that versions share counts once.
    model_memory: BudgetInfo,
    /// The compiled code that is mapped.
    code_memory: BudgetInfo,
    /// The versions of which something is loaded or being loaded, by name and number.
    versions: Vec<ResidencyInfo>,
}

/// One budget.
#[derive(Serialize, ToSchema)]
pub struct BudgetInfo {
    /// How much there may be.
    limit_bytes: u64,
    /// How much there is, or is about to be.
    held_bytes: u64,
}

/// Where a version stands, and how it got there.
#[derive(Serialize, ToSchema)]
pub struct ResidencyInfo {
    /// The function that it is a version of.
    #[schema(example = "file-type")]
    function: FunctionName,
    /// Its number.
    version: VersionNumber,
    /// How it is kept.
    tier: Tier,
    /// How warm it is.
    residency: Warmth,
    /// Whether it is being loaded now.
    loading: bool,
    /// Whether requests use it now.
    in_use: bool,
    /// Whether it is never dropped: it is of the realtime tier, and the policy names it.
    pinned: bool,
    /// Bytes of weights that it holds, alone or with other versions.
    model_bytes: u64,
    /// Bytes of code that are mapped for it.
    code_bytes: u64,
    /// Since when it is as warm as it is (RFC 3339); null where it has been cold since the server
    /// started.
    #[schema(example = "2026-07-01T12:00:00.000Z")]
    since: Option<String>,
    /// Why: the reason of the last move.
    #[schema(example = "first request")]
    reason: Option<String>,
    /// The last 16 moves since the server started, newest first.
    moves: Vec<MoveInfo>,
}

/// A version has moved; or not, where a load failed.
#[derive(Serialize, ToSchema)]
pub struct MoveInfo {
    /// When (RFC 3339), by the server's clock.
    #[schema(example = "2026-07-01T12:00:00.000Z")]
    time: String,
    /// Where it was.
    from: Warmth,
    /// Where it went.
    to: Warmth,
    /// Why: `first request`, `realtime traffic`, `idle for 1m`, `no work left`, `evicted for` another
    /// version, or `load failed` and the reason.
    #[schema(example = "evicted for encoder version 3")]
    reason: String,
}

impl MoveInfo {
    fn new(of: &Move) -> Self {
        Self {
            time: rfc3339(of.unix_ms),
            from: of.from,
            to: of.to,
            reason: of.cause.to_string(),
        }
    }
}

impl ResidencyInfo {
    fn new(version: &Version) -> Self {
        let (record, standing) = (&version.record, version.slot.standing());
        let moved = standing.moves.iter().rev().find(|m| m.from != m.to);
        Self {
            function: record.function.clone(),
            version: record.number,
            tier: record.manifest.tier,
            residency: standing.warmth,
            loading: standing.loading,
            in_use: standing.in_use,
            pinned: standing.pinned,
            model_bytes: standing.model_bytes,
            code_bytes: standing.code_bytes,
            since: moved.map(|moved| rfc3339(moved.unix_ms)),
            reason: standing.moves.last().map(|last| last.cause.to_string()),
            moves: standing.moves.iter().rev().map(MoveInfo::new).collect(),
        }
    }
}

/// What is in memory, and how much may be
#[utoipa::path(
    get, path = "/v1/residency", tag = "server", operation_id = "server_residency",
    responses((status = 200, body = ServerResidency, description = "Budgets, and the versions of which something is loaded")),
)]
pub async fn server(State(app): State<Arc<App>>) -> Response {
    let (limit, held) = app.residency.budget();
    let budget = |limit_bytes, held_bytes| BudgetInfo {
        limit_bytes,
        held_bytes,
    };
    let versions = app.residency.versions();
    let versions = versions.iter().map(|version| ResidencyInfo::new(version));
    Json(ServerResidency {
        model_memory: budget(limit.models, held.models),
        code_memory: budget(limit.code, held.code),
        versions: versions.collect(),
    })
    .into_response()
}

/// How warm a version is, since when and why
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions/{n}/residency", tag = "versions",
    operation_id = "version_residency",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
    ),
    responses(
        (status = 200, body = ResidencyInfo, description = "Where it stands, and its last moves"),
        Problem,
    ),
)]
pub async fn version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let table = app.routing.table();
    let version = table.version(&function, version_number(&version)?)?;
    Ok(Json(ResidencyInfo::new(&version)).into_response())
}
