//! A command's standard output: kept up to a limit, as the answer's tensor wants it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes before the content: the length that an element of a `bytes` tensor begins with.
const PREFIX: usize = size_of::<u32>();

/// Bytes that can be written at once.
const WRITE: usize = 64 << 10;

/// What was written so far. Clones write to the same place.
#[derive(Clone)]
pub(super) struct Stdout(Arc<Mutex<Written>>);

struct Written {
    /// The content behind its length, which is filled in at the end.
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Stdout {
    /// At most `limit` bytes, and never more than a length of 32 bits can say.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Written {
            bytes: vec![0; PREFIX],
            limit: limit.min(u32::MAX as usize),
            is_over: false,
        })))
    }

    /// Whether more was written than the limit.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// All of it, as the data of a `bytes` tensor of one element.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.lock().bytes);
        let length = bytes.len().saturating_sub(PREFIX) as u32;
        for (place, byte) in bytes.iter_mut().zip(length.to_le_bytes()) {
            *place = byte;
        }
        bytes
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where it is too much.
    fn push(&self, more: &[u8]) -> bool {
        let mut written = self.lock();
        let content = written.bytes.len().saturating_sub(PREFIX);
        if written.is_over || more.len() > written.limit.saturating_sub(content) {
            written.is_over = true;
            return false;
        }
        written.bytes.extend_from_slice(more);
        true
    }
}

fn too_much() -> wasmtime::Error {
    wasmtime::Error::msg("standard output is full")
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stdout {
    /// A guest that has written too much is stopped: it would go on for nothing.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.push(&bytes) {
            true => Ok(()),
            false => Err(StreamError::Trap(too_much())),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Stdout {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(match self.push(bytes) {
            true => Ok(bytes.len()),
            false => Err(std::io::Error::other(too_much().to_string())),
        })
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
    use firebox_engine::{DType, Tensor};

    use super::*;

    #[test]
    fn what_was_written_is_one_element_of_a_tensor() {
        let stdout = Stdout::new(10);
        assert!(stdout.push(b"hello ") && stdout.push(b"you!"));
        let tensor = Tensor::new(DType::Bytes, vec![1], stdout.take()).unwrap();
        assert_eq!(tensor, Tensor::from_blob(b"hello you!").unwrap());
    }

    #[test]
    fn one_byte_more_than_the_limit_is_refused_and_remembered() {
        let stdout = Stdout::new(10);
        assert!(stdout.push(&[0; 10]) && !stdout.is_over());
        assert!(!stdout.push(&[0]) && stdout.is_over());
    }
}
