//! Rollouts: traffic that moves to a version under guards, and back; through the real server, under
//! real load.
//!
//! Versions of `probe` give their numbers back, and fail, dawdle or add as their asset `behaviour`
//! says.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use firebox_tests::kills::{random, setting};
use firebox_tests::load::{Load, Sample};
use firebox_tests::{Answer, Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::{Value, json};

const ROLLOUT: &str = "/v1/functions/probe/rollout";
const TRAFFIC: &str = "/v1/functions/probe/traffic";
const INVOKE: &str = "/v1/functions/probe/invoke?mode=behave";

/// Longer than any rollout here on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn probe(behaviour: &str) -> Bundle {
    let component = guests::component_of(&guests::guest("probe"));
    Bundle::of_component(component)
        .with_lines("[assets]\n\"behaviour\" = \"behaviour\"")
        .with_file("behaviour", behaviour.as_bytes().to_vec())
}

/// A server with one version of `probe` for each behaviour.
async fn server_with(behaviours: &[&str]) -> Server {
    let server = Server::start().await;
    for behaviour in behaviours {
        server.deploy("probe", &probe(behaviour)).await;
    }
    server
}

/// The same without WebAssembly: versions of `probe` that add 1, 2, …
async fn server_with_models(count: u8) -> Server {
    let server = Server::start().await;
    deploy_models(&server, count).await;
    server
}

async fn deploy_models(server: &Server, count: u8) {
    for n in 1..=count {
        let bundle = Bundle::of_model(onnx::add(f32::from(n)));
        server.deploy("probe", &bundle).await;
    }
}

