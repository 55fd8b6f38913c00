//! Numbers of JSON, read from their digits.
//!
//! Most have up to nineteen digits and a small power of ten. Those are computed as Clinger did
//! ("How to read floating point numbers accurately", 1990): digits and power are exact in 64 bits, so
//! one operation rounds once. The standard library reads the rest.

/// Powers of ten that an f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Their inverses, each as near as an f64 comes.
const INVERSES: [f64; 23] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14,
    1e-15, 1e-16, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21, 1e-22,
];

/// Digits that certainly fit into 64 bits.
const EXACT_DIGITS: usize = 19;

/// Below this, integers are exact in an f64.
const EXACT_INTEGERS: u64 = 1 << 53;

/// A number as it is written: `digits × 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    negative: bool,
    digits: u64,
    exponent: i32,
    /// Whether `digits` holds them all.
    exact: bool,
    /// How many bytes it takes.
    pub len: usize,
}

impl Number {
    /// The number at the front of a text, as JSON has it (RFC 8259, section 6); none where there is
    /// no such.
    #[inline]
    pub fn read(text: &[u8]) -> Option<Self> {
        let negative = text.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut digits = 0;
        let whole = match text.get(start)? {
            b'0' => 1,
            b'1'..=b'9' => count(text, start, &mut digits),
            _ => return None,
        };
        let mut at = start + whole;
        let (mut counted, mut exponent) = (whole, 0i32);
        if text.get(at) == Some(&b'.') {
            let fraction = count(text, at + 1, &mut digits);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
            counted += fraction;
            exponent = -i32::try_from(fraction).unwrap_or(i32::MAX);
        }
        if let Some(b'e' | b'E') = text.get(at) {
            let sign = text.get(at + 1);
            let signed = matches!(sign, Some(b'+' | b'-'));
            let mut power = 0;
            let from = at + 1 + usize::from(signed);
            let length = count(text, from, &mut power);
            if length == 0 {
                return None;
            }
            // More digits than that are zeros, or past all that can be held.
            let power = match length {
                ..=EXACT_DIGITS => i32::try_from(power).unwrap_or(i32::MAX),
                _ => i32::MAX,
            };
            exponent = match sign {
                Some(b'-') => exponent.saturating_sub(power),
                _ => exponent.saturating_add(power),
            };
            at = from + length;
        }
        Some(Self {
            negative,
            digits,
            exponent,
            exact: counted <= EXACT_DIGITS || significant(text.get(start..at)?) <= EXACT_DIGITS,
            len: at,
        })
    }

    /// Its value, as near as an f32 comes; none where that is infinite. `text` is what it was read
    /// from.
    #[inline]
    pub fn f32(&self, text: &[u8]) -> Option<f32> {
        /// The bits of an f64 that an f32 has no room for, and the middle between two f32.
        const CUT: u64 = (1 << 29) - 1;
        const MIDDLE: u64 = 1 << 28;
        // Digits, power and operation may each round: the f64 is less than four of its own steps from
        // the number, so both round to the same f32 unless they are near the middle of two.
        if let Some(value) = self.nearly() {
            let near = (value.to_bits() & CUT).abs_diff(MIDDLE) <= 8;
            let normal = (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&value);
            if (!near && normal) || value == 0.0 {
                return Some(self.signed(value) as f32);
            }
        }
        let value: f32 = self.text(text)?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// Its value, as near as an f64 comes; none where that is infinite.
    #[inline]
    pub fn f64(&self, text: &[u8]) -> Option<f64> {
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        if let Some(power) = power
            && self.exact
            && self.digits <= EXACT_INTEGERS
        {
            let digits = self.digits as f64;
            let value = match self.exponent {
                ..0 => digits / power,
                _ => digits * power,
            };
            return Some(self.signed(value));
        }
        let value: f64 = self.text(text)?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// Its value, where that is an integer.
    #[inline]
    pub fn whole(&self, text: &[u8]) -> Option<i128> {
        if self.exact && self.exponent == 0 {
            let value = i128::from(self.digits);
            return Some(if self.negative { -value } else { value });
        }
        let text = self.text(text)?;
        text.parse().ok().or_else(|| {
            let value: f64 = text.parse().ok()?;
            let exact = value.fract() == 0.0 && value.abs() <= EXACT_INTEGERS as f64;
            exact.then_some(value as i128)
        })
    }

    /// Digits times power, where both are in reach, rounded up to three times.
    #[inline]
    fn nearly(&self) -> Option<f64> {
        let powers = match self.exponent {
            ..0 => &INVERSES,
            _ => &POWERS,
        };
        let power = powers.get(self.exponent.unsigned_abs() as usize)?;
        self.exact.then_some(self.digits as f64 * power)
    }

    /// Half of the numbers may have a sign, in no order that a processor could guess: no branch.
    #[inline]
    fn signed(&self, value: f64) -> f64 {
        f64::from_bits(value.to_bits() ^ (u64::from(self.negative) << 63))
    }

    fn text<'a>(&self, text: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(text.get(..self.len)?).ok()
    }
}

/// How many digits stand in a number from the first on that is not zero.
#[cold]
fn significant(text: &[u8]) -> usize {
    let digits = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let digits = digits.filter(|byte| byte.is_ascii_digit());
    digits.skip_while(|byte| **byte == b'0').count()
}

/// Adds the digits from `start` on to a number, and says how many they are. It wraps around where
/// they are too many.
#[inline]
fn count(text: &[u8], start: usize, number: &mut u64) -> usize {
    let mut at = start;
    while let Some((digits, value)) = text.get(at..).and_then(up_to_eight) {
        let Some(power) = WHOLE_POWERS.get(digits) else {
            break;
        };
        *number = number.wrapping_mul(*power).wrapping_add(value);
        at += digits;
        if digits < 8 {
            return at - start;
        }
    }
    // Near the end of the text.
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        *number = number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit - b'0'));
        at += 1;
    }
    at - start
}

