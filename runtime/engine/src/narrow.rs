//! Element types narrower than burn has: their elements are kept as codes, one byte each, and
//! computed on as f32.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An element type of 8 bits or fewer that no arithmetic is done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Narrow {
    /// Unsigned, 2 bits.
    U2,
    /// Signed, 2 bits.
    I2,
    /// Unsigned, 4 bits.
    U4,
    /// Signed, 4 bits.
    I4,
    /// 2 bits of exponent, 1 of mantissa; finite.
    F4E2M1,
    /// 4 bits of exponent, 3 of mantissa; no infinities.
    F8E4M3Fn,
    /// The same with a bias of 8, and one zero.
    F8E4M3FnUz,
    /// 5 bits of exponent, 2 of mantissa.
    F8E5M2,
    /// The same with a bias of 16, one zero and no infinities.
    F8E5M2FnUz,
    /// 8 bits of exponent: powers of two.
    F8E8M0,
}

impl Narrow {
    /// The lower-case name, `f8e5m2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U2 => "u2",
            Self::I2 => "i2",
            Self::U4 => "u4",
            Self::I4 => "i4",
            Self::F4E2M1 => "f4e2m1",
            Self::F8E4M3Fn => "f8e4m3fn",
            Self::F8E4M3FnUz => "f8e4m3fnuz",
            Self::F8E5M2 => "f8e5m2",
            Self::F8E5M2FnUz => "f8e5m2fnuz",
            Self::F8E8M0 => "f8e8m0",
        }
    }

    /// Bits per element in an ONNX file.
    pub fn bits(self) -> usize {
        match self {
            Self::U2 | Self::I2 => 2,
            Self::U4 | Self::I4 | Self::F4E2M1 => 4,
            _ => 8,
        }
    }

    /// Codes, one a byte, of `count` elements that lie packed, the lowest bits first.
    pub(crate) fn unpack(self, packed: &[u8], count: usize) -> Vec<u8> {
        let bits = self.bits();
        let mask = u8::MAX >> (8 - bits);
        let codes = packed
            .iter()
            .flat_map(|byte| (0..8 / bits).map(move |at| byte >> (at * bits) & mask));
        codes.take(count).collect()
    }
}

/// How a number becomes one of a narrow type: `Cast`'s attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounding {
    /// What is too large becomes the largest number, else infinity or NaN.
    pub saturate: bool,
    /// To a power of two.
    pub power: Power,
}

/// Which power of two a number between two becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Up,
    Down,
    /// The upper one from the middle on.
    Nearest,
}

impl Default for Rounding {
    fn default() -> Self {
        Self {
            saturate: true,
            power: Power::Up,
        }
    }
}

/// How a small float is laid out: a sign, an exponent, a mantissa.
struct Layout {
    mantissa: u32,
    bias: i32,
    /// Codes without their sign: the largest number, and what stands for larger ones.
    largest: u8,
    overflow: u8,
    nan: u8,
    sign: u8,
    /// There is no negative zero: its code is NaN.
    one_zero: bool,
}

impl Narrow {
    /// Whether its elements are whole numbers.
    pub(crate) fn is_integer(self) -> bool {
        self.range().is_some()
    }

    /// The smallest and largest element of a type of whole numbers.
    pub(crate) fn range(self) -> Option<(i64, i64)> {
        match self {
            Self::U2 => Some((0, 3)),
            Self::I2 => Some((-2, 1)),
            Self::U4 => Some((0, 15)),
            Self::I4 => Some((-8, 7)),
            _ => None,
        }
    }

    /// The layout of a float type with a sign.
    fn layout(self) -> Option<Layout> {
        let layout = |mantissa, bias, largest, overflow, nan, sign| Layout {
            mantissa,
            bias,
            largest,
            overflow,
            nan,
            sign,
            one_zero: nan == sign,
        };
        Some(match self {
            Self::F4E2M1 => layout(1, 1, 0x07, 0x07, 0, 0x08),
            Self::F8E4M3Fn => layout(3, 7, 0x7e, 0x7f, 0x7f, 0x80),
            Self::F8E4M3FnUz => layout(3, 8, 0x7f, 0x80, 0x80, 0x80),
            Self::F8E5M2 => layout(2, 15, 0x7b, 0x7c, 0x7e, 0x80),
            Self::F8E5M2FnUz => layout(2, 16, 0x7f, 0x80, 0x80, 0x80),
            _ => return None,
        })
    }

    /// The number that a code stands for.
    pub(crate) fn decode(self, code: u8) -> f32 {
        let Some(layout) = self.layout() else {
            return match self {
                Self::F8E8M0 if code == u8::MAX => f32::NAN,
                Self::F8E8M0 => 2f32.powi(i32::from(code) - 127),
                _ => self.decode_integer(code) as f32,
            };
        };
        let size = code & (layout.sign - 1);
        let negative = code & layout.sign != 0;
        let number = if layout.one_zero && code == layout.nan {
            f32::NAN
        } else if size > layout.largest && self == Self::F8E5M2 && size == layout.overflow {
            f32::INFINITY
        } else if size > layout.largest {
            f32::NAN
        } else {
            let (exponent, mantissa) = (size >> layout.mantissa, size % (1 << layout.mantissa));
            // An exponent of 0 has no leading one.
            let whole = match exponent {
                0 => mantissa,
                _ => mantissa + (1 << layout.mantissa),
            };
            let exponent = i32::from(exponent.max(1)) - layout.bias - layout.mantissa as i32;
            f32::from(whole) * 2f32.powi(exponent)
        };
        if negative { -number } else { number }
    }

