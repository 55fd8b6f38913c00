//! Many models under a small budget of memory: callers ask for them in random order, and whatever
//! they ask for has to be brought in and something else to go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{Bundle, Server, onnx};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Functions of one model each.
    pub models: usize,
    /// The smallest model in bytes.
    pub smallest: usize,
    /// The largest; sizes between are spread evenly by their logarithms.
    pub largest: usize,
    /// Callers that ask without a pause.
    pub callers: usize,
    /// How long.
    pub lasts: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Bytes of all models together.
    pub model_bytes: usize,
    /// Right answers.
    pub answers: usize,
    /// All others, a few of them with what was said.
    pub failures: Vec<String>,
    /// The longest time to an answer.
    pub slowest: Duration,
    /// Resident bytes of the server before the first call, and the most during the calls.
    pub resident: (u64, u64),
}

impl Pressure {
    /// Deploys the functions and calls them.
    pub async fn run(self, server: Arc<Server>) -> Report {
        let mut report = Report::default();
        let mut chance = Chance(42);
        for at in 0..self.models {
            let (least, most) = (self.smallest as f64, self.largest as f64);
            let bytes = least * (most / least).powf(chance.share());
            let pattern: Vec<f32> = (0..1000).map(|n| (at * 7 + n) as f32).collect();
            let times = (bytes / 4000.0) as usize;
            report.model_bytes += times * 4000;
            let tar = Bundle::of_model(onnx::lookup(&pattern, times)).tar(&name(at));
            let bundle = zstd::encode_all(tar.as_slice(), 1).expect("memory can be compressed");
            server.upload(&name(at), bundle).await.expect(201);
        }
        report.resident = (server.resident_bytes(), 0);
        let began = Instant::now();
        let callers: Vec<_> = (0..self.callers)
            .map(|caller| tokio::spawn(self.call(server.clone(), began, Chance(caller as u64))))
            .collect();
        while began.elapsed() < self.lasts {
            report.resident.1 = report.resident.1.max(server.resident_bytes());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for caller in callers {
            let found = caller.await.expect("a caller ends well");
            report.answers += found.answers;
            report.slowest = report.slowest.max(found.slowest);
            report.failures.extend(found.failures);
        }
        report
    }

    async fn call(self, server: Arc<Server>, began: Instant, mut chance: Chance) -> Report {
        let mut report = Report::default();
        while began.elapsed() < self.lasts {
            let at = (chance.share() * self.models as f64) as usize % self.models;
            let asked = Instant::now();
            let answer = server.invoke(&name(at), r#"{"x": [3]}"#).await;
            report.slowest = report.slowest.max(asked.elapsed());
            match answer.status == 200 && answer.json() == json!({"y": [(at * 7 + 3) as f64]}) {
                true => report.answers += 1,
                false if report.failures.len() < 10 => report.failures.push(answer.text()),
                false => report.failures.push(String::new()),
            }
        }
        report
    }
}

fn name(at: usize) -> String {
    format!("model-{at}")
}

/// A sequence that looks random and is the same each time: SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}