/// How many of the eight bytes at the front are digits, and their value; none where the text is
/// shorter. All at once: neighbours become pairs, pairs become fours, and those the whole.
#[inline]
fn up_to_eight(text: &[u8]) -> Option<(usize, u64)> {
    let chunk = u64::from_le_bytes(*text.first_chunk()?);
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    // '0' to '9' keep their high half when six is added, and ':' to '?' don't. What carries over
    // comes from bytes that are no digits, and only what stands before the first of those counts.
    let past = chunk.wrapping_add(0x0606_0606_0606_0606);
    let others = ((chunk & HIGH) ^ ZEROS) | ((past & HIGH) ^ ZEROS);
    let digits = others.trailing_zeros() / 8;
    // Zeros in front instead of what follows; of no digits, nothing is left.
    let ones = chunk.wrapping_sub(ZEROS).unbounded_shl(64 - 8 * digits);
    let pairs = (ones.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    Some((
        digits as usize,
        fours.wrapping_mul(1 + (10_000 << 32)) >> 32,
    ))
}

/// Powers of ten, up to that of eight digits.
const WHOLE_POWERS: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(Option<f32>, Option<f64>)> {
        let number = Number::read(text.as_bytes())?;
        assert_eq!(number.len, text.len());
        Some((number.f32(text.as_bytes()), number.f64(text.as_bytes())))
    }

    /// What the standard library reads, where that is finite.
    fn expected(text: &str) -> (Option<f32>, Option<f64>) {
        let (single, double): (f32, f64) = (text.parse().unwrap(), text.parse().unwrap());
        let single = Some(single).filter(|value| value.is_finite());
        (single, Some(double).filter(|value| value.is_finite()))
    }

    #[test]
    fn numbers_at_the_edges_are_read_as_by_the_standard_library() {
        for text in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "1",
            "-1.5",
            "1e0",
            "1E+2",
            "1e-2",
            "16777217",
            "16777217.0",
            "0.1",
            "0.10000000149011612",
            "1.17549435e-38",
            "1e-45",
            "7e-46",
            "1e-400",
            "3.4028235e38",
            "3.4028236e38",
            "3.4028235677973366e38",
            "1.7976931348623157e308",
            "1e309",
            "9007199254740993",
            "9007199254740993e1",
            "12345678",
            "1234567812345678",
            "12345678123456781234567812345678",
            "0.000000000000000000000001",
            "1e22",
            "1e23",
            "8388608.5",
            "8388609.5",
            "33554433",
            "5e-324",
            "1e99999999999999999999",
            "1e-99999999999",
            "18446744073709551615",
            "99999999999999999999",
            "0.00000000000000000000",
        ] {
            assert_eq!(read(text), Some(expected(text)), "{text}");
        }
    }

    #[test]
    fn what_json_does_not_call_a_number_is_none() {
        for text in [
            "", "-", "+1", ".5", "1.", "1.e2", "1e", "1e+", "a", "NaN", "\"1\"",
        ] {
            assert_eq!(Number::read(text.as_bytes()), None, "{text}");
        }
        // What follows is not read.
        assert_eq!(Number::read(b"01").unwrap().len, 1);
        assert_eq!(Number::read(b"1.5.5").unwrap().len, 3);
    }

    proptest! {
        #[test]
        fn any_number_is_read_as_by_the_standard_library(
            text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        ) {
            prop_assert_eq!(read(&text), Some(expected(&text)));
        }

        #[test]
        fn every_f32_and_f64_is_read_back_however_it_is_written(single: f32, double: f64) {
            if single.is_finite() {
                for text in [format!("{single}"), format!("{single:e}"), format!("{}", f64::from(single))] {
                    prop_assert_eq!(read(&text).unwrap().0.unwrap().to_bits(), single.to_bits());
                }
            }
            if double.is_finite() {
                let text = format!("{double:e}");
                prop_assert_eq!(read(&text).unwrap().1.unwrap().to_bits(), double.to_bits());
            }
        }

        #[test]
        fn numbers_around_the_middle_of_two_f32_round_as_they_should(bits in 0x0080_0000u32..0x7f00_0000, step in -3i64..=3) {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = (f64::from(low) + f64::from(high)) / 2.0;
            let near = f64::from_bits(middle.to_bits().wrapping_add_signed(step));
            for text in [format!("{near:e}"), format!("{near:.19e}")] {
                prop_assert_eq!(read(&text), Some(expected(&text)));
            }
        }
    }
}
