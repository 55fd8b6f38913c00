//! Guards: what must hold for a new version to go on taking traffic, as people write it.
//!
//! ```text
//! error_rate<=stable+1%       at most one percentage point more errors than the stable version
//! error_rate<=2%              at most 2 % errors
//! p95<=1.2*stable             95 of 100 calls within 1.2 times what they take on the stable version
//! p99<=300ms                  99 of 100 calls within 300 ms
//! rejection_rate<=stable+1%   at most one percentage point more refused inputs
//! ```
//!
//! A bound is `[factor*]stable`, a fixed quantity, or both joined by `+`. A guard's name picks its
//! [`Kind`] from a table; a further kind is one more row.

use std::fmt;
use std::str::FromStr;

use super::text::{Cursor, Misread};
use super::verdict::{self, Compared, Verdict};

/// The guards where none are given.
pub const DEFAULT: [&str; 2] = ["error_rate<=stable+1%", "p95<=1.2*stable"];

/// What a guard of some name measures and how it is judged.
pub struct Kind {
    /// The names, for people.
    pub names: &'static str,
    /// Whether a name is one of these.
    knows: fn(&str) -> bool,
    /// What its bounds are.
    pub unit: Unit,
    /// Compares what was seen with the bound.
    judge: fn(&Guard, &Compared<'_>) -> Verdict,
}

/// All kinds of guards.
pub const KINDS: &[Kind] = &[
    Kind {
        names: "error_rate",
        knows: |name| name == "error_rate",
        unit: Unit::Share,
        judge: |guard, compared| verdict::rate(guard, compared, |seen| seen.failed),
    },
    Kind {
        names: "rejection_rate",
        knows: |name| name == "rejection_rate",
        unit: Unit::Share,
        judge: |guard, compared| verdict::rate(guard, compared, |seen| seen.rejected),
    },
    Kind {
        names: "p50, p95, p99.9 or another percentile",
        knows: |name| quantile(name).is_some(),
        unit: Unit::Time,
        judge: |guard, compared| match quantile(&guard.name) {
            Some(quantile) => verdict::latency(guard, compared, quantile),
            None => Verdict::undecided(guard, "its name is no percentile".into()),
        },
    },
];

/// What a bound is a quantity of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A part of all calls, from 0 to 1; written as a percentage.
    Share,
    /// A latency, in seconds; written with its unit.
    Time,
}

/// The most that is allowed: `factor * stable + fixed`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// What the stable version's figure is multiplied by; none where it plays no part.
    pub factor: Option<f64>,
    /// What is added: a share, or seconds.
    pub fixed: f64,
}

/// One guard, read.
pub struct Guard {
    /// As it was written.
    pub text: String,
    /// What it is about: `p95`.
    pub name: String,
    /// What is allowed.
    pub bound: Bound,
    /// How it is judged.
    pub kind: &'static Kind,
}

impl Guard {
    /// Judges it by what was seen of both versions in the same time.
    pub fn judge(&self, compared: &Compared<'_>) -> Verdict {
        (self.kind.judge)(self, compared)
    }

    /// Whether it needs calls of the stable version.
    pub fn compares(&self) -> bool {
        self.bound.factor.is_some()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.text).finish()
    }
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            name: self.name.clone(),
            ..*self
        }
    }
}

/// `p95` is 0.95.
fn quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    let starts = digits.starts_with(|c: char| c.is_ascii_digit());
    let percentile: f64 = digits.parse().ok().filter(|_| starts)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && percentile > 0.0 && percentile < 100.0).then_some(percentile / 100.0)
}

impl FromStr for Guard {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Guard, Misread> {
        let mut cursor = Cursor::new("guard", text)?;
        cursor.blanks();
        let start = cursor.clone();
        let name = cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let kind = KINDS.iter().find(|kind| (kind.knows)(name));
        let kind = kind.ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.names).collect();
            start.expected(format!("one of {}", names.join(", ")))
        })?;
        if !cursor.take("<=") {
            return Err(cursor.expected("`<=`"));
        }
        let bound = bound(&mut cursor, kind.unit)?;
        Ok(Guard {
            text: text.trim().to_owned(),
            name: name.to_owned(),
            bound,
            kind,
        })
    }
}

/// A term of a bound.
enum Term {
    Stable(f64),
    Fixed(f64),
}

fn bound(cursor: &mut Cursor<'_>, unit: Unit) -> Result<Bound, Misread> {
    let mut bound = Bound {
        factor: None,
        fixed: 0.0,
    };
    match term(cursor, unit, true)? {
        Term::Stable(factor) => {
            bound.factor = Some(factor);
            if cursor.take("+") {
                match term(cursor, unit, false)? {
                    Term::Fixed(fixed) | Term::Stable(fixed) => bound.fixed = fixed,
                }
            }
        }
        Term::Fixed(fixed) => bound.fixed = fixed,
    }
    match cursor.is_done() {
        true => Ok(bound),
        false if bound.factor.is_some() && bound.fixed == 0.0 => {
            Err(cursor.expected("`+` or the end"))
        }
        false => Err(cursor.expected("the end")),
    }
}

