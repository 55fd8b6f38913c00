//! `rollout`: moves traffic to a version step by step, under guards.

use std::time::Duration;

use clap::{Args, Subcommand};
use firebox_registry::{FunctionName, VersionNumber};
use firebox_server::rollout::guard::Guard;
use firebox_server::rollout::plan;
use firebox_server::rollout::text::Misread;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Rollout, Rollouts};
use crate::client::{Change, Client};
use crate::failure::{Context, Failure, Result};
use crate::output::{self, Format, facts, percent, table};

/// How often `--watch` asks.
const WATCH: Duration = Duration::from_secs(1);

/// `firebox rollout`
#[derive(Args, Debug)]
#[command(after_help = "\
A rollout gives a version a growing share of the traffic. At each step its guards compare it with the
version before, over the same time. Where one fails, the traffic policy from before is back at once;
where all pass and the step's time is over, the next step begins. It goes on after a restart.

Examples:
  firebox rollout start file-type --to 2
  firebox rollout start file-type --to 2 --steps 5%:10m,25%:10m,100% \\
      --guard 'error_rate<=stable+1%' --guard 'p95<=1.2*stable'
  firebox rollout status file-type --watch
  firebox rollout abort file-type --reason 'answers look odd'")]
pub struct RolloutArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin to move traffic to a version
    Start(StartArgs),
    /// Show how the latest rollout stands
    Status(StatusArgs),
    /// Stay at the present step; a guard that fails still takes the traffic back
    Pause(ActArgs),
    /// Go on after a pause
    Resume(ActArgs),
    /// Go to the next step now, whatever the time and the guards say
    Promote(PromoteArgs),
    /// End it, and bring the traffic policy from before back
    Abort(ActArgs),
    /// List the rollouts of a function
    History(HistoryArgs),
}

/// `firebox rollout start`
#[derive(Args, Debug)]
#[command(after_help = "\
Guards: error_rate, rejection_rate (answers 4xx) or a percentile of the latency (p50, p95, p99.9),
then <=, then a fixed limit (2%, 300ms), or one by the stable version (stable, stable+1%, 1.2*stable).

Examples:
  firebox rollout start file-type --to 2
  firebox rollout start file-type --to 2 --steps 1%:5m,10%:30m,100% --guard 'p99<=300ms'")]
struct StartArgs {
    /// The function
    name: FunctionName,
    /// The version that traffic moves to
    #[arg(long, value_name = "VERSION")]
    to: VersionNumber,
    /// Shares of the traffic, each with the shortest time at it
    #[arg(long, default_value = plan::DEFAULT, value_parser = steps)]
    steps: String,
    /// What must hold; may be given more than once [default: error_rate<=stable+1% and
    /// p95<=1.2*stable]
    #[arg(long = "guard", value_name = "GUARD", value_parser = guard)]
    guards: Vec<String>,
    /// The fewest calls of a version by which it is judged
    #[arg(long, value_name = "CALLS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    min_sample: u64,
    /// How far back guards look, from 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "60s")]
    window: humantime::Duration,
    #[command(flatten)]
    because: Because,
    #[command(flatten)]
    format: Format,
}

