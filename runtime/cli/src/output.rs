//! How data is printed: tables for people, JSON for programs, numbers with their units.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Context, Result};

/// How a command's data is printed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Format {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Format {
    /// Prints a server's answer: as it came, or as `human` puts it.
    pub fn show<T: DeserializeOwned>(
        self,
        answer: Value,
        human: impl FnOnce(T) -> String,
    ) -> Result {
        if self.json {
            return print(&format!("{answer:#}"));
        }
        let known =
            T::deserialize(answer).context(|| "the server's answer is of another form".into())?;
        print(&human(known))
    }
}

/// Writes text to standard output, ended by a line feed.
pub fn print(text: &str) -> Result {
    write(text.trim_end_matches('\n').as_bytes(), true)
}

/// Writes bytes to standard output. A reader that has gone away, as `head` does, is no failure.
pub fn write(bytes: &[u8], line_feed: bool) -> Result {
    let mut out = io::stdout().lock();
    let mut written = out.write_all(bytes);
    if line_feed {
        written = written.and_then(|()| out.write_all(b"\n"));
    }
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(|| "standard output can't be written".into()),
    }
}

/// Rows below headings, in columns as wide as they need be.
pub fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.map(str::to_uppercase));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trimmed(&table.to_string())
}

/// Without the blanks at the ends of lines.
fn trimmed(text: &str) -> String {
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and values below one another.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    let lines = facts
        .iter()
        .map(|(name, value)| format!("  {name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Basis points as a percentage: `90%`, `33.33%`.
pub fn percent(basis_points: u32) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    match rest {
        0 => format!("{whole}%"),
        _ if rest % 10 == 0 => format!("{whole}.{}%", rest / 10),
        _ => format!("{whole}.{rest:02}%"),
    }
}

/// A number of bytes with its unit.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Milliseconds with three digits that matter.
pub fn milliseconds(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// The same of a duration.
pub fn duration(duration: Duration) -> String {
    milliseconds(duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_headings() {
        let rows = vec![["adder".into(), "1".into()], ["x".into(), "22".into()]];
        let text = table(["name", "versions"], rows);
        assert_eq!(text, "NAME   VERSIONS\nadder  1\nx      22");
    }

    #[test]
    fn basis_points_read_as_percentages() {
        let texts = [0, 5, 50, 3333, 9000, 10_000].map(percent);
        assert_eq!(texts, ["0%", "0.05%", "0.5%", "33.33%", "90%", "100%"]);
    }

    #[test]
    fn times_keep_the_digits_that_matter() {
        let texts = [0.1234, 12.34, 123.4, 12_345.0].map(milliseconds);
        assert_eq!(texts, ["0.12 ms", "12.3 ms", "123 ms", "12.3 s"]);
    }

    #[test]
    fn facts_are_aligned() {
        let text = facts(&[("digest", "a".into()), ("share", "b".into())]);
        assert_eq!(text, "  digest  a\n  share   b");
    }
}
