//! `/openapi.json` says what the server really does: every path that it describes is called, and
//! every answer is held against the description.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use firebox_tests::client::{Answer, send};
use firebox_tests::schema::faults;
use firebox_tests::{Bundle, Server, guests, onnx};
use reqwest::Method;
use serde_json::{Value, json};

/// The description, and which of its operations were called.
struct Description {
    document: Value,
    called: BTreeSet<String>,
}

impl Description {
    async fn of(server: &Server) -> Description {
        let document = server.get("/openapi.json").await.expect(200).json();
        Description {
            document,
            called: BTreeSet::new(),
        }
    }

    fn operations(&self) -> BTreeSet<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys();
            methods
                .map(|method| format!("{method} {path}"))
                .collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    /// The template that a path is of: the one with the most words of its own.
    fn template(&self, path: &str) -> &str {
        let path = path.split('?').next().unwrap();
        let fits = |template: &&String| {
            let (a, b): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || a.starts_with('{'))
        };
        let paths = self.document["paths"].as_object().unwrap().keys();
        let found = paths
            .filter(fits)
            .min_by_key(|template| template.matches('{').count());
        found.unwrap_or_else(|| panic!("{path} is not described"))
    }

    /// Holds an answer against what is said of it.
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let template = self.template(path).to_owned();
        let operation = &self.document["paths"][&template][method];
        let what = format!("{method} {template} → {}: {}", answer.status, answer.text());
        assert!(operation.is_object(), "{what} is not described");
        let responses = &operation["responses"];
        let response = match responses.get(answer.status.to_string()) {
            Some(response) => response,
            None if answer.status >= 400 => &responses["default"],
            None => panic!("{what}: the status is not described"),
        };
        assert!(response.is_object(), "{what}: the status is not described");
        let kind = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap()
            .trim();
        match response.get("content") {
            None => assert!(answer.body.is_empty(), "{what}: a body is not described"),
            Some(content) => {
                // An invoke may answer with whatever the function says.
                let media = content
                    .get(kind)
                    .or(content.get("application/octet-stream"));
                let media = media.unwrap_or_else(|| panic!("{what}: {kind} is not described"));
                let told = match kind {
                    _ if content.get(kind).is_none() => Vec::new(),
                    // What is described is a line.
                    "application/x-ndjson" => {
                        let text = answer.text();
                        let lines = text.lines().map(serde_json::from_str);
                        lines.collect::<Result<Vec<Value>, _>>().unwrap()
                    }
                    kind if kind.ends_with("json") => vec![answer.json()],
                    _ => Vec::new(),
                };
                for told in told {
                    let found = faults(&self.document, &media["schema"], &told);
                    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
                }
            }
        }
        self.called.insert(format!("{method} {template}"));
    }

    async fn call(
        &mut self,
        server: &Server,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = server.request(method.to_uppercase().parse::<Method>().unwrap(), path);
        let answer = match body {
            Some(body) => send(request.json(&body)).await,
            None => send(request).await,
        };
        self.check(method, path, &answer);
        answer
    }
}

