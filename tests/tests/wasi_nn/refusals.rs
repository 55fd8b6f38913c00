//! What is refused: uploads that are no commands, and guests that want too much or lie.

use super::*;

async fn upload_refused(text: &str, manifest: &str, words: &[&str]) {
    let server = Server::start().await;
    let wasm = guests::of_text(text);
    let bundle = Bundle::of_component(wasm).with_lines(manifest);
    let answer = server.upload("bad", bundle.tar("bad")).await;
    answer.refused(422, words);
}

#[tokio::test]
async fn a_module_that_is_no_command() {
    upload_refused("(module)", "", &["_start", "wasm32-wasip1"]).await;
    let words = ["memory `memory`", "found: _start"];
    upload_refused(r#"(module (func (export "_start")))"#, "", &words).await;
    let takes = r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#;
    upload_refused(takes, "", &["without parameters"]).await;
}

#[tokio::test]
async fn imports_that_the_host_does_not_give() {
    let unknown = r#"(module (import "env" "magic" (func))
        (memory (export "memory") 1) (func (export "_start")))"#;
    let words = [
        "env::magic",
        "wasi_snapshot_preview1",
        "init_execution_context",
    ];
    upload_refused(unknown, "", &words).await;
    let other = r#"(module (import "wasi_ephemeral_nn" "compute" (func (param i64) (result i32)))
        (memory (export "memory") 1) (func (export "_start")))"#;
    upload_refused(other, "", &["compute", "wasi_ephemeral_nn"]).await;
}

#[tokio::test]
async fn keys_of_commands_where_the_code_is_none() {
    let server = Server::start().await;
    let bundle = Bundle::of_component(guests::small()).with_lines("args = [\"a\"]");
    let answer = server.upload("bad", bundle.tar("bad")).await;
    answer.refused(422, &["function.args", "commands", "function"]);
}

#[tokio::test]
async fn addresses_outside_of_memory() {
    let server = server_with("classic").await;
    let script_and_errors = [
        ("load_by_name add", "0 0"),
        ("init 0", "0 0"),
        ("load_at 0xfffffff0 1 1 0 0x10", "1"),
        ("load_at 0 1 1 0 0xfffffffe", "1"),
        ("load_at 0 0xffffffff 1 0 0x10", "1"),
        ("load_by_name_at 0xfffffff0 16 0x10", "1"),
        ("load_by_name_at 0x10 0xffffffff 0x10", "1"),
        ("load_by_name_at 0x10 4 0xffffffff", "1"),
        ("set_at 0 0 0xffffffff", "1"),
        ("set_at 0 0 0xfffffff0", "1"),
        // Lists that lie outside, end outside, and have more elements than there are numbers.
        ("set_record 0 0 0xfffffff0 1 1 0x10 4", "1"),
        ("set_record 0 0 0x10 0x7fffffff 1 0x10 4", "1"),
        ("set_record 0 0 0x10 0xffffffff 1 0x10 4", "1"),
        ("set_record 0 0 0x10 1 1 0x10 0xffffffff", "1"),
        ("set_record 0 0 0x10 1 1 0xffffffff 0xffffffff", "1"),
        ("set 0 0 1 4294967295,4294967295,4294967295 00000000", "1"),
        ("get_at 0 0 0xfffffff0 64 0x10", "1"),
        ("get_at 0 0 0x10 0xffffffff 0x10", "1"),
        ("get_at 0 0 0x10 4 0xfffffffe", "1"),
    ];
    let (script, errors): (Vec<_>, Vec<_>) = script_and_errors.into_iter().unzip();
    assert_eq!(say(&server, &script).await, errors);
}

#[tokio::test]
async fn a_flood_of_loads_and_of_handles() {
    let server = server_with("classic").await;
    let script = [
        "repeat 40 load add.onnx 1 0",
        "repeat 2000 load_by_name add",
        "repeat 2000 init 0",
    ];
    let said = say(&server, &script).await;
    assert_eq!(said[0], r#"{"0": 16, "7": 24}"#);
    // Sixteen graphs are there already.
    assert_eq!(said[1], r#"{"0": 1008, "7": 992}"#);
    assert_eq!(said[2], r#"{"0": 1024, "7": 976}"#);
    assert_eq!(say(&server, &["load_by_name add"]).await, ["0 0"]);
}

/// Contexts that hold inputs and never compute meet the budget for tensors; one whose input is
/// replaced over and over doesn't.
#[tokio::test]
async fn contexts_that_hold_tensors_and_never_compute() {
    let server = Server::start().await;
    let bundle = probe("classic").with_lines("[limits]\ntensors = \"100KiB\"");
    server.deploy("probe", &bundle).await;
    let tensor = format!("1 4096 {}", "00".repeat(4 * 4096));
    let mut script = vec!["load_by_name add".to_owned()];
    for context in 0..8 {
        script.push("init 0".into());
        script.push(format!("set {context} 0 {tensor}"));
    }
    script.push(format!("repeat 100 set 0 0 {tensor}"));
    let script: Vec<_> = script.iter().map(String::as_str).collect();
    let said = say(&server, &script).await;
    let set = said.iter().skip(2).step_by(2).map(String::as_str);
    let expected = ["0", "0", "0", "0", "0", "0", "7", "7"];
    assert_eq!(set.collect::<Vec<_>>(), expected, "{said:?}");
    assert_eq!(said.last().unwrap(), r#"{"0": 100}"#);
}

#[tokio::test]
async fn a_model_that_is_too_large_for_the_instance() {
    let server = Server::start().await;
    for (kind, load, code) in [
        ("classic", "load large.onnx 1 0", "7"),
        ("component", "load large.onnx onnx cpu", "TooLarge"),
    ] {
        let bundle = Bundle::of_component(guests::program(&format!("{kind}_probe")))
            .with_lines("load_models = \"cpu\"\n[assets]\n\"large.onnx\" = \"large.onnx\"")
            .with_file("large.onnx", onnx::lookup(&[0.5; 1024], 512))
            .with_lines("[limits]\ntensors = \"1MiB\"");
        server.deploy(kind, &bundle).await;
        let said = server.invoke(kind, load).await.expect(200).text();
        assert_eq!(said.split_whitespace().next(), Some(code), "{said}");
    }
}
