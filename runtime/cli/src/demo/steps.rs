//! The nine steps of the demo. Each prints what it does and finds, and fails where that is not
//! what it should be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Deserialize;

use crate::api::{Traffic, VersionInfo};
use crate::build;
use crate::client::{Change, Client};
use crate::compile;
use crate::demo::child::Server;
use crate::deploy;
use crate::failure::{Context, Failure, Result};
use crate::invoke::{self, Answer, Call};
use crate::output::{bytes, duration, facts, milliseconds, table};

/// The function that is deployed.
const FUNCTION: &str = "file-type";
/// Idle time until a version goes to zero: short, as someone is watching.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long going to zero may take.
const GOING: Duration = Duration::from_secs(30);
/// How many calls are split, and how many of them the second version may answer: 10 are expected,
/// and less than 1 or more than 30 would come once in tens of thousands of demos.
const CALLS: usize = 100;
const SECOND: std::ops::RangeInclusive<usize> = 1..=30;
/// The sample files, and what each is.
const SAMPLES: [(&str, &str); 10] = [
    ("gcd.wasm", "wasm"),
    ("primes.py", "python"),
    ("readme.md", "markdown"),
    ("ring.rs", "rust"),
    ("rings.png", "png"),
    ("shop.sql", "sql"),
    ("short.txt", "txt"),
    ("sources.zip", "zip"),
    ("squares.elf", "elf"),
    ("stations.json", "json"),
];
/// The sample of the calls that are counted or timed.
const SAMPLE: (&str, &str) = ("readme.md", "markdown");

/// What `file-type` answers.
#[derive(Deserialize)]
struct FileType {
    label: String,
    confidence: f64,
}

fn step(number: u32, what: &str) {
    println!("\n{number}/9  {what}");
}

fn say(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}

/// Starts the server.
pub async fn start(folder: &Path) -> Result<Server> {
    step(1, "Start a server");
    let began = Instant::now();
    let server = Server::start(folder).await?;
    say(&format!(
        "{} listens, {} after its start",
        server.url(),
        duration(began.elapsed())
    ));
    Ok(server)
}

/// Fetches the model by the checkout's script.
pub async fn fetch_model(checkout: &Path) -> Result {
    step(2, "Fetch the model: magika, 3 MB, pinned by digest");
    let mut python = tokio::process::Command::new("python3");
    python
        .arg(checkout.join("scripts/models.py"))
        .arg("magika")
        .kill_on_drop(true);
    let status = python.status().await.map_err(|error| {
        Failure::new(format!("python3 can't be run: {error}"))
            .hint("install python3 with pip; the model comes out of a package")
    })?;
    if !status.success() {
        return Err(
            Failure::new("the model could not be fetched").hint("the message above says why")
        );
    }
    let model = checkout.join("target/models/magika.onnx");
    let size = std::fs::metadata(&model).context(|| format!("{} is not there", model.display()))?;
    say(&format!("target/models/magika.onnx, {}", bytes(size.len())));
    Ok(())
}

/// Compiles the function; returns the component.
pub async fn build(project: &Path) -> Result<PathBuf> {
    step(3, "Compile the function to WebAssembly: examples/file-type");
    let (began, project) = (Instant::now(), project.to_owned());
    let compiled = tokio::task::spawn_blocking(move || compile::compile(&project)).await;
    let component = compiled.context(|| "the compilation broke off".into())??;
    let size = std::fs::metadata(&component)
        .context(|| "the component is gone".into())?
        .len();
    say(&format!(
        "a component of {}, in {}",
        bytes(size),
        duration(began.elapsed())
    ));
    Ok(component)
}

/// Deploys the function as it is, but for its keep-alive.
pub async fn deploy_first(
    client: &Client,
    project: &Path,
    component: &Path,
    folder: &Path,
) -> Result<VersionInfo> {
    step(
        4,
        "Deploy it: the server checks it, runs its init, snapshots, compiles, tries it",
    );
    let version = deploy_as(client, project, component, folder, None).await?;
    expect("the first version's number", version.version, 1)?;
    expect(
        "its share of the traffic, in basis points",
        version.share_bp,
        10_000,
    )?;
    Ok(version)
}

