//! Checksums, which notice damage many times quicker than a digest. They name nothing and keep
//! nobody out: whoever can write to the data directory can write the records too.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::Digest;
use crate::digest::AT_ONCE;

/// The XXH3 of some bytes, of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum(u64);

impl Checksum {
    /// Of what a file holds.
    pub(crate) fn of_file(path: &Path) -> io::Result<Checksum> {
        let mut file = BufReader::with_capacity(AT_ONCE, File::open(path)?);
        let mut summing = Xxh3Default::new();
        io::copy(&mut file, &mut summing)?;
        Ok(Checksum(summing.digest()))
    }

    /// The same beside the digest and the size of the file, which is read once for all of them.
    pub(crate) fn beside_digest(path: &Path) -> io::Result<(Checksum, (Digest, u64))> {
        let mut summing = Xxh3Default::new();
        let digest = Digest::of_file_into(path, &mut summing)?;
        Ok((Checksum(summing.digest()), digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_xxh3() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // As the reference implementation has them: of nothing, and of more than is read at once.
        let known = [
            (vec![], 0x2d06_8005_38d3_94c2),
            (vec![7; AT_ONCE + 1], 0xab4c_00b7_266d_df7e),
        ];
        for (content, expected) in known {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(Checksum::of_file(&path).unwrap(), Checksum(expected));
            let digest = (Digest::of(&content), content.len() as u64);
            let both = Checksum::beside_digest(&path).unwrap();
            assert_eq!(both, (Checksum(expected), digest));
        }
    }
}
