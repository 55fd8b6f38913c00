//! Shares of the traffic, in basis points.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A share of the traffic in hundredths of a percent: 10,000 is all of it. Shown as `2.5%`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "u16", into = "u16")]
#[schema(value_type = u16, example = 1000)]
pub struct BasisPoints(u16);

/// Something that isn't a share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} isn't a share: expected a percentage from 0 to 100 with at most two decimals")]
pub struct InvalidShare {
    found: String,
}

impl BasisPoints {
    /// None of the traffic.
    pub const NONE: BasisPoints = BasisPoints(0);
    /// All of the traffic.
    pub const ALL: BasisPoints = BasisPoints(10_000);

    /// From 0 to 10,000.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for BasisPoints {
    type Error = InvalidShare;

    fn try_from(points: u16) -> Result<BasisPoints, InvalidShare> {
        if points <= Self::ALL.0 {
            Ok(BasisPoints(points))
        } else {
            Err(InvalidShare {
                found: format!("{points} basis points"),
            })
        }
    }
}

impl From<BasisPoints> for u16 {
    fn from(points: BasisPoints) -> u16 {
        points.0
    }
}

impl FromStr for BasisPoints {
    type Err = InvalidShare;

    /// Reads a percentage: `90`, `2.5`, `0.01%`.
    fn from_str(text: &str) -> Result<BasisPoints, InvalidShare> {
        percentage(text).ok_or_else(|| InvalidShare {
            found: text.chars().take(32).collect(),
        })
    }
}

fn percentage(text: &str) -> Option<BasisPoints> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let hundredths: u16 = format!("{decimals:0<2}").parse().ok()?;
    let points = whole
        .parse::<u16>()
        .ok()?
        .checked_mul(100)?
        .checked_add(hundredths)?;
    BasisPoints::try_from(points).ok()
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}%"),
            n if n % 10 == 0 => write!(f, "{whole}.{}%", n / 10),
            n => write!(f, "{whole}.{n:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_survive_text(points in 0u16..=10_000) {
            let share = BasisPoints(points);
            prop_assert_eq!(share.to_string().parse::<BasisPoints>().unwrap(), share);
        }
    }

    #[test]
    fn percentages_have_at_most_two_decimals_and_end_at_a_hundred() {
        for text in ["", "101", "100.01", "1.005", "-1", "a", "1.", ".5", "70000"] {
            assert!(text.parse::<BasisPoints>().is_err(), "{text}");
        }
        assert_eq!("2.5".parse::<BasisPoints>().unwrap().get(), 250);
        assert_eq!("0.01%".parse::<BasisPoints>().unwrap().get(), 1);
    }
}