/// Calls the function on each sample.
pub async fn invoke_all(client: &Client, samples: &Path) -> Result {
    step(5, "Call it over HTTP on real files");
    let mut rows = Vec::new();
    for (file, expected) in SAMPLES {
        let (answer, found) = ask(client, &samples.join(file), expected).await?;
        let confidence = format!("{:.1}%", found.confidence * 100.0);
        rows.push([
            file.to_owned(),
            found.label,
            confidence,
            duration(answer.round_trip),
        ]);
    }
    say(&table(["file", "is", "sure", "round trip"], rows));
    say("all as expected");
    Ok(())
}

/// Deploys the same code with another description.
pub async fn deploy_second(
    client: &Client,
    project: &Path,
    component: &Path,
    folder: &Path,
    first: &VersionInfo,
) -> Result {
    step(
        6,
        "Deploy a second version: the same code, another description",
    );
    let description = "What kind of file some bytes are, once more.";
    let second = deploy_as(client, project, component, folder, Some(description)).await?;
    expect("the second version's number", second.version, 2)?;
    expect(
        "its share of the traffic, in basis points",
        second.share_bp,
        0,
    )?;
    match second.digest == first.digest {
        true => Err(Failure::new(
            "both versions have one digest, though their manifests differ",
        )),
        false => Ok(()),
    }
}

async fn deploy_as(
    client: &Client,
    project: &Path,
    component: &Path,
    folder: &Path,
    description: Option<&str>,
) -> Result<VersionInfo> {
    let mut manifest = build::manifest(project)?;
    manifest.scaling.keep_alive = KEEP_ALIVE;
    if let Some(description) = description {
        manifest.description = description.to_owned();
    }
    let bundle = folder.join("file-type.firebox");
    build::pack(&manifest, project, Some(component), &bundle)?;
    let began = Instant::now();
    let answer = deploy::upload(client, FUNCTION, &bundle).await?;
    let version: VersionInfo = serde_json::from_value(answer)
        .context(|| "the server's answer is of another form".into())?;
    let latency = version.reference_latency_ms.map(milliseconds);
    say(&facts(&[
        ("version", version.version.to_string()),
        ("digest", version.digest.clone()),
        ("bundle", bytes(version.bundle_bytes)),
        ("accepted in", duration(began.elapsed())),
        (
            "one call took",
            latency.unwrap_or_else(|| "not measured".into()),
        ),
    ]));
    Ok(version)
}

/// Splits the traffic and counts who answers.
pub async fn split(client: &Client, samples: &Path) -> Result {
    step(
        7,
        &format!("Split the traffic 90/10 and call it {CALLS} times; which version answers?"),
    );
    let policy = Traffic {
        weights: BTreeMap::from([(1, 9000), (2, 1000)]),
        ..Traffic::default()
    };
    let path = ["v1", "functions", FUNCTION, "traffic"];
    let change = Change {
        reason: "try version 2".into(),
        ..Change::default()
    };
    client.change(Method::PUT, &path, &policy, &change).await?;
    let mut versions = String::new();
    for _ in 0..CALLS {
        let (answer, _) = ask(client, &samples.join(SAMPLE.0), SAMPLE.1).await?;
        versions += &answer.version;
    }
    let characters: Vec<char> = versions.chars().collect();
    for line in characters.chunks(CALLS / 2) {
        say(&line.iter().collect::<String>());
    }
    let count = |version: char| characters.iter().filter(|found| **found == version).count();
    let (first, second) = (count('1'), count('2'));
    say(&format!("version 1: {first}, version 2: {second}"));
    expect(
        "the calls that either version answered",
        first + second,
        CALLS,
    )?;
    match SECOND.contains(&second) {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "version 2 answered {second} of {CALLS} calls; 10% should be {} to {}",
            SECOND.start(),
            SECOND.end()
        ))),
    }
}