fn term(cursor: &mut Cursor<'_>, unit: Unit, stable: bool) -> Result<Term, Misread> {
    let example = match unit {
        Unit::Share => "a percentage such as 1%",
        Unit::Time => "a time such as 300ms",
    };
    cursor.blanks();
    if stable && cursor.take("stable") {
        return Ok(Term::Stable(1.0));
    }
    let start = cursor.clone();
    let Some(number) = cursor.number() else {
        let stable = if stable { "`stable`, a factor or " } else { "" };
        return Err(start.expected(format!("{stable}{example}")));
    };
    if stable && cursor.take("*") {
        return match cursor.take("stable") {
            true if number > 0.0 => Ok(Term::Stable(number)),
            true => Err(start.expected("a factor over 0")),
            false => Err(cursor.expected("`stable`")),
        };
    }
    cursor.blanks();
    let scales: &[(&str, f64)] = match unit {
        Unit::Share => &[("%", 0.01)],
        Unit::Time => &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)],
    };
    let scale = scales.iter().find(|(name, _)| cursor.take(name));
    let Some((_, scale)) = scale else {
        let names: Vec<_> = scales.iter().map(|(name, _)| format!("`{name}`")).collect();
        let star = if stable { "`*stable` or " } else { "" };
        return Err(cursor.expected(format!("{star}the unit {}", names.join(" or "))));
    };
    match number * scale {
        share if unit == Unit::Share && share > 1.0 => {
            Err(start.expected("a percentage up to 100%"))
        }
        time if unit == Unit::Time && time > 3600.0 => Err(start.expected("a time up to 3600s")),
        time if unit == Unit::Time && time <= 0.0 && stable => Err(start.expected("a time over 0")),
        value => Ok(Term::Fixed(value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound_of(text: &str) -> (Option<f64>, f64) {
        let bound = text.parse::<Guard>().unwrap().bound;
        (bound.factor, bound.fixed)
    }

    #[test]
    fn bounds_are_of_the_stable_version_fixed_or_both() {
        assert_eq!(bound_of("error_rate<=stable+1%"), (Some(1.0), 0.01));
        assert_eq!(bound_of("error_rate <= 2 %"), (None, 0.02));
        assert_eq!(bound_of("error_rate<=0%"), (None, 0.0));
        assert_eq!(bound_of("rejection_rate<=2*stable"), (Some(2.0), 0.0));
        assert_eq!(bound_of("p95<=1.2*stable"), (Some(1.2), 0.0));
        assert_eq!(bound_of("p99.9<= 1.2 * stable + 5ms"), (Some(1.2), 0.005));
        assert_eq!(bound_of("p50<=300us"), (None, 300.0 * 1e-6));
        assert_eq!(bound_of("p50<=2s"), (None, 2.0));
        for text in DEFAULT {
            assert!(text.parse::<Guard>().unwrap().compares(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, at) in [
            ("", 1),
            ("errors<=1%", 1),
            ("error_rate<1%", 11),
            ("error_rate=>1%", 11),
            ("error_rate<=", 13),
            ("error_rate<=stabel+1%", 13),
            ("error_rate<=stable+", 20),
            ("error_rate<=stable+1", 21),
            ("error_rate<=stable+stable", 20),
            ("error_rate<=stable 1%", 20),
            ("error_rate<=stable+1%x", 22),
            ("error_rate<=101%", 13),
            ("error_rate<=300ms", 16),
            ("error_rate<=1.2.3%", 13),
            ("p95<=1.2*stabel", 10),
            ("p95<=0*stable", 6),
            ("p95<=300", 9),
            ("p95<=0ms", 6),
            ("p95<=5000s", 6),
            ("p95<=-1ms", 6),
            ("p100<=1ms", 1),
            ("p0<=1ms", 1),
            ("p<=1ms", 1),
            ("p9x<=1ms", 1),
            ("ü<=1%", 1),
        ] {
            let error = text.parse::<Guard>().unwrap_err();
            assert_eq!(error.at, at, "{error}");
        }
        let error = "p95<=1.2*stabel".parse::<Guard>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "guard `p95<=1.2*stabel`, character 10: expected `stable`, found `stabel`"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(error_rate|p95|p)?[<=0-9.*+%msu stable]{0,20}") {
            if let Err(error) = text.parse::<Guard>() {
                prop_assert!(error.at <= text.chars().count() + 1);
            }
        }
    }
}
