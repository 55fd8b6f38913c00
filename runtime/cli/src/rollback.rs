//! `rollback`: brings an earlier traffic policy back, in one call.

use clap::Args;
use firebox_registry::FunctionName;
use reqwest::Method;
use serde_json::json;

use crate::api::PolicyInfo;
use crate::client::Client;
use crate::failure::Result;
use crate::output::Format;
use crate::traffic::{Why, policy_path, shown};

/// `firebox rollback`
#[derive(Args, Debug)]
#[command(after_help = "\
The policy comes back as a new one, and each caller gets the version that it had under it. A second
rollback undoes the first. `firebox traffic NAME --history` lists the policies there are.

Examples:
  firebox rollback file-type --reason 'v2 is slow'
  firebox rollback file-type --to-policy 7")]
pub struct RollbackArgs {
    /// The function
    name: FunctionName,
    /// The policy to bring back; without it, the one before the present
    #[arg(long, value_name = "REVISION")]
    to_policy: Option<u64>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: Format,
}

/// Brings a policy back.
pub async fn rollback(args: RollbackArgs, client: &Client) -> Result {
    let path = ["v1", "functions", args.name.as_str(), "rollback"];
    let body = match args.to_policy {
        Some(revision) => json!({ "to_policy": revision }),
        None => json!({}),
    };
    // Of two who go back at once, the second must not undo what the first did.
    let (_, etag) = client.get_tagged(&policy_path(&args.name)).await?;
    let change = args.why.change(etag);
    let answer = client.change(Method::POST, &path, &body, &change).await?;
    args.format.show(answer, |now: PolicyInfo| {
        let from = now
            .restored
            .map_or(String::new(), |from| format!(", that of {from}"));
        let policy = shown(args.name.as_str(), &now.policy);
        format!("policy {}{from}, holds now\n{policy}", now.revision)
    })
}
