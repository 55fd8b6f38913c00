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

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
