//! Who gets in when more is asked than can be done: what is admitted is answered in time, the lowest
//! tier is refused first, no function shuts another out, and refusals say when to come back.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebox_tests::load::{Sample, latency};
use firebox_tests::{Answer, Bundle, Server, guests};
use reqwest::Client;
use tokio::task::JoinSet;

/// The probe: `mode=sleep&ms=…` holds an instance for so long and costs no processor time, so that
/// what can be done depends on the number of instances alone, and not on the machine.
fn probe(tier: &str, limits: &str) -> Bundle {
    let component = guests::component_of(&guests::guest("probe"));
    Bundle::new()
        .with_lines(&format!("tier = \"{tier}\""))
        .with_component(component)
        .with_lines(&format!("[limits]\n{limits}\n"))
}

fn path(function: &str, ms: u32) -> String {
    format!("/v1/functions/{function}/invoke?mode=sleep&ms={ms}")
}

async fn sleep(server: &Server, function: &str, ms: u32) -> Answer {
    server
        .invoke_at(&path(function, ms), r#"{"x": [[1, 2]]}"#)
        .await
}

/// A caller that keeps its connections.
#[derive(Clone)]
struct Caller {
    client: Client,
    url: String,
    timeout_ms: u32,
}

impl Caller {
    fn new(server: &Server, path: &str, timeout_ms: u32) -> Caller {
        let client = Client::builder().no_proxy();
        let client = client.timeout(Duration::from_secs(60)).build().unwrap();
        let url = format!("{}{path}", server.url());
        Caller {
            client,
            url,
            timeout_ms,
        }
    }

    async fn call(&self, number: u32) -> Sample {
        let sent = Instant::now();
        let request = self.client.post(&self.url).body(r#"{"x": [[1, 2]]}"#);
        let request = request.header("x-firebox-timeout-ms", self.timeout_ms);
        let answer = request.send().await;
        let mut status = 0;
        if let Ok(answer) = answer {
            let head = answer.status().as_u16();
            if head == 429 || head == 503 {
                let retry = answer.headers()["retry-after"].to_str().unwrap();
                assert!(retry.parse::<u32>().unwrap() >= 1, "{retry}");
            }
            if answer.bytes().await.is_ok() {
                status = head;
            }
        }
        Sample {
            number,
            sent,
            done: Instant::now(),
            status,
            version: 0,
        }
    }

    /// So many callers, each of which sends again when it has its answer.
    async fn closed(&self, callers: u32, time: Duration) -> Vec<Sample> {
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let caller = self.clone();
            tasks.spawn(async move {
                let mut samples = Vec::new();
                while Instant::now() < until {
                    samples.push(caller.call(number).await);
                }
                samples
            });
        }
        tasks.join_all().await.concat()
    }

    /// So many requests a second, whether or not they are answered.
    async fn open(&self, rate: f64, time: Duration) -> Vec<Sample> {
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < time {
            let due = (began.elapsed().as_secs_f64() * rate) as u32;
            while sent < due {
                let caller = self.clone();
                tasks.spawn(async move { caller.call(sent).await });
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tasks.join_all().await
    }
}

fn answered(samples: &[Sample]) -> Vec<Sample> {
    let good = samples.iter().filter(|sample| sample.status == 200);
    good.copied().collect()
}

/// Answers a second, of those that came within the time of the load.
fn goodput(samples: &[Sample], time: Duration) -> f64 {
    let began = samples.iter().map(|sample| sample.sent).min().unwrap();
    // What was under way at its end would count for what came before it.
    let within = |sample: &&Sample| sample.status == 200 && sample.done <= began + time;
    samples.iter().filter(within).count() as f64 / time.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_what_can_be_done_leaves_nine_tenths_of_it_done_and_in_time() {
    const TIME: Duration = Duration::from_secs(5);
    const HELD_MS: u32 = 100;
    for (what, queue, timeout_ms, bound) in [
        // Ten seconds for each, and a queue that is full long before them.
        ("a short queue", "40", 10_000, Duration::from_millis(1500)),
        // A queue that nobody behind its first tenth would live to see the end of.
        ("short deadlines", "600", 600, Duration::from_millis(700)),
    ] {
        let arguments = [
            "--instances",
            "8",
            "--realtime-share",
            "0",
            "--queue",
            queue,
        ];
        let server = Server::start_with(&arguments).await;
        server.deploy("probe", &probe("on-demand", "")).await;
        let caller = Caller::new(&server, &path("probe", HELD_MS), timeout_ms);
        caller.closed(8, Duration::from_secs(1)).await;
        let samples = caller.closed(8, TIME).await;
        let most = goodput(&samples, TIME);
        let calm = latency(&answered(&samples), 0.99);

        let samples = caller.open(3.0 * most, TIME).await;
        let (done, good) = (answered(&samples), goodput(&samples, TIME));
        let p99 = latency(&done, 0.99);
        let lost = samples.iter().filter(|sample| sample.status == 504).count();
        println!(
            "{what}: sustainable {most:.0}/s, p99 {calm:?}; offered {:.0}/s: {good:.0}/s answered \
             ({:.0} %), p99 {p99:?}, {} refused, {lost} too late",
            3.0 * most,
            100.0 * good / most,
            samples.len() - done.len() - lost,
        );
        assert!(good >= 0.9 * most, "{what}: {good} of {most} a second");
        assert!(p99 <= bound, "{what}: p99 {p99:?}");
        let known = [200, 429, 503, 504];
        assert!(samples.iter().all(|sample| known.contains(&sample.status)));
    }
}

/// The same with work that needs the processor, which the callers of the test need too: what it
/// finds depends on the machine and on what else it does. `cargo test --release`, `--ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a quiet machine"]
async fn three_times_what_the_processor_can_do_leaves_nine_tenths_of_it_done() {
    const TIME: Duration = Duration::from_secs(10);
    let server = Server::start().await;
    server.deploy("probe", &probe("on-demand", "")).await;
    let burn = |rounds: u64| format!("/v1/functions/probe/invoke?mode=burn&rounds={rounds}");
    // As many rounds as take about 20 ms.
    let trial = Caller::new(&server, &burn(1_000_000), 10_000);
    trial.closed(1, Duration::from_millis(500)).await;
    let took = latency(&trial.closed(1, Duration::from_millis(500)).await, 0.5);
    let rounds = (0.02 / took.as_secs_f64() * 1e6) as u64;
    let caller = Caller::new(&server, &burn(rounds), 2_000);
    let samples = caller.closed(8, TIME).await;
    let (most, calm) = (goodput(&samples, TIME), latency(&answered(&samples), 0.99));
    let samples = caller.open(3.0 * most, TIME).await;
    let (done, good) = (answered(&samples), goodput(&samples, TIME));
    let p99 = latency(&done, 0.99);
    let lost = samples.iter().filter(|sample| sample.status == 504).count();
    println!(
        "20 ms of processor time: sustainable {most:.0}/s, p99 {calm:?}; offered {:.0}/s: {good:.0}/s \
         answered ({:.0} %), p99 {p99:?}, {} refused, {lost} too late",
        3.0 * most,
        100.0 * good / most,
        samples.len() - done.len() - lost,
    );
    assert!(good >= 0.9 * most, "{good} of {most} a second");
    // The deadline, and what the callers themselves wait for the processor.
    assert!(p99 <= Duration::from_secs(3), "{p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn realtime_is_answered_while_the_lower_tiers_flood_the_server() {
    const TIME: Duration = Duration::from_secs(3);
    let server = Server::start_with(&["--instances", "8", "--queue", "24"]).await;
    for tier in ["realtime", "on-demand", "batch"] {
        server.deploy(tier, &probe(tier, "")).await;
    }
    let flood = |tier: &str| {
        let caller = Caller::new(&server, &path(tier, 100), 10_000);
        async move { caller.open(150.0, TIME).await }
    };
    let realtime = Caller::new(&server, &path("realtime", 20), 10_000);
    let realtime = async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        realtime.open(20.0, TIME - Duration::from_secs(1)).await
    };
    let (realtime, on_demand, batch) = tokio::join!(realtime, flood("on-demand"), flood("batch"));
    let share = |samples: &[Sample]| answered(samples).len() as f64 / samples.len() as f64;
    let (first, second, third) = (share(&realtime), share(&on_demand), share(&batch));
    println!("answered: realtime {first:.2}, on-demand {second:.2}, batch {third:.2}");
    assert!(first > 0.99, "{first}");
    assert!(second > 1.5 * third, "on-demand {second}, batch {third}");
    let p99 = latency(&realtime, 0.99);
    assert!(p99 < Duration::from_millis(1000), "{p99:?}");
    let metrics = server.get("/metrics").await.text();
    let refused = "firebox_admission_refused_total{tier=\"batch\",reason=\"full\"}";
    assert!(metrics.contains(refused), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_floods_the_server_does_not_shut_others_out() {
    const TIME: Duration = Duration::from_secs(3);
    let server = Server::start_with(&["--instances", "8", "--queue", "40"]).await;
    server.deploy("greedy", &probe("on-demand", "")).await;
    server.deploy("modest", &probe("on-demand", "")).await;
    let greedy = Caller::new(&server, &path("greedy", 200), 10_000);
    let greedy = async move { greedy.open(200.0, TIME).await };
    let modest = Caller::new(&server, &path("modest", 20), 10_000);
    let modest = async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        modest.open(10.0, TIME - Duration::from_secs(1)).await
    };
    let (greedy, modest) = tokio::join!(greedy, modest);
    let refused = greedy.iter().filter(|sample| sample.status == 429).count();
    assert!(refused > 100, "{refused} of {}", greedy.len());
    assert_eq!(answered(&modest).len(), modest.len());
    let p99 = latency(&modest, 0.99);
    println!("beside a flood: p99 {p99:?}");
    // It waits for no one of the other's many: less than one turn of 200 ms and its own.
    assert!(p99 < Duration::from_millis(600), "{p99:?}");
}

#[tokio::test]
async fn a_function_runs_as_often_at_once_as_its_manifest_says() {
    let server = Server::start().await;
    server
        .deploy("single", &probe("on-demand", "concurrency = 1"))
        .await;
    server.deploy("free", &probe("on-demand", "")).await;
    let began = Instant::now();
    let calls = (0..4).map(|_| sleep(&server, "single", 200));
    let others = (0..4).map(|_| async {
        sleep(&server, "free", 200).await.expect(200);
        began.elapsed()
    });
    let (single, free) = tokio::join!(
        futures::future::join_all(calls),
        futures::future::join_all(others)
    );
    for answer in single {
        answer.expect(200);
    }
    assert!(began.elapsed() >= Duration::from_millis(800), "in a row");
    let slowest = free.iter().max().unwrap();
    assert!(*slowest < Duration::from_millis(800), "{slowest:?}");
}

#[tokio::test]
async fn a_deadline_that_can_not_be_kept_is_refused_at_once() {
    let server = Arc::new(Server::start_with(&["--instances", "1", "--realtime-share", "0"]).await);
    server.deploy("probe", &probe("on-demand", "")).await;
    sleep(&server, "probe", 500).await.expect(200);
    // Two seconds of work are waiting.
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let server = server.clone();
        waiting.spawn(async move { sleep(&server, "probe", 500).await });
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    let began = Instant::now();
    let hasty = server
        .request(reqwest::Method::POST, &path("probe", 1))
        .header("x-firebox-timeout-ms", "1000")
        .body(r#"{"x": [[1, 2]]}"#);
    let refused = firebox_tests::client::send(hasty).await;
    let refused = refused.refused(503, &["overloaded", "before the deadline"]);
    assert!(began.elapsed() < Duration::from_millis(400));
    let retry: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&retry), "{retry}");
    for answer in waiting.join_all().await {
        answer.expect(200);
    }
}
