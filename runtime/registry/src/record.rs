//! What sled holds: one JSON document a record, each with the number of its schema.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    Checksum, Digest, FunctionName, Kind, Manifest, Policy, PolicyRecord, RegistryError, Revision,
    Split, Unpacked, VersionNumber,
};

/// The schema that this build writes. It reads this and all before: 1 had policies without
/// revision, author and split, 2 only code of the kind [`Function`](Kind::Function).
pub(crate) const SCHEMA: u32 = 3;

/// The author of what was set before authors were kept, or by callers who gave no name.
pub(crate) const UNKNOWN_AUTHOR: &str = "unknown";

/// A file in the blob store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Names the file: see [`Registry::blob`](crate::Registry::blob).
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Shows that it is as it was stored; files from before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

impl StoredFile {
    /// What a file is stored as.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn of(path: &Path) -> io::Result<StoredFile> {
        let (checksum, (digest, bytes)) = Checksum::beside_digest(path)?;
        Ok(StoredFile {
            digest,
            bytes,
            checksum: Some(checksum),
        })
    }
}

/// An accepted bundle. Immutable, but for `compiled`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The function it is a version of.
    pub function: FunctionName,
    /// Its number there.
    pub number: VersionNumber,
    /// Of the bundle as it was uploaded.
    pub digest: Digest,
    /// The size of the bundle as it was uploaded.
    pub bundle_bytes: u64,
    /// When it was committed, in milliseconds since 1970 (UTC).
    pub created_unix_ms: u64,
    /// Who uploaded it.
    #[serde(default = "unknown_author")]
    pub author: String,
    /// The bundle itself; versions from before bundles were kept have none.
    #[serde(default)]
    pub bundle: Option<StoredFile>,
    /// What its `firebox.toml` said.
    pub manifest: Manifest,
    /// What its code is; versions from before there were several kinds say nothing.
    #[serde(default)]
    pub kind: Kind,
    /// The WebAssembly component.
    pub component: Option<StoredFile>,
    /// The component's machine code, as this machine's build of Firebox wants it.
    pub compiled: Option<StoredFile>,
    /// ONNX files by the model's name.
    pub models: BTreeMap<String, StoredFile>,
    /// Files by the path that the guest sees.
    pub assets: BTreeMap<String, StoredFile>,
    /// The body of the dry run; versions from before samples were kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<StoredFile>,
    /// What it takes and gives.
    pub signature: serde_json::Value,
    /// How long the dry run took.
    pub reference_latency_us: Option<u64>,
    /// How far a model of less precision was off in the dry run; null where that was not measured.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub deviation: serde_json::Value,
    /// Whether `compiled` starts from the memory that `init` left.
    pub snapshot: bool,
}

impl VersionRecord {
    /// Every file that this version has.
    pub fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let code = self.component.iter().chain(&self.compiled);
        let data = self.models.values().chain(self.assets.values());
        code.chain(data).chain(&self.sample).chain(&self.bundle)
    }
}

fn unknown_author() -> String {
    UNKNOWN_AUTHOR.to_owned()
}

/// A function, and where its traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredFunction")]
pub struct FunctionRecord {
    /// What callers name it by.
    pub name: FunctionName,
    /// When its first version was committed, in milliseconds since 1970 (UTC).
    pub created_unix_ms: u64,
    /// The highest number that a version of this name ever had.
    pub last_number: u32,
    /// Who takes its traffic.
    pub current: PolicyRecord,
    /// How many of the newest versions are kept; older ones that nothing names are deleted.
    /// All are kept where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<NonZeroU32>,
    /// The record outlives the function: a new function of the name goes on counting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleted: bool,
}

/// A function's record in any of its schemas.
#[derive(Deserialize)]
struct StoredFunction {
    name: FunctionName,
    created_unix_ms: u64,
    last_number: u32,
    /// Schema 2.
    current: Option<PolicyRecord>,
    /// Schema 1.
    policy: Option<Policy>,
    #[serde(default)]
    keep_last: Option<NonZeroU32>,
    #[serde(default)]
    deleted: bool,
}

impl From<StoredFunction> for FunctionRecord {
    fn from(stored: StoredFunction) -> FunctionRecord {
        let policy = stored.policy.unwrap_or_default();
        let mut current = stored.current.unwrap_or_else(|| PolicyRecord {
            revision: Revision::FIRST,
            split: Split::of(&policy.weights),
            policy,
            author: unknown_author(),
            reason: String::new(),
            created_unix_ms: stored.created_unix_ms,
            restored: None,
            rollout: None,
        });
        if !current.split.fits(&current.policy.weights) {
            current.split = Split::of(&current.policy.weights);
        }
        FunctionRecord {
            name: stored.name,
            created_unix_ms: stored.created_unix_ms,
            last_number: stored.last_number,
            current,
            keep_last: stored.keep_last,
            deleted: stored.deleted,
        }
    }
}

