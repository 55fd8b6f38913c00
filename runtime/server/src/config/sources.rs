//! Where settings come from: a file for the host, over it the environment, over that flags. Each
//! value remembers which of them it is from.

use std::fmt;
use std::path::{Path, PathBuf};

use firebox_registry::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, SETTINGS, Setting};

/// A server's settings and where each is from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The settings.
    pub config: Config,
    /// In the order of [`SETTINGS`].
    origins: Vec<Origin>,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// Settings that can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{} can't be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, excerpt and cause.
        message: String,
    },
    /// A section or key that means nothing.
    #[error(
        "{}, line {line}: there is no {kind} `{key}`{}", path.display(),
        .nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// `section` or `key`.
        kind: &'static str,
        /// The name.
        key: String,
        /// The known one that it was most likely meant to be.
        nearest: Option<String>,
    },
    /// A value that can't be.
    #[error("{origin}: `{key}` is {found}; expected {expected}")]
    Value {
        /// Where it is from.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it can be.
        expected: String,
    },
    /// A variable that isn't UTF-8.
    #[error("environment variable {name} is not UTF-8 text")]
    NotText {
        /// The variable.
        name: String,
    },
}

impl Sources {
    /// The defaults, with everything kept under `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            config: Config::new(data),
            origins: vec![Origin::Default; SETTINGS.len()],
        }
    }

    /// Takes what a file says: sections of keys, in TOML.
    ///
    /// # Errors
    /// See [`ConfigError`]; nothing of a file that is refused should be used.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        self.text(path, &text)
    }

    fn text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let root = DeTable::parse(text).map_err(|mut error| {
            error.set_input(Some(text));
            ConfigError::Syntax {
                path: path.to_owned(),
                message: error.to_string().trim_end().to_owned(),
            }
        })?;
        let line = |offset: usize| text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1;
        let unknown = |kind, key: String, at: usize, nearest| ConfigError::Unknown {
            path: path.to_owned(),
            line: line(at),
            kind,
            key,
            nearest,
        };
        for (section, keys) in root.get_ref() {
            let (name, at): (&str, _) = (section.get_ref(), section.span().start);
            let DeValue::Table(keys) = keys.get_ref() else {
                let meant = nearest_key("", name);
                return Err(unknown("key", name.to_owned(), at, meant));
            };
            if !sections().any(|section| section == name) {
                let meant = nearest(name, sections()).map(|section| format!("[{section}]"));
                return Err(unknown("section", format!("[{name}]"), at, meant));
            }
            for (key, value) in keys {
                let full = format!("{name}.{}", key.get_ref());
                let at = key.span().start;
                let Some((index, setting)) = position(|setting| setting.key == full) else {
                    let meant = nearest_key(name, key.get_ref());
                    return Err(unknown("key", full, at, meant));
                };
                let origin = Origin::File(path.to_owned(), line(at));
                let value = scalar(setting, value).map_err(|found| ConfigError::Value {
                    origin: origin.clone(),
                    key: setting.key,
                    found,
                    expected: match setting.is_number() {
                        true => "a number, without quotes".into(),
                        false => "a text in quotes".into(),
                    },
                })?;
                self.set(index, setting, &value, origin)?;
            }
        }
        Ok(())
    }

    /// Takes what variables say, each by [`Setting::variable`]; an empty one counts as none.
    /// Others are left alone.
    ///
    /// # Errors
    /// A value that is not text, or not what its setting takes.
    pub fn environment(
        &mut self,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<(), ConfigError> {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let name = setting.variable();
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else {
                continue;
            };
            let text = value.into_string();
            let text = text.map_err(|_| ConfigError::NotText { name: name.clone() })?;
            self.set(index, setting, &text, Origin::Variable(name))?;
        }
        Ok(())
    }

    /// Takes what flags say.
    ///
    /// # Errors
    /// A value that is not what its setting takes.
    pub fn flags(
        &mut self,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), ConfigError> {
        for (flag, text) in flags {
            if let Some((index, setting)) = position(|setting| setting.flag == flag) {
                self.set(index, setting, &text, Origin::Flag(setting.flag))?;
            }
        }
        Ok(())
    }

    /// All settings with where they are from.
    pub fn settings(&self) -> impl Iterator<Item = (&'static Setting, &Origin)> {
        SETTINGS.iter().zip(&self.origins)
    }

    fn set(
        &mut self,
        index: usize,
        setting: &'static Setting,
        text: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let refused = |expected| ConfigError::Value {
            origin: origin.clone(),
            key: setting.key,
            found: format!("{text:?}"),
            expected,
        };
        setting.set(&mut self.config, text).map_err(refused)?;
        if let Some(slot) = self.origins.get_mut(index) {
            *slot = origin;
        }
        Ok(())
    }
}

fn position(is: impl Fn(&Setting) -> bool) -> Option<(usize, &'static Setting)> {
    SETTINGS.iter().enumerate().find(|(_, setting)| is(setting))
}

