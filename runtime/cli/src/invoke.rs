//! `invoke`: calls a function and hands its answer on as it came.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use firebox_registry::{FunctionName, Label, VersionNumber};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde::de::IgnoredAny;

use crate::client::Client;
use crate::failure::{Context, Failure, Result};
use crate::output;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// `firebox invoke`
#[derive(Args, Debug)]
#[command(after_help = "\
The answer's body goes to standard output as it is. Without a body here, standard input is sent.

Examples:
  firebox invoke word-count 'to be or not to be' --param top=1
  firebox invoke file-type --file photo.jpg --verbose
  firebox invoke adder --json '{\"x\": [1, 2, 3]}' --version 2
  cat photo.jpg | firebox invoke file-type --label canary")]
pub struct InvokeArgs {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    body: BodyArgs,
    /// Call this version, whatever the traffic policy says
    #[arg(long, value_name = "N", conflicts_with = "label")]
    version: Option<VersionNumber>,
    /// Call the version that this label names
    #[arg(long)]
    label: Option<Label>,
    /// A header of the request; a `Content-Type` replaces the one sent by default
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// A parameter, sent in the URL's query
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE")]
    parameters: Vec<Parameter>,
    /// Write the answer's body into a file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tell on standard error which version answered, its prediction id and the times
    #[arg(long, short)]
    verbose: bool,
}

/// Where the body comes from; at most one of these.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct BodyArgs {
    /// The body, as text
    #[arg(value_name = "TEXT")]
    positional: Option<String>,
    /// The same by name
    #[arg(long)]
    text: Option<String>,
    /// The body, as JSON
    #[arg(long)]
    json: Option<String>,
    /// The body, from a file; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `Name: value`
#[derive(Clone, Debug, PartialEq)]
struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Header, String> {
        let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
        let name = name
            .trim()
            .parse()
            .map_err(|_| format!("'{name}' is not a header's name"))?;
        let value = value
            .trim()
            .parse()
            .map_err(|_| format!("'{value}' is not a header's value"))?;
        Ok(Header(name, value))
    }
}

/// `key=value`
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter(pub String, pub String);

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Parameter, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Parameter(key.into(), value.into())),
            _ => Err("expected key=value".into()),
        }
    }
}

/// What a function is called with.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Which version; the policy decides where this is empty.
    pub target: Target,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Pairs of the query.
    pub parameters: Vec<(String, String)>,
    /// Further headers.
    pub headers: HeaderMap,
}

/// Which version of a function is called.
#[derive(Clone, Debug, Default)]
pub enum Target {
    /// As the traffic policy decides.
    #[default]
    Policy,
    /// This one.
    Version(String),
    /// The one that a label names.
    Label(String),
}

/// A function's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `X-Firebox-Version`.
    pub version: String,
    /// `X-Firebox-Prediction-Id`.
    pub prediction_id: String,
    /// `Server-Timing`: stages and their milliseconds.
    pub timing: Vec<(String, f64)>,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// From the request's first byte to the answer's last.
    pub round_trip: Duration,
}

impl Answer {
    /// The milliseconds of a stage, 0 where the server names none.
    pub fn stage(&self, name: &str) -> f64 {
        let stage = self.timing.iter().find(|(stage, _)| stage == name);
        stage.map_or(0.0, |(_, milliseconds)| *milliseconds)
    }
}

/// Calls a function and reads its answer to the end.
pub async fn call(client: &Client, function: &str, call: Call) -> Result<Answer> {
    let path = match &call.target {
        Target::Policy => vec!["v1", "functions", function, "invoke"],
        Target::Version(number) => {
            vec!["v1", "functions", function, "versions", number, "invoke"]
        }
        Target::Label(label) => vec!["v1", "functions", function, "labels", label, "invoke"],
    };
    let mut request = client.request(Method::POST, &path);
    if !call.parameters.is_empty() {
        request = request.query(&call.parameters);
    }
    request = request
        .header(CONTENT_TYPE, call.content_type)
        .headers(call.headers);
    let began = Instant::now();
    let answer = client.send(request.body(call.body)).await?;
    let header = |name: &str| header(&answer, name);
    let (version, prediction_id) = (
        header("x-firebox-version"),
        header("x-firebox-prediction-id"),
    );
    let (timing, content_type) = (header("server-timing"), header("content-type"));
    let body = answer
        .bytes()
        .await
        .context(|| "the answer broke off".into())?
        .to_vec();
    let round_trip = began.elapsed();
    let timing = stages(&timing);
    Ok(Answer {
        version,
        prediction_id,
        timing,
        content_type,
        body,
        round_trip,
    })
}

