//! Reading short texts that people write, such as guards and steps, with errors that point at the
//! character.

use std::fmt;

/// The longest text that is read.
const LONGEST: usize = 1000;

/// A text that can't be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// What the text should have been: `guard`, `steps`.
    pub what: &'static str,
    /// The text.
    pub text: String,
    /// Which character is the first that doesn't fit, counted from 1.
    pub at: usize,
    /// What could have stood there.
    pub expected: String,
}

impl std::error::Error for Misread {}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            text,
            at,
            expected,
        } = self;
        let found: String = text.chars().skip(at - 1).take(12).collect();
        let found = match found.is_empty() {
            true => "the end".to_owned(),
            false => format!("`{found}`"),
        };
        let shown: String = text.chars().take(80).collect();
        write!(
            f,
            "{what} `{shown}`, character {at}: expected {expected}, found {found}"
        )
    }
}

/// A place in a text.
#[derive(Clone)]
pub struct Cursor<'a> {
    what: &'static str,
    text: &'a str,
    /// In bytes, on the border of a character.
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `text`, which is refused where it is too long to be meant.
    pub fn new(what: &'static str, text: &'a str) -> Result<Self, Misread> {
        let cursor = Self { what, text, at: 0 };
        match text.len() > LONGEST {
            true => Err(cursor.expected(format!("at most {LONGEST} bytes"))),
            false => Ok(cursor),
        }
    }

    /// What is left.
    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Steps over blanks.
    pub fn blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    /// Steps over blanks, and says whether nothing is left.
    pub fn is_done(&mut self) -> bool {
        self.blanks();
        self.rest().is_empty()
    }

    /// Steps over blanks and this word, if it stands here.
    pub fn take(&mut self, word: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Steps over the characters that are wanted.
    pub fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// A decimal number without sign or exponent: `1.2`.
    pub fn number(&mut self) -> Option<f64> {
        self.blanks();
        let mut ahead = self.clone();
        let digits = ahead.take_while(|c| c.is_ascii_digit() || c == '.');
        // Without signs, exponents and words, only a second point is left to refuse.
        let number = digits.parse().ok().filter(|n: &f64| n.is_finite())?;
        *self = ahead;
        Some(number)
    }

    /// The error that something else was expected here.
    pub fn expected(&self, expected: impl Into<String>) -> Misread {
        let before = self.text.get(..self.at).unwrap_or_default();
        Misread {
            what: self.what,
            text: self.text.to_owned(),
            at: before.chars().count() + 1,
            expected: expected.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_points_at_the_character_and_not_at_the_byte() {
        let mut cursor = Cursor::new("guard", "ä  ü").unwrap();
        assert!(cursor.take("ä"));
        cursor.blanks();
        let said = cursor.expected("a word").to_string();
        assert_eq!(
            said,
            "guard `ä  ü`, character 4: expected a word, found `ü`"
        );
        assert!(cursor.take("ü") && cursor.is_done());
        let said = cursor.expected("more").to_string();
        assert_eq!(
            said,
            "guard `ä  ü`, character 5: expected more, found the end"
        );
    }

    proptest! {
        #[test]
        fn any_text_can_be_walked_to_its_end(text in ".{0,40}") {
            let mut cursor = Cursor::new("guard", &text).unwrap();
            while !cursor.is_done() {
                let before = cursor.rest().len();
                if cursor.number().is_none() {
                    let first = cursor.rest().chars().next().unwrap();
                    cursor.take(&first.to_string());
                }
                prop_assert!(cursor.rest().len() < before);
            }
        }
    }
}