#[tokio::test]
async fn every_path_answers_as_it_is_described() {
    let server = Server::start().await;
    let mut description = Description::of(&server).await;
    for n in 1..=3_u8 {
        let bundle = Bundle::of_model(onnx::add(f32::from(n))).tar("adder");
        for status in [201, 200] {
            let answer = server.upload("adder", bundle.clone()).await.expect(status);
            description.check("post", "/v1/functions/adder/versions", &answer);
        }
    }
    let refused = server
        .upload("adder", "neither".as_bytes().to_vec())
        .await
        .expect(422);
    description.check("post", "/v1/functions/adder/versions", &refused);

    let policy = json!({"weights": {"1": 9000, "2": 1000}, "labels": {"stable": 1},
        "shadow": {"version": 2, "share_bp": 100}, "sticky": {"cookie": "sid"}, "default": "stable"});
    let x = json!({"x": [0]});
    let infer = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0]}]});
    let f = "/v1/functions/adder";
    let m = "/v2/models/adder";
    let traffic = format!("{f}/traffic");
    let rollout = format!("{f}/rollout");
    for (method, path, body, status) in [
        ("get", "/v1/functions".to_owned(), None, 200),
        ("get", f.to_owned(), None, 200),
        ("get", format!("{f}/versions"), None, 200),
        ("get", format!("{f}/versions/1"), None, 200),
        ("get", format!("{f}/versions/7"), None, 404),
        ("get", format!("{f}/versions/1/residency"), None, 200),
        ("get", format!("{f}/versions/7/residency"), None, 404),
        ("get", "/v1/residency".to_owned(), None, 200),
        ("get", format!("{f}/versions/1/bundle"), None, 200),
        ("get", format!("{f}/versions/1/diff/2"), None, 200),
        ("put", traffic.clone(), Some(policy), 200),
        (
            "put",
            traffic.clone(),
            Some(json!({"weights": {"1": 1}})),
            422,
        ),
        ("get", traffic.clone(), None, 200),
        (
            "put",
            traffic.clone(),
            Some(json!({"weights": {"2": 10_000}, "default": 1})),
            200,
        ),
        ("get", traffic.clone(), None, 200),
        ("get", format!("{f}/policies"), None, 200),
        ("get", format!("{f}/policies/2"), None, 200),
        ("get", format!("{f}/policies/77"), None, 404),
        ("post", format!("{f}/rollback"), None, 200),
        (
            "post",
            format!("{f}/rollback"),
            Some(json!({"to_policy": 1})),
            200,
        ),
        ("post", format!("{f}/rollback"), Some(json!({"to": 1})), 400),
        ("get", rollout.clone(), None, 404),
        (
            "post",
            rollout.clone(),
            Some(json!({"to": 2, "steps": "10%:1h,100%"})),
            201,
        ),
        ("post", rollout.clone(), Some(json!({"to": 3})), 409),
        (
            "post",
            rollout.clone(),
            Some(json!({"to": 3, "guards": ["p95"]})),
            400,
        ),
        ("get", rollout.clone(), None, 200),
        ("post", format!("{rollout}/pause"), None, 200),
        (
            "post",
            format!("{rollout}/promote"),
            Some(json!({"full": false})),
            200,
        ),
        (
            "post",
            rollout.clone(),
            Some(json!({"to": 3, "steps": "10%:1h,100%"})),
            201,
        ),
        ("post", format!("{rollout}/abort"), None, 200),
        ("post", format!("{rollout}/abort"), None, 409),
        ("get", rollout.clone(), None, 200),
        ("get", format!("{f}/rollouts"), None, 200),
        (
            "put",
            traffic.clone(),
            Some(json!({"weights": {"1": 10_000}, "shadow": {"version": 2, "share_bp": 10_000}})),
            200,
        ),
        ("get", format!("{f}/shadow"), None, 200),
        ("get", "/v1/cost".to_owned(), None, 200),
        ("get", format!("{f}/cost"), None, 200),
        ("get", format!("{f}/versions/1/cost"), None, 200),
        ("get", format!("{f}/versions/7/cost"), None, 404),
        ("delete", format!("{f}/versions/1"), None, 409),
        ("post", format!("{f}/invoke"), Some(x.clone()), 200),
        ("post", format!("{f}/invoke"), Some(json!({"y": 1})), 400),
        (
            "post",
            format!("{f}/versions/2/invoke"),
            Some(x.clone()),
            200,
        ),
        ("post", format!("{f}/labels/gold/invoke"), Some(x), 404),
        ("get", "/v1/devices".to_owned(), None, 200),
        ("get", "/metrics".to_owned(), None, 200),
        ("get", "/openapi.json".to_owned(), None, 200),
        ("get", "/v2".to_owned(), None, 200),
        ("get", "/v2/health/live".to_owned(), None, 200),
        ("get", "/v2/health/ready".to_owned(), None, 200),
        ("get", m.to_owned(), None, 200),
        ("get", "/v2/models/nobody".to_owned(), None, 404),
        ("get", format!("{m}/versions/2"), None, 200),
        ("get", format!("{m}/labels/gold"), None, 404),
        ("get", format!("{m}/ready"), None, 200),
        ("get", format!("{m}/versions/2/ready"), None, 200),
        ("get", format!("{m}/labels/gold/ready"), None, 404),
        ("post", format!("{m}/infer"), Some(infer.clone()), 200),
        (
            "post",
            format!("{m}/versions/2/infer"),
            Some(infer.clone()),
            200,
        ),
        ("post", format!("{m}/labels/gold/infer"), Some(infer), 404),
        ("get", format!("{m}/config"), None, 200),
        ("get", format!("{m}/versions/2/config"), None, 200),
        ("get", "/v2/models/stats".to_owned(), None, 200),
        ("get", format!("{m}/stats"), None, 200),
        ("get", format!("{m}/versions/7/stats"), None, 404),
        ("post", "/v2/repository/index".to_owned(), None, 200),
        (
            "post",
            "/v2/repository/models/adder/load".to_owned(),
            None,
            200,
        ),
        (
            "post",
            "/v2/repository/models/adder/unload".to_owned(),
            Some(json!({"parameters": {"unload_dependents": false}})),
            200,
        ),
        (
            "put",
            format!("{f}/retention"),
            Some(json!({"keep_last": 1})),
            200,
        ),
        ("get", f.to_owned(), None, 200),
        (
            "put",
            format!("{f}/retention"),
            Some(json!({"keep_last": null})),
            200,
        ),
        (
            "put",
            format!("{f}/retention"),
            Some(json!({"keep_last": 0})),
            400,
        ),
        ("delete", format!("{f}/versions/3"), None, 204),
        ("delete", f.to_owned(), None, 204),
        ("get", f.to_owned(), None, 404),
    ] {
        let answer = description.call(&server, method, &path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    jobs(&mut description, &server).await;
    handlers(&mut description, &server).await;
    let never: Vec<String> = description
        .operations()
        .difference(&description.called)
        .cloned()
        .collect();
    assert!(never.is_empty(), "described and never called: {never:?}");
}

/// What is said of functions that answer HTTP requests themselves.
async fn handlers(description: &mut Description, server: &Server) {
    let component = guests::component_of(&guests::guest("http-probe"));
    server
        .deploy("probe", &Bundle::of_component(component))
        .await;
    for (method, path, body, status) in [
        ("get", "/f/probe/hello", None, 200),
        ("get", "/f/probe/trap", None, 502),
        ("get", "/f/nobody/hello", None, 404),
        ("post", "/f/probe/count", Some(json!({})), 200),
        ("post", "/f/adder/count", Some(json!({})), 404),
    ] {
        let answer = description.call(server, method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
}

/// What is said of jobs, whose paths have ids.
async fn jobs(description: &mut Description, server: &Server) {
    server
        .deploy("lines", &Bundle::of_model(onnx::add_one()))
        .await;
    let x = json!({"x": [0]});
    let bad = server.submitted("lines/jobs", "1").await;
    server.job_done(&bad).await;
    let f = "/v1/functions/lines";
    let path = format!("{f}/jobs");
    let submit = Some(x.clone());
    let answer = description.call(server, "post", &path, submit).await;
    let job = answer.expect(202).json()["job"]
        .as_str()
        .unwrap()
        .to_owned();
    server.job_done(&job).await;
    let job = format!("/v1/jobs/{job}");
    for (method, path, body, status) in [
        ("post", format!("{f}/versions/1/jobs"), Some(x.clone()), 202),
        (
            "post",
            format!("{f}/labels/gold/jobs"),
            Some(x.clone()),
            404,
        ),
        ("post", "/v1/functions/nobody/jobs".to_owned(), Some(x), 404),
        ("post", path.clone(), None, 422),
        ("get", path, None, 200),
        ("get", "/v1/functions/nobody/jobs".to_owned(), None, 404),
        ("get", "/v1/jobs?limit=1".to_owned(), None, 200),
        ("get", "/v1/jobs?limit=many".to_owned(), None, 400),
        ("get", job.clone(), None, 200),
        ("get", format!("{job}0"), None, 404),
        ("get", format!("{job}/results"), None, 200),
        (
            "get",
            format!("/v1/jobs/{bad}/results?failed=true"),
            None,
            200,
        ),
        ("get", format!("{job}/results?failed=perhaps"), None, 400),
        ("post", format!("{job}/cancel"), None, 409),
        ("post", format!("{job}/retry"), None, 409),
        ("delete", job.clone(), None, 204),
        ("delete", job, None, 404),
    ] {
        let answer = description.call(server, method, &path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_stale_change_answers_as_it_is_described() {
    let server = Server::start().await;
    let mut description = Description::of(&server).await;
    server
        .deploy("adder", &Bundle::of_model(onnx::add_one()))
        .await;
    let path = "/v1/functions/adder/traffic";
    let request = server
        .request(Method::PUT, path)
        .header("if-match", "\"7\"");
    let answer = send(request.json(&json!({"weights": {"1": 10_000}}))).await;
    description.check("put", path, &answer.expect(412));
    let path = "/v1/functions/adder/rollback";
    let request = server
        .request(Method::POST, path)
        .header("if-match", "\"7\"");
    description.check("post", path, &send(request).await.expect(412));
}

#[tokio::test]
async fn the_examples_are_of_the_form_that_they_show() {
    let server = Server::start().await;
    let Description { document, .. } = Description::of(&server).await;
    let mut examples = 0;
    let paths = document["paths"].as_object().unwrap();
    for (path, method, operation) in paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path, method, operation))
    }) {
        let responses = operation["responses"].as_object().into_iter().flatten();
        let contents = responses.map(|(_, response)| &response["content"]);
        for media in contents.chain([&operation["requestBody"]["content"]]) {
            for (kind, media) in media.as_object().into_iter().flatten() {
                let Some(example) = media.get("example") else {
                    continue;
                };
                examples += 1;
                let found = faults(&document, &media["schema"], example);
                assert!(
                    found.is_empty(),
                    "{method} {path} {kind}:\n{}",
                    found.join("\n")
                );
            }
        }
    }
    assert!(examples >= 6, "only {examples} examples");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(example) = schema.get("example") {
                let found = faults(&document, schema, example);
                assert!(found.is_empty(), "{name}.{member}: {}", found.join("\n"));
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let server = Server::start().await;
    let Description { document, .. } = Description::of(&server).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(
                names.insert(name.to_owned()),
                "two operations are called {name}"
            );
            assert!(
                operation["summary"].is_string(),
                "{method} {path} has no summary"
            );
            let tags: Vec<&str> = operation["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tag| tag.as_str().unwrap())
                .collect();
            let known = document["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tag| tag["name"].as_str().unwrap());
            assert_eq!(
                known.filter(|tag| tags.contains(tag)).count(),
                1,
                "{method} {path}: {tags:?}"
            );
            let parameters = operation["parameters"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let declared: BTreeSet<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let in_path: BTreeSet<&str> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(declared, in_path, "{method} {path}");
        }
    }
    let text = document.to_string();
    for (at, _) in text.match_indices("\"#/") {
        let reference = text[at + 2..].split('"').next().unwrap();
        assert!(
            document.pointer(reference).is_some(),
            "#{reference} leads nowhere"
        );
    }
}