fn header(answer: &Response, name: &str) -> String {
    let value = answer
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Reads `queue;dur=0.1, cold;dur=12.5`.
fn stages(header: &str) -> Vec<(String, f64)> {
    let stages = header.split(',').filter_map(|stage| {
        let mut parts = stage.split(';').map(str::trim);
        let name = parts.next()?.to_owned();
        let milliseconds = parts.find_map(|part| part.strip_prefix("dur="))?;
        Some((name, milliseconds.parse().ok()?))
    });
    stages.collect()
}

/// `firebox invoke`
pub async fn invoke(args: InvokeArgs, client: &Client) -> Result {
    let (body, content_type) = body(args.body)?;
    let target = match (args.version, args.label) {
        (Some(version), _) => Target::Version(version.to_string()),
        (None, Some(label)) => Target::Label(label.to_string()),
        (None, None) => Target::Policy,
    };
    let parameters = args
        .parameters
        .into_iter()
        .map(|Parameter(key, value)| (key, value))
        .collect();
    let headers = args
        .headers
        .into_iter()
        .map(|Header(name, value)| (name, value))
        .collect();
    let sent = Call {
        target,
        content_type,
        body,
        parameters,
        headers,
    };
    let answer = call(client, args.name.as_str(), sent).await?;
    if args.verbose {
        eprintln!("{}", account(args.name.as_str(), &answer));
    }
    hand_on(&answer, args.output.as_deref())
}

fn body(args: BodyArgs) -> Result<(Vec<u8>, &'static str)> {
    if let Some(text) = args.text.or(args.positional) {
        return Ok((text.into_bytes(), TEXT));
    }
    if let Some(json) = args.json {
        let checked: Result<IgnoredAny, _> = serde_json::from_str(&json);
        checked.map_err(|error| {
            Failure::usage(format!("what --json was given is not JSON: {error}"))
                .hint("keep the shell's hands off it with single quotes: --json '{\"x\": [1]}'")
        })?;
        return Ok((json.into_bytes(), JSON));
    }
    match args.file {
        Some(file) if file != Path::new("-") => {
            let what = || format!("{} can't be read", file.display());
            Ok((std::fs::read(&file).context(what)?, content_type(&file)))
        }
        None if io::stdin().is_terminal() => Err(Failure::usage("there is no body to send")
            .hint("give a text, --json, --file, or pipe something in")),
        _ => {
            let mut body = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut body);
            read.context(|| "standard input can't be read".into())?;
            Ok((body, BYTES))
        }
    }
}

/// The media type that a file's name tells.
pub fn content_type(file: &Path) -> &'static str {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("json") => JSON,
        Some("txt" | "md") => TEXT,
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("wav") => "audio/wav",
        _ => BYTES,
    }
}

/// Three lines on who answered, and in what time.
fn account(function: &str, answer: &Answer) -> String {
    let stages = answer
        .timing
        .iter()
        .map(|(stage, ms)| format!("{stage} {}", output::milliseconds(*ms)));
    let server = stages.collect::<Vec<_>>().join(", ");
    output::facts(&[
        (
            "answered by",
            format!("{function} version {}", answer.version),
        ),
        ("prediction", answer.prediction_id.clone()),
        ("round trip", output::duration(answer.round_trip)),
        ("of which", server),
    ])
}

fn hand_on(answer: &Answer, file: Option<&Path>) -> Result {
    let readable = answer.content_type.starts_with("text/") || answer.content_type.contains("json");
    match file {
        Some(file) => {
            let what = || format!("{} can't be written", file.display());
            std::fs::write(file, &answer.body).context(what)
        }
        None if !readable && io::stdout().is_terminal() && answer.body.contains(&0) => {
            let (size, kind) = (
                output::bytes(answer.body.len() as u64),
                &answer.content_type,
            );
            Err(Failure::new(format!(
                "the answer is {size} of {kind}, not for a terminal"
            ))
            .hint("write it into a file: --output FILE"))
        }
        None => output::write(&answer.body, readable && !answer.body.ends_with(b"\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        let Header(name, value) = "X-Where: a:b ".parse().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-where", "a:b"));
        assert!("no colon".parse::<Header>().is_err());
        assert!("bad name: x".parse::<Header>().is_err());
    }

    #[test]
    fn a_parameter_is_split_at_its_first_equals_sign() {
        assert_eq!("q=a=b".parse(), Ok(Parameter("q".into(), "a=b".into())));
        assert_eq!("q=".parse(), Ok(Parameter("q".into(), String::new())));
        assert!("q".parse::<Parameter>().is_err());
        assert!("=b".parse::<Parameter>().is_err());
    }

    #[test]
    fn server_timing_is_read_stage_by_stage() {
        let stages = stages("queue;dur=0.1, cold;desc=\"loading\";dur=12.5, odd, compute;dur=x");
        assert_eq!(
            stages,
            [("queue".to_owned(), 0.1), ("cold".to_owned(), 12.5)]
        );
    }

    #[test]
    fn json_on_the_command_line_is_checked_before_it_is_sent() {
        let args = |json: &str| BodyArgs {
            positional: None,
            text: None,
            json: Some(json.into()),
            file: None,
        };
        assert_eq!(body(args("[1]")).unwrap(), (b"[1]".to_vec(), JSON));
        let failure = body(args("{x: 1}")).unwrap_err();
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
    }

    #[test]
    fn a_files_name_tells_its_media_type() {
        let types = ["a.JPG", "a.json", "Makefile"].map(|name| content_type(Path::new(name)));
        assert_eq!(types, ["image/jpeg", JSON, BYTES]);
    }
}
