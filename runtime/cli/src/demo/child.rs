//! The demo's server: this same binary as a child process, which ends with the demo.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::{Context, Failure, Result};
use crate::serve::LISTENING;

/// Longer than any start on a slow, busy machine.
const START: Duration = Duration::from_secs(60);
/// Longer than an orderly stop takes.
const STOP: Duration = Duration::from_secs(40);

/// A running server. Dropping it kills it.
pub struct Server {
    process: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    /// Starts a server on a free loopback port, its data and its log below `folder`.
    pub async fn start(folder: &Path) -> Result<Server> {
        let log = folder.join("server.log");
        let what = || format!("{} can't be written", log.display());
        let messages = std::fs::File::create(&log).context(what)?;
        let binary = std::env::current_exe().context(|| "this binary can't be found".into())?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data").arg(folder.join("data"));
        command.args(["--listen", "127.0.0.1:0"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .kill_on_drop(true);
        let process = command
            .spawn()
            .context(|| "the server can't be started".into())?;
        let mut server = Server {
            process,
            url: String::new(),
            log,
        };
        match timeout(START, server.address()).await {
            Ok(Some(url)) => Ok(Server { url, ..server }),
            Ok(None) => Err(server.failed("the server ended at its start")),
            Err(_) => Err(server.failed("the server is not ready after a minute")),
        }
    }

    /// The address in the line that a server prints when it listens.
    async fn address(&mut self) -> Option<String> {
        let mut lines = BufReader::new(self.process.stdout.take()?).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(url) = line.strip_prefix(LISTENING) {
                return Some(url.trim().to_owned());
            }
        }
        None
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for an orderly stop and waits for it.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        let id = self
            .process
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let Some(id) = id {
            kill_process(id, Signal::TERM).context(|| "the server can't be signalled".into())?;
        }
        match timeout(STOP, self.process.wait()).await {
            Ok(status) => status.context(|| "the server can't be waited for".into()),
            Err(_) => Err(self.failed("the server does not stop")),
        }
    }

    fn failed(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log
            .lines()
            .rev()
            .find(|line| line.starts_with("error:"))
            .or(log.lines().last());
        match last {
            Some(last) => Failure::new(format!("{what}; its last words: {last}")),
            None => Failure::new(what),
        }
    }
}
