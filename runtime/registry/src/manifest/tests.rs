//! What a manifest may say, and what is said of one that is wrong.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::ByteSize;

const FULL: &str = r#"
name = "file-type"
description = "What kind of file some bytes are."
tier = "realtime"
[function]
component = "function.wasm"
reuse = true
[models.magika]
path = "models/magika.onnx"
device = "cpu"
precision = "int8"
[models.magika.batching]
max_batch_size = 32
max_queue_delay = "2ms"
pad = { bytes = 256 }
[assets]
"data/vocab.txt" = "vocab.txt"
[limits]
memory = "64MiB"
deadline = "1500ms"
cpu = "200ms"
tensors = "16MiB"
concurrency = 3
[scaling]
keep_alive = "0s"
[cache]
ttl = "5m"
max_bytes = "1MiB"
[sample]
body = "samples/readme.md"
[network]
hosts = ["example.com:8080"]
"#;

fn refused(text: &str) -> String {
    Manifest::parse(text).unwrap_err().to_string()
}

#[test]
fn a_full_manifest_survives_toml_and_json() {
    let manifest = Manifest::parse(FULL).unwrap();
    assert_eq!(manifest.limits.deadline, Duration::from_millis(1500));
    assert_eq!(manifest.limits.cpu, Some(Duration::from_millis(200)));
    assert_eq!(manifest.limits.concurrency, NonZeroU32::new(3));
    assert_eq!(manifest.models["magika"].precision, Precision::Int8);
    assert_eq!(
        manifest.sample.as_ref().unwrap().content_type,
        "application/octet-stream"
    );
    assert_eq!(
        Manifest::parse(&manifest.to_toml().unwrap()).unwrap(),
        manifest
    );
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let manifest = Manifest::parse("name = 'a'\n[function]").unwrap();
    assert_eq!(manifest.tier, Tier::OnDemand);
    assert_eq!(manifest.limits.memory, ByteSize(256 << 20));
    assert_eq!(manifest.limits.deadline, Duration::from_secs(10));
    assert_eq!(manifest.scaling.keep_alive, Duration::from_secs(60));
    assert_eq!(
        (manifest.limits.cpu, manifest.limits.concurrency),
        (None, None)
    );
    assert_eq!(manifest.limits.tensors, ByteSize(256 << 20));
    let text = manifest.to_toml().unwrap();
    for key in ["cpu", "tensors", "concurrency", "reuse"] {
        assert!(!text.contains(key), "older builds don't know {key}: {text}");
    }
    assert_eq!(manifest.function.unwrap().component, None);
    let manifest = Manifest::parse("name = 'a'\n[models.m]\npath = 'm.onnx'").unwrap();
    assert_eq!(manifest.models["m"].precision, Precision::F32);
    assert!(!manifest.to_toml().unwrap().contains("precision"));
    assert_eq!(manifest.cache, None);
    let manifest = Manifest::parse("name = 'a'\n[function]\n[cache]").unwrap();
    assert_eq!(manifest.cache, Some(Cache::default()));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
    let said = refused("name = 'a'\n[function]\n[limits]\nmemroy = '1MiB'");
    let meant = "line 4: there is no key `limits.memroy`; did you mean `limits.memory`?";
    assert!(said.contains(meant), "{said}");
    let said = refused("name = 'a'\n[models.m]\npath = 'x'\ndevise = 'cpu'");
    assert!(
        said.contains("`models.m.devise`; did you mean `models.m.device`"),
        "{said}"
    );
    let said = refused("name = 'a'\nkeep_alive = '1s'\n[function]");
    assert!(said.contains("did you mean `scaling.keep_alive`"), "{said}");
    let said = refused("name = 'a'\ncolour = 1\n[function]");
    assert!(
        said.contains("`colour`") && !said.contains("did you mean"),
        "{said}"
    );
}

#[test]
fn wrong_values_say_what_is_allowed() {
    for (text, meant) in [
        ("name = 'A'\n[function]", "1 to 63"),
        ("name = 'a'", "describes nothing to run"),
        ("name = 'a'\ntier = 'fast'\n[function]", "on-demand"),
        (
            "name = 'a'\n[models.a]\npath='a'\n[models.b]\npath='b'",
            "exactly one model",
        ),
        (
            "name = 'a'\n[function]\n[limits]\nmemory = '8GiB'",
            "from 1MiB to 4GiB",
        ),
        (
            "name = 'a'\n[function]\n[limits]\nmemory = 7",
            "expected a string",
        ),
        (
            "name = 'a'\n[function]\n[limits]\ndeadline = '0s'",
            "limits.deadline",
        ),
        ("name = 'a'\n[function]\n[limits]\ncpu = '0s'", "limits.cpu"),
        (
            "name = 'a'\n[function]\n[limits]\nconcurrency = 0",
            "nonzero",
        ),
        (
            "name = 'a'\n[function]\n[limits]\ntensors = '8GiB'",
            "at most 4GiB",
        ),
        (
            "name = 'a'\n[function]\n[limits]\ndeadline = 'soon'",
            "such as \"10s\"",
        ),
        ("name = 'a'\n[function]\n[cache]\nttl = '0s'", "cache.ttl"),
        (
            "name = 'a'\n[function]\n[cache]\nmax_bytes = '1B'",
            "from 1KiB to 64GiB",
        ),
        (
            "name = 'a'\n[function]\n[assets]\n'../a' = 'a'",
            "below the function's root",
        ),
        (
            "name = 'a'\n[function]\n[assets]\n'a' = 'a'\n'a/b' = 'b'",
            "a file itself",
        ),
        ("name = 'a'\n[models.'a b']\npath = 'a'", "model's name"),
        (
            "name = 'a'\n[models.a]\npath = 'a'\nprecision = 'int4'",
            "expected `f32` or `int8`",
        ),
        (
            "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch_size = 1 }",
            "models.a.batching.max_batch_size` is 1: it must be from 2",
        ),
        (
            "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch = 8 }",
            "did you mean `models.a.batching.max_batch_size`",
        ),
        (
            "name = 'a'\n[models.a]\npath = 'a'\nbatching = { max_batch_size = 8, \
             max_queue_delay = '5s' }",
            "from 0s to 1s",
        ),
        (
            "name = 'a'\n[function]\n[network]\nhosts = ['http://a/']",
            "example.com",
        ),
        ("name = ", "firebox.toml: TOML parse error at line 1"),
    ] {
        let said = refused(text);
        assert!(said.contains(meant), "{text}: {said}");
    }
}
