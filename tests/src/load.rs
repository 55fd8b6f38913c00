//! Steady load on a function, and who answered each request when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::Server;

/// Callers that send in turns; each waits for its answer before it sends again.
const CALLERS: u32 = 32;

/// Requests at a steady rate, each with a number of its own, from 0 on.
pub struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<Sample>>>,
}

/// One request of a load.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Its number.
    pub number: u32,
    /// When it was sent.
    pub sent: Instant,
    /// When its answer was whole.
    pub done: Instant,
    /// The answer's status; 0 where none came.
    pub status: u16,
    /// The version that answered; 0 where none is told.
    pub version: u32,
}

impl Sample {
    /// How long the answer took.
    pub fn latency(&self) -> Duration {
        self.done - self.sent
    }
}

impl Load {
    /// Starts to send `rate` requests a second to `path`, the bodies made of their numbers. Where
    /// the server can't keep up, the rate falls.
    pub fn start(server: &Server, path: &str, rate: u32, body: fn(u32) -> String) -> Load {
        let (stop, numbers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let client = Client::builder().no_proxy();
        let client = client
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client can be made");
        let url = format!("{}{path}", server.url());
        let pause = Duration::from_secs(1) * CALLERS / rate;
        let caller = |n: u32| {
            let (stop, numbers, client, url) =
                (stop.clone(), numbers.clone(), client.clone(), url.clone());
            tokio::spawn(async move {
                let first = tokio::time::Instant::now() + pause * n / CALLERS;
                let mut turns = tokio::time::interval_at(first, pause);
                turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut samples = Vec::new();
                while !stop.load(Relaxed) {
                    turns.tick().await;
                    let number = numbers.fetch_add(1, Relaxed);
                    samples.push(call(&client, &url, number, body(number)).await);
                }
                samples
            })
        };
        Load {
            callers: (0..CALLERS).map(caller).collect(),
            stop,
        }
    }

    /// Ends the load; all requests, in the order in which they were sent.
    pub async fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Relaxed);
        let mut samples = Vec::new();
        for caller in self.callers {
            samples.extend(caller.await.expect("a caller ends well"));
        }
        samples.sort_by_key(|sample| sample.sent);
        samples
    }
}

async fn call(client: &Client, url: &str, number: u32, body: String) -> Sample {
    let sent = Instant::now();
    let answer = client.post(url).body(body).send().await;
    let (mut status, mut version) = (0, 0);
    if let Ok(answer) = answer {
        let header = answer.headers().get("x-firebox-version");
        let number = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let head = answer.status().as_u16();
        if answer.bytes().await.is_ok() {
            (status, version) = (head, number.unwrap_or(0));
        }
    }
    Sample {
        number,
        sent,
        done: Instant::now(),
        status,
        version,
    }
}

/// The latency that the share `quantile` of the samples keeps within.
pub fn latency(samples: &[Sample], quantile: f64) -> Duration {
    let mut latencies: Vec<_> = samples.iter().map(Sample::latency).collect();
    latencies.sort_unstable();
    let place = (latencies.len() as f64 * quantile) as usize;
    latencies[place.min(latencies.len() - 1)]
}
