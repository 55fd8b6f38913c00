//! The names of functions and labels, and the numbers of versions: parsed at the border, trusted inside.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const LONGEST: usize = 63;

/// A name that breaks the rules of function names or labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {found:?} {problem}: it takes 1 to 63 of the characters a-z, 0-9 and -, \
     and starts with a letter"
)]
pub struct InvalidName {
    what: &'static str,
    found: String,
    problem: &'static str,
}

/// The first rule that `name` breaks.
fn problem_of(name: &str) -> Option<&'static str> {
    match name.chars().next() {
        None => Some("is empty"),
        Some(_) if name.len() > LONGEST => Some("is too long"),
        Some(first) if first.is_ascii_digit() => Some("starts with a digit"),
        Some(first) if !first.is_ascii_lowercase() => Some("doesn't start with one of a-z"),
        _ if !name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) =>
        {
            Some("has a character that isn't allowed")
        }
        _ => None,
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Bytes that one can have.
            pub const LONGEST: usize = LONGEST;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                match problem_of(&name) {
                    None => Ok(Self(name)),
                    Some(problem) => {
                        let found = name.chars().take(LONGEST + 1).collect();
                        Err(InvalidName { what: $what, found, problem })
                    }
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// What callers name a function by: 1–63 of `a-z`, `0-9` and `-`, starting with a letter.
    FunctionName,
    "the function name"
);
name!(
    /// A movable name of a version, such as `stable`. It has the form of a [`FunctionName`], so a
    /// number is never a label and can't be taken for a version.
    Label,
    "the label"
);

/// Something that isn't the number of a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} isn't the number of a version: these are 1, 2, 3, … up to 4294967295")]
pub struct InvalidVersion {
    found: String,
}

/// The number of a version: 1, 2, 3, …; never used twice within a function.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32, example = 2)]
pub struct VersionNumber(NonZeroU32);

impl VersionNumber {
    /// The first version of every function.
    pub const FIRST: VersionNumber = VersionNumber(NonZeroU32::MIN);

    /// The number as an integer.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for VersionNumber {
    type Error = InvalidVersion;

    fn try_from(number: u32) -> Result<Self, InvalidVersion> {
        let nonzero = NonZeroU32::new(number);
        nonzero.map(Self).ok_or_else(|| InvalidVersion {
            found: number.to_string(),
        })
    }
}

impl FromStr for VersionNumber {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        // `u32::from_str` takes a leading `+`, which no URL should.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<NonZeroU32>().ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| InvalidVersion {
            found: text.chars().take(32).collect(),
        })
    }
}

impl From<VersionNumber> for u32 {
    fn from(number: VersionNumber) -> u32 {
        number.get()
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_allowed_name_parses_and_prints_unchanged(name in "[a-z][a-z0-9-]{0,62}") {
            prop_assert_eq!(name.parse::<FunctionName>().unwrap().to_string(), name.clone());
            prop_assert_eq!(name.parse::<Label>().unwrap().to_string(), name);
        }

        #[test]
        fn a_name_that_parses_is_an_allowed_one(name in ".{0,70}") {
            if let Ok(parsed) = name.parse::<FunctionName>() {
                let text = parsed.as_str();
                prop_assert!((1..=63).contains(&text.len()));
                prop_assert!(text.starts_with(|c: char| c.is_ascii_lowercase()));
                prop_assert!(!text.contains(['/', '.', '\0', ' ']));
            }
        }

        #[test]
        fn version_numbers_survive_text(number in 1u32..) {
            let parsed: VersionNumber = number.to_string().parse().unwrap();
            prop_assert_eq!(parsed.get(), number);
        }
    }

    #[test]
    fn a_refused_name_says_what_is_allowed() {
        let error = "File_Type".parse::<FunctionName>().unwrap_err().to_string();
        assert!(
            error.contains("\"File_Type\"") && error.contains("1 to 63"),
            "{error}"
        );
        let error = "2".parse::<Label>().unwrap_err().to_string();
        assert!(error.contains("starts with a digit"), "{error}");
    }

    #[test]
    fn zero_signs_and_words_are_no_versions() {
        for text in ["0", "+1", "-1", "1.0", "one", "", "4294967296"] {
            assert!(text.parse::<VersionNumber>().is_err(), "{text}");
        }
    }
}
