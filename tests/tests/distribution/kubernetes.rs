//! Kubernetes: the manifests, and the script that the container runs.

use std::net::TcpListener;
use std::path::PathBuf;

use firebox_tests::binary::{target, workspace};
use firebox_tests::client;

use super::*;

#[test]
fn the_manifests_for_kubernetes_are_as_the_schemas_say() {
    let Some(bin) = toolchains::pip(&["kubernetes-validate==1.37.0"]) else {
        return;
    };
    let check = |files: &[PathBuf]| {
        let mut python = Command::new(bin.join("python3"));
        python.arg(workspace().join("tests/kubernetes/check.py"));
        python.arg("1.37.0").args(files).output().unwrap()
    };
    let folder = workspace().join("examples/kubernetes");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files: Vec<_> = files
        .filter(|path| path.extension() == Some("yaml".as_ref()))
        .collect();
    let output = check(&files);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", complaint(&output));
    for kind in [
        "ServingRuntime",
        "InferenceService",
        "Deployment",
        "Service",
        "PersistentVolumeClaim",
    ] {
        assert!(said.contains(&format!("{kind} in")), "{said}");
    }
    // That a mistake is found is half of the promise.
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let wrong = text.replacen("spec:\n", "spec:\n  replicaz: 1\n", 1);
        let wrong_file = target().join("wrong.yaml");
        fs::write(&wrong_file, wrong).unwrap();
        let said = check(&[wrong_file]);
        assert!(
            !said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stdout)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_serves_what_lies_in_a_folder_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    fs::write(models.join("model.onnx"), onnx::add_one()).unwrap();
    let programs = binary::firebox().parent().unwrap();
    let script = workspace().join("examples/kubernetes/serve-models");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = free.local_addr().unwrap().to_string();
    let start = |models: &Path| {
        let mut command = Command::new(&script);
        command.arg(models).arg("adder").stdin(Stdio::null());
        command.env("PATH", toolchains::path_with(programs));
        command.env("TMPDIR", folder.path());
        command.env("FIREBOX_DATA", folder.path().join("data"));
        command.env("FIREBOX_LISTEN", &host);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    drop(free);
    let empty = start(folder.path()).status().unwrap();
    assert_eq!(
        empty.code(),
        Some(1),
        "a folder without models serves nothing"
    );
    let mut server = Group::spawn(start(&models));
    let marker = folder.path().join("models-are-served");
    let began = Instant::now();
    while !marker.exists() {
        assert!(began.elapsed() < START, "nothing is served");
        assert!(
            server.0.try_wait().unwrap().is_none(),
            "it ended at its start"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client::ready();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    // The probe of the runtime, and a question as KServe's clients put it.
    let ready = client.get(format!("http://{host}/v2/models/adder/ready"));
    assert_eq!(ready.send().await.unwrap().status().as_u16(), 200);
    let question = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]},
    ]});
    let asked = client.post(format!("http://{host}/v2/models/adder/infer"));
    let answer: Value = asked
        .json(&question)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0]));

    // To the script alone, as a container's runtime does.
    server.signal(|pid| pid, libc::SIGTERM);
    let status = server.ended();
    assert!(status.success(), "{status}");
}

/// A `firebox` that is none: its server waits, and so does a deploy.
const STAND_IN: &str = "#!/bin/sh\n\
    echo \"$FIREBOX_SERVER\" > \"$TMPDIR/$1\"\n\
    [ \"$1\" != functions ] || exit 0\n\
    exec sleep 600\n";

#[test]
fn the_container_stops_when_told_while_it_deploys() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("model.onnx"), onnx::add_one()).unwrap();
    fs::write(here.join("firebox"), STAND_IN).unwrap();
    fs::set_permissions(here.join("firebox"), fs::Permissions::from_mode(0o755)).unwrap();
    let asked = || fs::read_to_string(here.join("deploy")).unwrap_or_default();
    for (listen, server) in [
        ("10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("0.0.0.0:81", "http://127.0.0.1:81"),
        ("[::]:82", "http://[::1]:82"),
    ] {
        let mut command = Command::new(workspace().join("examples/kubernetes/serve-models"));
        command.arg(here).env("TMPDIR", here);
        command.env("PATH", toolchains::path_with(here));
        command.env("FIREBOX_LISTEN", listen);
        command.stdin(Stdio::null());
        let mut script = Group::spawn(command);
        let began = Instant::now();
        while asked().trim() != server {
            assert!(began.elapsed() < START, "{listen}: {}", asked());
            std::thread::sleep(Duration::from_millis(20));
        }
        script.signal(|pid| pid, libc::SIGTERM);
        // The stand-in's server is ended by the signal, which is 143 to a shell.
        assert_eq!(script.ended().code(), Some(143));
        assert!(!here.join("models-are-served").exists());
    }
}
