//! Keys that no section has: each is refused with the one that was likely meant.

use toml::de::{DeTable, DeValue};

use super::{Batching, ManifestError};
use crate::nearest;

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

/// Refuses a key that is not known where it stands.
pub(super) fn check_keys(root: &DeTable<'_>, text: &str) -> Result<(), ManifestError> {
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
