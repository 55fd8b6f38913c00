//! What versions have used and what that costs, at the prices that hold now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use firebox_registry::{FunctionName, VersionNumber};
use serde::Serialize;
use utoipa::ToSchema;

use super::info::rfc3339;
use super::version_number;
use crate::cost::{Cost, Prices, Usage};
use crate::problem::{Failure, Problem};
use crate::protocol::Path;
use crate::routing::Version;
use crate::server::App;

type Result<T> = std::result::Result<T, Failure>;

/// What versions have used.
#[derive(Serialize, ToSchema)]
pub struct Costs<'a> {
    /// What is charged.
    prices: &'a Prices,
    /// By function and number.
    versions: Vec<VersionCost<'a>>,
    /// Of all of them.
    #[schema(example = 0.00367)]
    total: f64,
}

/// What one version has used, and what that costs.
#[derive(Serialize, ToSchema)]
pub struct VersionCost<'a> {
    /// The function.
    #[schema(example = "file-type")]
    function: &'a FunctionName,
    /// Its version.
    version: VersionNumber,
    /// Since when it is counted (RFC 3339).
    #[schema(example = "2026-07-01T12:00:00.000Z")]
    since: String,
    /// What it has used.
    usage: Usage,
    /// What the figures below are in.
    #[schema(example = "USD")]
    currency: &'a str,
    /// What that costs.
    cost: Cost,
    /// What 1,000 good answers cost on average; null before the first.
    #[schema(example = 0.4)]
    cost_per_1000_predictions: Option<f64>,
}

impl<'a> VersionCost<'a> {
    fn new(app: &'a App, version: &'a Version) -> Self {
        let (usage, since) = app.costs.usage(version);
        let prices = &app.config.prices;
        Self {
            function: &version.record.function,
            version: version.record.number,
            since: rfc3339(since),
            usage,
            currency: &prices.currency,
            cost: usage.cost(prices),
            cost_per_1000_predictions: usage.cost_per_1000_predictions(prices),
        }
    }
}

fn shown<'a>(app: &App, versions: impl Iterator<Item = &'a Arc<Version>>) -> Response {
    app.costs.charge_memory();
    let mut versions: Vec<_> = versions.map(|v| VersionCost::new(app, v)).collect();
    versions.sort_by_key(|cost| (cost.function, cost.version));
    let total = versions.iter().map(|version| version.cost.total).sum();
    Json(Costs {
        prices: &app.config.prices,
        versions,
        total,
    })
    .into_response()
}

/// What all versions have used
#[utoipa::path(
    get, path = "/v1/cost", tag = "functions",
    responses((status = 200, body = Costs, description = "By function and number")),
)]
pub async fn all(State(app): State<Arc<App>>) -> Response {
    let table = app.routing.table();
    shown(&app, table.versions())
}

/// What the versions of a function have used
#[utoipa::path(
    get, path = "/v1/functions/{f}/cost", tag = "functions",
    params(("f" = String, Path, description = "The function")),
    responses(
        (status = 200, body = Costs, description = "By number"),
        Problem,
    ),
)]
pub async fn of_function(
    State(app): State<Arc<App>>,
    Path(function): Path<String>,
) -> Result<Response> {
    let table = app.routing.table();
    let (_, route) = table.route(&function)?;
    Ok(shown(&app, route.versions.values()))
}

/// What a version has used
#[utoipa::path(
    get, path = "/v1/functions/{f}/versions/{n}/cost", tag = "versions",
    params(
        ("f" = String, Path, description = "The function"),
        ("n" = u32, Path, description = "The version"),
    ),
    responses(
        (status = 200, body = VersionCost, description = "What it has used, and what that costs"),
        Problem,
    ),
)]
pub async fn of_version(
    State(app): State<Arc<App>>,
    Path((function, version)): Path<(String, String)>,
) -> Result<Response> {
    let table = app.routing.table();
    let version = table.version(&function, version_number(&version)?)?;
    app.costs.charge_memory();
    Ok(Json(VersionCost::new(&app, &version)).into_response())
}
