//! One item of a job: asked as a request would be, tried again where that can help, and made a line
//! of results.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firebox_registry::{JobProtocol, JobRecord, Tier};
use firebox_sandbox::Parameter;
use futures::FutureExt;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::items::{Head, Item};
use crate::cost::Meter;
use crate::gateway::{InstanceCaps, Question, ask};
use crate::metrics::JobMetrics;
use crate::problem::{Failure, Problem};
use crate::protocol::{invoke, utf8, v2};
use crate::residency::{Lease, Residency};
use crate::routing::Version;
use crate::scheduler::{Scheduler, Terms, panic_text};

const JSON: &str = "application/json";

/// How many times the deadline of a call an item may take: it waits for what callers leave.
const PATIENCE: u32 = 30;

/// The pause before an item is tried again; longer with each time.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Answers the items of one job.
pub struct Answerer {
    /// Who is asked.
    pub version: Arc<Version>,
    /// What the job says of all its items.
    pub job: JobRecord,
    /// Loads the version.
    pub residency: Residency,
    /// Runs its models.
    pub scheduler: Arc<Scheduler>,
    /// How its models are run.
    pub terms: Arc<Terms>,
    /// A version of the batch tier stays loaded while a job of it runs.
    pub held: OnceLock<Lease>,
    /// The most that an instance is given.
    pub caps: InstanceCaps,
    /// Counts what becomes of items.
    pub metrics: JobMetrics,
}

/// What became of an item.
pub struct Answered {
    /// The item's number.
    pub number: u64,
    /// The size of its body.
    pub bytes: usize,
    /// Its line of results, and whether that is an answer; none where the server stops.
    pub result: Option<(Vec<u8>, bool)>,
}

/// An answer as it stands in a line of results.
#[derive(Debug)]
enum Output {
    Json(Box<RawValue>),
    Text(String, String),
    Bytes(String, Vec<u8>),
}

