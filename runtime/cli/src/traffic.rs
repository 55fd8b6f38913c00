//! `traffic`: shows or sets which versions answer, in percentages.

use std::str::FromStr;

use clap::Args;
use firebox_registry::{FunctionName, Label, Shadow, StickyKey, Target, VersionNumber};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::api::{Policies, PolicyInfo, Traffic};
use crate::client::{Change, Client};
use crate::failure::{Context, Failure, Result};
use crate::functions::{labels, shares};
use crate::output::{Format, facts, percent, table};

/// All traffic, in basis points.
const ALL: u32 = 10_000;

/// `firebox traffic`
#[derive(Args, Debug)]
#[command(after_help = "\
Without anything to change, the policy is shown. Shares add up to 100 and replace those before;
labels and all else that is not named stay as they are. A change is refused where someone else
changed the policy meanwhile.

Examples:
  firebox traffic file-type
  firebox traffic file-type 1=90 2=10 --reason 'try version 2'
  firebox traffic file-type 1=99.5 2=0.5 --label stable=1 --label canary=2
  firebox traffic file-type --remove-label canary
  firebox traffic file-type --sticky 'cookie session' --default stable
  firebox traffic file-type --shadow 2=5
  firebox traffic file-type --history")]
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
    /// Copy a part of the requests to a version whose answers nobody sees
    #[arg(long, value_name = "VERSION=PERCENT", conflicts_with = "no_shadow")]
    shadow: Option<Share>,
    /// Copy no requests
    #[arg(long)]
    no_shadow: bool,
    /// Where a caller's key is found: 'header NAME', 'cookie NAME' or 'body POINTER'
    #[arg(long, value_name = "PLACE")]
    sticky: Option<StickyKey>,
    /// Where requests without a key go: to a version or label
    #[arg(long, value_name = "TARGET", value_parser = target, conflicts_with = "no_default")]
    default: Option<Target>,
    /// Let the weights decide about requests without a key
    #[arg(long)]
    no_default: bool,
    /// Show the policies there were, with who set them, when and why
    #[arg(long)]
    history: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: Format,
}

/// What goes with a change.
#[derive(Args, Clone, Debug, Default)]
pub struct Why {
    /// Why it is changed, for the history
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Change only the policy of this revision; without it, the one that is read just before
    #[arg(long, value_name = "REVISION")]
    pub if_match: Option<u64>,
}

impl Why {
    /// What is sent with a change of a policy whose ETag is `read`.
    pub fn change(&self, read: Option<HeaderValue>) -> Change {
        let named = self
            .if_match
            .and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok());
        Change {
            reason: self.reason.clone(),
            if_match: named.or(read),
        }
    }
}

fn target(text: &str) -> Result<Target, String> {
    match text.bytes().next() {
        Some(first) if first.is_ascii_digit() => match text.parse() {
            Ok(number) => Ok(Target::Version(number)),
            Err(error) => Err(format!("{error}")),
        },
        _ => match text.parse() {
            Ok(label) => Ok(Target::Label(label)),
            Err(error) => Err(format!("{error}")),
        },
    }
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
    check(&args.shares)?;
    if args.history {
        let answer = client
            .get(&["v1", "functions", args.name.as_str(), "policies"])
            .await?;
        return args
            .format
            .show(answer, |Policies { policies }| history(&policies));
    }
    let answer = update(client, &args.name, &args.why, |now| changed(now, &args)).await?;
    args.format
        .show(answer, |policy: Traffic| shown(args.name.as_str(), &policy))
}

/// Where a function's policy is.
pub fn policy_path(name: &FunctionName) -> [&str; 4] {
    ["v1", "functions", name.as_str(), "traffic"]
}

/// A policy that this Firebox knows whole.
pub fn known(answer: Value) -> Result<Traffic> {
    serde_json::from_value(answer).context(|| "the server's policy is of another form".into())
}

/// Reads a function's policy and writes back what is to be changed, if anything is; gives the
/// policy that holds then.
pub async fn update(
    client: &Client,
    name: &FunctionName,
    why: &Why,
    change: impl FnOnce(Traffic) -> Result<Traffic>,
) -> Result<Value> {
    let path = policy_path(name);
    let (read, etag) = client.get_tagged(&path).await?;
    let now = known(read.clone())?;
    let wanted = change(now.clone())?;
    if wanted == now {
        return Ok(read);
    }
    let change = why.change(etag);
    client.change(Method::PUT, &path, &wanted, &change).await
}

