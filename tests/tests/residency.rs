//! Memory is a budget: idle versions make room for others, those in use never go, and versions of
//! the realtime tier are there before their callers are.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebox_tests::pressure::Pressure;
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// A model that takes so many bytes, and answers `x` with `first + x`.
fn model(bytes: usize, first: usize) -> Vec<u8> {
    let pattern: Vec<f32> = (first..first + 1024).map(|number| number as f32).collect();
    onnx::lookup(&pattern, (bytes / 4096).max(1))
}

/// A version of one such model.
fn bundle(bytes: usize, first: usize, lines: &str) -> Bundle {
    Bundle::new()
        .with_lines(lines)
        .with_model("model", model(bytes, first))
}

const QUARTERS_5: usize = 5 * MIB / 4;

async fn standing(server: &Server, function: &str, version: u32) -> Value {
    let path = format!("/v1/functions/{function}/versions/{version}/residency");
    server.get(&path).await.expect(200).json()
}

async fn ask(server: &Server, function: &str) -> Value {
    let answer = server.invoke(function, r#"{"x": [2]}"#).await;
    answer.expect(200).json()
}

async fn until(server: &Server, function: &str, version: u32, residency: &str) -> Value {
    let began = Instant::now();
    loop {
        let standing = standing(server, function, version).await;
        if standing["residency"] == residency {
            return standing;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(20), "{standing}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_least_recently_used_makes_room_and_says_for_whom() {
    let server = Server::start_with(&["--model-memory", "3MiB"]).await;
    for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
        let bundle = bundle(QUARTERS_5, at * 10, "");
        server.deploy(name, &bundle).await;
    }
    for name in ["first", "second", "first"] {
        ask(&server, name).await;
        // Its time to stay, and a clock of milliseconds.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(ask(&server, "third").await, json!({"y": [22.0]}));
    let second = standing(&server, "second", 1).await;
    assert_eq!(second["residency"], "cold");
    assert_eq!(second["reason"], "evicted for third version 1");
    assert_eq!(second["moves"][1]["reason"], "first request");
    assert_eq!(second["model_bytes"], 0);
    let first = standing(&server, "first", 1).await;
    assert_eq!(first["residency"], "resident");
    assert!(first["model_bytes"].as_u64().unwrap() >= QUARTERS_5 as u64);

    let overview = server.get("/v1/residency").await.expect(200).json();
    let loaded = overview["versions"].as_array().unwrap();
    let names: Vec<_> = loaded.iter().map(|v| v["function"].clone()).collect();
    assert_eq!(names, ["first", "third"]);
    let models = &overview["model_memory"];
    assert_eq!(models["limit_bytes"], 3 * MIB);
    let held = models["held_bytes"].as_u64().unwrap();
    assert!(
        (2 * QUARTERS_5 as u64..3 * MIB as u64).contains(&held),
        "{held}"
    );
    assert_eq!(server.metric("firebox_evictions_total", &[]).await, 1.0);
    let moves = server.metric(
        "firebox_residency_moves_total",
        &[r#"from="resident""#, r#"to="cold""#, r#"reason="evicted""#],
    );
    assert_eq!(moves.await, 1.0);
    let limit = server
        .metric("firebox_memory_budget_bytes", &[r#"of="models""#])
        .await;
    assert_eq!(limit, (3 * MIB) as f64);
}

#[tokio::test]
async fn versions_that_share_a_model_share_its_memory() {
    let server = Server::start_with(&["--model-memory", "2MiB"]).await;
    for (name, lines) in [("one", ""), ("other", "[limits]\ndeadline = \"9s\"\n")] {
        server.deploy(name, &bundle(QUARTERS_5, 7, lines)).await;
        ask(&server, name).await;
    }
    for name in ["one", "other"] {
        assert_eq!(standing(&server, name, 1).await["residency"], "resident");
    }
    let overview = server.get("/v1/residency").await.expect(200).json();
    let held = overview["model_memory"]["held_bytes"].as_u64().unwrap();
    assert!(held < 2 * QUARTERS_5 as u64, "{held}");
}

#[tokio::test]
async fn mapped_code_has_a_budget_of_its_own() {
    let server = Server::start().await;
    let names = ["first", "second", "third"];
    for name in names {
        let small = Bundle::of_component(guests::small());
        server.deploy(name, &small).await;
    }
    server.invoke("first", "{}").await.expect(200);
    let code = standing(&server, "first", 1).await["code_bytes"]
        .as_u64()
        .unwrap();
    assert!(code > 0);
    let room_for_two = format!("{}B", code * 5 / 2);
    let server = server.stop().await;
    let server = server.again_with(&["--code-memory", &room_for_two]).await;
    for name in names {
        server.invoke(name, "{}").await.expect(200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let first = standing(&server, "first", 1).await;
    assert_eq!(first["residency"], "cold");
    assert_eq!(first["reason"], "evicted for third version 1");
    let moves: Vec<_> = first["moves"].as_array().unwrap().iter().rev().collect();
    let way: Vec<_> = moves.iter().map(|m| m["to"].as_str().unwrap()).collect();
    assert_eq!(way, ["linked", "resident", "cold"]);
}

#[tokio::test]
async fn a_version_in_use_is_never_evicted_and_others_wait_for_it_within_their_deadline() {
    let server = Server::start_with(&["--model-memory", "2MiB"]).await;
    let component = guests::component_of(&guests::guest("probe"));
    let busy = Bundle::of_component(component).with_model("double", model(QUARTERS_5, 0));
    server.deploy("busy", &busy).await;
    server.deploy("patient", &bundle(QUARTERS_5, 10, "")).await;
    let short = bundle(QUARTERS_5, 20, "[limits]\ndeadline = \"500ms\"\n");
    server.deploy("hasty", &short).await;

    let path = "/v1/functions/busy/invoke?mode=sleep&ms=5000";
    let busy = server.invoke_at(path, r#"{"x": [[1, 2]]}"#);
    let others = async {
        until(&server, "busy", 1, "resident").await;
        let asked = Instant::now();
        let refused = server.invoke("hasty", r#"{"x": [2]}"#).await;
        let took = asked.elapsed();
        let refused = refused.refused(503, &["hasty version 1", "1.2 MiB", "2.0 MiB"]);
        assert!(!refused.header("retry-after").is_empty());
        assert!(took < Duration::from_millis(1500), "{took:?}");
        let gone = server.request(Method::POST, "/v1/functions/patient/invoke");
        let gone = gone.timeout(Duration::from_millis(200));
        assert!(gone.body(r#"{"x": [2]}"#).send().await.is_err());
        let asked = Instant::now();
        let waiting = || server.metric("firebox_loads_waiting_for_room", &[]);
        while waiting().await > 0.0 {
            assert!(asked.elapsed() < Duration::from_secs(2), "nobody waits");
        }
        let left = standing(&server, "patient", 1).await;
        assert_eq!(
            (&left["loading"], &left["moves"]),
            (&json!(false), &json!([]))
        );
        let waiting = ask(&server, "patient");
        let seen = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(
                server.metric("firebox_loads_waiting_for_room", &[]).await,
                1.0
            );
            standing(&server, "busy", 1).await
        };
        tokio::join!(waiting, seen)
    };
    let (busy, (patient, seen)) = tokio::join!(busy, others);
    assert_eq!(busy.status, 200, "{}", busy.text());
    assert_eq!(
        (&seen["residency"], &seen["in_use"]),
        (&json!("resident"), &json!(true))
    );
    assert_eq!(patient, json!({"y": [12.0]}));
    let busy = standing(&server, "busy", 1).await;
    // Its code fits elsewhere, and stays for the next start.
    assert_eq!(busy["residency"], "linked");
    assert_eq!(busy["reason"], "evicted for patient version 1");
}

#[tokio::test]
async fn a_model_that_is_larger_than_the_budget_is_refused_with_the_figures() {
    let server = Server::start_with(&["--model-memory", "2MiB"]).await;
    let large = bundle(3 * MIB, 0, "");
    let refused = server.upload("large", large.tar("large")).await;
    refused.refused(422, &["3.0 MiB", "2.0 MiB", "--model-memory"]);
    let two = bundle(QUARTERS_5, 0, "").with_model("other", model(QUARTERS_5, 10));
    let two = two.with_component(guests::component_of(&guests::guest("probe")));
    let refused = server.upload("two", two.tar("two")).await;
    refused.refused(422, &["2.5 MiB", "2.0 MiB", "--model-memory"]);
    let server = server.stop().await.again_with(&[]).await;
    server.deploy("large", &large).await;
    let server = server.stop().await;
    let server = server.again_with(&["--model-memory", "2MiB"]).await;
    let refused = server.invoke("large", r#"{"x": [2]}"#).await;
    refused.refused(500, &["large version 1", "3.0 MiB", "2.0 MiB"]);
    let standing = standing(&server, "large", 1).await;
    let reason = standing["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("load failed: large version 1 needs"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_need_the_same_room_take_turns_instead_of_thrashing() {
    let server = Server::start_with(&["--model-memory", "40MiB"]).await;
    let server = Arc::new(server);
    for name in ["one", "other"] {
        server.deploy(name, &bundle(32 * MIB, name.len(), "")).await;
    }
    let loads = server.metric("firebox_model_loads_total", &[]).await;
    let began = Instant::now();
    let callers = (0..8).map(|caller| {
        let server = server.clone();
        let name = ["one", "other"][caller % 2];
        tokio::spawn(async move {
            let mut answers = 0;
            while began.elapsed() < Duration::from_secs(4) {
                assert_eq!(ask(&server, name).await["y"][0], (name.len() + 2) as f64);
                answers += 1;
            }
            answers
        })
    });
    let mut answers = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        answers.push(caller.await.unwrap());
    }
    let loads = server.metric("firebox_model_loads_total", &[]).await - loads;
    println!("answers by caller {answers:?}, {loads} loads");
    assert!(answers.iter().all(|answers| *answers > 0));
    let all: u32 = answers.iter().sum();
    assert!(loads >= 2.0 && f64::from(all) > 5.0 * loads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_models_under_a_small_budget_all_answer_and_memory_stays_within_it() {
    const BUDGET: usize = 16 * MIB;
    const BESIDE: usize = 64 * MIB;
    let pressure = Pressure {
        models: 200,
        smallest: 64 << 10,
        largest: 6 * MIB,
        callers: 8,
        lasts: Duration::from_secs(5),
    };
    let server = Server::start_with(&["--model-memory", "16MiB"]).await;
    let report = pressure.run(Arc::new(server)).await;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let (before, most) = report.resident;
    println!(
        "{:.0} MiB of models under a budget of {} MiB: {} answers, the slowest after {:?}; \
         resident {:.0} MiB before, {:.0} MiB at most",
        mib(report.model_bytes as u64),
        BUDGET / MIB,
        report.answers,
        report.slowest,
        mib(before),
        mib(most)
    );
    assert_eq!(report.failures, [""; 0]);
    assert!(report.answers > 200);
    assert!(most <= before + (BUDGET + BESIDE) as u64);
}

mod realtime {
    use super::*;

    const REALTIME: &str = "tier = \"realtime\"\n[scaling]\nkeep_alive = \"0s\"\n";

    async fn all_to(server: &Server, function: &str, version: u32) -> firebox_tests::Answer {
        let policy = json!({"weights": {version.to_string(): 10_000}});
        let path = format!("/v1/functions/{function}/traffic");
        server.put(&path, &policy).await
    }

    #[tokio::test]
    async fn a_version_is_there_before_it_takes_traffic_and_stays() {
        let server = Server::start_with(&["--model-memory", "3MiB"]).await;
        server.deploy("net", &bundle(4096, 0, "")).await;
        server
            .deploy("net", &bundle(QUARTERS_5, 10, REALTIME))
            .await;
        server.deploy("other", &bundle(QUARTERS_5, 20, "")).await;
        server.deploy("another", &bundle(QUARTERS_5, 30, "")).await;
        assert_eq!(standing(&server, "net", 2).await["residency"], "cold");
        all_to(&server, "net", 2).await.expect(200);
        let ready = standing(&server, "net", 2).await;
        assert_eq!(ready["residency"], "resident", "{ready}");
        assert_eq!(ready["reason"], "realtime traffic");
        let answer = server.invoke("net", r#"{"x": [2]}"#).await.expect(200);
        let timing = answer.header("server-timing");
        assert!(timing.contains("cold;dur=0.000"), "{timing}");
        // Others come and go beside it, and no time without use makes it go.
        for name in ["other", "another", "other", "another"] {
            ask(&server, name).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(standing(&server, "net", 2).await["residency"], "resident");

        // A start of the server loads it without being asked; nothing else is loaded.
        let server = server.stop().await.again().await;
        let again = until(&server, "net", 2, "resident").await;
        assert_eq!(
            (&again["pinned"], &again["reason"]),
            (&json!(true), &json!("realtime traffic"))
        );
        assert_eq!(standing(&server, "other", 1).await["residency"], "cold");

        all_to(&server, "net", 1).await.expect(200);
        let gone = until(&server, "net", 2, "cold").await;
        assert_eq!(
            (&gone["pinned"], &gone["reason"]),
            (&json!(false), &json!("idle for 0s"))
        );
    }

    #[tokio::test]
    async fn a_change_of_a_policy_that_is_gone_loads_nothing() {
        let server = Server::start().await;
        server.deploy("net", &bundle(4096, 0, "")).await;
        server
            .deploy("net", &bundle(QUARTERS_5, 10, REALTIME))
            .await;
        until(&server, "net", 2, "cold").await;
        let loads = server.metric("firebox_model_loads_total", &[]).await;
        let change = server
            .request(Method::PUT, "/v1/functions/net/traffic")
            .header("if-match", "\"7\"")
            .json(&json!({"weights": {"2": 10_000}}));
        firebox_tests::client::send(change)
            .await
            .refused(412, &["revision"]);
        let after = server.metric("firebox_model_loads_total", &[]).await;
        assert_eq!(after, loads);
    }

    #[tokio::test]
    async fn a_rollout_begins_when_its_version_is_there() {
        let server = Server::start().await;
        server.deploy("net", &bundle(4096, 0, "")).await;
        let realtime = bundle(QUARTERS_5, 10, REALTIME);
        server.deploy("net", &realtime).await;
        let rollout = json!({"to": 2, "steps": "10%:1h,100%"});
        let path = "/v1/functions/net/rollout";
        server.post(path, &rollout).await.expect(201);
        let canary = standing(&server, "net", 2).await;
        assert_eq!(canary["residency"], "resident");
        assert_eq!(
            (&canary["pinned"], &canary["reason"]),
            (&json!(true), &json!("realtime traffic"))
        );
    }

    #[tokio::test]
    async fn the_first_version_is_ready_when_its_upload_is_answered() {
        let server = Server::start().await;
        let sample = "[sample]\nbody = \"sample.json\"\n";
        let bundle = bundle(QUARTERS_5, 10, &format!("{REALTIME}{sample}"));
        let bundle = bundle.with_file("sample.json", br#"{"x": [1, 2, 3]}"#.to_vec());
        server.deploy("net", &bundle).await;
        assert_eq!(standing(&server, "net", 1).await["residency"], "resident");
        // The sample is kept for the next start.
        let server = server.stop().await.again().await;
        until(&server, "net", 1, "resident").await;
        assert!(!server.log().contains("did not run on its sample"));
    }

    #[tokio::test]
    async fn what_the_budget_cannot_pin_is_refused_with_the_figures() {
        let server = Server::start_with(&["--model-memory", "3MiB"]).await;
        for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
            server.deploy(name, &bundle(4096, 7, "")).await;
            let realtime = bundle(QUARTERS_5, at * 10, REALTIME);
            server.deploy(name, &realtime).await;
        }
        all_to(&server, "first", 2).await.expect(200);
        all_to(&server, "second", 2).await.expect(200);
        let refused = all_to(&server, "third", 2).await;
        refused.refused(422, &["3.8 MiB", "3.0 MiB", "--model-memory"]);
        assert_eq!(ask(&server, "third").await, json!({"y": [9.0]}));

        // There is no room even to try another one, and waiting would not help.
        let began = Instant::now();
        let fourth = bundle(QUARTERS_5, 30, REALTIME).tar("fourth");
        let refused = server.upload("fourth", fourth).await;
        refused.refused(503, &["1.3 MiB", "3.0 MiB", "pinned"]);
        assert!(began.elapsed() < Duration::from_secs(10));
        server.get("/v1/functions/fourth").await.expect(404);
    }

    #[tokio::test]
    async fn a_version_that_cannot_be_loaded_gets_no_traffic() {
        let server = Server::start().await;
        server.deploy("net", &bundle(QUARTERS_5, 0, "")).await;
        server
            .deploy("net", &bundle(QUARTERS_5, 10, REALTIME))
            .await;
        let info = server.get("/v1/functions/net/versions/2").await.json();
        let digest = info["models"]["model"]["digest"].as_str().unwrap();
        let digest = digest.strip_prefix("sha256:").unwrap();
        let server = server.stop().await;
        let (folder, name) = digest.split_at(2);
        let blob = server.data().join("blobs/sha256").join(folder).join(name);
        std::fs::write(blob, "no longer what it was").unwrap();
        let server = server.again().await;
        let refused = all_to(&server, "net", 2).await;
        refused.refused(422, &["net version 2", "realtime"]);
        assert_eq!(ask(&server, "net").await, json!({"y": [2.0]}));
    }
}

#[tokio::test]
async fn deleting_a_function_gives_its_memory_back() {
    let server = Server::start().await;
    let large = 48 * MIB;
    server.deploy("net", &bundle(large, 0, "")).await;
    ask(&server, "net").await;
    let loaded = server.resident_bytes();
    server.delete("/v1/functions/net").await.expect(204);
    let began = Instant::now();
    while server.resident_bytes() + large as u64 * 3 / 4 > loaded {
        let waited = began.elapsed();
        assert!(
            waited < Duration::from_secs(10),
            "{loaded} bytes, and still as many"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let overview = server.get("/v1/residency").await.expect(200).json();
    assert_eq!(overview["model_memory"]["held_bytes"], 0);
}

#[tokio::test]
async fn a_version_of_the_batch_tier_goes_as_soon_as_its_work_is_done() {
    let server = Server::start().await;
    let bundle = bundle(
        QUARTERS_5,
        0,
        "tier = \"batch\"\n[scaling]\nkeep_alive = \"1h\"\n",
    );
    server.deploy("net", &bundle).await;
    ask(&server, "net").await;
    let gone = until(&server, "net", 1, "cold").await;
    assert_eq!(gone["reason"], "no work left");
}

mod guests_that_hold_on {
    use super::*;

    async fn server_with_probe() -> Server {
        let server = Server::start().await;
        let component = guests::component_of(&guests::guest("probe"));
        let bundle = Bundle::of_component(component)
            .with_model("double", model(QUARTERS_5, 0))
            .with_lines("[limits]\ndeadline = \"1s\"\n[scaling]\nkeep_alive = \"0s\"\n");
        server.deploy("probe", &bundle).await;
        server
    }

    async fn probe(server: &Server, mode: &str) -> firebox_tests::Answer {
        let path = format!("/v1/functions/probe/invoke?mode={mode}");
        server.invoke_at(&path, r#"{"x": [[1, 2]]}"#).await
    }

    #[tokio::test]
    async fn to_a_context_pin_no_memory_beyond_their_deadline() {
        let server = server_with_probe().await;
        probe(&server, "hold").await.refused(504, &["1s"]);
        until(&server, "probe", 1, "cold").await;
        let overview = server.get("/v1/residency").await.expect(200).json();
        assert_eq!(overview["model_memory"]["held_bytes"], 0);
    }

    #[tokio::test]
    async fn to_ever_more_graphs_are_stopped() {
        let server = server_with_probe().await;
        let before = server.resident_bytes();
        let stopped = probe(&server, "open").await;
        assert!([502, 504].contains(&stopped.status), "{}", stopped.text());
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes");
    }

    #[tokio::test]
    async fn to_errors_with_long_names_take_little() {
        let server = server_with_probe().await;
        probe(&server, "echo").await.expect(200);
        let before = server.resident_bytes();
        let answer = probe(&server, "miss").await;
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 128 << 20, "{grown} bytes");
        assert!([200, 504].contains(&answer.status), "{}", answer.text());
    }
}
