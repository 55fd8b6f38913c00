//! The steps of a rollout as people write them: `5%:10m,25%:10m,50%:10m,100%`.
//!
//! A step is the share of the traffic that the new version takes, and for how long at least. One
//! without a time is left as soon as its guards pass.

use std::time::Duration;

use firebox_registry::{BasisPoints, RolloutStep};

use super::text::{Cursor, Misread};

/// The steps where none are given.
pub const DEFAULT: &str = "5%:10m,25%:10m,50%:10m,100%";

/// More steps than anyone watches.
const MOST: usize = 100;

/// The longest time in one step.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads steps: shares that grow, the last of them 100%.
///
/// # Errors
/// [`Misread`], which points at the character.
pub fn parse(text: &str) -> Result<Vec<RolloutStep>, Misread> {
    let mut cursor = Cursor::new("steps", text)?;
    let mut steps: Vec<RolloutStep> = Vec::new();
    loop {
        cursor.blanks();
        let start = cursor.clone();
        if steps.len() == MOST {
            return Err(start.expected(format!("at most {MOST} steps")));
        }
        let share = share(&mut cursor)?;
        if let Some(last) = steps.last()
            && share <= last.share
        {
            return Err(start.expected(format!("a share over {}", last.share)));
        }
        let hold = match cursor.take(":") {
            true => hold(&mut cursor)?,
            false => Duration::ZERO,
        };
        let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        steps.push(RolloutStep { share, hold_ms });
        if cursor.is_done() {
            return match share == BasisPoints::ALL {
                true => Ok(steps),
                false => Err(cursor.expected("`,` and a last step of 100%")),
            };
        }
        if !cursor.take(",") {
            let after = if hold.is_zero() { "`:` or `,`" } else { "`,`" };
            return Err(cursor.expected(after));
        }
    }
}

fn share(cursor: &mut Cursor<'_>) -> Result<BasisPoints, Misread> {
    let start = cursor.clone();
    let digits = cursor.take_while(|c| c.is_ascii_digit() || c == '.');
    let share = digits
        .parse::<BasisPoints>()
        .ok()
        .filter(|share| *share != BasisPoints::NONE)
        .ok_or_else(|| {
            start.expected("a share over 0% and up to 100%, with at most two decimals")
        })?;
    match cursor.take("%") {
        true => Ok(share),
        false => Err(cursor.expected("`%`")),
    }
}

fn hold(cursor: &mut Cursor<'_>) -> Result<Duration, Misread> {
    cursor.blanks();
    let start = cursor.clone();
    let text = cursor.take_while(|c| c != ',');
    let hold = humantime::parse_duration(text.trim());
    hold.ok()
        .filter(|hold| *hold <= LONGEST && !hold.is_zero())
        .ok_or_else(|| start.expected("a time up to 30 days, such as 90s, 10m or 2h"))
}

/// Steps as [`parse`] reads them.
pub fn show(steps: &[RolloutStep]) -> String {
    let texts = steps.iter().map(|step| match step.hold_ms {
        0 => step.share.to_string(),
        ms => {
            let hold = humantime::format_duration(Duration::from_millis(ms));
            format!("{}:{hold}", step.share)
        }
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn steps_are_shares_with_times() {
        let steps = parse(" 5%:10m, 25.5% ,100%:1h 30m ").unwrap();
        let read: Vec<_> = steps.iter().map(|s| (s.share.get(), s.hold_ms)).collect();
        assert_eq!(read, [(500, 600_000), (2550, 0), (10_000, 5_400_000)]);
        assert_eq!(parse(DEFAULT).unwrap().len(), 4);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, at) in [
            ("", 1),
            ("5%:10m,", 8),
            ("5%:10m", 7),
            ("5:10m,100%", 2),
            ("5%:10,100%", 4),
            ("5%:0s,100%", 4),
            ("5%:31days,100%", 4),
            ("25%:1m,5%:1m,100%", 8),
            ("25%,25%,100%", 5),
            ("0%,100%", 1),
            ("100%,100%", 6),
            ("5% 10m,100%", 4),
            ("x%,100%", 1),
            ("5%,101%", 4),
            ("5.123%,100%", 1),
            ("ü%,100%", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{error}");
        }
        assert_eq!(
            said("5%:10x,100%"),
            "steps `5%:10x,100%`, character 4: expected a time up to 30 days, such as 90s, 10m or 2h, \
             found `10x,100%`"
        );
        let many = "1%,".repeat(2000);
        assert!(said(&many).contains("at most 1000 bytes"));
    }

    proptest! {
        #[test]
        fn steps_survive_text(
            shares in prop::collection::btree_set(1u16..10_000, 0..8),
            hold in 0u64..10_000_000,
        ) {
            let all = shares.into_iter().chain([10_000]);
            let steps: Vec<_> = all
                .map(|share| RolloutStep { share: share.try_into().unwrap(), hold_ms: hold })
                .collect();
            prop_assert_eq!(parse(&show(&steps)).unwrap(), steps);
        }

        #[test]
        fn no_text_is_too_strange(text in "[0-9%:,.mhs ä]{0,30}") {
            if let Ok(steps) = parse(&text) {
                prop_assert_eq!(parse(&show(&steps)).unwrap(), steps);
            }
        }
    }
}
