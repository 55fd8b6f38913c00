//! The items of a job in one file, each as it came, one after the other:
//!
//! ```text
//! line (u64) · length (u16), name · length (u16), media type · { length (u32), bytes }… · 0 (u32)
//! ```
//! Numbers are little-endian. A body is in pieces, so that it can be written as it arrives, whatever
//! its length.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use tokio::io::{AsyncWriteExt, BufWriter};

use crate::problem::Failure;

/// The file's name in a job's folder.
pub const FILE: &str = "items";

/// The longest name and media type that are kept.
const MAX_TEXT: usize = 1024;

/// Bytes that are read and written at once.
const BUFFER: usize = 1 << 18;

/// What goes with a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The line that it was on, from 1; 0 where it came as a file.
    pub line: u64,
    /// The file's name; empty where there is none.
    pub name: String,
    /// Its media type; empty where none is said.
    pub media_type: String,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Counts the items of a job, from 1.
    pub number: u64,
    /// What goes with the body.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

/// What a job may hold.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Items.
    pub items: u64,
    /// Bytes of one body.
    pub body: usize,
}

/// Writes items as they arrive.
pub struct Writer {
    out: BufWriter<tokio::fs::File>,
    caps: Caps,
    items: u64,
    bytes: u64,
    /// Of the item that is being written.
    body: usize,
    /// What that is, for refusals.
    what: String,
}

impl Writer {
    /// Makes the file in `folder`.
    pub async fn create(folder: &Path, caps: Caps) -> Result<Self, Failure> {
        let file = tokio::fs::File::create(folder.join(FILE)).await?;
        Ok(Self {
            out: BufWriter::with_capacity(BUFFER, file),
            caps,
            items: 0,
            bytes: 0,
            body: 0,
            what: String::new(),
        })
    }

    /// Begins an item.
    pub async fn begin(&mut self, head: &Head) -> Result<(), Failure> {
        if self.items >= self.caps.items {
            return Err(Failure::Refused {
                what: "the job".into(),
                reason: format!("it has more than {} items", self.caps.items),
                hint: Some("Send the items in several jobs."),
            });
        }
        self.items += 1;
        self.body = 0;
        self.what.clear();
        match head.line {
            0 => self.what.push_str(&head.name),
            line => self.what = format!("line {line}"),
        }
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(head.line.to_le_bytes());
        for text in [&head.name, &head.media_type] {
            let text = beginning(text);
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        self.write(&bytes).await
    }

    /// Adds to its body.
    pub async fn piece(&mut self, piece: &[u8]) -> Result<(), Failure> {
        if piece.is_empty() {
            return Ok(());
        }
        self.body += piece.len();
        if self.body > self.caps.body {
            return Err(Failure::Refused {
                what: std::mem::take(&mut self.what),
                reason: format!(
                    "it is larger than {} bytes, the limit for one item",
                    self.caps.body
                ),
                hint: Some("Send less in one item, or raise the server's limit of a body."),
            });
        }
        let length = u32::try_from(piece.len())
            .map_err(|_| Failure::Internal("a piece of 4 GiB or more".into()))?;
        self.write(&length.to_le_bytes()).await?;
        self.write(piece).await
    }

    /// Ends it.
    pub async fn end(&mut self) -> Result<(), Failure> {
        self.write(&0_u32.to_le_bytes()).await
    }

    /// Ends the file; gives the number of items and the file's size.
    pub async fn finish(mut self) -> Result<(u64, u64), Failure> {
        self.out.flush().await?;
        Ok((self.items, self.bytes))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        Ok(self.out.write_all(bytes).await?)
    }
}

/// As much of a text as is kept.
fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or(text)
}

/// Reads items in their order. Blocking.
pub struct Reader {
    input: BufReader<File>,
    read: u64,
    items: u64,
}

impl Reader {
    /// Opens the file in `folder`, which has so many items.
    pub fn open(folder: &Path, items: u64) -> io::Result<Self> {
        let file = File::open(folder.join(FILE))?;
        Ok(Self {
            input: BufReader::with_capacity(BUFFER, file),
            read: 0,
            items,
        })
    }

    /// The next item of those that are not `done`.
    pub fn next(&mut self, done: impl Fn(u64) -> bool) -> io::Result<Option<Item>> {
        while self.read < self.items {
            self.read += 1;
            let line = u64::from_le_bytes(self.bytes()?);
            let (name, media_type) = (self.text()?, self.text()?);
            let skip = done(self.read);
            let mut body = Vec::new();
            loop {
                let length = u32::from_le_bytes(self.bytes()?);
                match length {
                    0 => break,
                    length if skip => self.input.seek_relative(length.into())?,
                    length => {
                        let piece = u64::from(length);
                        let read = (&mut self.input).take(piece).read_to_end(&mut body)?;
                        if read as u64 != piece {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
            }
            if !skip {
                let head = Head {
                    line,
                    name,
                    media_type,
                };
                let number = self.read;
                return Ok(Some(Item { number, head, body }));
            }
        }
        Ok(None)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self) -> io::Result<String> {
        let length = u16::from_le_bytes(self.bytes()?);
        let mut bytes = vec![0; length.into()];
        self.input.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { items: 3, body: 8 };

    fn head(line: u64, name: &str, media_type: &str) -> Head {
        let (name, media_type) = (name.to_owned(), media_type.to_owned());
        Head {
            line,
            name,
            media_type,
        }
    }

    #[tokio::test]
    async fn items_are_read_as_they_were_written_without_those_that_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path(), CAPS).await.unwrap();
        let heads = [
            head(1, "", ""),
            head(3, "", ""),
            head(0, "ä.png", "image/png"),
        ];
        for (head, pieces) in heads.iter().zip([vec!["ab", "cd"], vec![], vec!["e"]]) {
            writer.begin(head).await.unwrap();
            for piece in pieces {
                writer.piece(piece.as_bytes()).await.unwrap();
            }
            writer.end().await.unwrap();
        }
        let (items, bytes) = writer.finish().await.unwrap();
        assert_eq!(items, 3);
        let file = folder.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);

        let mut reader = Reader::open(folder.path(), items).unwrap();
        let first = reader.next(|_| false).unwrap().unwrap();
        assert_eq!((first.number, first.body.as_slice()), (1, &b"abcd"[..]));
        let last = reader.next(|number| number == 2).unwrap().unwrap();
        assert_eq!((last.number, &last.head), (3, &heads[2]));
        assert_eq!(reader.next(|_| false).unwrap(), None);

        std::fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_len(bytes - 2))
            .unwrap();
        let mut reader = Reader::open(folder.path(), items).unwrap();
        assert!(reader.next(|number| number < 3).is_err(), "it is cut");
    }

    #[tokio::test]
    async fn caps_name_what_is_over_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path(), CAPS).await.unwrap();
        for line in 1..=3 {
            writer.begin(&head(line, "", "")).await.unwrap();
            writer.end().await.unwrap();
        }
        let refusal = writer.begin(&head(4, "", "")).await.unwrap_err();
        assert_eq!(refusal.to_string(), "the job: it has more than 3 items");
        let refusal = writer.piece(b"123456789").await.unwrap_err();
        assert!(
            refusal
                .to_string()
                .starts_with("line 3: it is larger than 8")
        );
    }
}