/// What goes into the history with what is done.
#[derive(Args, Debug)]
struct Because {
    /// Why, for the history
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

impl From<Because> for Change {
    fn from(Because { reason }: Because) -> Self {
        let if_match = None;
        Self { reason, if_match }
    }
}

/// `firebox rollout status`
#[derive(Args, Debug)]
#[command(after_help = "\
With --watch, a line is printed whenever something changes, until the rollout ends; the exit code is
0 where it succeeded, and 1 where not.

Examples:
  firebox rollout status file-type
  firebox rollout status file-type --watch")]
struct StatusArgs {
    /// The function
    name: FunctionName,
    /// Stay until it ends
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

/// `firebox rollout pause`, `resume` and `abort`
#[derive(Args, Debug)]
struct ActArgs {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    because: Because,
    #[command(flatten)]
    format: Format,
}

/// `firebox rollout promote`
#[derive(Args, Debug)]
struct PromoteArgs {
    /// Give all traffic to the new version at once, and end the rollout
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    act: ActArgs,
}

/// `firebox rollout history`
#[derive(Args, Debug)]
struct HistoryArgs {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    format: Format,
}

fn steps(text: &str) -> std::result::Result<String, Misread> {
    plan::parse(text).map(|_| text.to_owned())
}

fn guard(text: &str) -> std::result::Result<String, Misread> {
    text.parse::<Guard>().map(|guard| guard.text)
}

/// Carries out a command about a rollout.
pub async fn rollout(args: RolloutArgs, client: &Client) -> Result {
    match args.command {
        Command::Start(args) => start(args, client).await,
        Command::Status(args) if args.watch => watch(&args, client).await,
        Command::Status(args) => {
            let answer = client.get(&path(&args.name)).await?;
            args.format.show(answer, status)
        }
        Command::Pause(args) => act(args, "pause", &json!({}), client).await,
        Command::Resume(args) => act(args, "resume", &json!({}), client).await,
        Command::Promote(PromoteArgs { full, act: args }) => {
            act(args, "promote", &json!({ "full": full }), client).await
        }
        Command::Abort(args) => act(args, "abort", &json!({}), client).await,
        Command::History(args) => {
            let path = ["v1", "functions", args.name.as_str(), "rollouts"];
            let answer = client.get(&path).await?;
            args.format.show(answer, history)
        }
    }
}

fn path(name: &FunctionName) -> [&str; 4] {
    ["v1", "functions", name.as_str(), "rollout"]
}

async fn start(args: StartArgs, client: &Client) -> Result {
    let mut body = json!({
        "to": args.to,
        "steps": args.steps,
        "min_sample": args.min_sample,
        "window": args.window.to_string(),
    });
    if !args.guards.is_empty()
        && let Some(members) = body.as_object_mut()
    {
        members.insert("guards".into(), json!(args.guards));
    }
    let path = path(&args.name);
    let change = args.because.into();
    let answer = client.change(Method::POST, &path, &body, &change).await?;
    args.format.show(answer, status)
}

async fn act(args: ActArgs, action: &str, body: &Value, client: &Client) -> Result {
    let [v1, functions, name, rollout] = path(&args.name);
    let path = [v1, functions, name, rollout, action];
    let change = args.because.into();
    let answer = client.change(Method::POST, &path, body, &change).await?;
    args.format.show(answer, status)
}

/// Prints what changes until the rollout ends.
async fn watch(args: &StatusArgs, client: &Client) -> Result {
    let mut shown = String::new();
    loop {
        let answer = client.get(&path(&args.name)).await?;
        let rollout: Rollout = serde_json::from_value(answer.clone())
            .context(|| "the server's rollout is of another form".into())?;
        let line = line(&rollout);
        if line != shown {
            match args.format.json {
                true => output::print(&answer.to_string())?,
                false => output::print(&line)?,
            }
            shown = line;
        }
        match rollout.state.as_str() {
            "running" | "paused" => tokio::time::sleep(WATCH).await,
            "succeeded" => return Ok(()),
            _ => {
                let why = rollout.end.map(|end| end.reason).unwrap_or_default();
                let what = format!("rollout {} did not succeed: {why}", rollout.rollout);
                return Err(Failure::new(what).hint(format!(
                    "see its numbers with `firebox rollout status {}`",
                    args.name
                )));
            }
        }
    }
}

/// How a rollout stands, without what changes all the time.
fn line(rollout: &Rollout) -> String {
    let verdicts = rollout.verdicts.iter();
    let verdicts = verdicts.map(|v| format!("; {}: {}", v.guard, words(&v.verdict)));
    let (step, steps) = (rollout.step, rollout.steps.len());
    format!(
        "{}, version {} at {} (step {step} of {steps}){}",
        words(&rollout.state),
        rollout.to,
        percent(rollout.share_bp),
        verdicts.collect::<String>()
    )
}

/// `not_enough_data` for people.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A rollout for people.
fn status(rollout: Rollout) -> String {
    let (step, steps) = (rollout.step, rollout.steps.len());
    let hold = rollout
        .steps
        .get(step.saturating_sub(1))
        .map_or(0, |step| step.hold_ms);
    let time = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    let at = match hold {
        0 => String::new(),
        hold => format!(", for {} of {}", time(rollout.spent_ms), time(hold)),
    };
    let mut lines = vec![
        ("state", words(&rollout.state)),
        (
            "step",
            format!("{step} of {steps}: {}{at}", percent(rollout.share_bp)),
        ),
    ];
    if let Some(waits) = rollout.waits {
        lines.push(("waits", waits));
    }
    lines.push(("started", by(&rollout.started, &rollout.author)));
    if let Some(end) = &rollout.end {
        lines.push(("ended", by(&end.time, &end.author)));
        lines.push(("because", end.reason.clone()));
    }
    lines.push((
        "before",
        format!("traffic policy {}", rollout.policy_before),
    ));
    let verdicts = rollout.verdicts.into_iter();
    let rows = verdicts.map(|v| [v.guard, words(&v.verdict), v.reason]);
    let rows: Vec<_> = rows.collect();
    let table = match rows.is_empty() {
        true => String::new(),
        false => format!("\n\n{}", table(["guard", "verdict", "why"], rows)),
    };
    format!(
        "{}: rollout {} from version {} to {}\n{}{table}",
        rollout.function,
        rollout.rollout,
        rollout.from,
        rollout.to,
        facts(&lines)
    )
}

fn by(time: &str, author: &str) -> String {
    match author.is_empty() {
        true => time.to_owned(),
        false => format!("{time} by {author}"),
    }
}

fn history(Rollouts { rollouts }: Rollouts) -> String {
    if rollouts.is_empty() {
        return "no rollouts yet: `firebox rollout start` begins one".into();
    }
    let rows = rollouts.into_iter().map(|rollout| {
        let (ended, why) = rollout
            .end
            .map_or_else(Default::default, |end| (end.time, end.reason));
        [
            rollout.rollout.to_string(),
            format!("{} to {}", rollout.from, rollout.to),
            words(&rollout.state),
            percent(rollout.share_bp),
            rollout.started,
            ended,
            why,
        ]
    });
    let headings = [
        "rollout", "versions", "state", "at", "started", "ended", "why",
    ];
    table(headings, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout() -> Rollout {
        let json = json!({
            "function": "adder", "rollout": 3, "from": 1, "to": 2, "state": "running", "step": 2,
            "steps": [{"share_bp": 500, "hold_ms": 600_000}, {"share_bp": 2500, "hold_ms": 600_000},
                      {"share_bp": 10_000, "hold_ms": 0}],
            "share_bp": 2500, "spent_ms": 192_345, "guards": ["p95<=300ms"], "min_sample": 100,
            "window_ms": 60_000, "author": "ann", "started": "2026-01-02T03:04:05.678Z",
            "policy_before": 7, "waits": "for 6m 48s more of its step", "end": null,
            "verdicts": [{"guard": "p95<=300ms", "verdict": "not_enough_data", "reason": "7 calls"}],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_rollout_is_told_with_its_step_and_its_verdicts() {
        let text = status(rollout());
        for part in [
            "adder: rollout 3 from version 1 to 2",
            "2 of 3: 25%, for 3m 12s of 10m",
            "6m 48s",
            "by ann",
            "not enough data",
            "7 calls",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let line = line(&rollout());
        assert_eq!(
            line,
            "running, version 2 at 25% (step 2 of 3); p95<=300ms: not enough data"
        );
    }

    #[test]
    fn guards_and_steps_are_read_before_anything_is_sent() {
        assert!(guard("p95<=1.2*stable").is_ok());
        let error = guard("p95<=1.2*stabel").unwrap_err().to_string();
        assert!(error.contains("character 10"), "{error}");
        let error = steps("5%:10m").unwrap_err().to_string();
        assert!(error.contains("character 7"), "{error}");
    }
}
