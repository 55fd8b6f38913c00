//! A bundle file seen as parts: pieces that make it up when they are put one after another. Packed
//! bundles are zstd in several frames (see [`super::pack`]), and a part is one of them, so that two
//! bundles with the same model have a part in common.
//!
//! Frames are found by their headers (RFC 8878, section 3.1.1), without undoing the compression.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::Form;
use crate::{Digest, Digesting};

/// Parts of a bundle: further frames belong to the last one. Registries bound the number of layers.
const MOST: usize = 100;

/// A piece of a bundle file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Of these bytes.
    pub digest: Digest,
}

/// The parts of a bundle file, in order: its zstd frames; all of it where it has none.
pub fn parts(bundle: &Path) -> io::Result<Vec<Part>> {
    let mut file = BufReader::new(File::open(bundle)?);
    let total = file.get_ref().metadata()?.len();
    let lengths = match frames(&mut file, total) {
        Ok(lengths) => lengths,
        // Not zstd, or damaged: whoever unpacks it will say what is wrong.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => vec![total],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => vec![total],
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(0))?;
    let mut offset = 0;
    let mut parts = Vec::new();
    for bytes in lengths {
        let mut part = Digesting::new((&mut file).take(bytes));
        io::copy(&mut part, &mut io::sink())?;
        let (digest, read) = part.finish();
        if read != bytes {
            return Err(io::Error::other("it was cut while it was read"));
        }
        parts.push(Part {
            offset,
            bytes,
            digest,
        });
        offset += bytes;
    }
    Ok(parts)
}

/// The lengths of the frames in `total` bytes.
fn frames(file: &mut (impl Read + Seek), total: u64) -> io::Result<Vec<u64>> {
    let mut lengths: Vec<u64> = Vec::new();
    let mut at = 0;
    while at < total {
        let bytes = frame(file)?;
        at += bytes;
        match lengths.get_mut(MOST - 1) {
            Some(last) => *last += bytes,
            None => lengths.push(bytes),
        }
    }
    // A block that claims more than there is lies beyond the end, where seeking does not fail.
    match at == total {
        true => Ok(lengths),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The length of the frame that begins here; the reader is behind it afterwards.
fn frame(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let [a, b, c, d, descriptor] = array(file)?;
    if [a, b, c, d] != Form::ZSTD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let single_segment = descriptor & 0x20 != 0;
    let window = u64::from(!single_segment);
    let dictionary = match descriptor & 3 {
        3 => 4,
        other => u64::from(other),
    };
    let content_size = match descriptor >> 6 {
        0 => u64::from(single_segment),
        flag => 1 << flag,
    };
    let rest = window + dictionary + content_size;
    skip(file, rest)?;
    let mut bytes = 5 + rest;
    loop {
        let [low, middle, high] = array(file)?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let content = match (header >> 1) & 3 {
            // One byte, to be repeated.
            1 => 1,
            3 => return Err(io::ErrorKind::InvalidData.into()),
            _ => u64::from(header >> 3),
        };
        skip(file, content)?;
        bytes += 3 + content;
        if header & 1 == 1 {
            break;
        }
    }
    let checksum = if descriptor & 4 == 0 { 0 } else { 4 };
    skip(file, checksum)?;
    Ok(bytes + checksum)
}

fn array<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(file: &mut impl Seek, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    file.seek_relative(bytes)
}
