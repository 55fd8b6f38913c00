//! A guest's standard output and error: whole lines go to the log up to a cap,
//! and the last bytes are kept to explain a trap.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Bytes of the end that are kept: a panic message and some lines before it.
const TAIL: usize = 2048;
/// The longest line that is logged as one.
const LINE: usize = 4096;
/// Bytes that a guest may write at once.
const WRITE: usize = 64 << 10;

/// One stream of one instance. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    log: Arc<Mutex<Log>>,
}

struct Log {
    request: Arc<str>,
    stream: &'static str,
    /// Bytes that may still be logged.
    left: usize,
    line: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Output {
    /// `stream` is `stdout` or `stderr`; at most `cap` bytes are logged.
    pub(crate) fn new(request: Arc<str>, stream: &'static str, cap: usize) -> Self {
        let (line, tail) = (Vec::new(), VecDeque::new());
        Self {
            log: Arc::new(Mutex::new(Log {
                request,
                stream,
                left: cap,
                line,
                tail,
            })),
        }
    }

    /// Ends what was written for one request; what comes now is for another.
    pub(crate) fn renew(&self, request: Arc<str>, cap: usize) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.line.is_empty() {
            log.flush();
        }
        log.tail.clear();
        log.request = request;
        log.left = cap;
    }

    /// The id of what it is written for.
    pub(crate) fn request(&self) -> Arc<str> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.request.clone()
    }

    /// The last bytes written, as text, from the start of a line where possible.
    pub(crate) fn tail(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = log.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once('\n') {
            Some((_, rest)) if bytes.len() == TAIL && !rest.is_empty() => rest.to_owned(),
            _ => text.into_owned(),
        }
    }

    /// Adds a line of the host's own, which begins where a line does.
    pub(crate) fn note(&self, text: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = log.tail.back().is_none_or(|&last| last == b'\n');
        let line = format!("{}{text}\n", if begins { "" } else { "\n" });
        log.push(line.as_bytes());
    }

    fn push(&self, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(bytes);
    }
}

impl Log {
    fn push(&mut self, bytes: &[u8]) {
        let recent = bytes.len().min(TAIL);
        let excess = (self.tail.len() + recent).saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.tail.extend(bytes.iter().skip(bytes.len() - recent));

        if self.left == 0 {
            return;
        }
        let logged = bytes.iter().take(self.left);
        self.left -= logged.len();
        for &byte in logged {
            if byte == b'\n' || self.line.len() >= LINE {
                self.flush();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        if self.left == 0 {
            self.flush();
            let (request, stream) = (&*self.request, self.stream);
            tracing::warn!(target: "firebox::guest", request, stream, "output beyond the cap is dropped");
        }
    }

    fn flush(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        tracing::info!(target: "firebox::guest", request = &*self.request, stream = self.stream, "{text}");
        self.line.clear();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.flush();
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_survives_a_flood_and_starts_at_a_line() {
        let output = Output::new("1".into(), "stderr", 100);
        for _ in 0..10_000 {
            output.push(b"noise and more noise\n");
        }
        output.push(b"panicked at the end\n");
        let tail = output.tail();
        assert!(tail.ends_with("panicked at the end\n"));
        assert!(tail.starts_with("noise and"));
        assert!(tail.len() <= TAIL);
    }

    #[test]
    fn a_note_of_the_hosts_is_a_line_of_its_own() {
        let output = Output::new("1".into(), "stderr", 100);
        output.push(b"half a line");
        output.note("first");
        output.note("second");
        assert_eq!(output.tail(), "half a line\nfirst\nsecond\n");
    }
}
