//! What is different between two versions: their manifests, and the files they have.

use std::collections::BTreeMap;

use firebox_registry::{StoredFile, VersionNumber, VersionRecord};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What is different between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Difference {
    /// The one.
    from: VersionNumber,
    /// The other.
    to: VersionNumber,
    /// In the order of their keys; empty where nothing is different.
    changes: Vec<Changed>,
}

/// One thing that is different.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Changed {
    /// A key of the manifest, or `files.` and what a file is for: its value is the file's digest.
    #[schema(example = "limits.memory")]
    key: String,
    /// Its value in the one; absent where it isn't there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "256MiB")]
    from: Option<Value>,
    /// Its value in the other; absent where it isn't there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "512MiB")]
    to: Option<Value>,
}

/// What changes from one version to another.
pub fn difference(
    from: &VersionRecord,
    to: &VersionRecord,
) -> Result<Difference, serde_json::Error> {
    let (mut one, other) = (facts(from)?, facts(to)?);
    let mut changes = Vec::new();
    for (key, value) in other {
        let before = one.remove(&key);
        if before.as_ref() != Some(&value) {
            changes.push(Changed {
                key,
                from: before,
                to: Some(value),
            });
        }
    }
    changes.extend(one.into_iter().map(|(key, value)| Changed {
        key,
        from: Some(value),
        to: None,
    }));
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Difference {
        from: from.number,
        to: to.number,
        changes,
    })
}

/// All that is to be compared, flat: `limits.memory` → `256MiB`.
fn facts(version: &VersionRecord) -> Result<BTreeMap<String, Value>, serde_json::Error> {
    let mut facts = BTreeMap::new();
    flatten("", serde_json::to_value(&version.manifest)?, &mut facts);
    let digest = |file: &StoredFile| Value::from(file.digest.to_string());
    if let Some(component) = &version.component {
        facts.insert("files.component".into(), digest(component));
    }
    for (kind, files) in [("models", &version.models), ("assets", &version.assets)] {
        for (name, file) in files {
            facts.insert(format!("files.{kind}.{name}"), digest(file));
        }
    }
    Ok(facts)
}

fn flatten(key: &str, value: Value, facts: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let key = match key {
                    "" => name,
                    key => format!("{key}.{name}"),
                };
                flatten(&key, value, facts);
            }
        }
        value => drop(facts.insert(key.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use firebox_registry::{ByteSize, Digest, Kind, Manifest};

    use super::*;

    fn record(number: u32) -> VersionRecord {
        let manifest = Manifest::of_model("net".parse().unwrap(), "m.onnx");
        let model = StoredFile {
            digest: Digest::of(b"graph"),
            bytes: 5,
            checksum: None,
        };
        VersionRecord {
            kind: Kind::default(),
            function: "net".parse().unwrap(),
            number: number.try_into().unwrap(),
            digest: Digest::of(&number.to_be_bytes()),
            bundle_bytes: 9,
            created_unix_ms: 0,
            author: "ann".into(),
            bundle: None,
            manifest,
            component: None,
            compiled: None,
            models: BTreeMap::from([("model".into(), model)]),
            assets: BTreeMap::new(),
            sample: None,
            signature: Value::Null,
            reference_latency_us: None,
            deviation: serde_json::Value::Null,
            snapshot: false,
        }
    }

    #[test]
    fn versions_of_the_same_content_do_not_differ() {
        let found = difference(&record(1), &record(2)).unwrap();
        assert_eq!(found.changes, []);
    }

    #[test]
    fn each_key_and_each_file_that_differs_is_told_with_both_values() {
        let (one, mut two) = (record(1), record(2));
        two.manifest.limits.memory = ByteSize(512 << 20);
        two.manifest.description = "new".into();
        two.models.clear();
        let found = difference(&one, &two).unwrap();
        let found: Vec<_> = found
            .changes
            .iter()
            .map(|change| {
                (
                    change.key.as_str(),
                    change.from.as_ref(),
                    change.to.as_ref(),
                )
            })
            .collect();
        let (old, new) = (Value::from("256MiB"), Value::from("512MiB"));
        let graph = Value::from(Digest::of(b"graph").to_string());
        assert_eq!(
            found,
            [
                ("description", None, Some(&Value::from("new"))),
                ("files.models.model", Some(&graph), None),
                ("limits.memory", Some(&old), Some(&new)),
            ]
        );
    }
}
