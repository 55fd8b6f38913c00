//! `cost`: what versions have used, and what that costs.

use clap::Args;
use firebox_registry::FunctionName;
use serde::Deserialize;

use crate::client::Client;
use crate::failure::Result;
use crate::output::{Format, table};

/// `firebox cost`
#[derive(Args, Debug)]
#[command(after_help = "\
Processor time is that of instances (guest) and models (compute), in seconds; memory is code and
weights for as long as they are loaded, in seconds of 10^9 bytes. What 1,000 good answers cost
includes what failed. Prices are the server's; without any, everything costs 0.

Examples:
  firebox cost
  firebox cost file-type
  firebox cost file-type --json")]
pub struct CostArgs {
    /// The function; all of them, if left out
    name: Option<FunctionName>,
    #[command(flatten)]
    format: Format,
}

/// `GET /v1/cost`, or that of a function.
#[derive(Debug, Deserialize)]
struct Costs {
    prices: Prices,
    versions: Vec<VersionCost>,
    total: f64,
}

#[derive(Debug, Deserialize)]
struct Prices {
    currency: String,
    cpu_second: f64,
    gpu_second: f64,
    gb_second: f64,
    request: f64,
}

#[derive(Debug, Deserialize)]
struct VersionCost {
    function: String,
    version: u32,
    since: String,
    usage: Usage,
    cost: Cost,
    cost_per_1000_predictions: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    requests: u64,
    predictions: u64,
    guest_cpu_seconds: f64,
    compute_cpu_seconds: f64,
    gpu_seconds: f64,
    memory_gb_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Cost {
    total: f64,
}

/// Shows what versions have used.
pub async fn cost(args: CostArgs, client: &Client) -> Result {
    let path = match &args.name {
        Some(name) => vec!["v1", "functions", name.as_str(), "cost"],
        None => vec!["v1", "cost"],
    };
    args.format.show(client.get(&path).await?, shown)
}

fn shown(costs: Costs) -> String {
    if costs.versions.is_empty() {
        return "no functions yet: `firebox deploy PATH` makes one".into();
    }
    let headings = [
        "function",
        "version",
        "requests",
        "good",
        "guest s",
        "compute s",
        "gpu s",
        "GB s",
        "cost",
        "per 1,000",
        "since",
    ];
    let table = table(headings, costs.versions.iter().map(row).collect());
    let Prices {
        currency,
        cpu_second,
        gpu_second,
        gb_second,
        request,
    } = &costs.prices;
    let free = [cpu_second, gpu_second, gb_second, request]
        .iter()
        .all(|price| **price == 0.0);
    let sum = match free {
        true => "the server has no prices, so everything costs 0".to_owned(),
        false => format!("{} {currency} in all", amount(costs.total)),
    };
    format!("{table}\n\n{sum}")
}

fn row(version: &VersionCost) -> [String; 11] {
    let VersionCost { usage, cost, .. } = version;
    [
        version.function.clone(),
        version.version.to_string(),
        usage.requests.to_string(),
        usage.predictions.to_string(),
        format!("{:.3}", usage.guest_cpu_seconds),
        format!("{:.3}", usage.compute_cpu_seconds),
        format!("{:.3}", usage.gpu_seconds),
        format!("{:.3}", usage.memory_gb_seconds),
        amount(cost.total),
        version
            .cost_per_1000_predictions
            .map(amount)
            .unwrap_or_default(),
        version.since.chars().take(10).collect(),
    ]
}

/// With the digits that matter, however small it is.
fn amount(amount: f64) -> String {
    match amount.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{amount:.2}"),
        size if size >= 0.001 => format!("{amount:.5}"),
        _ => format!("{amount:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(cpu_second: f64) -> Costs {
        serde_json::from_value(serde_json::json!({
            "prices": {"currency": "EUR", "cpu_second": cpu_second, "gpu_second": 0.0,
                       "gb_second": 0.0, "request": 0.0},
            "versions": [{
                "function": "adder", "version": 2, "since": "2026-07-01T12:00:00.000Z",
                "usage": {"requests": 12, "predictions": 10, "guest_cpu_seconds": 1.5,
                          "compute_cpu_seconds": 0.25, "gpu_seconds": 0.0,
                          "memory_gb_seconds": 3.0},
                "currency": "EUR",
                "cost": {"cpu": 0.0175, "gpu": 0.0, "memory": 0.0, "requests": 0.0, "total": 0.0175},
                "cost_per_1000_predictions": 1.75,
            }],
            "total": 0.0175,
        }))
        .unwrap()
    }

    #[test]
    fn a_version_is_told_with_what_it_used_and_what_that_costs() {
        let text = shown(costs(0.01));
        let parts = [
            "adder",
            "1.500",
            "0.250",
            "0.01750",
            "1.75000",
            "2026-07-01",
        ];
        for part in parts.into_iter().chain(["0.01750 EUR in all"]) {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(shown(costs(0.0)).contains("no prices"));
    }

    #[test]
    fn amounts_keep_the_digits_that_matter() {
        let texts = [0.0, 1234.5, 0.5, 0.000_012_3].map(amount);
        assert_eq!(texts, ["0", "1234.50", "0.50000", "1.23e-5"]);
    }
}
