//! JSON arrays read into elements, in one pass that checks their form. A long row is read in
//! [slices](super::slices); where one of them is not as it should be, the pass goes over the row again
//! and says what is wrong.

use firebox_engine::{DType, MAX_RANK};
use half::{bf16, f16};
use memchr::{memchr, memchr2};

use super::number::Number;
use super::{ArrayError, slices};

/// What an array holds.
pub struct Elements {
    /// As the nesting spells it.
    pub shape: Vec<usize>,
    /// How many there are.
    pub count: usize,
    /// The tensor's bytes.
    pub data: Vec<u8>,
}

/// Reads elements of `dtype`, of which there are probably `likely` many.
pub fn read(json: &str, dtype: DType, likely: usize) -> Result<Elements, ArrayError> {
    // An element takes two bytes of JSON at least: whatever a shape promises, no more is set aside.
    let likely = likely.min(json.len() / 2 + 1);
    macro_rules! number {
        ($ty:ty, $parse:expr) => {
            scan(json, dtype, likely * size_of::<$ty>(), |rest, data| {
                let (value, len): ($ty, usize) = $parse(rest)?;
                data.extend_from_slice(&value.to_le_bytes());
                Some(len)
            })
        };
    }
    match dtype {
        DType::Bool => scan(json, dtype, likely, |rest, data| {
            let words: [(&[u8], u8); 4] = [(b"true", 1), (b"false", 0), (b"1", 1), (b"0", 0)];
            let (word, value) = words.into_iter().find(|(word, _)| rest.starts_with(word))?;
            data.push(value);
            Some(word.len())
        }),
        // Codes, where the elements are narrower.
        DType::U8 | DType::Narrow(_) => number!(u8, whole),
        DType::U16 => number!(u16, whole),
        DType::U32 => number!(u32, whole),
        DType::U64 => number!(u64, whole),
        DType::I8 => number!(i8, whole),
        DType::I16 => number!(i16, whole),
        DType::I32 => number!(i32, whole),
        DType::I64 => number!(i64, whole),
        DType::F16 => number!(f16, |rest| narrow(rest, f16::from_f64, f16::is_finite)),
        DType::BF16 => number!(bf16, |rest| narrow(rest, bf16::from_f64, bf16::is_finite)),
        DType::F32 => number!(f32, |rest| match Number::read(rest) {
            Some(number) => Some((number.f32(rest)?, number.len)),
            None => not_finite(rest).map(|(value, len)| (value as f32, len)),
        }),
        DType::F64 => number!(f64, real),
        DType::Bytes => scan(json, dtype, json.len(), |rest, data| {
            if rest.first() != Some(&b'"') {
                return None;
            }
            let len = token_len(rest);
            let text: String = serde_json::from_slice(rest.get(..len)?).ok()?;
            data.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
            data.extend_from_slice(text.as_bytes());
            Some(len)
        }),
    }
}

/// An integer, also written as `3.0` or `3e2`.
fn whole<T: TryFrom<i128>>(rest: &[u8]) -> Option<(T, usize)> {
    let number = Number::read(rest)?;
    Some((T::try_from(number.whole(rest)?).ok()?, number.len))
}

fn real(rest: &[u8]) -> Option<(f64, usize)> {
    match Number::read(rest) {
        Some(number) => Some((number.f64(rest)?, number.len)),
        None => not_finite(rest),
    }
}

fn not_finite(rest: &[u8]) -> Option<(f64, usize)> {
    let words: [(&[u8], f64); 3] = [
        (b"\"NaN\"", f64::NAN),
        (b"\"Infinity\"", f64::INFINITY),
        (b"\"-Infinity\"", f64::NEG_INFINITY),
    ];
    let (word, value) = words.into_iter().find(|(word, _)| rest.starts_with(word))?;
    Some((value, word.len()))
}

/// A number of 16 bits; one that became infinite by rounding is refused.
fn narrow<T: Copy>(rest: &[u8], from: fn(f64) -> T, finite: fn(T) -> bool) -> Option<(T, usize)> {
    let (wide, len) = real(rest)?;
    let value = from(wide);
    (finite(value) || !wide.is_finite()).then_some((value, len))
}