fn pair(number: u32) -> String {
    format!(r#"{{"x": [[{number}, 1]]}}"#)
}

fn one(number: u32) -> String {
    format!(r#"{{"x": [{number}]}}"#)
}

async fn start(server: &Server, rollout: Value) -> Value {
    server.post(ROLLOUT, &rollout).await.expect(201).json()
}

async fn act(server: &Server, action: &str) -> Answer {
    let path = format!("{ROLLOUT}/{action}");
    firebox_tests::client::send(server.request(Method::POST, &path)).await
}

async fn status(server: &Server) -> Value {
    server.get(ROLLOUT).await.expect(200).json()
}

async fn weights(server: &Server) -> Value {
    server.get(TRAFFIC).await.expect(200).json()["weights"].clone()
}

/// Waits until the rollout is as wanted.
#[track_caller]
fn until(
    server: &Server,
    what: &'static str,
    wanted: impl Fn(&Value) -> bool,
) -> impl Future<Output = Value> {
    let began = Instant::now();
    async move {
        loop {
            let now = status(server).await;
            if wanted(&now) {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "never {what}: {now:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn by(samples: &[Sample], version: u32) -> Vec<Sample> {
    let found = samples.iter().filter(|sample| sample.version == version);
    found.copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_a_tenth_of_its_calls_is_taken_back_by_itself() {
    let server = server_with(&["", "fail-every 10"]).await;
    let load = Load::start(&server, INVOKE, 400, pair);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = start(
        &server,
        json!({"to": 2, "steps": "5%:10m,25%:10m,100%", "guards": ["error_rate<=stable+1%"]}),
    )
    .await;
    assert_eq!(
        (&begun["state"], &begun["step"]),
        (&json!("running"), &json!(1))
    );
    assert_eq!(weights(&server).await, json!({"1": 9500, "2": 500}));

    let ended = until(&server, "rolled back", |r| r["state"] == "rolled_back").await;
    let back = Instant::now();
    assert_eq!(weights(&server).await, json!({"1": 10000}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let samples = load.stop().await;

    let canary = by(&samples, 2);
    let failed: Vec<_> = samples.iter().filter(|s| s.status != 200).collect();
    assert!(!failed.is_empty(), "the version never failed");
    for sample in &failed {
        assert_eq!((sample.version, sample.status), (2, 500), "{sample:?}");
        assert_eq!(sample.number % 10, 0, "{sample:?}");
    }
    let (first, last) = (failed[0].done, failed[failed.len() - 1].done);
    let spread = last - first;
    let all = samples.len();
    println!(
        "{all} calls; version 2 answered {} of them and failed {}; {:.2} s from the first bad \
         answer to the last",
        canary.len(),
        failed.len(),
        spread.as_secs_f64()
    );
    let late = canary.iter().filter(|sample| sample.sent > back).count();
    assert_eq!(late, 0, "answers by version 2 after it was taken back");
    // 5 % are meant; five standard deviations more are chance no longer.
    let most = 0.05 * all as f64 + 5.0 * (all as f64 * 0.05 * 0.95).sqrt();
    assert!((canary.len() as f64) < most, "{} of {all}", canary.len());

    // The numbers that decided are kept, over a restart too.
    let verdict = &ended["verdicts"][0];
    assert_eq!(verdict["verdict"], "fail");
    assert!(verdict["canary"]["sample"].as_u64().unwrap() >= 100);
    assert!(verdict["p_value"].as_f64().unwrap() < 0.001);
    let reason = ended["end"]["reason"].as_str().unwrap();
    assert!(reason.contains("error_rate<=stable+1%"), "{reason}");
    let metrics = server.get("/metrics").await.text();
    let total = r#"firebox_rollouts_total{function="probe",outcome="rolled_back"} 1"#;
    let state = r#"firebox_rollout_state{function="probe",state="rolled_back"} 1"#;
    for line in [total, state] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let server = server.kill().await.again().await;
    assert_eq!(status(&server).await["verdicts"], ended["verdicts"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_slow_is_taken_back_by_itself() {
    let server = server_with(&["", "sleep 500"]).await;
    let load = Load::start(&server, INVOKE, 150, pair);
    let guards = ["error_rate<=stable+1%", "p95<=stable+200ms"];
    let rollout = json!({"to": 2, "steps": "20%:10m,100%", "guards": guards, "min_sample": 30});
    start(&server, rollout).await;
    let ended = until(&server, "rolled back", |r| r["state"] == "rolled_back").await;
    let samples = load.stop().await;
    assert!(samples.iter().all(|sample| sample.status == 200));
    let verdicts = ended["verdicts"].as_array().unwrap();
    let slow = verdicts.iter().find(|v| v["verdict"] == "fail").unwrap();
    assert_eq!(slow["guard"], "p95<=stable+200ms");
    assert!(slow["canary"]["value"].as_f64().unwrap() >= 500.0, "{slow}");
    assert_eq!(weights(&server).await, json!({"1": 10000}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_gets_all_the_traffic_step_by_step() {
    let server = server_with_models(2).await;
    let labelled = json!({"weights": {"1": 10000}, "labels": {"stable": 1}});
    server.put(TRAFFIC, &labelled).await.expect(200);
    let load = Load::start(&server, "/v1/functions/probe/invoke", 200, one);
    let rollout = json!({
        "to": 2, "steps": "10%:1s,50%:1s,100%", "min_sample": 20, "window": "10s",
        "guards": ["error_rate<=stable+1%", "p95<=5*stable+300ms"],
    });
    start(&server, rollout).await;
    let began = Instant::now();
    let second = until(&server, "at its second step", |r| r["step"] != 1).await;
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "it was hasty"
    );
    assert_eq!(second["share_bp"], 5000);
    let ended = until(&server, "through", |r| r["end"].is_object()).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let verdicts = ended["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(|v| v["verdict"] == "pass"), "{ended:#}");
    let done = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let samples = load.stop().await;
    assert!(samples.iter().all(|sample| sample.status == 200));
    let mut after = samples.iter().filter(|sample| sample.sent > done);
    assert!(after.all(|sample| sample.version == 2));
    let policy = server.get(TRAFFIC).await.expect(200).json();
    assert_eq!(policy["weights"], json!({"2": 10000}));
    assert_eq!(policy["labels"], json!({"stable": 1}), "labels stay");
}

#[tokio::test]
async fn without_enough_calls_nothing_is_decided() {
    let server = server_with_models(2).await;
    start(&server, json!({"to": 2, "steps": "50%,100%"})).await;
    // Callers that choose a version themselves say nothing about how versions compare.
    for version in 1..=2 {
        for _ in 0..120 {
            let path = format!("/v1/functions/probe/versions/{version}/invoke");
            server.invoke_at(&path, one(1)).await.expect(200);
        }
    }
    for _ in 0..50 {
        server.invoke("probe", one(1)).await.expect(200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = status(&server).await;
    assert_eq!(
        (&now["state"], &now["step"]),
        (&json!("running"), &json!(1))
    );
    for verdict in now["verdicts"].as_array().unwrap() {
        assert_eq!(verdict["verdict"], "not_enough_data");
        assert!(
            verdict["reason"]
                .as_str()
                .unwrap()
                .contains("of the 100 calls")
        );
    }
    assert!(now["waits"].as_str().unwrap().contains("guard"), "{now:#}");
}

#[tokio::test]
async fn a_rollout_goes_on_where_it_was_after_a_kill_and_after_a_stop() {
    let server = server_with_models(2).await;
    let hold = Duration::from_secs(7);
    start(
        &server,
        json!({"to": 2, "steps": "10%:7s,50%:1h,100%", "guards": []}),
    )
    .await;
    let began = Instant::now();
    // Past the moment at which the time spent is noted.
    until(&server, "five seconds old", |r| {
        r["spent_ms"].as_u64() > Some(5500)
    })
    .await;
    let before = began.elapsed();
    let server = server.kill().await.again().await;
    let began = Instant::now();
    let now = status(&server).await;
    assert_eq!(
        (&now["state"], &now["step"]),
        (&json!("running"), &json!(1))
    );
    assert!(now["spent_ms"].as_u64() >= Some(5000), "{now:#}");
    assert_eq!(weights(&server).await, json!({"1": 9000, "2": 1000}));
    until(&server, "at its second step", |r| r["step"] == 2).await;
    let spent = before + began.elapsed();
    assert!(
        spent >= hold - Duration::from_millis(300),
        "cut short: {spent:?}"
    );

    // An orderly stop loses none of the time spent.
    until(&server, "a second old", |r| {
        r["spent_ms"].as_u64() > Some(1000)
    })
    .await;
    let server = server.stop().await.again().await;
    let now = status(&server).await;
    assert_eq!(
        (&now["state"], &now["step"]),
        (&json!("running"), &json!(2))
    );
    assert!(now["spent_ms"].as_u64() >= Some(1000), "{now:#}");
    assert_eq!(weights(&server).await, json!({"1": 5000, "2": 5000}));
    act(&server, "promote").await.expect(200);
    assert_eq!(weights(&server).await, json!({"2": 10000}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_kill_comes_policy_and_rollout_fit_together() {
    let rounds = setting("FIREBOX_KILL_ROUNDS", 8);
    let mut server = server_with_models(2).await;
    let mut seed = 0x5eed_0004;
    let mut acknowledged = 0;
    for round in 0..rounds {
        let home = json!({"weights": {"1": 10000}});
        server.put(TRAFFIC, &home).await.expect(200);
        let rollout = json!({"to": 2, "steps": "10%:100ms,30%:100ms,50%:1h,100%", "guards": []});
        let known = start(&server, rollout).await["rollout"].as_u64().unwrap();
        let actions = ["pause", "resume", "promote", "promote", "abort"];
        let action = actions[random(&mut seed) as usize % actions.len()];
        let delay = Duration::from_micros(random(&mut seed) % 400_000);
        // About as long as the call takes.
        let head_start = Duration::from_micros(random(&mut seed) % 2_500);
        let load = Load::start(&server, "/v1/functions/probe/invoke", 100, one);
        tokio::time::sleep(delay).await;
        let request = server.request(Method::POST, &format!("{ROLLOUT}/{action}"));
        let acting = tokio::spawn(async move {
            let answer = request.send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        });
        // Timers of the event loop are too coarse for this.
        let wait = tokio::task::spawn_blocking(move || std::thread::sleep(head_start));
        wait.await.unwrap();
        let killed = server.kill().await;
        let told = acting.await.unwrap();
        load.stop().await;
        server = killed.again().await;
        acknowledged += u32::from(told);
        let now = status(&server).await;
        assert_eq!(now["rollout"], known, "round {round}: a rollout is lost");
        let share = now["share_bp"].as_u64().unwrap();
        let expected = match now["state"].as_str().unwrap() {
            "running" | "paused" => json!({"1": 10000 - share, "2": share}),
            "succeeded" => json!({"2": 10000}),
            _ => json!({"1": 10000}),
        };
        // It moves on by itself after 100 ms: what is told may be one step old.
        let found = weights(&server).await;
        let later = status(&server).await["share_bp"].as_u64().unwrap();
        let moved = json!({"1": 10000 - later, "2": later});
        assert!(
            found == expected || found == moved,
            "round {round}: {found} {now:#}"
        );
        let kept = match action {
            "abort" => now["state"] == "aborted",
            "pause" => now["state"] == "paused",
            "promote" => now["step"].as_u64() >= Some(2),
            _ => true,
        };
        assert!(
            kept || !told,
            "round {round}: the {action} is lost: {now:#}"
        );
        if now["end"].is_null() {
            act(&server, "abort").await.expect(200);
        }
    }
    println!("{acknowledged} of {rounds} actions were acknowledged before the kill");
}

#[tokio::test]
async fn a_clock_that_jumps_neither_skips_a_step_nor_hangs_it() {
    let shim = ClockShim::build();
    let server = shim.server().await;
    deploy_models(&server, 2).await;
    start(
        &server,
        json!({"to": 2, "steps": "10%:3s,50%:3s,100%", "guards": []}),
    )
    .await;
    let began = Instant::now();
    shim.jump(400 * DAY);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = status(&server).await;
    assert_eq!(now["step"], 1, "the jump skipped a step: {now:#}");
    until(&server, "at its second step", |r| r["step"] == 2).await;
    assert!(began.elapsed() >= Duration::from_millis(2900), "cut short");
    shim.jump(-400 * DAY);
    let began = Instant::now();
    let ended = until(&server, "through", |r| r["end"].is_object()).await;
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "the jump hung it"
    );
    assert_eq!(ended["state"], "succeeded");
    let year = |time: &Value| time.as_str().unwrap()[..4].parse::<u32>().unwrap();
    let (started, over) = (year(&ended["started"]), year(&ended["end"]["time"]));
    assert!(over < started, "the server's clock never jumped: {ended:#}");
}

const DAY: i64 = 24 * 3600;

/// A library that sets a process's wall clock off by what a file says, and no other clock.
struct ClockShim {
    folder: tempfile::TempDir,
}

impl ClockShim {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <time.h>
        int clock_gettime(clockid_t id, struct timespec *now) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
            int result = real(id, now);
            const char *path = getenv("CLOCK_OFFSET");
            if (result == 0 && id == CLOCK_REALTIME && path) {
                FILE *file = fopen(path, "r");
                long offset = 0;
                if (file) {
                    if (fscanf(file, "%ld", &offset) == 1) now->tv_sec += offset;
                    fclose(file);
                }
            }
            return result;
        }"#;

    fn build() -> ClockShim {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        std::fs::write(path("clock.c"), ClockShim::SOURCE).unwrap();
        let mut command = std::process::Command::new("cc");
        command
            .args(["-shared", "-fPIC", "-o"])
            .arg(path("clock.so"));
        let output = command.arg(path("clock.c")).arg("-ldl").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let shim = ClockShim { folder };
        shim.jump(0);
        shim
    }

    async fn server(&self) -> Server {
        let path = |name| self.folder.path().join(name).to_string_lossy().into_owned();
        let (library, offset) = (path("clock.so"), path("offset"));
        Server::start_in(&[("LD_PRELOAD", &library), ("CLOCK_OFFSET", &offset)], &[]).await
    }

    /// Sets the clock off by so many seconds from the true time.
    fn jump(&self, seconds: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, self.folder.path().join("offset")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_under_load_takes_effect_at_once_and_no_call_fails() {
    // Calls of version 2 are on their way for a while when it is taken back.
    let server = server_with(&["", "sleep 20"]).await;
    let load = Load::start(&server, INVOKE, 400, pair);
    // When each policy that was to go was told to, and when that was done.
    let mut calls = Vec::new();
    for _ in 0..5 {
        server
            .put(TRAFFIC, &json!({"weights": {"2": 10000}}))
            .await
            .expect(200);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let told = Instant::now();
        let path = "/v1/functions/probe/rollback";
        server.post(path, &json!({})).await.expect(200);
        calls.push((told, Instant::now()));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    // The same for a rollout that is given up.
    start(
        &server,
        json!({"to": 2, "steps": "50%:1h,100%", "guards": []}),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let told = Instant::now();
    act(&server, "abort").await.expect(200);
    calls.push((told, Instant::now()));
    tokio::time::sleep(Duration::from_millis(700)).await;

    let samples = load.stop().await;
    let failed: Vec<_> = samples.iter().filter(|s| s.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for (told, returned) in calls {
        let until = returned + Duration::from_millis(600);
        let after = samples
            .iter()
            .filter(|s| (returned..until).contains(&s.sent));
        let old: Vec<_> = after.filter(|s| s.version == 2).collect();
        assert!(old.is_empty(), "sent after the return: {old:?}");
        let flying = samples
            .iter()
            .filter(|s| s.version == 2 && s.sent < returned);
        let last = flying.map(|s| s.done).max().unwrap();
        let late = last.saturating_duration_since(returned);
        println!(
            "the call took {:.1?}; the last answer by the old policy came {late:.1?} after it returned",
            returned - told
        );
        assert!(late < Duration::from_millis(100), "{late:?}");
    }
}

#[tokio::test]
async fn a_rollout_is_paused_resumed_promoted_and_aborted() {
    let server = server_with_models(2).await;
    let steps = json!({"to": 2, "steps": "10%:1h,50%:1h,100%"});
    start(&server, steps.clone()).await;
    let paused = act(&server, "pause").await.expect(200).json();
    assert_eq!(paused["state"], "paused");
    let spent = status(&server).await["spent_ms"].clone();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(
        status(&server).await["spent_ms"],
        spent,
        "a pause costs no time"
    );
    assert_eq!(act(&server, "resume").await.json()["state"], "running");
    let promoted = act(&server, "promote").await.expect(200).json();
    assert_eq!(
        (&promoted["step"], &promoted["share_bp"]),
        (&json!(2), &json!(5000))
    );
    assert_eq!(weights(&server).await, json!({"1": 5000, "2": 5000}));
    let aborted = act(&server, "abort").await.expect(200).json();
    assert_eq!(aborted["state"], "aborted");
    assert_eq!(weights(&server).await, json!({"1": 10000}));
    act(&server, "resume").await.refused(409, &["no rollout"]);

    start(&server, steps.clone()).await;
    let path = format!("{ROLLOUT}/promote");
    let full = server.post(&path, &json!({"full": true})).await.expect(200);
    assert_eq!(full.json()["state"], "succeeded");
    assert_eq!(weights(&server).await, json!({"2": 10000}));

    server
        .put(TRAFFIC, &json!({"weights": {"1": 10000}}))
        .await
        .expect(200);
    start(&server, steps).await;
    act(&server, "promote").await.expect(200);
    let last = act(&server, "promote").await.expect(200).json();
    assert_eq!(
        last["state"], "succeeded",
        "the last step has no time of its own"
    );
    let kept = server.get("/v1/functions/probe/rollouts").await.json();
    let states = kept["rollouts"].as_array().unwrap().iter();
    let states: Vec<_> = states.map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["succeeded", "succeeded", "aborted"]);
}

#[tokio::test]
async fn a_function_that_is_deleted_takes_its_rollout_along() {
    let server = server_with_models(2).await;
    start(&server, json!({"to": 2, "steps": "10%,100%"})).await;
    server.delete("/v1/functions/probe").await.expect(204);
    deploy_models(&server, 1).await;
    server.get(ROLLOUT).await.refused(404, &["no rollout"]);
    let metrics = server.get("/metrics").await.text();
    assert!(!metrics.contains("firebox_rollouts_total"), "{metrics}");
}

#[tokio::test]
async fn traffic_moved_by_hand_ends_the_rollout_and_a_label_does_not() {
    let server = server_with_models(2).await;
    start(&server, json!({"to": 2, "steps": "10%:1h,100%"})).await;
    let labelled = json!({"weights": {"1": 9000, "2": 1000}, "labels": {"gold": 1}});
    server.put(TRAFFIC, &labelled).await.expect(200);
    assert_eq!(status(&server).await["state"], "running");
    act(&server, "abort").await.expect(200);
    let policy = server.get(TRAFFIC).await.expect(200).json();
    assert_eq!(policy["weights"], json!({"1": 10000}));
    assert_eq!(policy["labels"], json!({"gold": 1}), "the label stays");

    start(&server, json!({"to": 2, "steps": "10%:1h,100%"})).await;
    let mine = json!({"weights": {"1": 4000, "2": 6000}});
    server.put(TRAFFIC, &mine).await.expect(200);
    let ended = status(&server).await;
    assert_eq!(ended["state"], "aborted");
    let reason = ended["end"]["reason"].as_str().unwrap();
    assert!(reason.contains("by hand"), "{reason}");
    assert_eq!(weights(&server).await, mine["weights"]);
}

mod what_can_not_be {
    use super::*;

    async fn refused(server: &Server, rollout: Value, status: u16, words: &[&str]) {
        server.post(ROLLOUT, &rollout).await.refused(status, words);
    }

    #[tokio::test]
    async fn is_refused_with_what_to_do() {
        let server = server_with_models(3).await;
        let none = server.get(ROLLOUT).await;
        none.refused(404, &["no rollout", "POST"]);
        act(&server, "pause").await.refused(409, &["under way"]);
        refused(&server, json!({"to": 1}), 409, &["all the traffic already"]).await;
        refused(&server, json!({"to": 9}), 404, &["no version 9"]).await;
        refused(&server, json!({"to": 0}), 400, &["version"]).await;
        refused(&server, json!({"steps": "100%"}), 400, &["to"]).await;
        let list = json!([2, "100%", [], 1, "60s"]);
        refused(&server, list, 400, &["no JSON object"]).await;
        refused(
            &server,
            json!({"to": 2, "guard": []}),
            400,
            &["guard", "guards"],
        )
        .await;
        refused(
            &server,
            json!({"to": 2, "min_sample": 0}),
            400,
            &["min_sample"],
        )
        .await;
        refused(
            &server,
            json!({"to": 2, "window": "2h"}),
            400,
            &["2h", "60s"],
        )
        .await;
        let many = vec!["error_rate<=1%"; 33];
        refused(
            &server,
            json!({"to": 2, "guards": many}),
            400,
            &["33", "32"],
        )
        .await;
        act(&server, "stop").await.refused(404, &["stop", "abort"]);
        let (path, body) = ("/v1/functions/prob/rollout", json!({"to": 2}));
        server
            .post(path, &body)
            .await
            .refused(404, &["prob", "probe"]);
        assert_eq!(weights(&server).await, json!({"1": 10000}), "nothing moved");

        start(&server, json!({"to": 2, "steps": "10%:1h,100%"})).await;
        refused(&server, json!({"to": 3}), 409, &["rollout 1", "version 2"]).await;
        let (path, body) = (format!("{ROLLOUT}/pause"), json!({"full": true}));
        server.post(&path, &body).await.refused(400, &["promote"]);
        for version in ["1", "2"] {
            let path = format!("/v1/functions/probe/versions/{version}");
            server.delete(&path).await.refused(409, &["traffic"]);
        }
        act(&server, "abort").await.expect(200);
        server
            .delete("/v1/functions/probe/versions/2")
            .await
            .expect(204);

        let shared = json!({"weights": {"1": 5000, "3": 5000}});
        server.put(TRAFFIC, &shared).await.expect(200);
        server
            .deploy("probe", &Bundle::of_model(onnx::add(4.0)))
            .await;
        refused(&server, json!({"to": 4}), 409, &["1 and 3"]).await;
    }

    #[tokio::test]
    async fn guards_and_steps_that_can_not_be_read_are_pointed_at() {
        let server = server_with_models(2).await;
        for (guard, words) in [
            ("p95<=1.2*stabel", ["character 10", "`stable`"]),
            ("errors<=1%", ["character 1", "error_rate"]),
            ("error_rate<1%", ["character 11", "`<=`"]),
            ("error_rate<=2", ["character 14", "`%`"]),
            ("p95<=300", ["character 9", "`ms`"]),
            ("", ["character 1", "the end"]),
        ] {
            refused(&server, json!({"to": 2, "guards": [guard]}), 400, &words).await;
        }
        for (steps, words) in [
            ("5%:10m", ["character 7", "100%"]),
            ("5%:tomorrow,100%", ["character 4", "10m"]),
            ("50%,25%,100%", ["character 5", "over 50%"]),
            ("", ["character 1", "the end"]),
        ] {
            refused(&server, json!({"to": 2, "steps": steps}), 400, &words).await;
        }
        assert_eq!(weights(&server).await, json!({"1": 10000}), "nothing moved");
    }
}
