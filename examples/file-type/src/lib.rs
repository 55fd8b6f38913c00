//! What kind of file some bytes are: the body of a request is the file, the
//! answer its type with a confidence.
//!
//! The judgement is magika's: a network looks at the first and last kilobyte.
//! What the network can't be asked (too few bytes) or says with too little
//! confidence is answered by rules; both follow magika 1.0.

pub mod window;

use std::collections::BTreeMap;

use firebox_sdk::{Bytes, Error, Json, Result, Tensor, argmax, function, model};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct FileType {
    /// `markdown`, `rust`, `zip`, …; `txt`, `unknown` or `empty` where nothing better is known.
    label: String,
    /// The network's, from 0 to 1; 1 where it wasn't asked.
    confidence: f32,
    description: String,
    mime_type: String,
    /// `text`, `code`, `archive`, `image`, …
    group: String,
    is_text: bool,
}

#[function(init = Magika::load)]
fn file_type(magika: &Magika, file: Bytes) -> Result<Json<FileType>> {
    let Some(window) = window::of(&file, &magika.config.window) else {
        let block = &file[..file.len().min(magika.config.window.block_size)];
        return magika.describe(label_of_few_bytes(block), 1.0).map(Json);
    };
    let input = Tensor::new([1, window.len()], window)?;
    let scores = model("magika")?
        .run([("bytes", input)])?
        .take::<f32>("target_label")?;
    magika.judge(scores.data()).map(Json)
}

/// What comes with the network; read in init, so that it is in the snapshot.
struct Magika {
    config: Config,
    types: BTreeMap<String, ContentType>,
}

/// Of magika's configuration, what is used here.
#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    window: window::Sizes,
    /// The label of each of the network's outputs.
    target_labels_space: Vec<String>,
    /// The confidence that a label needs, where it isn't the usual one.
    thresholds: BTreeMap<String, f32>,
    medium_confidence_threshold: f32,
    /// Labels that are told under another name.
    overwrite_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ContentType {
    mime_type: Option<String>,
    group: Option<String>,
    description: Option<String>,
    is_text: bool,
}

impl Magika {
    fn load() -> Result<Self> {
        Ok(Self {
            config: read("/magika.config.json")?,
            types: read("/magika.content_types.json")?,
        })
    }

    /// The type that the network's scores speak for.
    fn judge(&self, scores: &[f32]) -> Result<FileType> {
        let labels = &self.config.target_labels_space;
        let best = argmax(scores).and_then(|at| Some((labels.get(at)?, *scores.get(at)?)));
        let Some((guess, confidence)) = best else {
            let (scores, labels) = (scores.len(), labels.len());
            return Err(Error::internal(format!(
                "{scores} scores for {labels} labels"
            )));
        };
        let label = self.config.overwrite_map.get(guess).unwrap_or(guess);
        let usual = self.config.medium_confidence_threshold;
        if confidence >= *self.config.thresholds.get(guess).unwrap_or(&usual) {
            return self.describe(label, confidence);
        }
        let generic = if self.content_type(label)?.is_text {
            "txt"
        } else {
            "unknown"
        };
        self.describe(generic, confidence)
    }

    fn describe(&self, label: &str, confidence: f32) -> Result<FileType> {
        let known = self.content_type(label)?;
        let usual_mime = if known.is_text {
            "text/plain"
        } else {
            "application/octet-stream"
        };
        let or = |value: &Option<String>, usual: &str| value.clone().unwrap_or(usual.into());
        Ok(FileType {
            label: label.into(),
            confidence,
            description: or(&known.description, label),
            mime_type: or(&known.mime_type, usual_mime),
            group: or(&known.group, "unknown"),
            is_text: known.is_text,
        })
    }

    fn content_type(&self, label: &str) -> Result<&ContentType> {
        let missing = || Error::internal(format!("magika.content_types.json has no `{label}`"));
        self.types.get(label).ok_or_else(missing)
    }
}

/// What can be said without the network.
fn label_of_few_bytes(file: &[u8]) -> &'static str {
    match std::str::from_utf8(file) {
        Ok("") => "empty",
        Ok(_) => "txt",
        Err(_) => "unknown",
    }
}

fn read<T: DeserializeOwned>(path: &str) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::internal(format!("can't read {path}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Error::internal(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three labels, the second of which is told as `txt` and needs 0.9.
    fn magika() -> Magika {
        let config = r#"{
            "beg_size": 4, "end_size": 4, "block_size": 8, "padding_token": 256,
            "min_file_size_for_dl": 2, "medium_confidence_threshold": 0.5,
            "target_labels_space": ["rust", "randomtxt", "zip"],
            "thresholds": {"randomtxt": 0.9}, "overwrite_map": {"randomtxt": "txt"}
        }"#;
        let types = r#"{
            "rust": {"mime_type": null, "group": "code", "description": "Rust", "is_text": true},
            "txt": {"mime_type": null, "group": null, "description": null, "is_text": true},
            "zip": {"mime_type": null, "group": null, "description": null, "is_text": false},
            "unknown": {"mime_type": null, "group": null, "description": null, "is_text": false},
            "empty": {"mime_type": null, "group": null, "description": null, "is_text": false}
        }"#;
        Magika {
            config: serde_json::from_str(config).unwrap(),
            types: serde_json::from_str(types).unwrap(),
        }
    }

    fn judged(scores: [f32; 3]) -> (String, f32) {
        let found = magika().judge(&scores).unwrap();
        (found.label, found.confidence)
    }

    #[test]
    fn a_confident_guess_is_the_answer() {
        assert_eq!(judged([0.6, 0.2, 0.2]), ("rust".into(), 0.6));
        assert_eq!(judged([0.0, 0.95, 0.05]), ("txt".into(), 0.95));
    }

    #[test]
    fn a_doubtful_guess_says_only_text_or_not() {
        assert_eq!(judged([0.4, 0.3, 0.3]), ("txt".into(), 0.4));
        assert_eq!(judged([0.3, 0.3, 0.4]), ("unknown".into(), 0.4));
        assert_eq!(judged([0.1, 0.8, 0.1]), ("txt".into(), 0.8));
    }

    #[test]
    fn what_the_knowledge_base_leaves_out_is_filled_in() {
        let found = magika().describe("zip", 0.5).unwrap();
        assert_eq!(found.mime_type, "application/octet-stream");
        assert_eq!(
            (found.group.as_str(), found.description.as_str()),
            ("unknown", "zip")
        );
    }

    #[test]
    fn a_file_of_few_bytes_is_answered_without_the_network() {
        let label = |bytes: &[u8]| {
            file_type(&magika(), Bytes::from(bytes))
                .unwrap()
                .label
                .clone()
        };
        assert_eq!(label(b""), "empty");
        assert_eq!(label(b" \n\t a"), "txt");
        assert_eq!(label(b"\xff"), "unknown");
    }
}