fn expected(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "true or false",
        DType::U8 | DType::Narrow(_) => "integers from 0 to 255",
        DType::U16 => "integers from 0 to 65535",
        DType::U32 => "integers from 0 to 4294967295",
        DType::U64 => "integers of 64 bits without sign",
        DType::I8 => "integers from -128 to 127",
        DType::I16 => "integers from -32768 to 32767",
        DType::I32 => "integers of 32 bits",
        DType::I64 => "integers of 64 bits",
        DType::F16 | DType::BF16 => "numbers of 16 bits",
        DType::F32 => "numbers of 32 bits",
        DType::F64 => "numbers",
        DType::Bytes => "strings",
    }
}

/// Walks JSON and hands what stands where an element is to `push`, which takes it from the front and
/// says how long it was; keeps the nesting rectangular.
fn scan(
    json: &str,
    dtype: DType,
    capacity: usize,
    push: impl Fn(&[u8], &mut Vec<u8>) -> Option<usize> + Sync,
) -> Result<Elements, ArrayError> {
    let bytes = json.as_bytes();
    let mut data = Vec::with_capacity(capacity);
    let mut nesting = Nesting::default();
    let (mut at, mut count) = (0, 0);
    // Whether a value may come, and whether a row may end.
    let (mut value_next, mut may_close) = (true, false);
    let mut row_begins = false;
    while let Some(&byte) = bytes.get(at) {
        let in_row = nesting.depth() > 0;
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'[' if value_next => {
                nesting.open(count)?;
                (may_close, row_begins) = (true, true);
            }
            b']' if may_close && in_row => {
                nesting.close(count)?;
                (value_next, may_close) = (false, true);
            }
            b',' if !value_next && in_row => (value_next, may_close) = (true, false),
            b'{' if value_next => {
                return Err(ArrayError::Object {
                    expected: expected(dtype),
                });
            }
            b',' | b']' | b'[' | b'{' | b'}' | b':' => return Err(ArrayError::Malformed { at }),
            _ if !value_next => return Err(ArrayError::Malformed { at }),
            _ => {
                nesting.element(count)?;
                (value_next, may_close) = (false, true);
                let whole_row = std::mem::take(&mut row_begins) && dtype.size().is_some();
                if whole_row && let Some(row) = long_row(bytes.get(at..).unwrap_or_default()) {
                    let per_byte = capacity as f64 / json.len() as f64;
                    if let Some(items) = in_slices(row, per_byte, &push, &mut data) {
                        nesting.count_items(items - 1);
                        count += items;
                        at += row.len();
                        continue;
                    }
                }
                // Elements follow each other: this is where the time goes.
                let mut further = 0;
                loop {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let Some(len) = push(rest, &mut data).filter(|len| ends(rest.get(*len))) else {
                        let token = json.get(at..at + token_len(rest)).unwrap_or_default();
                        return Err(wrong_element(count, dtype, token));
                    };
                    count += 1;
                    at += len;
                    let next = match bytes.get(at..) {
                        Some([b',', b' ', next, ..]) if in_row => Some((next, 2)),
                        Some([b',', next, ..]) if in_row => Some((next, 1)),
                        _ => None,
                    };
                    let Some((b'-' | b'0'..=b'9', skipped)) = next else {
                        break;
                    };
                    further += 1;
                    at += skipped;
                }
                nesting.count_items(further);
                continue;
            }
        }
        at += 1;
    }
    if value_next || nesting.depth() > 0 {
        return Err(ArrayError::BreaksOff {
            expected: expected(dtype),
        });
    }
    Ok(Elements {
        shape: nesting.shape(),
        count,
        data,
    })
}

/// The elements at the front up to the end of their row, where they are worth several threads.
fn long_row(rest: &[u8]) -> Option<&[u8]> {
    if slices::count(rest.len()) == 1 {
        return None;
    }
    let row = rest.get(..memchr2(b'[', b']', rest)?)?;
    (slices::count(row.len()) > 1).then_some(row)
}

