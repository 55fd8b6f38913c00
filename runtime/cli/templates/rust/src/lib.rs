//! Counts the words of a text: the body of a request is the text, the answer is
//! JSON, and `?top=5` says how many of the most frequent words to name.

use std::collections::BTreeMap;

use firebox_sdk::{Json, Parameters, Result, function};
use serde::Serialize;

/// The answer.
#[derive(Debug, PartialEq, Serialize)]
pub struct Statistics {
    lines: usize,
    words: usize,
    characters: usize,
    most_frequent: Vec<Word>,
}

/// A word and how often it stands in the text.
#[derive(Debug, PartialEq, Serialize)]
pub struct Word {
    word: String,
    count: usize,
}

/// What Firebox calls for each request.
#[function]
fn statistics(text: String, parameters: Parameters) -> Result<Json<Statistics>> {
    let top = parameters.get_or("top", 3)?;
    Ok(Json(Statistics {
        lines: text.lines().count(),
        words: words(&text).count(),
        characters: text.chars().count(),
        most_frequent: most_frequent(&text, top),
    }))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// The `top` most frequent words; those of one count in alphabetical order.
fn most_frequent(text: &str, top: usize) -> Vec<Word> {
    let mut counts = BTreeMap::new();
    for word in words(text) {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts
        .into_iter()
        .map(|(word, count)| Word { word, count })
        .collect();
    counts.sort_by_key(|word| std::cmp::Reverse(word.count));
    counts.truncate(top);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_words_and_characters() {
        let text = "To be,\nor not to be.".to_string();
        let Json(found) = statistics(text, Parameters::new([("top", "1")])).unwrap();
        assert_eq!((found.lines, found.words, found.characters), (2, 6, 20));
        assert_eq!(
            found.most_frequent,
            [Word {
                word: "be".into(),
                count: 2
            }]
        );
    }

    #[test]
    fn an_empty_text_has_no_words() {
        let Json(found) = statistics(String::new(), Parameters::default()).unwrap();
        assert_eq!((found.words, found.most_frequent), (0, vec![]));
    }
}