    fn decode_integer(self, code: u8) -> i8 {
        let unused = 8 - self.bits() as u32;
        let high = code << unused;
        match self {
            Self::I2 | Self::I4 => high.cast_signed() >> unused,
            _ => (high >> unused).cast_signed(),
        }
    }

    /// The code of a number, as the tables on ONNX's page of `Cast` say.
    pub(crate) fn encode(self, x: f64, rounding: Rounding) -> u8 {
        match (self.layout(), self) {
            (Some(layout), _) => layout.encode(x, rounding.saturate),
            (None, Self::F8E8M0) => power_of_two(x, rounding),
            // Cut toward zero; what doesn't fit loses its upper bits.
            _ => x as i64 as u8 & (u8::MAX >> (8 - self.bits())),
        }
    }
}

impl Layout {
    fn encode(&self, x: f64, saturate: bool) -> u8 {
        let sign = if x.is_sign_negative() { self.sign } else { 0 };
        let signed = |size: u8| match size {
            0 if self.one_zero => 0,
            size => size | sign,
        };
        if x.is_nan() {
            // A type without NaN gets a zero of the other sign, as from ml_dtypes.
            return match self.nan {
                0 => sign ^ self.sign,
                nan => nan | sign,
            };
        }
        let size = x.abs();
        if size == 0.0 {
            return signed(0);
        }
        let beyond = if saturate {
            self.largest
        } else {
            self.overflow
        };
        if size.is_infinite() {
            return signed(beyond);
        }
        // The exponent from the bits; one too small for f64 itself is below all others.
        let exponent = (size.to_bits() >> 52) as i32 - 1023;
        let exponent = exponent.max(1 - self.bias);
        let steps = size / 2f64.powi(exponent - self.mantissa as i32);
        // Steps hold the leading one, so they carry into the exponent.
        let base = i64::from(exponent + self.bias - 1) << self.mantissa;
        let code = base.saturating_add(steps.round_ties_even() as i64);
        match u8::try_from(code) {
            Ok(code) if code <= self.largest => signed(code),
            _ => signed(beyond),
        }
    }
}

/// The code of a power of two near the size of a number.
fn power_of_two(x: f64, rounding: Rounding) -> u8 {
    let size = x.abs();
    let beyond = |largest: u8| if rounding.saturate { largest } else { u8::MAX };
    if size.is_nan() {
        return u8::MAX;
    }
    if size.is_infinite() {
        return beyond(u8::MAX - 1);
    }
    let exponent = (size.to_bits() >> 52) as i32 - 1023;
    let over = size / 2f64.powi(exponent.max(-1022));
    let up = match rounding.power {
        Power::Up => over > 1.0,
        Power::Down => false,
        Power::Nearest => over >= 1.5,
    };
    match exponent + i32::from(up) + 127 {
        below if below < 0 => beyond(0),
        code => match u8::try_from(code) {
            Ok(code) if code < u8::MAX => code,
            _ => beyond(u8::MAX - 1),
        },
    }
}

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: [Narrow; 6] = [
        Narrow::F4E2M1,
        Narrow::F8E4M3Fn,
        Narrow::F8E4M3FnUz,
        Narrow::F8E5M2,
        Narrow::F8E5M2FnUz,
        Narrow::F8E8M0,
    ];

    #[test]
    fn every_code_that_is_a_number_comes_back() {
        for narrow in FLOATS {
            for code in 0..=u8::MAX >> (8 - narrow.bits()) {
                let number = narrow.decode(code);
                for saturate in [true, false] {
                    let power = Power::Nearest;
                    let found = narrow.encode(f64::from(number), Rounding { saturate, power });
                    if number.is_nan() {
                        assert!(narrow.decode(found).is_nan(), "{narrow} {code:#x}");
                    } else if number.is_finite() {
                        assert_eq!(found, code, "{narrow} {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_between_two_becomes_the_nearer_and_then_the_even_one() {
        for narrow in FLOATS.into_iter().take(5) {
            let largest = narrow.layout().map_or(0, |layout| layout.largest);
            for code in 0..largest {
                let (low, high) = (narrow.decode(code), narrow.decode(code + 1));
                let at = |part: f32| {
                    let x = f64::from(low) + f64::from(high - low) * f64::from(part);
                    narrow.encode(x, Rounding::default())
                };
                assert_eq!((at(0.49), at(0.51)), (code, code + 1), "{narrow} {code:#x}");
                assert_eq!(at(0.5), code + code % 2, "{narrow} {code:#x}");
            }
        }
    }

    #[test]
    fn what_is_beyond_a_power_of_two_follows_the_table() {
        let encode =
            |x: f64, saturate, power| Narrow::F8E8M0.encode(x, Rounding { saturate, power });
        let large = 1e39;
        for (x, saturated, nearest) in [
            (0.0, 0x00, 0xff),
            (f64::NAN, 0xff, 0xff),
            (f64::INFINITY, 0xfe, 0xff),
            (large, 0xfe, 0xff),
            (1e-39, 0x00, 0xff),
            (1.5, 0x80, 0x80),
            (1.49, 0x80, 0x7f),
        ] {
            assert_eq!(encode(x, true, Power::Up), saturated, "{x}");
            assert_eq!(encode(x, false, Power::Nearest), nearest, "{x}");
        }
    }
}
