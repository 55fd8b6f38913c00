//! 200 models of 1 to 90 MB under a budget of 512 MB, called in random order for ten minutes, or for
//! as many seconds as the first argument says. Fails where a call fails, or the server takes more
//! than the budget and a constant. Takes 4 GB of disk.

#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use firebox_tests::Server;
use firebox_tests::pressure::Pressure;

const MB: usize = 1_000_000;
const BUDGET: u64 = 512_000_000;
/// What a server takes beside its budget: itself, what is under way of uploads and loads, and freed
/// memory that is not given back yet.
const BESIDE: u64 = 150_000_000;

#[tokio::main]
async fn main() -> ExitCode {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let pressure = Pressure {
        models: 200,
        smallest: MB,
        largest: 90 * MB,
        callers: 8,
        lasts: Duration::from_secs(seconds.unwrap_or(600)),
    };
    let budget = format!("{BUDGET}B");
    let server = Server::start_with(&["--model-memory", &budget]).await;
    let server = Arc::new(server);
    let report = pressure.run(server.clone()).await;
    let metrics = server.get("/metrics").await.expect(200).text();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (before, most) = report.resident;
    println!("{pressure:?}");
    println!("  all models       {:.0} MB", mb(report.model_bytes as u64));
    println!("  answers          {}", report.answers);
    println!("  failures         {}", report.failures.len());
    println!("  the slowest      {:?}", report.slowest);
    println!(
        "  resident         {:.0} MB before, {:.0} MB at most",
        mb(before),
        mb(most)
    );
    println!("  target           {:.0} MB", mb(BUDGET + BESIDE));
    for line in metrics.lines() {
        if ["firebox_evictions_total", "firebox_model_loads_total"]
            .iter()
            .any(|name| line.starts_with(name))
        {
            println!("  {line}");
        }
    }
    for failure in report.failures.iter().take(10) {
        println!("  failed: {failure}");
    }
    match report.failures.is_empty() && most <= BUDGET + BESIDE {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
