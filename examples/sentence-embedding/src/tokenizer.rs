//! WordPiece, the tokenizer of uncased BERT models.
//!
//! Text goes through three steps, each a lazy iterator over the one before, so that a long text costs
//! no more than its first [`MAX_TOKENS`] tokens:
//! 1. [`normalised`]: control characters out, a space around each Chinese character, accents off, lower case;
//! 2. [`words`]: cut at white space; each punctuation mark is a word of its own;
//! 3. [`Tokenizer::pieces`]: each word is spelt by the longest pieces that the vocabulary has.
//!
//! Source: Devlin et al., "BERT" (2018), and Wu et al., "Google's Neural Machine Translation System"
//! (2016), section 4.1, for greedy longest match.

use std::collections::HashMap;
use std::iter;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// The most tokens of one sentence, `[CLS]` and `[SEP]` included. What is beyond is cut off.
///
/// The model has 512 positions, but was trained on at most 128 tokens; 256 is the length at which
/// its publisher serves it.
pub const MAX_TOKENS: usize = 256;

/// A word of more characters than this is unknown, whatever its pieces.
const LONGEST_WORD: usize = 100;

/// A vocabulary, ready for look-ups.
pub struct Tokenizer {
    /// Pieces that begin a word.
    beginnings: HashMap<Box<str>, i64>,
    /// Pieces that continue a word, without their `##`.
    continuations: HashMap<Box<str>, i64>,
    /// Bytes of the longest piece.
    longest: usize,
    unknown: i64,
    start: i64,
    end: i64,
}

impl Tokenizer {
    /// A tokenizer over `vocabulary`, one piece a line; a piece's id is its line, counted from 0.
    ///
    /// # Errors
    /// The name of a special token that the vocabulary lacks.
    pub fn new(vocabulary: &str) -> Result<Self, MissingToken> {
        let mut beginnings: HashMap<Box<str>, i64> = HashMap::new();
        let mut continuations: HashMap<Box<str>, i64> = HashMap::new();
        for (line, id) in vocabulary.lines().zip(0..) {
            match line.strip_prefix("##") {
                Some(piece) if !piece.is_empty() => continuations.insert(piece.into(), id),
                _ => beginnings.insert(line.into(), id),
            };
        }
        let special = |name| beginnings.get(name).copied().ok_or(MissingToken(name));
        Ok(Self {
            unknown: special("[UNK]")?,
            start: special("[CLS]")?,
            end: special("[SEP]")?,
            longest: beginnings
                .keys()
                .chain(continuations.keys())
                .map(|p| p.len())
                .max()
                .unwrap_or(0),
            beginnings,
            continuations,
        })
    }

    /// The token ids of `text`: `[CLS]`, its pieces, `[SEP]`; at most [`MAX_TOKENS`].
    ///
    /// The names of special tokens in `text` are text like any other.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let mut ids = vec![self.start];
        let pieces = words(text).flat_map(|word| self.pieces(&word));
        ids.extend(pieces.take(MAX_TOKENS - 2));
        ids.push(self.end);
        ids
    }

    /// The pieces that spell `word`, or the unknown token where they can't.
    fn pieces(&self, word: &str) -> Vec<i64> {
        self.spell(word).unwrap_or_else(|| vec![self.unknown])
    }

    fn spell(&self, word: &str) -> Option<Vec<i64>> {
        if word.chars().count() > LONGEST_WORD {
            return None;
        }
        let mut ids = Vec::new();
        let mut rest = word;
        while !rest.is_empty() {
            let table = if ids.is_empty() {
                &self.beginnings
            } else {
                &self.continuations
            };
            let (id, length) = self.longest_piece(table, rest)?;
            ids.push(id);
            rest = rest.get(length..)?;
        }
        Some(ids)
    }

    /// The id and the bytes of the longest piece in `table` that `text` starts with.
    fn longest_piece(&self, table: &HashMap<Box<str>, i64>, text: &str) -> Option<(i64, usize)> {
        let ends = text
            .char_indices()
            .map(|(at, char)| at + char.len_utf8())
            .rev();
        ends.filter(|end| *end <= self.longest)
            .find_map(|end| Some((*table.get(text.get(..end)?)?, end)))
    }
}

/// A vocabulary without a token that every BERT vocabulary has.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingToken(&'static str);

