//! How bundles and servers come to where they run: OCI registries, spoken to with Debian's
//! `docker-registry` on loopback, and Kubernetes, whose manifests are held against the published schemas.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use firebox_tests::{Server, binary, guests, onnx, toolchains};
use serde_json::{Value, json};

#[path = "distribution/kubernetes.rs"]
mod kubernetes;
#[path = "distribution/registry.rs"]
mod registry;
#[path = "distribution/stalling.rs"]
mod stalling;

use registry::{Group, Registry, START};

const WRONG_LINE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;
/// The password `secret`, as `htpasswd -B` writes it.
const ACCOUNT: &str = "ada:$2b$05$bEyHgG6yU60qdg1RdX0jpumZqYQIydgZDbpOxVgv7Dt46eN/mb4VO";

/// A project with a component, a model that is worth a layer, and an asset.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let manifest = "name = \"adder\"\ndescription = \"Adds.\"\n[function]\ncomponent = \"small.wasm\"\n\
                    [models.add]\npath = \"add.onnx\"\n[assets]\n\"words.txt\" = \"words.txt\"\n";
    fs::write(here.join("firebox.toml"), manifest).unwrap();
    fs::write(here.join("small.wasm"), guests::small()).unwrap();
    fs::write(here.join("add.onnx"), onnx::add_one()).unwrap();
    fs::write(here.join("words.txt"), "one two\n").unwrap();
    folder
}

fn firebox(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = binary::command();
    // No account of whoever runs the tests.
    command.current_dir(folder).env("DOCKER_CONFIG", folder);
    command.args(arguments);
    command
}

