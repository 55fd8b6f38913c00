//! The manifest, `firebox.toml`: read in three steps. Unknown keys are refused by name, serde reads
//! the values, and then the whole is checked for what no single value can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Component, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use utoipa::ToSchema;

use crate::{ByteSize, FunctionName, nearest, sizes};

mod batching;
mod command;

pub use batching::Batching;

/// What `firebox.toml` says; defaults are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The function's name, unless an upload gives another.
    pub name: FunctionName,
    /// One sentence, shown in lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How versions are kept and scheduled.
    #[serde(default)]
    pub tier: Tier,
    /// The component; absent in a version that is its model alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionSection>,
    /// Models by the name that the guest uses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelSection>,
    /// Read-only files of the guest: path as the guest sees it = file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assets: BTreeMap<String, String>,
    /// What one request may use.
    #[serde(default)]
    pub limits: Limits,
    /// When memory is given back.
    #[serde(default)]
    pub scaling: Scaling,
    /// How answers are kept; absent where none are. Left out then, so that older builds read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// The request of the dry run at upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// What the guest may reach.
    #[serde(default)]
    pub network: Network,
}

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

/// A manifest that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or a value of the wrong kind.
    #[error("firebox.toml: {message}")]
    Syntax {
        /// Line, excerpt and cause.
        message: String,
    },
    /// A key that means nothing.
    #[error(
        "firebox.toml, line {line}: there is no key `{key}`{}",
        .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
    )]
    UnknownKey {
        /// The whole key, such as `limits.memroy`.
        key: String,
        /// The line that it stands on, from 1.
        line: usize,
        /// The known key that it was most likely meant to be.
        nearest: Option<String>,
    },
    /// A value that is understood and can't be.
    #[error("firebox.toml: `{key}` {problem}")]
    Value {
        /// The whole key.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// Neither a component nor a model.
    #[error(
        "firebox.toml describes nothing to run: it needs a [function] section, or one \
         [models.NAME] section"
    )]
    Empty,
    /// A version without a component answers with its model, so it has exactly one.
    #[error(
        "firebox.toml names {count} models and no [function]: a version without a component has \
         exactly one model"
    )]
    ManyModels {
        /// How many there are.
        count: usize,
    },
}

impl Manifest {
    /// The manifest's file name.
    pub const FILE: &str = "firebox.toml";

