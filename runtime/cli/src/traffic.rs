//! `traffic`: shows or sets which versions answer, in percentages.

use std::str::FromStr;

use clap::Args;
use firebox_registry::{FunctionName, Label, VersionNumber};

use crate::api::Traffic;
use crate::client::Client;
use crate::failure::{Context, Failure, Result};
use crate::functions::{labels, shares};
use crate::output::{Format, facts, percent};

/// All traffic, in basis points.
const ALL: u32 = 10_000;

/// `firebox traffic`
#[derive(Args, Debug)]
#[command(after_help = "\
Without shares and labels, the policy is shown. Shares add up to 100 and replace those before;
labels that are not named stay as they are.

Examples:
  firebox traffic file-type
  firebox traffic file-type 1=90 2=10
  firebox traffic file-type 1=99.5 2=0.5 --label stable=1 --label canary=2
  firebox traffic file-type --remove-label canary")]
pub struct TrafficArgs {
    /// The function
    name: FunctionName,
    /// A version's part of the traffic, with up to two decimals
    #[arg(value_name = "VERSION=PERCENT")]
    shares: Vec<Share>,
    /// Let a label name a version
    #[arg(long = "label", value_name = "LABEL=VERSION")]
    labels: Vec<Naming>,
    /// Take a label away
    #[arg(long = "remove-label", value_name = "LABEL")]
    removed: Vec<Label>,
    #[command(flatten)]
    format: Format,
}

/// `2=10`: a version and its part in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    version: u32,
    basis_points: u32,
}

/// `stable=1`
#[derive(Clone, Debug)]
pub struct Naming {
    label: Label,
    version: u32,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let (version, share) = pair(text, "1=90")?;
        Ok(Share {
            version: version_number(version)?,
            basis_points: basis_points(share)?,
        })
    }
}

impl FromStr for Naming {
    type Err = String;

    fn from_str(text: &str) -> Result<Naming, String> {
        let (label, version) = pair(text, "stable=1")?;
        let label = label.parse::<Label>().map_err(|error| error.to_string())?;
        Ok(Naming {
            label,
            version: version_number(version)?,
        })
    }
}

fn pair<'a>(text: &'a str, example: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once('=')
        .ok_or_else(|| format!("expected something like {example}"))
}

fn version_number(text: &str) -> Result<u32, String> {
    let number = text
        .parse::<VersionNumber>()
        .map_err(|error| error.to_string())?;
    Ok(number.get())
}

/// `90`, `0.5` or `33.33%` as basis points, without a detour over binary fractions.
fn basis_points(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return Err(format!("'{text}' is not a percentage"));
    }
    if decimals.len() > 2 {
        return Err(format!("'{text}' has more than two decimals"));
    }
    let share = format!("{whole}{decimals:0<2}").parse::<u32>();
    share
        .ok()
        .filter(|share| *share <= ALL)
        .ok_or_else(|| format!("'{text}' is over 100"))
}

/// Shows or sets a function's policy.
pub async fn traffic(args: TrafficArgs, client: &Client) -> Result {
    let path = ["v1", "functions", args.name.as_str(), "traffic"];
    check(&args.shares)?;
    let changes = !(args.shares.is_empty() && args.labels.is_empty() && args.removed.is_empty());
    if changes {
        let now = serde_json::from_value(client.get(&path).await?)
            .context(|| "the server's policy is of another form".into())?;
        client.put(&path, &changed(now, &args)).await?;
    }
    args.format
        .show(client.get(&path).await?, |policy: Traffic| {
            let mut lines = vec![("traffic", shares(&policy.weights))];
            if !policy.labels.is_empty() {
                lines.push(("labels", labels(&policy.labels)));
            }
            format!("{}\n{}", args.name, facts(&lines))
        })
}

fn check(shares: &[Share]) -> Result {
    let sum: u32 = shares.iter().map(|share| share.basis_points).sum();
    if !shares.is_empty() && sum != ALL {
        let what = format!("the shares add up to {}, not to 100%", percent(sum));
        return Err(Failure::usage(what).hint("name every version that shall take traffic"));
    }
    for (i, share) in shares.iter().enumerate() {
        if shares
            .iter()
            .take(i)
            .any(|before| before.version == share.version)
        {
            return Err(Failure::usage(format!(
                "version {} is named twice",
                share.version
            )));
        }
    }
    Ok(())
}

fn changed(mut policy: Traffic, args: &TrafficArgs) -> Traffic {
    if !args.shares.is_empty() {
        let given = args.shares.iter().filter(|share| share.basis_points > 0);
        policy.weights = given
            .map(|share| (share.version, share.basis_points))
            .collect();
    }
    for naming in &args.labels {
        policy
            .labels
            .insert(naming.label.to_string(), naming.version);
    }
    for label in &args.removed {
        policy.labels.remove(label.as_str());
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn percentages_become_basis_points_exactly() {
        let all = ["0", "0.01", "0.5", "33.33", "90", "99.95%", "100"].map(basis_points);
        assert_eq!(all, [0, 1, 50, 3333, 9000, 9995, 10_000].map(Ok));
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "+1",
            "1e1",
            "100.01",
            "33.333",
            ".5",
            "4294967296",
            "%",
        ] {
            assert!(basis_points(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_version_and_a_percentage() {
        assert_eq!(
            "2=10".parse(),
            Ok(Share {
                version: 2,
                basis_points: 1000
            })
        );
        for text in ["2", "0=10", "x=10", "=10", "2="] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_must_add_up_and_name_each_version_once() {
        let shares = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<_>>()
        };
        assert!(check(&[]).is_ok());
        assert!(check(&shares(&["1=33.33", "2=66.67"])).is_ok());
        let short = check(&shares(&["1=90", "2=5"])).unwrap_err();
        assert!(short.what.contains("95%"), "{}", short.what);
        assert!(check(&shares(&["1=50", "1=50"])).is_err());
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let before = Traffic {
            weights: BTreeMap::from([(1, 10_000)]),
            labels: BTreeMap::from([("stable".into(), 1), ("old".into(), 1)]),
        };
        let args = TrafficArgs {
            name: "adder".parse().unwrap(),
            shares: Vec::new(),
            labels: vec!["canary=2".parse().unwrap()],
            removed: vec!["old".parse().unwrap()],
            format: Format::default(),
        };
        let after = changed(before, &args);
        assert_eq!(after.weights, BTreeMap::from([(1, 10_000)]));
        let labels = BTreeMap::from([("stable".into(), 1), ("canary".into(), 2)]);
        assert_eq!(after.labels, labels);
    }
}