/// Waits until nothing is loaded, then compares the first call with those after it.
pub async fn scale_to_zero(client: &Client, samples: &Path) -> Result {
    step(
        8,
        &format!(
            "Let it go to zero: {} s without a call",
            KEEP_ALIVE.as_secs()
        ),
    );
    let began = Instant::now();
    while !is_cold(client, 1).await? || !is_cold(client, 2).await? {
        if began.elapsed() > GOING {
            return Err(Failure::new(format!(
                "it is still loaded after {} s",
                GOING.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(&format!(
        "code and weights are gone, {} after the last call",
        duration(began.elapsed())
    ));
    let file = samples.join(SAMPLE.0);
    let (cold, _) = ask(client, &file, SAMPLE.1).await?;
    // The next call may go to the other version, which is cold still; so this one is called on.
    let warm = warm(client, &file, &cold.version).await?;
    let loading = cold.stage("cold");
    say(&facts(&[
        (
            "cold call",
            format!(
                "{}, of which loading {}",
                duration(cold.round_trip),
                milliseconds(loading)
            ),
        ),
        (
            "warm call",
            format!(
                "{}, of which in the guest {} and the model {}",
                duration(warm.round_trip),
                milliseconds(warm.stage("guest")),
                milliseconds(warm.stage("compute"))
            ),
        ),
    ]));
    // Round trips are not compared: on a busy machine the model's own time varies more than that.
    if loading <= 0.0 || warm.stage("cold") >= loading {
        return Err(Failure::new(
            "the call after going to zero was no cold start",
        ));
    }
    Ok(())
}

/// The call in the middle, by its round trip, of some to a loaded version.
async fn warm(client: &Client, file: &Path, version: &str) -> Result<Answer> {
    let mut answers = Vec::new();
    for _ in 0..21 {
        let target = invoke::Target::Version(version.to_owned());
        answers.push(ask_of(client, file, SAMPLE.1, target).await?.0);
    }
    answers.sort_by_key(|answer| answer.round_trip);
    let middle = answers.len() / 2;
    answers
        .into_iter()
        .nth(middle)
        .ok_or_else(|| Failure::new("no warm call was made"))
}

async fn is_cold(client: &Client, version: u32) -> Result<bool> {
    let number = version.to_string();
    let answer = client
        .get(&["v1", "functions", FUNCTION, "versions", &number])
        .await?;
    let version: VersionInfo = serde_json::from_value(answer)
        .context(|| "the server's answer is of another form".into())?;
    Ok(version.residency == "cold")
}

/// Stops the server.
pub async fn stop(server: Server) -> Result {
    step(9, "Stop the server");
    let began = Instant::now();
    let status = server.stop().await?;
    if !status.success() {
        return Err(Failure::new(format!("the server ended with {status}")));
    }
    say(&format!("stopped in {}", duration(began.elapsed())));
    println!("\nEvery step gave what it should.");
    Ok(())
}

async fn ask(client: &Client, file: &Path, expected: &str) -> Result<(Answer, FileType)> {
    ask_of(client, file, expected, invoke::Target::Policy).await
}

/// Calls the function on a file, whose kind must be the expected one.
async fn ask_of(
    client: &Client,
    file: &Path,
    expected: &str,
    target: invoke::Target,
) -> Result<(Answer, FileType)> {
    let body = std::fs::read(file).context(|| format!("{} can't be read", file.display()))?;
    let call = Call {
        target,
        content_type: "application/octet-stream",
        body,
        ..Call::default()
    };
    let answer = invoke::call(client, FUNCTION, call).await?;
    let found: FileType = serde_json::from_slice(&answer.body).context(|| {
        format!(
            "the answer is of another form: {}",
            String::from_utf8_lossy(&answer.body)
        )
    })?;
    expect(
        &format!("the kind of {}", file.display()),
        found.label.as_str(),
        expected,
    )?;
    Ok((answer, found))
}

fn expect<T: PartialEq + std::fmt::Display>(what: &str, found: T, expected: T) -> Result {
    match found == expected {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{what} should be {expected}, but is {found}"
        ))),
    }
}
