//! `label`: shows, moves and removes the labels of versions.

use clap::Args;
use firebox_registry::{FunctionName, Label, VersionNumber};

use crate::api::Traffic;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::functions::labels;
use crate::output::Format;
use crate::traffic::{Why, update};

/// `firebox label`
#[derive(Args, Debug)]
#[command(after_help = "\
Without a label, those that there are are shown. A label moves at once: the next request that asks
for it gets the new version.

Examples:
  firebox label file-type
  firebox label file-type stable 2
  firebox label file-type canary --remove")]
pub struct LabelArgs {
    /// The function
    name: FunctionName,
    /// The label
    label: Option<Label>,
    /// The version that it shall name
    #[arg(requires = "label", conflicts_with = "remove")]
    version: Option<VersionNumber>,
    /// Take the label away
    #[arg(long, requires = "label")]
    remove: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: Format,
}

/// Shows or changes a function's labels.
pub async fn label(args: LabelArgs, client: &Client) -> Result {
    let change = |now| match &args.label {
        Some(label) => changed(now, label, args.version, args.remove),
        None => Ok(now),
    };
    let answer = update(client, &args.name, &args.why, change).await?;
    args.format
        .show(answer, |policy: Traffic| match policy.labels.is_empty() {
            true => format!("{} has no labels", args.name),
            false => format!("{}  {}", args.name, labels(&policy.labels)),
        })
}

fn changed(
    mut policy: Traffic,
    label: &Label,
    version: Option<VersionNumber>,
    remove: bool,
) -> Result<Traffic> {
    match version {
        Some(version) => drop(policy.labels.insert(label.to_string(), version.get())),
        None if remove => drop(policy.labels.remove(label.as_str())),
        None => {
            let what = format!("which version shall `{label}` name?");
            return Err(Failure::usage(what).hint("give its number, or --remove"));
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::known;

    #[test]
    fn a_label_moves_and_goes_and_all_else_stays() {
        let policy = || {
            known(serde_json::json!({"weights": {"1": 10_000}, "labels": {"a": 1, "b": 1}}))
                .unwrap()
        };
        let (a, two) = ("a".parse().unwrap(), "2".parse().ok());
        let moved = changed(policy(), &a, two, false).unwrap();
        assert_eq!(labels(&moved.labels), "a=2 b=1");
        let gone = changed(policy(), &a, None, true).unwrap();
        assert_eq!(
            (labels(&gone.labels), gone.weights),
            ("b=1".into(), policy().weights)
        );
        assert!(changed(policy(), &a, None, false).is_err());
    }
}
