//! `shadow`: how a version that gets copies of requests compares with the one that answers.

use clap::Args;
use firebox_registry::FunctionName;

use crate::api::{Pair, Shadows};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{Format, milliseconds, table};

/// `firebox shadow`
#[derive(Args, Debug)]
#[command(after_help = "\
Copies are made where the traffic policy says so; what is counted began with the server. Answers agree
where labels, the places of the highest scores, and everything in JSON but fractions are equal.

Examples:
  firebox shadow file-type
  firebox shadow file-type --json")]
pub struct ShadowArgs {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    format: Format,
}

/// Shows the comparisons of a function's versions.
pub async fn shadow(args: ShadowArgs, client: &Client) -> Result {
    let path = ["v1", "functions", args.name.as_str(), "shadow"];
    args.format.show(client.get(&path).await?, shown)
}

fn shown(shadow: Shadows) -> String {
    let policy = match shadow.shadow {
        Some(policy) => format!(
            "version {} gets copies of {} of the requests",
            policy.version, policy.share_bp
        ),
        None => "no version gets copies of requests".to_owned(),
    };
    if shadow.pairs.is_empty() {
        return policy;
    }
    let rows = shadow.pairs.into_iter().map(row);
    let headings = [
        "version", "shadow", "compared", "agree", "failed", "dropped", "max abs", "max rel", "p95",
        "its p95",
    ];
    format!("{policy}\n\n{}", table(headings, rows.collect()))
}

fn row(pair: Pair) -> [String; 10] {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3e}"));
    let share = |share: f64| format!("{:.2}%", share * 100.0);
    let ms = |value: Option<f64>| value.map(milliseconds).unwrap_or_default();
    [
        pair.version.to_string(),
        pair.shadow.to_string(),
        pair.compared.to_string(),
        pair.agreement.map(share).unwrap_or_default(),
        pair.failed.to_string(),
        pair.dropped.to_string(),
        number(pair.max_abs_difference),
        number(pair.max_rel_difference),
        ms(pair.latency_ms.p95),
        ms(pair.shadow_latency_ms.p95),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_told_with_its_agreement_and_differences() {
        let json = serde_json::json!({
            "shadow": {"version": 2, "share_bp": 1000},
            "pairs": [{"version": 1, "shadow": 2, "compared": 200, "agreed": 199, "agreement": 0.995,
                       "failed": 3, "dropped": 4, "max_abs_difference": 0.25,
                       "max_rel_difference": null, "latency_ms": {"p50": 1.0, "p95": 2.0},
                       "shadow_latency_ms": {"p50": null, "p95": null}}],
        });
        let text = shown(serde_json::from_value(json).unwrap());
        for part in [
            "version 2 gets copies of 10%",
            "99.50%",
            "2.500e-1",
            "2.00 ms",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
