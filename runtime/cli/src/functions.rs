//! `functions`, `delete` and `devices`: what a server has.

use std::collections::BTreeMap;

use clap::Args;
use firebox_registry::{FunctionName, VersionNumber};
use serde::Deserialize;
use serde_json::json;

use crate::api::{FunctionInfo, Functions};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Format, percent, table};

/// `firebox functions`
#[derive(Args, Debug)]
pub struct FunctionsArgs {
    #[command(flatten)]
    format: Format,
}

/// `firebox delete`
#[derive(Args, Debug)]
#[command(after_help = "\
A version that the traffic policy names is kept: move its traffic and labels first.

Examples:
  firebox delete file-type --version 1
  firebox delete file-type")]
pub struct DeleteArgs {
    /// The function
    name: FunctionName,
    /// Delete this version alone; without it, the function goes with all its versions
    #[arg(long, value_name = "N")]
    version: Option<VersionNumber>,
}

/// `firebox devices`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firebox devices
  firebox devices --local")]
pub struct DevicesArgs {
    /// Ask this binary on this machine instead of a server
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    format: Format,
}

/// Lists all functions.
pub async fn functions(args: FunctionsArgs, client: &Client) -> Result {
    let answer = client.get(&["v1", "functions"]).await?;
    args.format.show(answer, |Functions { functions }| {
        match functions.is_empty() {
            true => "no functions yet: `firebox deploy PATH` makes one".into(),
            false => functions_table(&functions),
        }
    })
}

fn functions_table(functions: &[FunctionInfo]) -> String {
    let rows = functions.iter().map(|function| {
        [
            function.name.clone(),
            function.versions.len().to_string(),
            shares(&function.weights),
            labels(&function.labels),
            function.description.clone(),
        ]
    });
    table(
        ["name", "versions", "traffic", "labels", "description"],
        rows.collect(),
    )
}

/// `1=90% 2=10%`
pub fn shares(weights: &BTreeMap<u32, u32>) -> String {
    let taking = weights.iter().filter(|(_, share)| **share > 0);
    let texts = taking.map(|(version, &share)| format!("{version}={}", percent(share)));
    texts.collect::<Vec<_>>().join(" ")
}

/// `canary=2 stable=1`
pub fn labels(labels: &BTreeMap<String, u32>) -> String {
    let texts = labels
        .iter()
        .map(|(label, version)| format!("{label}={version}"));
    texts.collect::<Vec<_>>().join(" ")
}

/// The first twelve digits of a digest, enough to tell two apart.
pub fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(12).collect()
}

/// Deletes a version or a whole function.
pub async fn delete(args: DeleteArgs, client: &Client) -> Result {
    let name = args.name.as_str();
    match args.version {
        Some(version) => {
            let number = version.to_string();
            client
                .delete(&["v1", "functions", name, "versions", &number])
                .await?;
            output::print(&format!("{name} version {number} is deleted"))
        }
        None => {
            client.delete(&["v1", "functions", name]).await?;
            output::print(&format!("{name} is deleted"))
        }
    }
}

/// `GET /v1/devices`.
#[derive(Debug, Deserialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Device {
    device: String,
    name: String,
    available: bool,
    note: Option<String>,
}

/// Lists what models can run on.
pub async fn devices(args: DevicesArgs, client: &Client) -> Result {
    let answer = match args.local {
        true => json!({ "devices": firebox_engine::devices() }),
        false => client.get(&["v1", "devices"]).await?,
    };
    args.format.show(answer, |Devices { devices }| {
        let rows = devices.into_iter().map(|device| {
            let state = if device.available {
                "ready"
            } else {
                "not there"
            };
            [
                device.device,
                device.name,
                state.to_owned(),
                device.note.unwrap_or_default(),
            ]
        });
        table(["device", "name", "state", "note"], rows.collect())
    })
}