impl std::fmt::Display for MissingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(name) = self;
        write!(
            f,
            "the vocabulary has no `{name}`; expected the vocab.txt of an uncased BERT model"
        )
    }
}

impl std::error::Error for MissingToken {}

/// The words of `text`, normalised; each punctuation mark is a word.
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut chars = normalised(text).peekable();
    iter::from_fn(move || {
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        let first = chars.next()?;
        let mut word = String::from(first);
        if !is_punctuation(first) {
            word.extend(iter::from_fn(|| {
                chars.next_if(|char| !char.is_whitespace() && !is_punctuation(*char))
            }));
        }
        Some(word)
    })
}

fn normalised(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|char| !is_control(*char))
        .flat_map(|char| {
            let space = is_chinese(char).then_some(' ');
            space.into_iter().chain([char]).chain(space)
        })
        .nfd()
        .filter(|char| char.general_category() != GeneralCategory::NonspacingMark)
        .flat_map(char::to_lowercase)
}

/// Control, format, private use; also U+FFFD, which stands for broken text. Line ends and tabs are
/// white space instead.
fn is_control(char: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse};
    match char {
        '\t' | '\n' | '\r' => false,
        '\u{fffd}' => true,
        _ => matches!(char.general_category(), Control | Format | PrivateUse),
    }
}

/// Unicode's punctuation and, as BERT has it, every ASCII symbol (`$`, `+`, `~`…).
fn is_punctuation(char: char) -> bool {
    char.is_ascii_punctuation()
        || char.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The blocks of Chinese characters that BERT spells one by one; Japanese and Korean letters are
/// not among them.
fn is_chinese(char: char) -> bool {
    matches!(char,
        '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn small() -> Tokenizer {
        Tokenizer::new("[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##able\n##a\n##ble\n!\na").unwrap()
    }

    /// The model's own vocabulary, fetched if it is not there.
    fn real() -> Tokenizer {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let script = workspace.join("scripts/models.py");
        assert!(
            Command::new("python3")
                .arg(script)
                .arg("minilm")
                .status()
                .unwrap()
                .success()
        );
        let vocabulary = workspace.join("target/models/minilm.vocab.txt");
        Tokenizer::new(&std::fs::read_to_string(vocabulary).unwrap()).unwrap()
    }

    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<i64>,
    }

    #[test]
    fn ids_are_those_of_the_tokenizers_package() {
        let tokenizer = real();
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../testdata/tokens.json")).unwrap();
        assert!(cases.len() > 40);
        for Case { text, ids } in cases {
            assert_eq!(tokenizer.encode(&text), ids, "{text:?}");
        }
    }

    #[test]
    fn a_word_is_spelt_by_its_longest_pieces() {
        assert_eq!(small().encode("unable"), [2, 4, 5, 3]);
        assert_eq!(small().encode("Una!"), [2, 4, 6, 8, 3]);
    }

    #[test]
    fn a_word_that_cannot_be_spelt_to_its_end_is_one_unknown() {
        assert_eq!(small().encode("unablez a"), [2, 1, 9, 3]);
    }

    #[test]
    fn a_word_of_over_a_hundred_characters_is_unknown() {
        let word = |length: usize| "a".repeat(length);
        assert_eq!(small().encode(&word(100)).len(), 102);
        assert_eq!(small().encode(&word(101)), [2, 1, 3]);
    }

    #[test]
    fn a_long_text_is_cut_and_still_ends_with_its_end_token() {
        let ids = small().encode(&"a ".repeat(100_000));
        assert_eq!(ids.len(), MAX_TOKENS);
        assert_eq!((ids[0], ids[254], ids[255]), (2, 9, 3));
    }

    #[test]
    fn accents_case_and_control_characters_make_no_difference() {
        let words = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            words("  Crème\u{0} brÛlée\u{200b}s\t"),
            ["creme", "brulees"]
        );
        assert_eq!(words("don't…"), ["don", "'", "t", "…"]);
        assert_eq!(words("世界ab"), ["世", "界", "ab"]);
    }

    #[test]
    fn a_vocabulary_without_special_tokens_is_refused_by_name() {
        let missing = Tokenizer::new("a\nb").err().unwrap().to_string();
        assert!(missing.contains("`[UNK]`"), "{missing}");
    }
}
