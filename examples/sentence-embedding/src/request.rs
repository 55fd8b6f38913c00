//! What a caller asks for: one sentence, or several at once.

use firebox_sdk::{Error, Result};
use serde::Deserialize;

/// The most sentences of one request.
pub const MAX_SENTENCES: usize = 32;

/// The sentences of one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Sentences {
    /// A body of plain text.
    One(String),
    /// A body of JSON, `{"sentences": ["…", …]}`.
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    sentences: Vec<String>,
}

impl Sentences {
    /// Reads a body: JSON where the media type says so, else UTF-8 text.
    ///
    /// # Errors
    /// `invalid-input` for broken JSON or UTF-8, and for no sentence or too many.
    pub fn read(body: &[u8], content_type: Option<&str>) -> Result<Self> {
        let media_type = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        let sentences = if media_type.trim().eq_ignore_ascii_case("application/json") {
            let Many { sentences } = serde_json::from_slice(body).map_err(|why| {
                Error::invalid_input(format!("expected {{\"sentences\": [\"…\"]}}, found: {why}"))
            })?;
            Self::Many(sentences)
        } else {
            let text = std::str::from_utf8(body).map_err(|why| {
                Error::invalid_input(format!("expected a sentence as UTF-8 text, found: {why}"))
            })?;
            Self::One(text.to_string())
        };
        match sentences.as_slice().len() {
            1..=MAX_SENTENCES => Ok(sentences),
            count => Err(Error::invalid_input(format!(
                "expected 1 to {MAX_SENTENCES} sentences, found {count}"
            ))),
        }
    }

    /// The sentences in the caller's order.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(sentence) => std::slice::from_ref(sentence),
            Self::Many(sentences) => sentences,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[test]
    fn plain_text_is_one_sentence_and_json_is_many() {
        let one = Sentences::read("Grüße".as_bytes(), Some("text/plain")).unwrap();
        assert_eq!(one, Sentences::One("Grüße".into()));
        let many = Sentences::read(br#"{"sentences": ["a", "b"]}"#, JSON).unwrap();
        assert_eq!(many, Sentences::Many(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_body_of_another_kind_is_refused_with_what_was_found() {
        let refused = |body: &[u8], kind| Sentences::read(body, kind).unwrap_err().to_string();
        assert!(refused(b"\xff\xfe", None).starts_with("expected a sentence as UTF-8 text"));
        assert!(refused(b"{\"sentence\": []}", JSON).contains("unknown field `sentence`"));
        assert!(refused(b"{", JSON).contains("EOF"));
        assert_eq!(
            refused(b"{\"sentences\": []}", JSON),
            "expected 1 to 32 sentences, found 0"
        );
    }

    #[test]
    fn too_many_sentences_are_refused() {
        let body = format!("{{\"sentences\": [{}]}}", ["\"a\""; 33].join(","));
        let refused = Sentences::read(body.as_bytes(), JSON).unwrap_err();
        assert_eq!(refused.message(), "expected 1 to 32 sentences, found 33");
    }
}
