//! The manifest, `firebox.toml`: read in three steps. Unknown keys are refused by name, serde reads
//! the values, and then the whole is checked for what no single value can tell.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::FunctionName;

mod batching;
mod check;
mod command;
mod keys;
mod sections;

pub use batching::Batching;
use keys::check_keys;
pub use sections::{
    Cache, Device, FunctionSection, Limits, ModelSection, Network, Precision, Sample, Scaling, Tier,
};

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
}

fn value(key: impl Into<String>, problem: impl Into<String>) -> ManifestError {
    ManifestError::Value {
        key: key.into(),
        problem: problem.into(),
    }
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

#[cfg(test)]
mod tests;
