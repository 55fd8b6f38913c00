//! What the sections of a manifest say, and what stands for them where they say nothing.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Batching;
use crate::{ByteSize, sizes};

/// How versions are kept and scheduled.
///
/// In the order of urgency.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Loaded before it takes traffic, and never dropped.
    Realtime,
    /// Loaded on first use, dropped after `keep_alive` without use.
    #[default]
    OnDemand,
    /// Loaded while there is work.
    Batch,
}

/// `[function]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSection {
    /// The WebAssembly component. A project may leave it out: it is built. A bundle that leaves it
    /// out has it as [`FunctionSection::COMPONENT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The shell command that makes the component, in a project. `firebox build` runs it there; a
    /// bundle has no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Whether an instance may answer one request after another, with what the earlier left in its
    /// memory.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reuse: bool,
    /// Where models run that the guest loads from bytes; where it is left out, it may load none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_models: Option<Device>,
    /// A command's arguments, after the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The media type of what a command writes to standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// A command's environment: all of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl FunctionSection {
    /// Where a bundle keeps its component.
    pub const COMPONENT: &str = "function.wasm";
}

/// `[models.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The ONNX file.
    pub path: String,
    /// Where it runs.
    #[serde(default)]
    pub device: Device,
    /// How finely it computes. Left out where it is the default, so that older builds read it.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Whether runs are put together; left out, each is one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
}

/// How finely a model computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model says.
    #[default]
    F32,
    /// Large weights are quantised to 8 bits when it is loaded on the processor; elsewhere it
    /// computes as it says.
    Int8,
}

impl Precision {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The best device there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A graphics processor through wgpu.
    Wgpu,
    /// A graphics processor through CUDA.
    Cuda,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of one instance, that is of one request.
    pub memory: ByteSize,
    /// Wall clock of one request, waiting included.
    #[serde(with = "sizes::time")]
    pub deadline: Duration,
    /// Processor time of the component in one request, without its models.
    #[serde(with = "sizes::optional_time", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
    /// Tensors that one instance holds at the host.
    #[serde(skip_serializing_if = "is_usual_tensors")]
    pub tensors: ByteSize,
    /// How long an answer may go on after its head, where the function answers HTTP requests; see
    /// [`Limits::stream`].
    #[serde(with = "sizes::optional_time", skip_serializing_if = "Option::is_none")]
    pub stream: Option<Duration>,
    /// Requests of the function that run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
}

/// Of one answer's body, unless the manifest says otherwise.
const USUAL_STREAM: Duration = Duration::from_secs(5 * 60);

impl Limits {
    /// How long the body of an answer may go on after its head.
    pub fn stream(&self) -> Duration {
        self.stream.unwrap_or(USUAL_STREAM)
    }
}

/// Of one instance, unless the manifest says otherwise.
const USUAL_TENSORS: ByteSize = ByteSize(256 << 20);

// What is left out where it is the default can be read by older builds.
fn is_usual_tensors(size: &ByteSize) -> bool {
    *size == USUAL_TENSORS
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory: ByteSize(256 << 20),
            deadline: Duration::from_secs(10),
            cpu: None,
            tensors: USUAL_TENSORS,
            stream: None,
            concurrency: None,
        }
    }
}

/// `[scaling]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scaling {
    /// Idle time until weights and code are dropped.
    #[serde(with = "sizes::time")]
    pub keep_alive: Duration,
}

impl Default for Scaling {
    fn default() -> Scaling {
        Scaling {
            keep_alive: Duration::from_secs(60),
        }
    }
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// How long an answer is kept.
    #[serde(with = "sizes::time")]
    pub ttl: Duration,
    /// Memory of a version's kept answers.
    pub max_bytes: ByteSize,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            ttl: Duration::from_secs(60),
            max_bytes: ByteSize(16 << 20),
        }
    }
}

/// `[sample]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The file that is sent as the body.
    pub body: String,
    /// Its media type.
    #[serde(default = "any_bytes")]
    pub content_type: String,
}

fn any_bytes() -> String {
    "application/octet-stream".to_owned()
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Hosts that the guest may call, `name` or `name:port`.
    pub hosts: Vec<String>,
}