/// Reads the elements of a row, of which each byte of JSON gives `per_byte` many bytes, and says how
/// many they were; none where something is wrong with any of them.
fn in_slices(
    row: &[u8],
    per_byte: f64,
    push: &(impl Fn(&[u8], &mut Vec<u8>) -> Option<usize> + Sync),
    data: &mut Vec<u8>,
) -> Option<usize> {
    let parts = slices::map(cut(row), |slice| {
        let mut data = Vec::with_capacity((slice.len() as f64 * per_byte) as usize + 64);
        let (mut at, mut items) = (0, 0);
        loop {
            at = blanks_end(slice, at);
            at += push(slice.get(at..)?, &mut data)?;
            at = blanks_end(slice, at);
            items += 1;
            match slice.get(at) {
                Some(b',') => at += 1,
                Some(_) => return None,
                None => return Some((data, items)),
            }
        }
    });
    let parts: Vec<_> = parts.into_iter().collect::<Option<_>>()?;
    data.reserve(parts.iter().map(|(part, _)| part.len()).sum());
    for (part, _) in &parts {
        data.extend_from_slice(part);
    }
    Some(parts.iter().map(|(_, items)| items).sum())
}

/// Cuts a row at commas into slices of about one length.
fn cut(row: &[u8]) -> Vec<&[u8]> {
    let count = slices::count(row.len());
    let (mut slices, mut rest) = (Vec::with_capacity(count), row);
    for left in (2..=count).rev() {
        let near = rest.len() / left;
        let comma = rest.get(near..).and_then(|rest| memchr(b',', rest));
        let Some((slice, [_, behind @ ..])) = comma.map(|comma| rest.split_at(near + comma)) else {
            break;
        };
        slices.push(slice);
        rest = behind;
    }
    slices.push(rest);
    slices
}

/// Behind the blanks that stand at a place.
pub fn blanks_end(json: &[u8], at: usize) -> usize {
    let rest = json.get(at..).unwrap_or_default().iter();
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    at + rest.take_while(blank).count()
}

/// Whether an element can end before this byte.
fn ends(byte: Option<&u8>) -> bool {
    matches!(
        byte,
        None | Some(b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')
    )
}

/// The length of the number, word or string at the front.
fn token_len(bytes: &[u8]) -> usize {
    if bytes.first() != Some(&b'"') {
        let end = |b: &u8| matches!(b, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        return bytes.iter().position(end).unwrap_or(bytes.len());
    }
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

fn wrong_element(at: usize, dtype: DType, token: &str) -> ArrayError {
    let mut found: String = token.chars().take(40).collect();
    if found.len() < token.len() {
        found.push('…');
    }
    ArrayError::Element {
        at,
        expected: expected(dtype),
        found,
    }
}

/// The shape that brackets spell, and whether every row agrees with it.
#[derive(Default)]
struct Nesting {
    /// The length of a row at each depth, once one has closed.
    sizes: Vec<Option<usize>>,
    /// Items so far in each open row.
    open: Vec<usize>,
    /// How deep the elements stand.
    leaf: Option<usize>,
}

impl Nesting {
    fn open(&mut self, at: usize) -> Result<(), ArrayError> {
        if self.open.len() >= MAX_RANK {
            return Err(ArrayError::TooDeep);
        }
        if self.leaf.is_some_and(|leaf| self.open.len() >= leaf) {
            return Err(ArrayError::Ragged { at });
        }
        self.count_items(1);
        self.open.push(0);
        if self.sizes.len() < self.open.len() {
            self.sizes.push(None);
        }
        Ok(())
    }

    fn close(&mut self, at: usize) -> Result<(), ArrayError> {
        let Some(items) = self.open.pop() else {
            return Err(ArrayError::Ragged { at });
        };
        match self.sizes.get_mut(self.open.len()) {
            Some(Some(size)) if *size != items => Err(ArrayError::Ragged { at }),
            Some(size) => {
                *size = Some(items);
                Ok(())
            }
            None => Err(ArrayError::Ragged { at }),
        }
    }

    #[inline]
    fn element(&mut self, at: usize) -> Result<(), ArrayError> {
        let depth = self.open.len();
        if *self.leaf.get_or_insert(depth) != depth || depth < self.sizes.len() {
            return Err(ArrayError::Ragged { at });
        }
        self.count_items(1);
        Ok(())
    }

    fn depth(&self) -> usize {
        self.open.len()
    }

    fn count_items(&mut self, more: usize) {
        if let Some(items) = self.open.last_mut() {
            *items += more;
        }
    }

    fn shape(self) -> Vec<usize> {
        self.sizes
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect()
    }
}