/// A version to commit: [`Unpacked`] gives the files, the caller adds what it found out about them.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// See [`VersionRecord::digest`].
    pub digest: Digest,
    /// See [`VersionRecord::bundle_bytes`].
    pub bundle_bytes: u64,
    /// See [`VersionRecord::author`].
    pub author: String,
    /// The bundle's file. Files are moved into the registry where they lie below its staging
    /// folder, and copied otherwise.
    pub bundle: Option<PathBuf>,
    /// See [`VersionRecord::manifest`].
    pub manifest: Manifest,
    /// See [`VersionRecord::kind`].
    pub kind: Kind,
    /// The component's file.
    pub component: Option<PathBuf>,
    /// The file of the component's machine code.
    pub compiled: Option<PathBuf>,
    /// ONNX files by the model's name.
    pub models: BTreeMap<String, PathBuf>,
    /// Files by the path that the guest sees.
    pub assets: BTreeMap<String, PathBuf>,
    /// The body of the dry run.
    pub sample: Option<PathBuf>,
    /// See [`VersionRecord::signature`].
    pub signature: serde_json::Value,
    /// See [`VersionRecord::reference_latency_us`].
    pub reference_latency_us: Option<u64>,
    /// See [`VersionRecord::deviation`].
    pub deviation: serde_json::Value,
    /// See [`VersionRecord::snapshot`].
    pub snapshot: bool,
}

impl From<Unpacked> for NewVersion {
    fn from(unpacked: Unpacked) -> NewVersion {
        NewVersion {
            digest: unpacked.digest,
            bundle_bytes: unpacked.bytes,
            author: unknown_author(),
            bundle: None,
            manifest: unpacked.manifest,
            kind: Kind::default(),
            component: unpacked.component,
            compiled: None,
            models: unpacked.models,
            assets: unpacked.assets,
            sample: unpacked.sample,
            signature: serde_json::Value::Null,
            reference_latency_us: None,
            deviation: serde_json::Value::Null,
            snapshot: false,
        }
    }
}

/// The outer shape of every record, of whatever schema.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u32,
    record: T,
}

/// Writes a record.
pub(crate) fn encode<T: Serialize>(record: &T, what: &str) -> Result<Vec<u8>, RegistryError> {
    let envelope = Envelope {
        schema: SCHEMA,
        record,
    };
    serde_json::to_vec(&envelope).map_err(|e| RegistryError::corrupt(what, e))
}

/// Reads a record; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, RegistryError> {
    let corrupt = |e| RegistryError::corrupt(what, e);
    let read = serde_json::from_slice::<Envelope<T>>(bytes);
    let schema = match &read {
        Ok(envelope) => envelope.schema,
        // What a record of another schema holds may well not be readable.
        Err(_) => {
            let outer = serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(bytes);
            outer.map_err(corrupt)?.schema
        }
    };
    if !(1..=SCHEMA).contains(&schema) {
        return Err(RegistryError::UnknownSchema {
            what: what.to_owned(),
            found: schema,
            known: SCHEMA,
        });
    }
    Ok(read.map_err(corrupt)?.record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_schema_is_refused_whatever_it_holds() {
        let error = decode::<u32>(br#"{"schema": 7, "record": [true]}"#, "a thing").unwrap_err();
        assert!(
            matches!(error, RegistryError::UnknownSchema { found: 7, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_function_of_the_first_schema_keeps_its_policy() {
        let json =
            br#"{"schema": 1, "record": {"name": "net", "created_unix_ms": 7, "last_number": 2,
            "policy": {"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1}}}}"#;
        let function: FunctionRecord = decode(json, "a function").unwrap();
        let PolicyRecord {
            revision,
            policy,
            split,
            author,
            ..
        } = &function.current;
        assert_eq!(
            (*revision, author.as_str()),
            (Revision::FIRST, UNKNOWN_AUTHOR)
        );
        assert_eq!(policy.weights.len(), 2);
        assert_eq!(policy.labels.len(), 1);
        assert!(split.fits(&policy.weights));
        let again = decode(&encode(&function, "it").unwrap(), "it").unwrap();
        assert_eq!(function, again);
    }

    #[test]
    fn damaged_records_are_corrupt() {
        for bytes in [
            &b""[..],
            b"\xff\x00",
            b"{\"schema\": 1}",
            b"{\"schema\": 1, \"record\": {}}",
        ] {
            let error = decode::<u32>(bytes, "a thing").unwrap_err();
            assert!(matches!(error, RegistryError::Corrupt { .. }), "{error}");
        }
    }
}
