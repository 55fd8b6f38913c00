//! How far something is, shown to whoever watches.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many bytes, on standard error; hidden where that is no terminal.
pub fn bar(message: &str, bytes: u64) -> ProgressBar {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(bytes),
        false => ProgressBar::hidden(),
    };
    bar.set_style(style(
        "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}",
    ));
    bar.set_message(message.to_owned());
    bar
}

/// Makes of a bar a sign that work of unknown length goes on.
pub fn spin(bar: &ProgressBar, message: &'static str) {
    bar.set_style(style("{spinner} {msg} ({elapsed})"));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
}

/// A template of our own that did not parse would show as the plain default.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