/// A policy, for people.
pub fn shown(name: &str, policy: &Traffic) -> String {
    let mut lines = vec![("traffic", shares(&policy.weights))];
    if !policy.labels.is_empty() {
        lines.push(("labels", labels(&policy.labels)));
    }
    if let Some(shadow) = &policy.shadow {
        let share = percent(shadow.share_bp.get().into());
        lines.push(("shadow", format!("{}={share}", shadow.version)));
    }
    if let Some(sticky) = &policy.sticky {
        lines.push(("sticky", sticky.to_string()));
    }
    if let Some(default) = &policy.default {
        lines.push(("default", default.to_string()));
    }
    format!("{name}\n{}", facts(&lines))
}

fn history(policies: &[PolicyInfo]) -> String {
    let rows = policies.iter().map(|entry| {
        let reason = match entry.restored {
            Some(revision) if entry.reason.is_empty() => format!("back to {revision}"),
            Some(revision) => format!("back to {revision}: {}", entry.reason),
            None => entry.reason.clone(),
        };
        [
            entry.revision.to_string(),
            entry.created.clone(),
            entry.author.clone(),
            shares(&entry.policy.weights),
            labels(&entry.policy.labels),
            reason,
        ]
    });
    let headings = ["policy", "set", "by", "traffic", "labels", "reason"];
    table(headings, rows.collect())
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

fn changed(mut policy: Traffic, args: &TrafficArgs) -> Result<Traffic> {
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
    if let Some(share) = args.shadow {
        let wrong = || Failure::usage("the shadow's share is no percentage");
        let points = u16::try_from(share.basis_points).map_err(|_| wrong())?;
        policy.shadow = Some(Shadow {
            version: share.version.try_into().map_err(|_| wrong())?,
            share_bp: points.try_into().map_err(|_| wrong())?,
        });
    }
    if args.no_shadow {
        policy.shadow = None;
    }
    if let Some(sticky) = &args.sticky {
        policy.sticky = Some(sticky.clone());
    }
    if let Some(default) = &args.default {
        policy.default = Some(default.clone());
    }
    if args.no_default {
        policy.default = None;
    }
    Ok(policy)
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

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: TrafficArgs,
    }

    fn asked(line: &[&str]) -> TrafficArgs {
        let words = ["traffic", "adder"].iter().chain(line);
        <Line as clap::Parser>::try_parse_from(words).unwrap().args
    }

    fn before() -> Traffic {
        known(serde_json::json!({
            "weights": {"1": 10_000}, "labels": {"stable": 1, "old": 1},
            "shadow": {"version": 2, "share_bp": 500}, "sticky": {"cookie": "sid"}, "default": "old",
        }))
        .unwrap()
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        assert_eq!(changed(before(), &asked(&[])).unwrap(), before());
        let line = [
            "--label",
            "canary=2",
            "--remove-label",
            "old",
            "--default",
            "1",
        ];
        let after = changed(before(), &asked(&line)).unwrap();
        let expected = Traffic {
            labels: BTreeMap::from([("stable".into(), 1), ("canary".into(), 2)]),
            default: Some(target("1").unwrap()),
            ..before()
        };
        assert_eq!(after, expected);
        let line = ["--no-default", "--no-shadow", "--sticky", "header X-User"];
        let after = changed(before(), &asked(&line)).unwrap();
        assert_eq!((after.default, after.shadow), (None, None));
        assert_eq!(after.sticky, Some(StickyKey::Header("x-user".into())));
        let after = changed(before(), &asked(&["--shadow", "3=2.5"])).unwrap();
        let shadow = after.shadow.unwrap();
        assert_eq!((shadow.version.get(), shadow.share_bp.get()), (3, 250));
    }

    #[test]
    fn a_policy_of_a_later_server_is_refused_and_never_cut() {
        let answer = serde_json::json!({"weights": {"1": 10_000}, "labels": {}, "mirror": 1});
        let failure = known(answer).unwrap_err();
        assert!(failure.what.contains("mirror"), "{}", failure.what);
    }

    #[test]
    fn a_policy_is_shown_whole() {
        assert_eq!(
            shown("adder", &before()),
            "adder\n  traffic  1=100%\n  labels   old=1 stable=1\n  shadow   2=5%\n  \
             sticky   cookie sid\n  default  old"
        );
    }
}
