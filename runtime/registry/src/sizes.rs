//! Sizes and times as a manifest writes them: `256MiB`, `10s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes, written `256MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A text that isn't a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} isn't a size: write a whole number and B, KiB, MiB or GiB, such as \"256MiB\"")]
pub struct InvalidSize {
    found: String,
}

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<ByteSize, InvalidSize> {
        let size = UNITS.iter().find_map(|(unit, bytes)| {
            let number = text.trim().strip_suffix(unit)?.trim_end();
            number
                .parse::<u64>()
                .ok()?
                .checked_mul(*bytes)
                .map(ByteSize)
        });
        size.ok_or_else(|| InvalidSize {
            found: text.chars().take(32).collect(),
        })
    }
}

impl TryFrom<String> for ByteSize {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<ByteSize, InvalidSize> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

/// Exact: in the largest unit that divides it.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |bytes: &u64| self.0 != 0 && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS
            .iter()
            .find(|(_, bytes)| whole(bytes))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// Durations as text in humantime's format, for `#[serde(with)]`.
pub(crate) mod time {
    use serde::{Deserializer, Serializer, de::Error as _};

    use super::{Deserialize, Duration};

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!(
                "{text:?} isn't a time ({error}): write a number and ms, s, m or h, such as \"10s\""
            ))
        })
    }
}

/// The same where there may be none.
pub(crate) mod optional_time {
    use serde::{Deserializer, Serializer};

    use super::{Duration, time};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => time::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        time::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sizes_survive_text(bytes: u64) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
    }

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        assert_eq!(ByteSize(256 << 20).to_string(), "256MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn a_size_without_a_unit_says_how_to_write_one() {
        for text in [
            "256",
            "256MB",
            "-1MiB",
            "1.5GiB",
            "99999999999999GiB",
            "MiB",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("\"256MiB\""), "{error}");
        }
    }
}
