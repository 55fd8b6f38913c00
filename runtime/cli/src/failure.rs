//! How a command fails: one line that says what, one that says what to do, and an exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What the exit codes mean; shown below `firebox --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  it failed: a file, a compiler, a server that would not start
  2  the command line is wrong
  3  no server answers at the address
  4  the server refused; its reason is shown
  130, 143  it was ended by Ctrl-C, or by SIGTERM";

/// The exit codes other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something on this side went wrong.
    Failed = 1,
    /// The command line asks for something that makes no sense.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
    /// A server answered with an error.
    Refused = 4,
    /// SIGINT ended it, as shells count.
    Interrupted = 130,
    /// SIGTERM ended it.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command failed. Its text is `error: …` and, where there is one, a line `hint: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// What a command returns.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with exit code 1.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Failed,
            what: what.into(),
            hint: None,
        }
    }

    /// A wrong command line.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new(what).with_exit(Exit::Usage)
    }

    /// The same with another exit code.
    pub fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// The same with a hint.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", one_line(&self.what))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", one_line(hint)),
            None => Ok(()),
        }
    }
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ")
}

/// Turns any error into a [`Failure`] by saying what was being done.
pub trait Context<T> {
    /// `what: the error: its cause: …`
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{}: {}", what(), causes(&error))))
    }
}

/// An error's text and those of its causes, each told once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let failure = Failure::new("this\n  and that").hint("do so");
        assert_eq!(failure.to_string(), "error: this and that\nhint: do so");
        assert_eq!(Failure::new("this").to_string(), "error: this");
    }

    #[test]
    fn an_error_is_told_with_what_was_being_done() {
        let number = "x".parse::<u8>().context(|| "the number".into());
        let failure = number.unwrap_err();
        assert_eq!(failure.what, "the number: invalid digit found in string");
        assert_eq!(failure.exit, Exit::Failed);
    }
}
