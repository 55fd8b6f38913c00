//! The results of a job in one file: a line of JSON for each item, in the order in which they were
//! completed.
//!
//! The file itself says which items are done: a line is whole or it is cut off when the file is
//! opened again, and an item that has a line is never asked again. So whatever a crash leaves of the
//! file, each item ends with one line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use firebox_registry::JobProgress;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The file's name in a job's folder.
pub const FILE: &str = "results.ndjson";

/// Bytes that are read and written at once.
const BUFFER: usize = 1 << 18;

/// Results can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was on the disk for sure is there no longer.
    #[error("the file of results is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: u64,
    },
}

/// What every line says.
#[derive(Deserialize)]
struct Line {
    item: u64,
    error: Option<IgnoredAny>,
}

/// Whether a line tells of a failure; none where it is no line of results.
pub fn is_failure(line: &[u8]) -> Option<bool> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(line.error.is_some())
}

/// The results of a job that runs. Blocking.
pub struct Results {
    out: BufWriter<File>,
    bytes: u64,
    done: Vec<u64>,
    succeeded: u64,
    failed: u64,
}

impl Results {
    /// Opens the results in `folder` of a job with so many `items`, or begins them. Of what lies
    /// beyond the `synced` bytes that are on the disk for sure, whole lines are kept.
    ///
    /// # Errors
    /// [`ResultsError::Damaged`] where something is amiss before that.
    pub fn open(folder: &Path, items: u64, synced: u64) -> Result<Self, ResultsError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join(FILE))?;
        File::open(folder)?.sync_all()?;
        let words = usize::try_from(items / 64 + 1).unwrap_or(usize::MAX);
        let mut results = Self {
            out: BufWriter::with_capacity(BUFFER, file.try_clone()?),
            bytes: 0,
            done: vec![0; words],
            succeeded: 0,
            failed: 0,
        };
        let mut input = BufReader::with_capacity(BUFFER, &file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.read_until(b'\n', &mut line)?;
            if read == 0 || !results.take(&line, items) {
                break;
            }
            results.bytes += read as u64;
        }
        if results.bytes < synced {
            return Err(ResultsError::Damaged { at: results.bytes });
        }
        file.set_len(results.bytes)?;
        results.out.seek(SeekFrom::Start(results.bytes))?;
        Ok(results)
    }

    /// Notes a line that is in the file; false where it is none, or not whole.
    fn take(&mut self, line: &[u8], items: u64) -> bool {
        let Some(text) = line.strip_suffix(b"\n") else {
            return false;
        };
        let Ok(Line { item, error }) = serde_json::from_slice(text) else {
            return false;
        };
        let known = (1..=items).contains(&item) && !self.is_done(item);
        if known {
            self.note(item, error.is_none());
        }
        known
    }

    fn note(&mut self, item: u64, succeeded: bool) {
        let word = usize::try_from(item / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.done.get_mut(word) {
            *word |= 1 << (item % 64);
        }
        match succeeded {
            true => self.succeeded += 1,
            false => self.failed += 1,
        }
    }

    /// Whether an item has a result.
    pub fn is_done(&self, item: u64) -> bool {
        let word = usize::try_from(item / 64).unwrap_or(usize::MAX);
        let word = self.done.get(word).copied().unwrap_or(0);
        word & 1 << (item % 64) != 0
    }

    /// Adds the result of an item: a line with its line feed.
    pub fn push(&mut self, item: u64, succeeded: bool, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line)?;
        self.bytes += line.len() as u64;
        self.note(item, succeeded);
        Ok(())
    }

    /// Puts all lines on the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_data()
    }

    /// How far the job is, after so many milliseconds.
    pub fn progress(&self, spent_ms: u64) -> JobProgress {
        JobProgress {
            succeeded: self.succeeded,
            failed: self.failed,
            results_bytes: self.bytes,
            spent_ms,
        }
    }
}

