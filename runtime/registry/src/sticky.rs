//! Where the key of a caller is found, by which its requests stay with one version.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest name of a header or cookie, and the longest pointer, in bytes.
const LONGEST: usize = 128;

/// Where a request carries the key of its caller. Requests with equal keys go to the same version
/// as long as the weights don't change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", try_from = "Written")]
pub enum StickyKey {
    /// A header of the request, named in lower case.
    Header(String),
    /// A cookie of the request.
    Cookie(String),
    /// A value in the request's JSON body, by its JSON pointer (RFC 6901), such as `/user/id`.
    Body(String),
}

impl StickyKey {
    /// The header that is read where a policy says nothing else.
    pub const DEFAULT_HEADER: &str = "x-firebox-key";

    /// Whether it is the header that is read where a policy says nothing else.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, StickyKey::Header(name) if name == StickyKey::DEFAULT_HEADER)
    }
}

impl Default for StickyKey {
    fn default() -> StickyKey {
        StickyKey::Header(StickyKey::DEFAULT_HEADER.to_owned())
    }
}

/// Something that is no place for a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStickyKey {
    /// Not the name of a header or cookie.
    #[error(
        "{found:?} isn't the name of a {what}: it takes 1 to 128 letters, digits and !#$%&'*+-.^_`|~"
    )]
    Name {
        /// `header` or `cookie`.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// Not a JSON pointer.
    #[error("{found:?} isn't a JSON pointer of at most 128 bytes, such as /user/id")]
    Pointer {
        /// What was given.
        found: String,
    },
}

/// A key's place before it is checked.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Header(String),
    Cookie(String),
    Body(String),
}

impl TryFrom<Written> for StickyKey {
    type Error = InvalidStickyKey;

    fn try_from(written: Written) -> Result<StickyKey, InvalidStickyKey> {
        match written {
            Written::Header(name) => {
                let name = token("header", name)?;
                Ok(StickyKey::Header(name.to_ascii_lowercase()))
            }
            Written::Cookie(name) => token("cookie", name).map(StickyKey::Cookie),
            Written::Body(pointer) => checked_pointer(pointer).map(StickyKey::Body),
        }
    }
}

/// The names of headers and cookies are both tokens of RFC 9110.
fn token(what: &'static str, name: String) -> Result<String, InvalidStickyKey> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=LONGEST).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(name)
    } else {
        let found = name.chars().take(LONGEST).collect();
        Err(InvalidStickyKey::Name { what, found })
    }
}

/// A pointer to a member: it begins with `/`, and `~` is only in `~0` and `~1`.
fn checked_pointer(pointer: String) -> Result<String, InvalidStickyKey> {
    let mut escapes = pointer.split('~').skip(1);
    let escaped = escapes.all(|rest| rest.starts_with(['0', '1']));
    if pointer.starts_with('/') && pointer.len() <= LONGEST && escaped {
        Ok(pointer)
    } else {
        let found = pointer.chars().take(LONGEST).collect();
        Err(InvalidStickyKey::Pointer { found })
    }
}

impl fmt::Display for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StickyKey::Header(name) => write!(f, "header {name}"),
            StickyKey::Cookie(name) => write!(f, "cookie {name}"),
            StickyKey::Body(pointer) => write!(f, "body {pointer}"),
        }
    }
}

impl std::str::FromStr for StickyKey {
    type Err = InvalidStickyKey;

    /// Reads `header NAME`, `cookie NAME` or `body POINTER`.
    fn from_str(text: &str) -> Result<StickyKey, InvalidStickyKey> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.to_owned();
        match kind {
            "header" => Written::Header(rest).try_into(),
            "cookie" => Written::Cookie(rest).try_into(),
            "body" => Written::Body(rest).try_into(),
            _ => Err(InvalidStickyKey::Pointer {
                found: text.chars().take(LONGEST).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_json_and_text() {
        for (json, text) in [
            (r#"{"header":"x-user"}"#, "header x-user"),
            (r#"{"cookie":"Session"}"#, "cookie Session"),
            (r#"{"body":"/user/a~1b"}"#, "body /user/a~1b"),
        ] {
            let key: StickyKey = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&key).unwrap(), json);
            assert_eq!(key.to_string(), text);
            assert_eq!(text.parse::<StickyKey>().unwrap(), key);
        }
        let upper: StickyKey = serde_json::from_str(r#"{"header":"X-User"}"#).unwrap();
        assert_eq!(upper, StickyKey::Header("x-user".into()));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for json in [
            r#"{"header":""}"#,
            r#"{"header":"a b"}"#,
            r#"{"cookie":"a=b"}"#,
            r#"{"body":"user"}"#,
            r#"{"body":"/a~2"}"#,
            r#"{"body":"/a~"}"#,
            r#"{"query":"user"}"#,
            r#""header""#,
        ] {
            assert!(serde_json::from_str::<StickyKey>(json).is_err(), "{json}");
        }
        assert!("query user".parse::<StickyKey>().is_err());
    }
}
