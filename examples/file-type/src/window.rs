//! Which bytes of a file the network sees: the first ones after leading white
//! space and the last ones before trailing white space, as numbers, filled up
//! with a padding number where the file is shorter.

use serde::Deserialize;

/// How much is looked at; named as in magika's configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Sizes {
    /// Numbers from the beginning.
    pub beg_size: usize,
    /// Numbers from the end.
    pub end_size: usize,
    /// White space is stripped from no more than this many bytes on each side.
    pub block_size: usize,
    /// Stands where there is no byte.
    pub padding_token: i32,
    /// The network isn't asked about fewer bytes than this.
    pub min_file_size_for_dl: usize,
}

/// The numbers for the network; `None` where the file, or its beginning without
/// leading white space, has too few bytes for it.
pub fn of(file: &[u8], sizes: &Sizes) -> Option<Vec<i32>> {
    let first = &file[..file.len().min(sizes.block_size)];
    let last = &file[file.len().saturating_sub(sizes.block_size)..];
    let beginning = strip_start(first);
    if file.len() < sizes.min_file_size_for_dl || beginning.len() < sizes.min_file_size_for_dl {
        return None;
    }
    let end = strip_end(last);
    let beginning = &beginning[..beginning.len().min(sizes.beg_size)];
    let end = &end[end.len().saturating_sub(sizes.end_size)..];

    let padding = |count| std::iter::repeat_n(sizes.padding_token, count);
    let numbers = |bytes: &'_ [u8]| bytes.iter().map(|&byte| byte.into()).collect::<Vec<i32>>();
    let mut window = numbers(beginning);
    window.extend(padding(sizes.beg_size - beginning.len()));
    window.extend(padding(sizes.end_size - end.len()));
    window.extend(numbers(end));
    Some(window)
}

fn strip_start(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|&byte| !is_space(byte))
        .unwrap_or(bytes.len());
    &bytes[start..]
}

fn strip_end(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|&byte| !is_space(byte))
        .map_or(0, |last| last + 1);
    &bytes[..end]
}

/// ASCII white space with the vertical tab, which Rust's own leaves out.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: i32 = 256;

    fn window(file: &[u8]) -> Option<Vec<i32>> {
        let (beg_size, end_size, block_size) = (4, 3, 8);
        of(
            file,
            &Sizes {
                beg_size,
                end_size,
                block_size,
                padding_token: PAD,
                min_file_size_for_dl: 2,
            },
        )
    }

    #[test]
    fn a_long_file_is_seen_at_both_ends() {
        let file: Vec<u8> = (100..150).collect();
        assert_eq!(window(&file), Some(vec![100, 101, 102, 103, 147, 148, 149]));
    }

    #[test]
    fn a_short_file_is_padded_inwards() {
        assert_eq!(window(&[1, 2]), Some(vec![1, 2, PAD, PAD, PAD, 1, 2]));
    }

    #[test]
    fn white_space_around_is_not_seen() {
        // The trailing white space still follows the beginning.
        let expected = vec![97, 98, 0x0c, 0x0d, b' '.into(), 97, 98];
        assert_eq!(window(b"\x0b\t ab\x0c\r "), Some(expected));
    }

    #[test]
    fn white_space_is_stripped_within_one_block_only() {
        assert_eq!(window(b"         abc"), None);
        let mut file = b"abcdefgh".to_vec();
        file.extend([b' '; 8]);
        assert_eq!(window(&file).unwrap()[4..], [PAD, PAD, PAD]);
    }

    #[test]
    fn too_few_bytes_are_no_window() {
        assert_eq!(window(b""), None);
        assert_eq!(window(b"a"), None);
        assert_eq!(window(b"   a   "), Some(vec![97, 32, 32, 32, 32, 32, 97]));
        assert_eq!(window(b"      a"), None);
    }
}
