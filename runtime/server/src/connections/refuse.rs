//! What a connection that is one too many is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How many are told at once; beyond that, connections are closed without a word.
const AT_ONCE: usize = 64;

/// The longest that one is told. An answer before the question would be no HTTP, and closing right
/// after it would reset the connection: a caller that is still sending would never see why.
const LINGER: Duration = Duration::from_secs(1);

/// Tells connections that there are too many.
pub struct Refuser {
    room: Arc<Semaphore>,
    answer: Arc<str>,
}

impl Refuser {
    /// `most` connections are open at once.
    pub fn new(most: usize) -> Self {
        let problem = serde_json::json!({
            "type": "urn:firebox:problem:connections",
            "title": "Too many connections",
            "status": 503,
            "detail": format!("{most} connections are open already"),
            "hint": "Try again after the time in Retry-After, over fewer connections.",
        })
        .to_string();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
             retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{problem}",
            problem.len()
        );
        Self {
            room: Arc::new(Semaphore::new(AT_ONCE)),
            answer: answer.into(),
        }
    }

    /// Answers and closes, in the background.
    pub fn refuse(&self, mut stream: TcpStream) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return;
        };
        let answer = self.answer.clone();
        tokio::spawn(async move {
            let told = tokio::time::timeout(LINGER, async {
                let mut asked = [0; 4096];
                if stream.read(&mut asked).await? > 0 {
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await?;
                    while stream.read(&mut asked).await? > 0 {}
                }
                Ok::<_, std::io::Error>(())
            });
            // Whoever doesn't listen misses it.
            let _ = told.await;
            drop(permit);
        });
    }
}