    /// Reads and checks a manifest, of a project or of a bundle.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        let syntax = |mut error: toml::de::Error| {
            error.set_input(Some(text));
            ManifestError::Syntax {
                message: error.to_string().trim_end().to_owned(),
            }
        };
        let table = DeTable::parse(text).map_err(syntax)?;
        check_keys(table.get_ref(), text)?;
        let manifest = Manifest::deserialize(toml::Deserializer::from(table)).map_err(syntax)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// A manifest of one model, all else at its default.
    pub fn of_model(name: FunctionName, path: &str) -> Manifest {
        let model = ModelSection {
            path: path.to_owned(),
            device: Device::Auto,
            precision: Precision::F32,
            batching: None,
        };
        let mut manifest = Manifest::bare(name);
        manifest.models.insert("model".to_owned(), model);
        manifest
    }

    /// A manifest of one component, all else at its default.
    pub fn of_component(name: FunctionName) -> Manifest {
        let component = Some(FunctionSection::COMPONENT.to_owned());
        let mut manifest = Manifest::bare(name);
        manifest.function = Some(FunctionSection {
            component,
            ..FunctionSection::default()
        });
        manifest
    }

    fn bare(name: FunctionName) -> Manifest {
        Manifest {
            name,
            description: String::new(),
            tier: Tier::default(),
            function: None,
            models: BTreeMap::new(),
            assets: BTreeMap::new(),
            limits: Limits::default(),
            scaling: Scaling::default(),
            cache: None,
            sample: None,
            network: Network::default(),
        }
    }

    /// The manifest as the text of a `firebox.toml`.
    pub fn to_toml(&self) -> Result<String, ManifestError> {
        toml::to_string(self).map_err(|error| ManifestError::Syntax {
            message: error.to_string(),
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        match (&self.function, self.models.len()) {
            (None, 0) => return Err(ManifestError::Empty),
            (None, count) if count > 1 => return Err(ManifestError::ManyModels { count }),
            _ => {}
        }
        if let Some(function) = &self.function {
            function.check_command()?;
        }
        let build = self
            .function
            .as_ref()
            .and_then(|function| function.build.as_ref());
        if build.is_some_and(|command| command.trim().is_empty()) {
            let problem = "is empty: write the command that makes the component, or leave it out";
            return Err(value("function.build", problem));
        }
        for (name, model) in &self.models {
            check_model_name(name)?;
            if let Some(batching) = &model.batching {
                batching.check(name)?;
            }
        }
        let guest_paths: BTreeSet<&str> = self.assets.keys().map(String::as_str).collect();
        for path in &guest_paths {
            let key = || format!("assets.\"{path}\"");
            if !is_plain_path(path) {
                let problem = "isn't a path below the function's root: write it relative, with /, \
                               without . and ..";
                return Err(value(key(), problem));
            }
            let mut parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
            if let Some(parent) = parents.find(|parent| guest_paths.contains(parent)) {
                let problem = format!("lies in `{parent}`, which is a file itself");
                return Err(value(key(), problem));
            }
        }
        let memory = self.limits.memory;
        if !(ByteSize(1 << 20)..=ByteSize(4 << 30)).contains(&memory) {
            let problem = format!("is {memory}: it must be from 1MiB to 4GiB");
            return Err(value("limits.memory", problem));
        }
        if self.limits.tensors > ByteSize(4 << 30) {
            let problem = format!("is {}: it must be at most 4GiB", self.limits.tensors);
            return Err(value("limits.tensors", problem));
        }
        if let Some(cache) = &self.cache
            && !(ByteSize(1 << 10)..=ByteSize(64 << 30)).contains(&cache.max_bytes)
        {
            let problem = format!("is {}: it must be from 1KiB to 64GiB", cache.max_bytes);
            return Err(value("cache.max_bytes", problem));
        }
        let ttl = self.cache.clone().unwrap_or_default().ttl;
        let times = [
            ("cache.ttl", ttl, Duration::from_millis(1), DAY * 365),
            (
                "limits.deadline",
                self.limits.deadline,
                Duration::from_millis(1),
                DAY,
            ),
            (
                "limits.cpu",
                self.limits.cpu.unwrap_or(DAY),
                Duration::from_millis(1),
                DAY,
            ),
            (
                "limits.stream",
                self.limits.stream(),
                Duration::from_millis(1),
                DAY,
            ),
            (
                "scaling.keep_alive",
                self.scaling.keep_alive,
                Duration::ZERO,
                DAY * 365,
            ),
        ];
        for (key, time, least, most) in times {
            if !(least..=most).contains(&time) {
                let show = humantime::format_duration;
                let (time, least, most) = (show(time), show(least), show(most));
                return Err(value(
                    key,
                    format!("is {time}: it must be from {least} to {most}"),
                ));
            }
        }
        self.network
            .hosts
            .iter()
            .try_for_each(|host| check_host(host))
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn value(key: impl Into<String>, problem: impl Into<String>) -> ManifestError {
    ManifestError::Value {
        key: key.into(),
        problem: problem.into(),
    }
}

fn check_model_name(name: &str) -> Result<(), ManifestError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let problem = "isn't a model's name: it takes 1 to 64 of the characters a-z, A-Z, 0-9, -, _ \
                   and .";
    Err(value(format!("models.\"{name}\""), problem))
}

fn check_host(host: &str) -> Result<(), ManifestError> {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if !name.is_empty() && name.bytes().all(allowed) && port.parse::<u16>().is_ok() {
        return Ok(());
    }
    let problem = format!("has {host:?}: write a host as \"example.com\" or \"example.com:8080\"");
    Err(value("network.hosts", problem))
}

/// Whether a path is relative, uses `/`, and has neither `.` nor `..` nor empty parts.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        let mut components = Path::new(part).components();
        matches!(
            (components.next(), components.next()),
            (Some(Component::Normal(_)), None)
        )
    };
    !path.contains(['\\', '\0']) && path.split('/').all(plain)
}