#[track_caller]
fn succeeds(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        complaint(&output)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(mut command: Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is not said in:\n{said}");
    }
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_comes_back_byte_for_byte_and_is_deployed() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let project = project();
    let here = project.path();
    let address = registry.address("team/adder:1");
    let built = succeeds(firebox(here, &["build", "."]));
    let pushed = succeeds(firebox(here, &["push", ".", &address]));
    assert_eq!(pushed["bundle"], built["digest"]);
    let again = succeeds(firebox(here, &["push", "adder.firebox", &address]));
    assert_eq!(
        again["digest"], pushed["digest"],
        "the same bundle is the same artifact"
    );
    assert_eq!(again["sent_bytes"], 0, "the registry has it all");

    let pulled = succeeds(firebox(here, &["pull", &address, "-o", "back.firebox"]));
    assert_eq!(pulled["bundle"], built["digest"]);
    let read = |name: &str| fs::read(here.join(name)).unwrap();
    assert_eq!(read("back.firebox"), read("adder.firebox"));
    let pinned = registry.address(&format!(
        "team/adder@{}",
        pushed["digest"].as_str().unwrap()
    ));
    let pulled = succeeds(firebox(here, &["pull", &pinned]));
    assert_eq!(pulled["file"], "adder.firebox", "named after the function");
    let mode = |name: &str| fs::metadata(here.join(name)).unwrap().permissions().mode();
    assert_eq!(mode("back.firebox") & 0o777, mode("words.txt") & 0o755);

    let server = Server::start().await;
    let mut deploy = firebox(here, &["deploy", &address]);
    deploy.env("FIREBOX_SERVER", server.url());
    let version = succeeds(deploy);
    assert_eq!(
        (&version["function"], &version["digest"]),
        (&json!("adder"), &built["digest"])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_wasm_tools_find_the_component_alone_under_the_tag() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let project = project();
    let here = project.path();
    succeeds(firebox(here, &["push", ".", &registry.address("adder:1")]));
    let manifest = registry.json("/v2/adder/manifests/1").await;
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["mediaType"], "application/wasm");
    let blob = |digest: &Value| format!("/v2/adder/blobs/{}", digest.as_str().unwrap());
    let (_, wasm) = registry.get(&blob(&layers[0]["digest"])).await.unwrap();
    assert_eq!(wasm, guests::small());
    let config = registry.json(&blob(&manifest["config"]["digest"])).await;
    assert_eq!(
        (&config["architecture"], &config["os"]),
        (&json!("wasm"), &json!("wasip2"))
    );
    assert_eq!(config["layerDigests"], json!([layers[0]["digest"]]));
    let exports = config["component"]["exports"].as_array().unwrap();
    assert!(exports.contains(&json!("infer")), "{config}");
    let bundle = registry.json("/v2/adder/manifests/1.bundle").await;
    assert_eq!(bundle["artifactType"], "application/vnd.firebox.bundle.v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_another_tool_pushed_is_deployed_as_it_is() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let project = project();
    let here = project.path();
    succeeds(firebox(here, &["push", ".", &registry.address("other:1")]));
    // The same without what Firebox adds: an artifact as `wkg` makes it.
    let mut manifest = registry.json("/v2/other/manifests/1").await;
    manifest.as_object_mut().unwrap().remove("annotations");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = client.put(format!("http://{}/v2/other/manifests/2", registry.host));
    let put = put.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    let put = put.body(manifest.to_string()).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 201);
    let pulled = succeeds(firebox(here, &["pull", &registry.address("other:2")]));
    assert_eq!(pulled["file"], "other.wasm");
    assert_eq!(fs::read(here.join("other.wasm")).unwrap(), guests::small());
    let server = Server::start().await;
    let mut deploy = firebox(here, &["deploy", &registry.address("other:2")]);
    deploy.env("FIREBOX_SERVER", server.url());
    assert_eq!(succeeds(deploy)["function"], "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_alone_is_one_artifact_and_large_files_are_sent_once() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("adder.onnx"), onnx::add_one()).unwrap();
    succeeds(firebox(
        here,
        &["push", "adder.onnx", &registry.address("adder:1")],
    ));
    succeeds(firebox(
        here,
        &["pull", &registry.address("adder:1"), "-o", "back.onnx"],
    ));
    assert_eq!(fs::read(here.join("back.onnx")).unwrap(), onnx::add_one());
    let pulled = succeeds(firebox(here, &["pull", &registry.address("adder:1")]));
    assert_eq!(
        pulled["file"], "adder.onnx",
        "under a name that deploy knows"
    );

    let model = guests::model("magika", "magika.onnx");
    fs::write(here.join("magika.onnx"), &model).unwrap();
    let push = |description: &str, tag: &str| {
        let manifest = format!(
            "name = \"magika\"\ndescription = \"{description}\"\n[models.m]\npath = \"magika.onnx\"\n"
        );
        fs::write(here.join("firebox.toml"), manifest).unwrap();
        let address = registry.address(&format!("magika:{tag}"));
        let pushed = succeeds(firebox(here, &["push", ".", &address]));
        pushed["sent_bytes"].as_u64().unwrap()
    };
    let (first, second) = (push("One.", "1"), push("Two.", "2"));
    assert!(
        first > 1 << 20 && second < 64 << 10,
        "{first}, then {second}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_comes_from_docker_or_the_command_line() {
    let Some(registry) = Registry::start(Some(ACCOUNT)).await else {
        return;
    };
    let project = project();
    let here = project.path();
    let address = registry.address("adder:1");
    let push = ["push", ".", &address];
    fails(
        firebox(here, &push),
        REFUSED,
        &["without an account", "docker login"],
    );

    let typed = |password: &str| {
        let mut command = firebox(here, &push);
        command.args(["--username", "ada", "--password-stdin"]);
        let (read, mut write) = std::io::pipe().unwrap();
        writeln!(write, "{password}").unwrap();
        command.stdin(read);
        command
    };
    fails(typed("wrong"), REFUSED, &["the account ada"]);
    fails(typed(""), WRONG_LINE, &["holds no password"]);
    succeeds(typed("secret"));

    let auth = "YWRhOnNlY3JldA=="; // ada:secret
    let config = json!({"auths": {registry.host.as_str(): {"auth": auth}}});
    fs::write(here.join("config.json"), config.to_string()).unwrap();
    succeeds(firebox(here, &["pull", &address]));

    // Helpers say so where they keep no account, and that is no failure.
    let config = json!({"credsStore": "test"});
    fs::write(here.join("config.json"), config.to_string()).unwrap();
    let helped = |words: &str| {
        let helper = here.join("docker-credential-test");
        fs::write(
            &helper,
            format!("#!/bin/sh\ncat >/dev/null\necho '{words}'\nexit 1\n"),
        )
        .unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = firebox(here, &["pull", &address]);
        command.env("PATH", toolchains::path_with(here));
        command
    };
    let none = helped("credentials not found in native keychain");
    fails(none, REFUSED, &["without an account"]);
    let locked = helped("the keychain is locked");
    fails(locked, 1, &["docker-credential-test failed"]);

    fs::write(here.join("config.json"), "{").unwrap();
    fails(
        firebox(here, &["pull", &address]),
        1,
        &["config.json", "can't be had"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_missing_is_told_and_leaves_no_file() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let project = project();
    let here = project.path();
    let address = registry.address("adder:1");
    let pull = ["pull", &address, "--output", "back.firebox"];
    fails(
        firebox(here, &pull),
        REFUSED,
        &["there is nothing at", &address],
    );
    succeeds(firebox(here, &["push", ".", &address]));

    let bundle = registry.json("/v2/adder/manifests/1.bundle").await;
    let digest = bundle["layers"][0]["digest"].as_str().unwrap();
    let kept = fs::read(registry.blob(digest)).unwrap();
    let mut damaged = kept.clone();
    damaged[kept.len() / 2] ^= 1;
    for content in [&damaged[..], &kept[..kept.len() - 1]] {
        fs::write(registry.blob(digest), content).unwrap();
        fails(firebox(here, &pull), 1, &["a layer of", "digest"]);
        assert!(!here.join("back.firebox").exists());
    }
    let longer = [&kept[..], b"more"].concat();
    fs::write(registry.blob(digest), longer).unwrap();
    fails(firebox(here, &pull), 1, &["longer than the manifest says"]);
    fs::write(registry.blob(digest), kept).unwrap();
    succeeds(firebox(here, &pull));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_on_this_machine_is_reached_without_a_proxy_and_by_http() {
    let Some(registry) = Registry::start(None).await else {
        return;
    };
    let project = project();
    let here = project.path();
    let address = registry.address("adder:1");
    for command in [["push", ".", &address], ["pull", &address, "--json"]] {
        let mut command = firebox(here, &command);
        for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(proxy, "http://127.0.0.1:1");
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
    }
    let tls = ["pull", &address, "--insecure=false"];
    fails(
        firebox(here, &tls),
        UNREACHABLE,
        &["no registry answers", "--insecure"],
    );
    let mut without = firebox(here, &["pull", &address]);
    without.env("SSL_CERT_FILE", "/none");
    without.env("SSL_CERT_DIR", "/none");
    fails(without, 1, &["ca-certificates", "SSL_CERT_FILE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bundle_and_no_model_is_not_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Nobody listens there: nothing is sent.
    for (name, content) in [
        ("adder.tar.gz", &b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..]),
        ("README.md", &b"# adder\n\nAdds.\n"[..]),
    ] {
        fs::write(here.join(name), content).unwrap();
        fails(
            firebox(here, &["push", name, "oci://127.0.0.1:1/adder:1"]),
            1,
            &[name, "not an ONNX model", "push takes a project folder"],
        );
    }
}

#[test]
fn addresses_that_can_not_be_are_wrong_command_lines() {
    let project = project();
    let here = project.path();
    for (address, word) in [
        ("adder:1", "oci://"),
        ("oci://adder:1", "names no registry"),
        ("oci://127.0.0.1:1/Adder:1", "127.0.0.1:1/Adder"),
    ] {
        fails(firebox(here, &["push", ".", address]), WRONG_LINE, &[word]);
    }
    let digest = format!("oci://127.0.0.1:1/adder@sha256:{}", "0".repeat(64));
    fails(
        firebox(here, &["push", ".", &digest]),
        WRONG_LINE,
        &["push to a tag"],
    );
    let nobody = ["pull", "oci://127.0.0.1:1/adder:1"];
    fails(
        firebox(here, &nobody),
        UNREACHABLE,
        &["no registry answers"],
    );
}