/// Takes the failures out of the results in `folder`. It is done whole or not at all, and can be
/// done again. Blocking.
pub fn drop_failures(folder: &Path) -> io::Result<()> {
    let file = match File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut input = BufReader::with_capacity(BUFFER, file);
    let part: PathBuf = folder.join("results.part");
    let mut out = BufWriter::with_capacity(BUFFER, File::create(&part)?);
    let mut line = Vec::new();
    // A line that can't be read was cut by a crash; it is the last.
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\n") && is_failure(&line) == Some(false) {
            out.write_all(&line)?;
        }
        line.clear();
    }
    out.flush()?;
    out.get_ref().sync_all()?;
    fs::rename(&part, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

/// The results in `folder` as they are now, and how many bytes of whole lines they are. None where
/// there are none yet. Blocking.
pub fn read(folder: &Path) -> io::Result<Option<(File, u64)>> {
    let mut file = match File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    // The last line may be on its way: what counts ends with the last line feed.
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(0);
        let block = block.get_mut(..length).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Some((file, end)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(item: u64, fails: bool) -> Vec<u8> {
        let rest = if fails {
            "\"error\":{}"
        } else {
            "\"output\":[1]"
        };
        format!("{{\"item\":{item},{rest}}}\n").into_bytes()
    }

    fn written(folder: &Path) -> String {
        fs::read_to_string(folder.join(FILE)).unwrap()
    }

    #[test]
    fn an_item_is_done_when_its_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut results = Results::open(folder.path(), 70, 0).unwrap();
        for item in [3, 70, 64] {
            results
                .push(item, item != 70, &line(item, item == 70))
                .unwrap();
        }
        results.sync().unwrap();
        let synced = results.progress(0).results_bytes;
        results.push(5, true, &line(5, false)).unwrap();
        drop(results);
        let torn = format!("{}{{\"item\":6,\"out", written(folder.path()));
        fs::write(folder.path().join(FILE), torn).unwrap();

        let results = Results::open(folder.path(), 70, synced).unwrap();
        let done: Vec<u64> = (1..=70).filter(|item| results.is_done(*item)).collect();
        assert_eq!(done, [3, 5, 64, 70]);
        let progress = results.progress(7);
        assert_eq!(
            (progress.succeeded, progress.failed, progress.spent_ms),
            (3, 1, 7)
        );
        assert!(written(folder.path()).ends_with("{\"item\":5,\"output\":[1]}\n"));
    }

    #[test]
    fn damage_before_what_is_on_the_disk_for_sure_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(FILE),
            "{\"item\":1}\n\0\0\0\n{\"item\":2}\n",
        )
        .unwrap();
        let damaged = Results::open(folder.path(), 2, 20);
        assert!(matches!(damaged, Err(ResultsError::Damaged { at: 11 })));
        // Beyond it, it is what a crash leaves.
        let results = Results::open(folder.path(), 2, 11).unwrap();
        assert!(results.is_done(1) && !results.is_done(2));
    }

    #[test]
    fn failures_can_be_taken_out_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        drop_failures(folder.path()).unwrap();
        let mut results = Results::open(folder.path(), 9, 0).unwrap();
        for item in 1..=9 {
            results
                .push(item, item % 3 > 0, &line(item, item % 3 == 0))
                .unwrap();
        }
        drop(results);
        for _ in 0..2 {
            drop_failures(folder.path()).unwrap();
            let results = Results::open(folder.path(), 9, 0).unwrap();
            let left: Vec<u64> = (1..=9).filter(|item| !results.is_done(*item)).collect();
            assert_eq!(left, [3, 6, 9]);
        }
    }

    #[test]
    fn what_is_read_ends_with_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        for (text, whole) in [
            (String::new(), 0),
            ("x".repeat(9000), 0),
            (format!("a\n{}", "x".repeat(9000)), 2),
            ("a\nb\n".to_owned(), 4),
        ] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(read(folder.path()).unwrap().unwrap().1, whole);
        }
    }

    proptest! {
        /// Wherever the file is cut, each item ends with exactly one line.
        #[test]
        fn each_item_ends_with_one_line(items in 1..40_u64, cuts in prop::collection::vec(0.0..1.0, 0..6)) {
            let folder = tempfile::tempdir().unwrap();
            for cut in cuts {
                let mut results = Results::open(folder.path(), items, 0).unwrap();
                for item in 1..=items {
                    if !results.is_done(item) {
                        results.push(item, true, &line(item, false)).unwrap();
                    }
                }
                drop(results);
                let length = written(folder.path()).len() as f64;
                let file = File::options().write(true).open(folder.path().join(FILE)).unwrap();
                file.set_len((length * cut) as u64).unwrap();
            }
            let mut results = Results::open(folder.path(), items, 0).unwrap();
            for item in 1..=items {
                if !results.is_done(item) {
                    results.push(item, true, &line(item, false)).unwrap();
                }
            }
            drop(results);
            let text = written(folder.path());
            let mut found: Vec<u64> = text
                .lines()
                .map(|line| serde_json::from_str::<Line>(line).unwrap().item)
                .collect();
            found.sort_unstable();
            prop_assert_eq!(found, (1..=items).collect::<Vec<_>>());
        }
    }
}