/// The keys below each section; `*` stands for any name.
const KEYS: [(&str, &[&str]); 9] = [
    (
        "",
        &[
            "name",
            "description",
            "tier",
            "function",
            "models",
            "assets",
            "limits",
            "scaling",
            "cache",
            "sample",
            "network",
        ],
    ),
    (
        "function",
        &[
            "component",
            "build",
            "reuse",
            "load_models",
            "args",
            "env",
            "content_type",
        ],
    ),
    ("models.*", &["path", "device", "precision", "batching"]),
    ("models.*.batching", Batching::KEYS),
    (
        "limits",
        &[
            "memory",
            "deadline",
            "cpu",
            "tensors",
            "stream",
            "concurrency",
        ],
    ),
    ("scaling", &["keep_alive"]),
    ("cache", &["ttl", "max_bytes"]),
    ("sample", &["body", "content_type"]),
    ("network", &["hosts"]),
];

fn check_keys(root: &DeTable<'_>, text: &str) -> Result<(), ManifestError> {
    check_section("", "", root, text)?;
    for (key, section) in root {
        let DeValue::Table(table) = section.get_ref() else {
            continue;
        };
        let key: &str = key.get_ref();
        if key == "models" {
            for (name, model) in table {
                let DeValue::Table(model) = model.get_ref() else {
                    continue;
                };
                let prefix = format!("models.{}.", name.get_ref());
                check_section("models.*", &prefix, model, text)?;
                let batching = model.iter().find(|(key, _)| key.get_ref() == "batching");
                if let Some((_, section)) = batching
                    && let DeValue::Table(section) = section.get_ref()
                {
                    let prefix = format!("{prefix}batching.");
                    check_section("models.*.batching", &prefix, section, text)?;
                }
            }
        } else {
            check_section(key, &format!("{key}."), table, text)?;
        }
    }
    Ok(())
}

fn check_section(
    section: &str,
    prefix: &str,
    table: &DeTable<'_>,
    text: &str,
) -> Result<(), ManifestError> {
    let Some((_, known)) = KEYS.iter().find(|(name, _)| *name == section) else {
        return Ok(());
    };
    for key in table.keys() {
        let name: &str = key.get_ref();
        if !known.contains(&name) {
            return Err(ManifestError::UnknownKey {
                key: format!("{prefix}{name}"),
                line: line_of(text, key.span().start),
                nearest: nearest_key(name, prefix, known),
            });
        }
    }
    Ok(())
}

/// A slip within the section first; else the same key in another section.
fn nearest_key(name: &str, prefix: &str, known: &[&str]) -> Option<String> {
    let here = nearest(name, known.iter().copied()).map(|key| format!("{prefix}{key}"));
    let elsewhere = || {
        let (section, _) = KEYS.iter().find(|(_, keys)| keys.contains(&name))?;
        let section = section.replace('*', "NAME");
        Some(if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        })
    };
    here.or_else(elsewhere)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
