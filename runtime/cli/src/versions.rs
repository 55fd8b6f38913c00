//! `versions`: lists them, compares two, and says how many are kept.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use clap::Args;
use firebox_registry::{FunctionName, VersionNumber};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Changed, Difference, Retired, VersionInfo, Versions};
use crate::client::{Change, Client};
use crate::failure::Result;
use crate::functions::short;
use crate::output::{self, Format, percent, table};

/// `firebox versions`
#[derive(Args, Debug)]
#[command(after_help = "\
Versions that the traffic policy names, or the policy before it, are kept whatever their age.

Examples:
  firebox versions file-type
  firebox versions file-type --json
  firebox versions file-type --diff 1 2
  firebox versions file-type --keep-last 5")]
pub struct VersionsArgs {
    /// The function
    name: FunctionName,
    /// Show what is different between two versions
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"])]
    diff: Option<Vec<VersionNumber>>,
    /// Keep only this many of the newest, now and from now on
    #[arg(long, value_name = "N", conflicts_with = "diff")]
    keep_last: Option<NonZeroU32>,
    /// Keep all from now on
    #[arg(long, conflicts_with_all = ["diff", "keep_last"])]
    keep_all: bool,
    #[command(flatten)]
    format: Format,
}

/// Lists a function's versions, compares two, or retires the oldest.
pub async fn versions(args: VersionsArgs, client: &Client) -> Result {
    let name = args.name.as_str();
    if let Some([from, to]) = args.diff.as_deref() {
        let (from, to) = (from.to_string(), to.to_string());
        let path = ["v1", "functions", name, "versions", &from, "diff", &to];
        let answer = client.get(&path).await?;
        return args.format.show(answer, |found: Difference| {
            difference(&from, &to, &found.changes)
        });
    }
    if args.keep_last.is_some() || args.keep_all {
        let (path, body) = (
            ["v1", "functions", name, "retention"],
            json!({ "keep_last": args.keep_last }),
        );
        let answer = client
            .change(Method::PUT, &path, &body, &Change::default())
            .await?;
        return args.format.show(answer, |retired: Retired| {
            retirement(args.keep_last, &retired)
        });
    }
    let answer = client.get(&["v1", "functions", name, "versions"]).await?;
    args.format.show(answer, |Versions { versions }| {
        versions_table(&versions, SystemTime::now())
    })
}

fn versions_table(versions: &[VersionInfo], now: SystemTime) -> String {
    let rows = versions.iter().map(|version| {
        let latency = version.reference_latency_ms.map(output::milliseconds);
        [
            version.version.to_string(),
            percent(version.share_bp),
            version.labels.join(" "),
            version.residency.clone(),
            version.kind.clone(),
            version.tier.clone(),
            output::bytes(version.bundle_bytes),
            latency.unwrap_or_default(),
            age(&version.created, now),
            version.author.clone(),
            short(&version.digest),
        ]
    });
    let headings = [
        "version",
        "traffic",
        "labels",
        "residency",
        "kind",
        "tier",
        "bundle",
        "reference",
        "age",
        "by",
        "digest",
    ];
    table(headings, rows.collect())
}

/// How long ago an RFC 3339 time is: `3d`, `5h`, `12m`, `4s`. A time ahead of this clock is `0s`.
fn age(created: &str, now: SystemTime) -> String {
    let Ok(created) = humantime::parse_rfc3339_weak(created) else {
        return created.to_owned();
    };
    let seconds = now
        .duration_since(created)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn difference(from: &str, to: &str, changes: &[Changed]) -> String {
    if changes.is_empty() {
        return format!("versions {from} and {to} have the same manifest and files");
    }
    let text = |value: &Option<Value>| match value {
        None => String::new(),
        Some(Value::String(text)) => match text.strip_prefix("sha256:") {
            Some(_) => short(text),
            None => text.clone(),
        },
        Some(other) => other.to_string(),
    };
    let rows = changes
        .iter()
        .map(|change| [change.key.clone(), text(&change.from), text(&change.to)]);
    let (from, to) = (format!("version {from}"), format!("version {to}"));
    table(["key", &from, &to], rows.collect())
}

fn retirement(keep_last: Option<NonZeroU32>, retired: &Retired) -> String {
    let kept = match keep_last {
        Some(count) => format!("the newest {count} are kept, and those in use"),
        None => "all versions are kept".into(),
    };
    let deleted: Vec<String> = retired.deleted.iter().map(ToString::to_string).collect();
    match deleted.as_slice() {
        [] => kept,
        deleted => format!("{kept}; deleted: {}", deleted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit_and_is_never_below_nothing() {
        let now = humantime::parse_rfc3339("2026-07-04T12:00:00Z").unwrap();
        for (created, expected) in [
            ("2026-07-04T11:59:56.000Z", "4s"),
            ("2026-07-04T11:48:00.000Z", "12m"),
            ("2026-07-04T07:00:00.000Z", "5h"),
            ("2026-07-01T07:00:00.000Z", "3d"),
            ("2027-01-01T00:00:00.000Z", "0s"),
            ("9999-12-31T23:59:59.999Z", "0s"),
            ("once", "once"),
        ] {
            assert_eq!(age(created, now), expected);
        }
    }

    #[test]
    fn a_difference_is_shown_by_key() {
        let changes: Vec<Changed> = serde_json::from_value(json!([
            {"key": "files.models.m", "from": format!("sha256:{}", "a".repeat(64)), "to": format!("sha256:{}", "b".repeat(64))},
            {"key": "limits.memory", "from": "256MiB", "to": "512MiB"},
            {"key": "network.hosts", "to": ["example.com"]},
        ]))
        .unwrap();
        assert_eq!(
            difference("1", "2", &changes),
            "KEY             VERSION 1     VERSION 2\n\
             files.models.m  aaaaaaaaaaaa  bbbbbbbbbbbb\n\
             limits.memory   256MiB        512MiB\n\
             network.hosts                 [\"example.com\"]"
        );
    }
}