impl Answerer {
    /// Answers one item. It takes as long as it takes: an item for which there is no room waits.
    pub async fn answer(self: Arc<Self>, item: Item) -> Answered {
        let (number, bytes) = (item.number, item.body.len());
        let id = Uuid::now_v7();
        let mut attempts = 0;
        let mut pause = PAUSE;
        let outcome = loop {
            attempts += 1;
            let asked = AssertUnwindSafe(self.ask(&item, id)).catch_unwind().await;
            let asked = asked.unwrap_or_else(|p| Err(Failure::Internal(panic_text(p.as_ref()))));
            match asked {
                Err(Failure::ShuttingDown) => {
                    let result = None;
                    return Answered {
                        number,
                        bytes,
                        result,
                    };
                }
                // It wasn't its turn; that is no attempt.
                Err(failure) if failure.is_for_want_of_room() => attempts -= 1,
                Err(failure) if failure.may_pass() && attempts < self.job.max_attempts => {
                    self.metrics.retried.increment(1);
                }
                outcome => break outcome,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let succeeded = outcome.is_ok();
        // What was used is charged as it is used.
        self.version.account.charge(&Meter::default(), succeeded);
        match succeeded {
            true => self.metrics.succeeded.increment(1),
            false => self.metrics.failed.increment(1),
        }
        let line = line(&item, attempts, id, outcome);
        Answered {
            number,
            bytes,
            result: Some((line, succeeded)),
        }
    }

    async fn ask(&self, item: &Item, id: Uuid) -> Result<Output, Failure> {
        let (question, wanted) = self.question(item)?;
        let own_id = question.id.clone();
        let lease = self.residency.warm(&self.version).await?;
        if self.version.record.manifest.tier == Tier::Batch && self.held.get().is_none() {
            let held = self.residency.resident(&self.version);
            held.map(|held| self.held.set(held).is_ok());
        }
        let limits = &self.version.record.manifest.limits;
        let limits = self
            .caps
            .limits(limits, limits.deadline.saturating_mul(PATIENCE));
        let limit = limits.deadline;
        let asked = ask(
            &self.version,
            &self.terms,
            &lease.warm,
            &self.scheduler,
            question,
            limits,
            id,
        );
        // A little longer than the sandbox, which can say more about what ran.
        let answer = tokio::time::timeout(limit + Duration::from_millis(5), asked).await;
        let answer = answer.unwrap_or(Err(Failure::Deadline { limit }))?;
        match self.job.protocol {
            JobProtocol::V2 => {
                let answer = v2::select(answer, &wanted)?;
                let id = own_id.unwrap_or_else(|| id.to_string());
                let json = v2::write(&self.version, &id, &answer)?;
                Ok(output(JSON, &json))
            }
            JobProtocol::Invoke => {
                let (kind, body) = invoke::body_of(answer)?;
                Ok(output(kind.to_str().unwrap_or_default(), &body))
            }
        }
    }

    /// What an item asks, and which outputs it wants.
    fn question(&self, item: &Item) -> Result<(Question, v2::Wanted), Failure> {
        let Item { head, body, .. } = item;
        if self.job.protocol == JobProtocol::V2 {
            return v2::decode(utf8(body)?);
        }
        let inputs = match self.version.takes_raw() {
            true => {
                if head.line > 0 {
                    check_json(body)?;
                }
                invoke::raw(body)?
            }
            false => invoke::named_arrays(utf8(body)?, &self.version.signature)?,
        };
        let kind = match head.media_type.as_str() {
            "" if head.line > 0 => JSON,
            "" => "application/octet-stream",
            kind => kind,
        };
        let parameters = self.job.parameters.iter();
        let mut parameters: Vec<_> = parameters
            .filter(|(name, _)| name != "content-type")
            .map(|(name, value)| (name.clone(), Parameter::Text(value.clone())))
            .collect();
        parameters.push(("content-type".into(), Parameter::Text(kind.into())));
        let question = Question {
            id: None,
            inputs,
            parameters,
        };
        Ok((question, v2::Wanted::default()))
    }
}

/// A line is JSON, also where the function would take any bytes.
fn check_json(body: &[u8]) -> Result<(), Failure> {
    let read = serde_json::from_str::<IgnoredAny>(utf8(body)?);
    read.map(drop)
        .map_err(|error| Failure::BadBody(format!("expected JSON: {error}")))
}

/// An answer by its media type. What claims to be JSON and isn't goes as text or bytes.
fn output(kind: &str, body: &[u8]) -> Output {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let is_json = essence == JSON || essence.ends_with("+json");
    let Ok(text) = std::str::from_utf8(body) else {
        return Output::Bytes(kind.to_owned(), body.to_vec());
    };
    // In JSON, line ends stand between tokens alone.
    let json = is_json.then(|| RawValue::from_string(text.replace(['\n', '\r'], " ")));
    match json {
        Some(Ok(json)) => Output::Json(json),
        None if !essence.starts_with("text/") => Output::Bytes(kind.to_owned(), body.to_vec()),
        _ => Output::Text(kind.to_owned(), text.to_owned()),
    }
}

/// A line of results.
#[derive(Default, Serialize, ToSchema)]
pub struct JobResult<'a> {
    /// Its number among the items of the job, from 1.
    item: u64,
    /// The line that it was on.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The name of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// How often it was tried.
    attempts: u32,
    /// Names it in logs.
    prediction_id: String,
    /// The media type of `text` or `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The answer, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    output: Option<Box<RawValue>>,
    /// The answer, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The answer, where it is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

fn line(item: &Item, attempts: u32, id: Uuid, outcome: Result<Output, Failure>) -> Vec<u8> {
    let Head { line, name, .. } = &item.head;
    let mut written = JobResult {
        item: item.number,
        line: (*line > 0).then_some(*line),
        name: (*line == 0).then_some(name),
        attempts,
        prediction_id: id.to_string(),
        ..JobResult::default()
    };
    match outcome {
        Ok(Output::Json(json)) => written.output = Some(json),
        Ok(Output::Text(kind, text)) => {
            (written.content_type, written.text) = (Some(kind), Some(text));
        }
        Ok(Output::Bytes(kind, bytes)) => {
            let bytes = STANDARD.encode(bytes);
            (written.content_type, written.base64) = (Some(kind), Some(bytes));
        }
        Err(failure) => written.error = Some(failure.problem()),
    }
    let mut bytes = Vec::new();
    let done = serde_json::to_writer(&mut bytes, &written);
    debug_assert!(
        done.is_ok(),
        "texts and numbers always serialise, and a Vec takes them"
    );
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(line_number: u64, outcome: Result<Output, Failure>) -> Value {
        let (name, media_type) = match line_number {
            0 => ("a.png".to_owned(), "image/png".to_owned()),
            _ => Default::default(),
        };
        let head = Head {
            line: line_number,
            name,
            media_type,
        };
        let item = Item {
            number: 7,
            head,
            body: vec![],
        };
        let bytes = line(&item, 2, Uuid::nil(), outcome);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut value: Value = serde_json::from_str(&text).unwrap();
        let members = value.as_object_mut().unwrap();
        assert!(members.remove("prediction_id").is_some());
        value
    }

    #[test]
    fn an_answer_is_told_by_its_media_type() {
        let json = output("application/json; charset=utf-8", b"{\"y\":\n [1.0]}\n");
        let expected = json!({"item": 7, "line": 9, "attempts": 2, "output": {"y": [1.0]}});
        assert_eq!(told(9, Ok(json)), expected);
        let text = output("text/plain", "é\n".as_bytes());
        assert_eq!(
            told(0, Ok(text)),
            json!({"item": 7, "name": "a.png", "attempts": 2, "content_type": "text/plain", "text": "é\n"})
        );
        let bytes = output("image/png", &[0xff, 0]);
        assert_eq!(told(0, Ok(bytes))["base64"], "/wA=");
        let liar = output("application/json", b"{");
        assert_eq!(told(0, Ok(liar))["text"], "{");
    }

    #[test]
    fn an_error_is_a_problem() {
        let found = told(3, Err(Failure::BadBody("expected JSON".into())));
        assert_eq!(found["line"], 3);
        assert_eq!(found["error"]["status"], 400);
        assert_eq!(found["error"]["detail"], "expected JSON");
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        for (failure, again) in [
            (Failure::BadBody(String::new()), false),
            (Failure::GuestInvalidInput(String::new()), false),
            (Failure::NotAcceptable(String::new()), false),
            (Failure::Memory { limit: 1 }, false),
            (Failure::Cpu { limit: PAUSE }, false),
            (Failure::OverBudget(String::new()), false),
            (Failure::Model(String::new()), false),
            (Failure::GuestInternal(String::new()), true),
            (Failure::GuestUnavailable(String::new()), true),
            (Failure::Trap(String::new()), true),
            (Failure::Deadline { limit: PAUSE }, true),
        ] {
            assert_eq!(failure.may_pass(), again, "{failure:?}");
        }
    }
}
