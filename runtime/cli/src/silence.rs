//! How long the other side may be silent.
//!
//! reqwest's read timeout begins with a request and takes no notice of what is sent of its body, so it
//! would end every upload that lasts longer. Here each piece that is sent counts as a sign of life.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// When something was last sent.
#[derive(Clone, Debug)]
pub struct Pulse(watch::Sender<Instant>);

impl Pulse {
    /// One that begins now.
    pub fn start() -> Pulse {
        Pulse(watch::Sender::new(Instant::now()))
    }

    /// Something is sent: the silence begins anew.
    pub fn beat(&self) {
        self.0.send_replace(Instant::now());
    }

    fn last(&self) -> Instant {
        *self.0.borrow()
    }
}

/// Does `work`; none where `limit` has passed since the last beat and it is not done.
pub async fn within<T>(limit: Duration, pulse: &Pulse, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let seen = pulse.last();
        match timeout_at(seen + limit, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if pulse.last() > seen => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn an_upload_may_last_for_as_long_as_it_moves() {
        let pulse = Pulse::start();
        let beating = pulse.clone();
        let upload = async move {
            for _ in 0..20 {
                sleep(LIMIT / 10).await;
                beating.beat();
            }
            "done"
        };
        assert_eq!(within(LIMIT, &pulse, upload).await, Some("done"));
    }

    #[tokio::test]
    async fn silence_after_the_last_piece_has_an_end() {
        let pulse = Pulse::start();
        let beating = pulse.clone();
        let began = Instant::now();
        let upload = async move {
            sleep(LIMIT / 2).await;
            beating.beat();
            std::future::pending::<()>().await;
        };
        assert_eq!(within(LIMIT, &pulse, upload).await, None);
        assert!(began.elapsed() >= LIMIT + LIMIT / 2);
    }
}
