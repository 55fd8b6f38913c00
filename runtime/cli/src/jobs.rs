//! `jobs`: many inputs for a function, submitted at once and answered when there is room.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use firebox_registry::{FunctionName, JobId, Label, VersionNumber};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::api::{Job, JobList};
use crate::client::{Change, Client};
use crate::download::save;
use crate::failure::{Context, Failure, Result};
use crate::invoke::Parameter;
use crate::output::{self, Format, facts, table};

mod body;

/// How often `--wait` asks.
const WAIT: Duration = Duration::from_millis(500);

/// `firebox jobs`
#[derive(Args, Debug)]
#[command(after_help = "\
A job is answered on what requests leave of the server. It is on the server's disk when `submit`
returns, and goes on after a crash; each of its inputs ends with one result.

Examples:
  firebox jobs submit adder inputs.ndjson --wait
  firebox jobs submit file-type photos/*.jpg
  firebox jobs list
  firebox jobs results 0198c0de-0000-7000-8000-000000000001 -o results.ndjson")]
pub struct JobsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit a job
    Submit(SubmitArgs),
    /// List jobs, newest first
    List(ListArgs),
    /// Show how a job stands
    Show(ShowArgs),
    /// End a job; results that it has are kept
    Cancel(CancelArgs),
    /// Try the items without an answer again
    Retry(OneArgs),
    /// Download the results that a job has
    Results(ResultsArgs),
    /// Delete a job that has ended, with its results
    Delete(OneArgs),
}

/// `firebox jobs submit`
#[derive(Args, Debug)]
#[command(after_help = "\
One file named .ndjson or .jsonl holds one JSON body a line, each what `firebox invoke` would send;
so does standard input, `-`. Any other files are sent as they are, each an item of its own.

With --wait, the exit code is 0 where every item has an answer, and 1 where not.

Examples:
  firebox jobs submit adder inputs.ndjson --wait
  firebox jobs submit adder requests.jsonl --v2 --version 2
  firebox jobs submit file-type photos/*.jpg --max-attempts 3
  generate | firebox jobs submit adder -")]
struct SubmitArgs {
    /// The function
    name: FunctionName,
    /// The inputs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Each line is a request of the Open Inference Protocol, version 2
    #[arg(long)]
    v2: bool,
    /// Ask this version, whatever the traffic policy says
    #[arg(long, value_name = "N", conflicts_with = "label")]
    version: Option<VersionNumber>,
    /// Ask the version that this label names now
    #[arg(long)]
    label: Option<Label>,
    /// A parameter, sent with each item; requests of --v2 have their own
    #[arg(
        long = "param",
        short = 'p',
        value_name = "KEY=VALUE",
        conflicts_with = "v2"
    )]
    parameters: Vec<Parameter>,
    /// How often an item is tried before it counts as failed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    max_attempts: u32,
    /// Stay until the job has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    format: Format,
}

/// `firebox jobs list`
#[derive(Args, Debug)]
struct ListArgs {
    /// Those of this function alone
    name: Option<FunctionName>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Those submitted before this job
    #[arg(long, value_name = "JOB")]
    before: Option<JobId>,
    #[command(flatten)]
    format: Format,
}

/// `firebox jobs show`
#[derive(Args, Debug)]
struct ShowArgs {
    /// The job
    job: JobId,
    /// Stay until it has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    format: Format,
}

/// `firebox jobs retry`
#[derive(Args, Debug)]
struct OneArgs {
    /// The job
    job: JobId,
    #[command(flatten)]
    format: Format,
}

/// `firebox jobs cancel`
#[derive(Args, Debug)]
struct CancelArgs {
    /// The job
    job: JobId,
    /// Why, for those who look at the job
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    #[command(flatten)]
    format: Format,
}

/// `firebox jobs results`
#[derive(Args, Debug)]
#[command(after_help = "\
A line of JSON for each item, in the order in which they were completed; `item` is its number.

Examples:
  firebox jobs results 0198c0de-0000-7000-8000-000000000001 -o results.ndjson
  firebox jobs results 0198c0de-0000-7000-8000-000000000001 --failed")]
struct ResultsArgs {
    /// The job
    job: JobId,
    /// Those of failed items alone
    #[arg(long)]
    failed: bool,
    /// Write them into a file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With --output: print the file's name and size as JSON
    #[arg(long, requires = "output")]
    json: bool,
}

/// Carries out a command about jobs.
pub async fn jobs(args: JobsArgs, client: &Client) -> Result {
    match args.command {
        Command::Submit(args) => submit(args, client).await,
        Command::List(args) => list(args, client).await,
        Command::Show(args) if args.wait => wait(&args.job.to_string(), args.format, client).await,
        Command::Show(args) => {
            let answer = client.get(&["v1", "jobs", &args.job.to_string()]).await?;
            args.format.show(answer, status)
        }
        Command::Cancel(args) => {
            let if_match = None;
            let change = Change {
                reason: args.reason,
                if_match,
            };
            act(args.job, "cancel", &change, args.format, client).await
        }
        Command::Retry(args) => {
            act(args.job, "retry", &Change::default(), args.format, client).await
        }
        Command::Results(args) => results(args, client).await,
        Command::Delete(args) => {
            let id = args.job.to_string();
            client.delete(&["v1", "jobs", &id]).await?;
            args.format.show(json!({ "deleted": id }), |_: Value| {
                format!("{id} is deleted")
            })
        }
    }
}

async fn act(job: JobId, action: &str, change: &Change, format: Format, client: &Client) -> Result {
    let id = job.to_string();
    let path = ["v1", "jobs", &id, action];
    let answer = client
        .change(Method::POST, &path, &json!({}), change)
        .await?;
    format.show(answer, status)
}

async fn submit(args: SubmitArgs, client: &Client) -> Result {
    let (version, label);
    let mut path = vec!["v1", "functions", args.name.as_str()];
    if let Some(number) = args.version {
        version = number.to_string();
        path.extend(["versions", &version]);
    } else if let Some(name) = &args.label {
        label = name.to_string();
        path.extend(["labels", &label]);
    }
    path.push("jobs");
    let body = body::of(&args.files)?;
    let bar = hidden_unless_watched(ProgressBar::new(body.bytes.unwrap_or(0)));
    bar.set_style(style(match body.bytes {
        Some(_) => "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}",
        None => "{spinner} {msg} {bytes}, {bytes_per_sec}",
    }));
    bar.set_message(format!("submitting to {}", args.name));
    let counted = bar.clone();
    let pieces = body.pieces.inspect(move |piece| {
        counted.inc(piece.as_ref().map_or(0, |piece| piece.len() as u64));
    });
    let mut request = client
        .request(Method::POST, &path)
        .header(CONTENT_TYPE, body.content_type)
        .header("x-firebox-max-attempts", args.max_attempts)
        .header("x-firebox-protocol", if args.v2 { "v2" } else { "invoke" });
    if !args.parameters.is_empty() {
        let pairs = args
            .parameters
            .iter()
            .map(|Parameter(key, value)| (key, value));
        request = request.query(&pairs.collect::<Vec<_>>());
    }
    let answer = client.submit(request, pieces).await;
    bar.finish_and_clear();
    let answer = answer?;
    match args.wait {
        false => args.format.show(answer, submitted),
        true => {
            let job: Job = read(answer)?;
            wait(&job.job, args.format, client).await
        }
    }
}

/// Shows how a job goes on until it has ended.
async fn wait(id: &str, format: Format, client: &Client) -> Result {
    let bar = hidden_unless_watched(ProgressBar::new(0));
    bar.set_style(style("{msg} {wide_bar} {human_pos} of {human_len}"));
    let job = loop {
        let answer = client.get(&["v1", "jobs", id]).await?;
        let job: Job = read(answer.clone())?;
        bar.set_length(job.items);
        bar.set_position(job.succeeded + job.failed);
        bar.set_message(line(&job));
        if !job.is_open() {
            bar.finish_and_clear();
            format.show(answer, status)?;
            break job;
        }
        tokio::time::sleep(WAIT).await;
    };
    let hint = match job.failed {
        0 => format!("`firebox jobs retry {id}` goes on with the rest"),
        _ => format!("see why with `firebox jobs results {id} --failed`"),
    };
    match (job.state.as_str(), job.failed) {
        ("done", 0) => Ok(()),
        ("done", failed) => {
            Err(Failure::new(format!("{failed} of {} items failed", job.items)).hint(hint))
        }
        (state, _) => {
            let why = job.reason.unwrap_or_default();
            Err(Failure::new(format!("the job is {state}: {why}")).hint(hint))
        }
    }
}

async fn list(args: ListArgs, client: &Client) -> Result {
    let path = match &args.name {
        Some(name) => vec!["v1", "functions", name.as_str(), "jobs"],
        None => vec!["v1", "jobs"],
    };
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.before.map(|before| ("before", before.to_string())));
    let request = client.request(Method::GET, &path).query(&query);
    let answer = client.json(request).await?;
    args.format.show(answer, listed)
}

async fn results(args: ResultsArgs, client: &Client) -> Result {
    let id = args.job.to_string();
    let mut request = client.request(Method::GET, &["v1", "jobs", &id, "results"]);
    if args.failed {
        request = request.query(&[("failed", "true")]);
    }
    let answer = client.send(request).await?;
    let Some(target) = args.output else {
        let broken = || format!("the results of {id} broke off");
        let mut answer = answer;
        while let Some(piece) = answer.chunk().await.context(broken)? {
            output::write(&piece, false)?;
        }
        return Ok(());
    };
    let what = format!("the results of {id}");
    let bytes = save(answer, &target, &what, |part| {
        let unread = || format!("{} can't be read", part.display());
        Ok(std::fs::metadata(part).context(unread)?.len())
    });
    let bytes = bytes.await?;
    let name = target.display().to_string();
    let format = Format { json: args.json };
    format.show(json!({ "file": name, "bytes": bytes }), |_: Value| {
        format!("{name}\n{}", facts(&[("size", output::bytes(bytes))]))
    })
}

fn read(answer: Value) -> Result<Job> {
    serde_json::from_value(answer).context(|| "the server's job is of another form".into())
}

fn hidden_unless_watched(bar: ProgressBar) -> ProgressBar {
    match std::io::stderr().is_terminal() {
        true => bar,
        false => ProgressBar::hidden(),
    }
}

/// A template of our own that did not parse would show as the plain default.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn submitted(job: Job) -> String {
    let next = format!("\nSee how it goes: firebox jobs show {} --wait", job.job);
    status(job) + &next
}

/// How a job goes, in a few words.
fn line(job: &Job) -> String {
    let failed = match job.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    match job.eta_ms {
        Some(left) => format!("{}{failed}, {} left", job.state, time(left)),
        None => format!("{}{failed}", job.state),
    }
}

/// Whole seconds for people.
fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}

/// A job for people.
fn status(job: Job) -> String {
    let mut lines = vec![("state", line(&job))];
    lines.extend(job.reason.clone().map(|reason| ("because", reason)));
    let percent = job.progress * 100.0;
    lines.push((
        "items",
        format!(
            "{}: {} answered, {} failed ({percent:.1}%)",
            job.items, job.succeeded, job.failed
        ),
    ));
    lines.push(("submitted", format!("{} by {}", job.created, job.author)));
    lines.extend(job.ended.map(|ended| ("ended", ended)));
    format!(
        "{}: {} version {}\n{}",
        job.job,
        job.function,
        job.version,
        facts(&lines)
    )
}

fn listed(JobList { jobs, next }: JobList) -> String {
    if jobs.is_empty() {
        return "no jobs: `firebox jobs submit` makes one".into();
    }
    let rows = jobs.into_iter().map(|job| {
        [
            job.job,
            format!("{} {}", job.function, job.version),
            job.state,
            job.items.to_string(),
            job.succeeded.to_string(),
            job.failed.to_string(),
            job.created,
        ]
    });
    let headings = [
        "job",
        "version",
        "state",
        "items",
        "answered",
        "failed",
        "submitted",
    ];
    let table = table(headings, rows.collect());
    match next {
        Some(next) => format!("{table}\nThere are more: --before {next}"),
        None => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        serde_json::from_value(json!({
            "job": "0198c0de-0000-7000-8000-000000000001", "function": "adder", "version": 2,
            "state": "running", "reason": null, "items": 200, "succeeded": 49, "failed": 1,
            "progress": 0.25, "eta_ms": 90_100, "author": "ann", "ended": null,
            "created": "2026-01-02T03:04:05.678Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_job_is_told_with_what_it_has_and_what_is_left() {
        let text = status(job());
        for part in [
            "0198c0de-0000-7000-8000-000000000001: adder version 2",
            "running, 1 failed, 1m 31s left",
            "200: 49 answered, 1 failed (25.0%)",
            "by ann",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_list_says_how_to_see_more() {
        let next = Some("0198c0de-0000-7000-8000-000000000001".to_owned());
        let text = listed(JobList {
            jobs: vec![job()],
            next,
        });
        assert!(
            text.contains("adder 2") && text.contains("--before 0198c0de"),
            "{text}"
        );
    }
}
