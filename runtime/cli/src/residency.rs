//! `residency`: what a server has in memory, and why.

use clap::Args;
use firebox_registry::{FunctionName, VersionNumber};

use crate::api::{Budget, Residency, ServerResidency};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Format, facts, table};

/// `firebox residency`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firebox residency
  firebox residency file-type 2
  firebox residency --json")]
pub struct ResidencyArgs {
    /// Show one version with its last moves: the function
    #[arg(requires = "version")]
    name: Option<FunctionName>,
    /// And the version
    version: Option<VersionNumber>,
    #[command(flatten)]
    format: Format,
}

/// Shows the budgets and what is loaded, or one version.
pub async fn residency(args: ResidencyArgs, client: &Client) -> Result {
    if let (Some(name), Some(version)) = (&args.name, &args.version) {
        let (name, number) = (name.as_str(), version.to_string());
        let path = ["v1", "functions", name, "versions", &number, "residency"];
        let answer = client.get(&path).await?;
        return args.format.show(answer, |version: Residency| one(&version));
    }
    let answer = client.get(&["v1", "residency"]).await?;
    args.format
        .show(answer, |server: ServerResidency| overview(&server))
}

fn overview(server: &ServerResidency) -> String {
    let budget = |budget: &Budget| {
        let (held, limit) = (budget.held_bytes, budget.limit_bytes);
        format!("{} of {}", output::bytes(held), output::bytes(limit))
    };
    let budgets = facts(&[
        ("models", budget(&server.model_memory)),
        ("code", budget(&server.code_memory)),
    ]);
    let rows = server.versions.iter().map(|version| {
        [
            version.function.clone(),
            version.version.to_string(),
            version.tier.clone(),
            state(version),
            output::bytes(version.model_bytes),
            output::bytes(version.code_bytes),
            version.since.clone().unwrap_or_default(),
            version.reason.clone().unwrap_or_default(),
        ]
    });
    let headings = [
        "name", "version", "tier", "state", "models", "code", "since", "reason",
    ];
    match server.versions.is_empty() {
        true => format!("{budgets}\nnothing is loaded"),
        false => format!("{budgets}\n{}", table(headings, rows.collect())),
    }
}

fn one(version: &Residency) -> String {
    let facts = facts(&[
        ("state", state(version)),
        ("tier", version.tier.clone()),
        ("models", output::bytes(version.model_bytes)),
        ("code", output::bytes(version.code_bytes)),
    ]);
    let rows = version.moves.iter().map(|moved| {
        [
            moved.time.clone(),
            moved.from.clone(),
            moved.to.clone(),
            moved.reason.clone(),
        ]
    });
    match version.moves.is_empty() {
        true => format!("{facts}\nit has been cold since the server started"),
        false => format!(
            "{facts}\n{}",
            table(["time", "from", "to", "reason"], rows.collect())
        ),
    }
}

/// `resident, pinned, in use`
fn state(version: &Residency) -> String {
    let flags = [
        (version.loading, "loading"),
        (version.pinned, "pinned"),
        (version.in_use, "in use"),
    ];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag);
    let words = std::iter::once(version.residency.as_str()).chain(flags);
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_overview_has_budgets_and_what_is_loaded() {
        let server: ServerResidency = serde_json::from_value(json!({
            "model_memory": {"limit_bytes": 1 << 30, "held_bytes": 90 << 20},
            "code_memory": {"limit_bytes": 1 << 28, "held_bytes": 0},
            "versions": [{"function": "encoder", "version": 3, "tier": "realtime",
                "residency": "resident", "loading": false, "in_use": true, "pinned": true,
                "model_bytes": 90 << 20, "code_bytes": 0, "since": "2026-07-04T12:00:00.000Z",
                "reason": "realtime traffic", "moves": []}],
        }))
        .unwrap();
        assert_eq!(
            overview(&server),
            "  models  90.00 MiB of 1.00 GiB\n  code    0 B of 256.00 MiB\n\
             NAME     VERSION  TIER      STATE                     MODELS     CODE  \
             SINCE                     REASON\n\
             encoder  3        realtime  resident, pinned, in use  90.00 MiB  0 B   \
             2026-07-04T12:00:00.000Z  realtime traffic"
        );
    }
}