name = "file-type"
description = "What kind of file some bytes are."
tier = "realtime"
[function]
component = "function.wasm"
reuse = true
[models.magika]
path = "models/magika.onnx"
device = "cpu"
precision = "int8"
[models.magika.batching]
max_batch_size = 32
max_queue_delay = "2ms"
pad = { bytes = 256 }
[assets]
"data/vocab.txt" = "vocab.txt"
[limits]
memory = "64MiB"
deadline = "1500ms"
cpu = "200ms"
tensors = "16MiB"
concurrency = 3
[scaling]
keep_alive = "0s"
[cache]
ttl = "5m"
max_bytes = "1MiB"
[sample]
body = "samples/readme.md"
[network]
hosts = ["example.com:8080"]
"#;

    fn refused(text: &str) -> String {
        Manifest::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_full_manifest_survives_toml_and_json() {
        let manifest = Manifest::parse(FULL).unwrap();
        assert_eq!(manifest.limits.deadline, Duration::from_millis(1500));
        assert_eq!(manifest.limits.cpu, Some(Duration::from_millis(200)));
        assert_eq!(manifest.limits.concurrency, NonZeroU32::new(3));
        assert_eq!(manifest.models["magika"].precision, Precision::Int8);
        assert_eq!(
            manifest.sample.as_ref().unwrap().content_type,
            "application/octet-stream"
        );
        assert_eq!(
            Manifest::parse(&manifest.to_toml().unwrap()).unwrap(),
            manifest
        );
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let manifest = Manifest::parse("name = 'a'\n[function]").unwrap();
        assert_eq!(manifest.tier, Tier::OnDemand);
        assert_eq!(manifest.limits.memory, ByteSize(256 << 20));
        assert_eq!(manifest.limits.deadline, Duration::from_secs(10));
        assert_eq!(manifest.scaling.keep_alive, Duration::from_secs(60));
        assert_eq!(
            (manifest.limits.cpu, manifest.limits.concurrency),
            (None, None)
        );
        assert_eq!(manifest.limits.tensors, ByteSize(256 << 20));
        let text = manifest.to_toml().unwrap();
        for key in ["cpu", "tensors", "concurrency", "reuse"] {
            assert!(!text.contains(key), "older builds don't know {key}: {text}");
        }
        assert_eq!(manifest.function.unwrap().component, None);
        let manifest = Manifest::parse("name = 'a'\n[models.m]\npath = 'm.onnx'").unwrap();
        assert_eq!(manifest.models["m"].precision, Precision::F32);
        assert!(!manifest.to_toml().unwrap().contains("precision"));
        assert_eq!(manifest.cache, None);
        let manifest = Manifest::parse("name = 'a'\n[function]\n[cache]").unwrap();
        assert_eq!(manifest.cache, Some(Cache::default()));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
        let said = refused("name = 'a'\n[function]\n[limits]\nmemroy = '1MiB'");
        let meant = "line 4: there is no key `limits.memroy`; did you mean `limits.memory`?";
        assert!(said.contains(meant), "{said}");
        let said = refused("name = 'a'\n[models.m]\npath = 'x'\ndevise = 'cpu'");
        assert!(
            said.contains("`models.m.devise`; did you mean `models.m.device`"),
            "{said}"
        );
        let said = refused("name = 'a'\nkeep_alive = '1s'\n[function]");
        assert!(said.contains("did you mean `scaling.keep_alive`"), "{said}");
        let said = refused("name = 'a'\ncolour = 1\n[function]");
        assert!(
            said.contains("`colour`") && !said.contains("did you mean"),
            "{said}"
        );
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        for (text, meant) in [
            ("name = 'A'\n[function]", "1 to 63"),
            ("name = 'a'", "describes nothing to run"),
            ("name = 'a'\ntier = 'fast'\n[function]", "on-demand"),
            (
                "name = 'a'\n[models.a]\npath='a'\n[models.b]\npath='b'",
                "exactly one model",
            ),
            (
                "name = 'a'\n[function]\n[limits]\nmemory = '8GiB'",
                "from 1MiB to 4GiB",
            ),
            (
                "name = 'a'\n[function]\n[limits]\nmemory = 7",
                "expected a string",
            ),
            (
                "name = 'a'\n[function]\n[limits]\ndeadline = '0s'",
                "limits.deadline",
            ),
            ("name = 'a'\n[function]\n[limits]\ncpu = '0s'", "limits.cpu"),
            (
                "name = 'a'\n[function]\n[limits]\nconcurrency = 0",
                "nonzero",
            ),
            (
                "name = 'a'\n[function]\n[limits]\ntensors = '8GiB'",
                "at most 4GiB",
            ),
            (
                "name = 'a'\n[function]\n[limits]\ndeadline = 'soon'",
                "such as \"10s\"",
            ),
            ("name = 'a'\n[function]\n[cache]\nttl = '0s'", "cache.ttl"),
            (
                "name = 'a'\n[function]\n[cache]\nmax_bytes = '1B'",
                "from 1KiB to 64GiB",
            ),
            (
                "name = 'a'\n[function]\n[assets]\n'../a' = 'a'",
                "below the function's root",
            ),
            (
                "name = 'a'\n[function]\n[assets]\n'a' = 'a'\n'a/b' = 'b'",
                "a file itself",
            ),
            ("name = 'a'\n[models.'a b']\npath = 'a'", "model's name"),
            (
                "name = 'a'\n[models.a]\npath = 'a'\nprecision = 'int4'",
                "expected `f32` or `int8`",
            ),
            (
                "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch_size = 1 }",
                "models.a.batching.max_batch_size` is 1: it must be from 2",
            ),
            (
                "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch = 8 }",
                "did you mean `models.a.batching.max_batch_size`",
            ),
            (
                "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch_size = 8, \
                 max_queue_delay = '5s' }",
                "from 0s to 1s",
            ),
            (
                "name = 'a'\n[function]\n[network]\nhosts = ['http://a/']",
                "example.com",
            ),
            ("name = ", "firebox.toml: TOML parse error at line 1"),
        ] {
            let said = refused(text);
            assert!(said.contains(meant), "{text}: {said}");
        }
    }
}
