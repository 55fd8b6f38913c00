//! The server with a real registry, sandbox and engine, over real connections.
//! Its models are small graphs that are written here, byte by byte.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Config, Server, ServerError};

mod jobs;

/// A running server. Dropping it leaves the task to the test's runtime.
struct Running {
    client: Client,
    base: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    async fn start(data: &Path, set: impl FnOnce(&mut Config)) -> Self {
        // No client can be made before its cryptography is chosen.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut config = Config::new(data);
        config.listen.set_port(0);
        config.max_instances = 4;
        config.max_instance_memory = 256 << 20;
        set(&mut config);
        let server = Server::bind(config).await.unwrap();
        let base = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            client: Client::new(),
            base,
            stop,
            task,
        }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.ask(Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        read(self.ask(Method::POST, path).body(body.to_string())).await
    }

    async fn upload(&self, function: &str, bundle: Vec<u8>) -> (StatusCode, Value) {
        let path = format!("/v1/functions/{function}/versions");
        read(self.ask(Method::POST, &path).body(bundle)).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn read(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// One field of a protobuf message whose content is `bytes`.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, bytes.len().try_into().unwrap()];
    assert!(bytes.len() < 128);
    out.extend_from_slice(bytes);
    out
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// ONNX of `y = operator(x, x)` for f32 [batch, 2].
fn onnx(operator: &str) -> Vec<u8> {
    let dims = [field(1, &field(2, b"batch")), field(1, &varint(1, 2))].concat();
    let tensor = [varint(1, 1), field(2, &dims)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [
        field(1, b"x"),
        field(1, b"x"),
        field(2, b"y"),
        field(4, operator.as_bytes()),
    ];
    let graph = [
        field(1, &node.concat()),
        field(2, b"g"),
        field(11, &value(b"x")),
        field(12, &value(b"y")),
    ];
    let opset = varint(2, 15);
    [varint(1, 8), field(7, &graph.concat()), field(8, &opset)].concat()
}

/// A bundle of one model with this manifest.
fn bundle(manifest: &str, model: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in [
        ("firebox.toml", manifest.as_bytes()),
        ("models/m.onnx", model),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn doubler(keep_alive: &str) -> Vec<u8> {
    let manifest = format!(
        "name = \"doubler\"\ndescription = \"Twice.\"\n[models.m]\npath = \"models/m.onnx\"\n\
         [scaling]\nkeep_alive = \"{keep_alive}\"\n"
    );
    bundle(&manifest, &onnx("Add"))
}

fn files_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| {
            if e.path().is_dir() {
                files_below(&e.path())
            } else {
                1
            }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_uploaded_described_invoked_and_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |_| {}).await;
    let (status, info) = server.upload("doubler", onnx("Add")).await;
    assert_eq!(status, 201, "{info}");
    assert_eq!(info["version"], 1);
    assert_eq!(info["kind"], "model");
    assert_eq!(info["share_bp"], 10_000);
    assert_eq!(info["residency"], "cold");
    assert_eq!(info["signature"]["inputs"][0]["shape"], json!(["batch", 2]));
    assert!(info["reference_latency_ms"].as_f64().unwrap() > 0.0);
    let (status, again) = server.upload("doubler", onnx("Add")).await;
    assert_eq!(
        (status, &again["created_now"]),
        (StatusCode::OK, &json!(false))
    );

    let request = server.ask(Method::POST, "/v1/functions/doubler/invoke");
    let response = request.body(r#"{"x": [[1, 2.5]]}"#).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["x-firebox-version"], "1");
    assert_eq!(headers["x-firebox-prediction-id"].len(), 36);
    assert!(
        headers["server-timing"]
            .to_str()
            .unwrap()
            .contains("compute;dur=")
    );
    assert_eq!(response.text().await.unwrap(), r#"{"y":[[2.0,5.0]]}"#);
    let (_, info) = server.get("/v1/functions/doubler/versions/1").await;
    assert_eq!(info["residency"], "resident");
    server.stop().await;

    let server = Running::start(dir.path(), |_| {}).await;
    let answer = server
        .post(
            "/v1/functions/doubler/versions/1/invoke",
            json!({"x": [[3, 4]]}),
        )
        .await;
    assert_eq!(answer, (StatusCode::OK, json!({"y": [[6.0, 8.0]]})));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_v2_protocol_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |_| {}).await;
    server.upload("doubler", onnx("Add")).await;
    assert_eq!(server.get("/v2/health/live").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    assert_eq!(server.get("/v2/models/doubler/ready").await.0, 200);
    let (_, metadata) = server.get("/v2/models/doubler").await;
    let x = json!({"name": "x", "datatype": "FP32", "shape": [-1, 2]});
    assert_eq!(metadata["platform"], "firebox_onnx");
    assert_eq!(metadata["inputs"], json!([x]));

    let input = json!({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]});
    let request = json!({"id": "7", "inputs": [input]});
    let (status, answer) = server
        .post("/v2/models/doubler/versions/1/infer", request)
        .await;
    assert_eq!(status, 200, "{answer}");
    let y = json!({"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]});
    let expected =
        json!({"model_name": "doubler", "model_version": "1", "id": "7", "outputs": [y]});
    assert_eq!(answer, expected);

    let wrong =
        json!({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]});
    let (status, answer) = server.post("/v2/models/doubler/infer", wrong).await;
    assert_eq!(status, 400);
    assert_eq!(
        answer["error"],
        "input `x`: expected shape [batch, 2], found [1, 3]"
    );
    let (status, answer) = server.get("/v2/models/dubler").await;
    assert_eq!(status, 404);
    assert_eq!(
        answer["error"],
        "there is no function `dubler`. Did you mean `doubler`?"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_split_pinned_and_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |_| {}).await;
    server.upload("f", onnx("Add")).await;
    let (status, second) = server.upload("f", onnx("Mul")).await;
    assert_eq!(
        (status, &second["share_bp"]),
        (StatusCode::CREATED, &json!(0))
    );
    let invoke = |request: RequestBuilder| read(request.body(r#"{"x": [[3, 3]]}"#));
    let split = || server.ask(Method::POST, "/v1/functions/f/invoke");
    assert_eq!(invoke(split()).await.1, json!({"y": [[6.0, 6.0]]}));
    assert_eq!(
        invoke(split().header("x-firebox-version", "2")).await.1,
        json!({"y": [[9.0, 9.0]]})
    );

    let path = "/v1/functions/f/traffic";
    let put = |policy: Value| read(server.ask(Method::PUT, path).body(policy.to_string()));
    let policy = json!({"weights": {"2": 10_000}, "labels": {"stable": 1}});
    assert_eq!(put(policy.clone()).await, (StatusCode::OK, policy.clone()));
    assert_eq!(server.get(path).await.1, policy);
    assert_eq!(invoke(split()).await.1, json!({"y": [[9.0, 9.0]]}));
    let labelled = server.ask(Method::POST, "/v1/functions/f/labels/stable/invoke");
    assert_eq!(invoke(labelled).await.1, json!({"y": [[6.0, 6.0]]}));

    let (status, problem) = put(json!({"weights": {"2": 100}})).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(put(json!({"weights": {"3": 10_000}})).await.0, 404);
    assert_eq!(put(json!({"wieghts": {}})).await.0, 400);
    let delete = |path| read(server.ask(Method::DELETE, path));
    assert_eq!(delete("/v1/functions/f/versions/1").await.0, 409);
    put(json!({"weights": {"2": 10_000}})).await;
    assert_eq!(delete("/v1/functions/f/versions/1").await.0, 204);
    assert_eq!(server.get("/v1/functions/f/versions/1").await.0, 404);
    assert_eq!(delete("/v1/functions/f").await.0, 204);
    assert_eq!(invoke(split()).await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_or_broken_upload_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |config| config.max_upload = 100_000).await;
    let before = files_below(&dir.path().join("staging")) + files_below(&dir.path().join("blobs"));
    let (status, problem) = server.upload("f", onnx("Frobnicate")).await;
    assert_eq!(status, 422, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("Frobnicate"),
        "{problem}"
    );
    let whole = onnx("Add");
    let manifest = "name = \"f\"\n[models.m]\npath = \"models/m.onnx\"\n";
    let truncated = bundle(manifest, &whole[..whole.len() / 2]);
    assert_eq!(server.upload("f", truncated).await.0, 422);
    assert_eq!(server.upload("f", b"neither".to_vec()).await.0, 422);
    let (status, problem) = server.upload("f", vec![0; 200_000]).await;
    assert_eq!(status, 413);
    assert!(problem["detail"].as_str().unwrap().contains("100000 bytes"));
    let failing = futures::stream::iter([Ok(whole), Err(std::io::Error::other("gone"))]);
    let body = reqwest::Body::wrap_stream(failing);
    assert!(
        server
            .ask(Method::POST, "/v1/functions/f/versions")
            .body(body)
            .send()
            .await
            .is_err()
    );
    assert_eq!(server.get("/v1/functions/f").await.0, 404);
    for _ in 0..100 {
        let now = files_below(&dir.path().join("staging")) + files_below(&dir.path().join("blobs"));
        if now == before {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("files are left behind in {}", dir.path().display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |config| config.max_body = 1000).await;
    server.upload("doubler", onnx("Add")).await;
    let path = "/v1/functions/doubler/invoke";
    let said = async |body: Vec<u8>| {
        let (status, problem) = read(server.ask(Method::POST, path).body(body)).await;
        (
            status.as_u16(),
            problem["detail"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(
        said(b"{\"x\": \xff}".to_vec()).await,
        (400, "the body is not UTF-8 at byte 6".into())
    );
    assert_eq!(said(b"{".to_vec()).await.0, 400);
    let shape = said(b"{\"x\": [[1, 2, 3]]}".to_vec()).await;
    assert_eq!(
        shape,
        (
            400,
            "input `x`: expected shape [batch, 2], found [1, 3]".into()
        )
    );
    let large = "the body is larger than the limit of 1000 bytes".to_owned();
    assert_eq!(said(vec![b' '; 300_000]).await, (413, large.clone()));
    let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let (status, problem) = read(server.ask(Method::POST, path).body(body)).await;
    assert_eq!(
        (status.as_u16(), problem["detail"].as_str().unwrap()),
        (413, large.as_str())
    );
    let bad = server
        .ask(Method::POST, path)
        .header("x-firebox-timeout-ms", "soon");
    assert_eq!(read(bad).await.0, 400);
    assert_eq!(server.get("/v1/nothing").await.0, 404);
    assert_eq!(read(server.ask(Method::DELETE, path)).await.0, 405);
    assert_eq!(
        server.get("/v2/nothing").await.1["error"],
        "there is nothing at /v2/nothing"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_version_goes_cold_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let quick = |config: &mut Config| config.sweep_interval = Duration::from_millis(10);
    let server = Running::start(dir.path(), quick).await;
    server.upload("doubler", doubler("50ms")).await;
    for round in 1..=2 {
        let (status, _) = server
            .post("/v1/functions/doubler/invoke", json!({"x": [[1, 2]]}))
            .await;
        assert_eq!(status, 200);
        let mut residency = Value::Null;
        for _ in 0..200 {
            residency = server.get("/v1/functions/doubler/versions/1").await.1["residency"].take();
            if residency == "cold" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(residency, "cold");
        let (_, metrics) = server.get("/metrics").await;
        let metrics = metrics.as_str().unwrap();
        let cold =
            format!("firebox_cold_starts_total{{function=\"doubler\",version=\"1\"}} {round}");
        assert!(metrics.contains(&cold), "{cold} in\n{metrics}");
        assert!(metrics.contains("firebox_weight_bytes 0"), "{metrics}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_a_cold_version_share_one_load() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |config| config.max_queued = 64).await;
    server.upload("doubler", onnx("Add")).await;
    let calls =
        (0..32).map(|_| server.post("/v1/functions/doubler/invoke", json!({"x": [[1, 2]]})));
    for (status, answer) in futures::future::join_all(calls).await {
        assert_eq!(
            (status, answer),
            (StatusCode::OK, json!({"y": [[2.0, 4.0]]}))
        );
    }
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("firebox_model_loads_total 2"),
        "dry run and one load:\n{metrics}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), |_| {}).await;
    let mut config = Config::new(dir.path());
    config.listen.set_port(0);
    let refused = Server::bind(config).await.err().unwrap();
    assert!(
        refused.to_string().contains("another process uses"),
        "{refused}"
    );
    server.stop().await;
}

/// A doubler that keeps its answers.
fn keeper(name: &str) -> Vec<u8> {
    let manifest = format!("name = \"{name}\"\n[models.m]\npath = \"models/m.onnx\"\n[cache]\n");
    bundle(&manifest, &onnx("Add"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kept_answers_together_stay_within_the_servers_bound() {
    let dir = tempfile::tempdir().unwrap();
    let small = |config: &mut Config| config.cache_memory = 4 << 10;
    let server = Running::start(dir.path(), small).await;
    for name in ["f", "g"] {
        assert_eq!(server.upload(name, keeper(name)).await.0, 201);
    }
    let cached = async |name: &str, x: usize| {
        let request = server.ask(Method::POST, &format!("/v1/functions/{name}/invoke"));
        // Two answers fit: each is 800 bytes, and what it costs to keep it.
        let body = json!({"x": vec![[x, x]; 100]}).to_string();
        let response = request.body(body).send().await.unwrap();
        let header = response.headers()["x-firebox-cache"].to_str();
        header.unwrap().to_owned()
    };
    assert_eq!(cached("f", 1).await, "miss");
    assert_eq!(cached("f", 1).await, "hit");
    for x in 1..=3 {
        assert_eq!(cached("g", x).await, "miss");
    }
    assert_eq!(cached("g", 3).await, "hit");
    assert_eq!(cached("f", 1).await, "miss");
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    let evicted = "firebox_cache_evictions_total{reason=\"cache_memory\"} 3";
    assert!(metrics.contains(evicted), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_costs_what_it_used_at_the_prices_that_hold() {
    let dir = tempfile::tempdir().unwrap();
    let free = |_: &mut Config| {};
    let server = Running::start(dir.path(), free).await;
    server.upload("doubler", onnx("Add")).await;
    let invoke = "/v1/functions/doubler/invoke";
    for _ in 0..3 {
        let (status, _) = server.post(invoke, json!({"x": [[1, 2]]})).await;
        assert_eq!(status, 200);
    }
    assert_eq!(server.post(invoke, json!({"x": [1]})).await.0, 400);
    let path = "/v1/functions/doubler/versions/1/cost";
    let (_, cost) = server.get(path).await;
    assert_eq!(
        (&cost["cost"]["total"], &cost["currency"]),
        (&json!(0.0), &json!("USD"))
    );
    assert_eq!(cost["cost_per_1000_predictions"], 0.0);
    server.stop().await;

    let dear = |config: &mut Config| {
        config.prices = crate::Prices {
            currency: "EUR".into(),
            cpu_second: 10.0,
            gpu_second: 0.0,
            gb_second: 1000.0,
            request: 0.5,
        };
    };
    let server = Running::start(dir.path(), dear).await;
    let (_, cost) = server.get(path).await;
    let number = |pointer: &str| cost.pointer(pointer).unwrap().as_f64().unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.max(1.0), "{a} {b} in {cost}");
    assert_eq!(cost["currency"], "EUR");
    close(number("/cost/requests"), 4.0 * 0.5);
    let cpu = number("/usage/guest_cpu_seconds") + number("/usage/compute_cpu_seconds");
    assert!(cpu > 0.0);
    close(number("/cost/cpu"), cpu * 10.0);
    close(
        number("/cost/memory"),
        number("/usage/memory_gb_seconds") * 1000.0,
    );
    let parts = ["/cost/cpu", "/cost/gpu", "/cost/memory", "/cost/requests"];
    let sum: f64 = parts.iter().map(|part| number(part)).sum();
    close(number("/cost/total"), sum);
    close(number("/cost_per_1000_predictions"), sum / 3.0 * 1000.0);
    let (_, all) = server.get("/v1/cost").await;
    assert_eq!(all["prices"]["gb_second"], 1000.0);
    close(all["total"].as_f64().unwrap(), number("/cost/total"));

    let ask = || server.ask(Method::POST, invoke).body(r#"{"x": [[1, 2]]}"#);
    let quiet = ask().send().await.unwrap();
    assert!(!quiet.headers().contains_key("x-firebox-cost"));
    let told = ask().header("x-firebox-cost", "?").send().await.unwrap();
    let told = told.headers()["x-firebox-cost"].to_str().unwrap();
    let (amount, currency) = told.split_once(' ').unwrap();
    assert!(
        amount.parse::<f64>().unwrap() > 0.5 && currency == "EUR",
        "{told}"
    );
    server.stop().await;
}
