//! What a rollout costs: noting a call, which every request pays while one is under way, and
//! judging it, which the server does four times a second.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use firebox_benches::{Series, Spread, in_turns};
use firebox_server::rollout::guard::{DEFAULT, Guard};
use firebox_server::rollout::verdict::Compared;
use firebox_server::rollout::window::{Outcome, Window};

const ROUNDS: usize = 9;
/// One measurement is of so many calls: a clock is too coarse for one.
const CALLS: u32 = 20_000;
/// Of the two versions, one by one.
const TARGET_NS: f64 = 1000.0;

fn main() -> ExitCode {
    let length = Duration::from_secs(60);
    let windows = [(); 2].map(|()| Window::new(Instant::now(), length));
    let note = |calls: u32| {
        for call in 0..calls {
            let latency = Duration::from_micros(u64::from(call) * 7 % 50_000);
            windows[call as usize % 2].record(Instant::now(), Outcome::Answered, latency);
        }
    };
    let guards = DEFAULT.map(|text| text.parse::<Guard>().unwrap());
    let judge = || {
        let now = Instant::now();
        let [canary, stable] = [&windows[0], &windows[1]].map(|window| window.read(now));
        let compared = Compared {
            canary: &canary,
            stable: &stable,
            min_sample: 100,
        };
        for guard in &guards {
            black_box(guard.judge(&compared));
        }
    };
    let [alone, together, judged] = in_turns(
        ROUNDS,
        [3, 3, 20],
        [
            &mut || note(CALLS),
            &mut || {
                std::thread::scope(|threads| {
                    threads.spawn(|| note(CALLS / 2));
                    note(CALLS / 2);
                });
            },
            &mut || judge(),
        ],
    );
    let spread = |rounds: &[Series], calls: f64| {
        let one = |series: &Series| series.p50().as_secs_f64() / calls;
        Spread::of(rounds.iter().map(one))
    };
    let calls = f64::from(CALLS);
    let alone = show("a call noted, one thread", "ns", 1e9, spread(&alone, calls));
    show(
        "a call noted, two threads",
        "ns",
        1e9,
        spread(&together, calls),
    );
    show("two guards judged", "us", 1e6, spread(&judged, 1.0));
    if alone > TARGET_NS {
        println!("noting a call takes more than {TARGET_NS} ns");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints a figure and gives its median, in this unit.
fn show(what: &str, unit: &str, scale: f64, spread: Spread) -> f64 {
    let (low, high) = spread.range;
    println!(
        "{what}: {:.0} {unit} ({:.0} to {:.0})",
        spread.median * scale,
        low * scale,
        high * scale
    );
    spread.median * scale
}