fn sections() -> impl Iterator<Item = &'static str> {
    SETTINGS
        .iter()
        .filter_map(|setting| Some(setting.key.split_once('.')?.0))
}

/// A slip within the section first; else a key of that name elsewhere.
fn nearest_key(section: &str, key: &str) -> Option<String> {
    let all = || {
        SETTINGS
            .iter()
            .filter_map(|setting| setting.key.split_once('.'))
    };
    let here = all().filter(|(of, _)| *of == section).map(|(_, key)| key);
    let here = nearest(key, here).map(|key| format!("{section}.{key}"));
    let elsewhere = || {
        let name = nearest(key, all().map(|(_, key)| key))?;
        let (section, key) = all().find(|(_, known)| *known == name)?;
        Some(format!("{section}.{key}"))
    };
    here.or_else(elsewhere)
}

/// A value as text, if it is of the setting's kind; else what it is.
fn scalar(setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match (setting.is_number(), value.get_ref()) {
        (true, DeValue::Integer(number)) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        (true, DeValue::Float(number)) => Ok(number.as_str().to_owned()),
        (false, DeValue::String(text)) => Ok(text.to_string()),
        (_, DeValue::String(text)) => Err(format!("the text {text:?}")),
        (_, DeValue::Integer(number)) => Err(format!("the number {number}")),
        (_, DeValue::Float(number)) => Err(format!("the number {number}")),
        (_, DeValue::Boolean(value)) => Err(value.to_string()),
        (_, DeValue::Datetime(_)) => Err("a date".into()),
        (_, DeValue::Array(_)) => Err("a list".into()),
        (_, DeValue::Table(_)) => Err("a section".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sources, ConfigError> {
        let mut sources = Sources::new("data");
        sources.text(Path::new("host.toml"), text)?;
        Ok(sources)
    }

    fn origin(sources: &Sources, key: &str) -> String {
        let mut settings = sources.settings();
        let (_, origin) = settings.find(|(setting, _)| setting.key == key).unwrap();
        origin.to_string()
    }

    #[test]
    fn flags_go_over_variables_over_the_file_over_defaults() {
        let text = "[requests]\nmax_body = \"1MiB\"\n[instances]\nmax = 7\nmemory = \"32MiB\"\n";
        let mut sources = read(text).unwrap();
        let environment = |name: &str| match name {
            "FIREBOX_INSTANCES" => Some("8".into()),
            "FIREBOX_MAX_BODY" => Some("2MiB".into()),
            _ => None,
        };
        sources.environment(environment).unwrap();
        sources.flags([("max-body", "3MiB".to_owned())]).unwrap();
        assert_eq!(sources.config.max_body, 3 << 20);
        assert_eq!(sources.config.max_instances, 8);
        assert_eq!(sources.config.max_instance_memory, 32 << 20);
        assert_eq!(origin(&sources, "requests.max_body"), "flag --max-body");
        let of = origin(&sources, "instances.max");
        assert_eq!(of, "environment FIREBOX_INSTANCES");
        assert_eq!(origin(&sources, "instances.memory"), "host.toml:5");
        assert_eq!(origin(&sources, "server.listen"), "default");
    }

    #[test]
    fn unknown_names_are_refused_with_their_line_and_the_nearest() {
        for (text, meant) in [
            (
                "[server]\nlisen = \"127.0.0.1:1\"",
                "line 2: there is no key `server.lisen`; did you mean `server.listen`?",
            ),
            (
                "[sever]\n",
                "line 1: there is no section `[sever]`; did you mean `[server]`?",
            ),
            (
                "[server]\nmax_body = \"1MiB\"",
                "did you mean `requests.max_body`?",
            ),
            ("threads = 3", "did you mean `compute.threads`?"),
            ("[colours]", "there is no section `[colours]`"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(meant), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_values_name_the_key_what_was_found_and_what_was_expected() {
        for (text, meant) in [
            (
                "[instances]\nmax = \"7\"",
                "host.toml:2: `instances.max` is the text \"7\"; expected a number",
            ),
            (
                "[instances]\nmax = 0",
                "`instances.max` is \"0\"; expected a whole number from 1",
            ),
            (
                "[requests]\nmax_body = 7",
                "is the number 7; expected a text in quotes",
            ),
            ("[requests]\nmax_body = [1]", "is a list"),
            ("[server]\nlisten = \"here\"", "such as 127.0.0.1:8080"),
            ("[server", "host.toml: TOML parse error at line 1"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(meant), "{text}: {said}");
        }
        let mut sources = Sources::new("data");
        let said = sources
            .flags([("grace", "soon".to_owned())])
            .unwrap_err()
            .to_string();
        assert!(
            said.starts_with("flag --grace: `server.grace` is \"soon\""),
            "{said}"
        );
    }
}
