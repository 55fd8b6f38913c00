//! What is refused at upload, and with which words.

use std::time::Duration;

use firebox_engine::{DType, Dim};
use firebox_sandbox::{Assets, CompileError, InvokeError, Limits, Sandbox, SandboxConfig};

use crate::guest;
use crate::probe::{config, context, link, request, said, shared};

async fn refused(wasm: &[u8]) -> CompileError {
    shared()
        .await
        .0
        .compile(wasm, &Assets::none())
        .await
        .unwrap_err()
}

/// A component whose three exports are empty functions, with something more in front.
fn component(more: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {more}
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (export "init" (func $f))
            (export "describe" (func $f))
            (export "infer" (func $f)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn bytes_that_are_not_wasm_are_refused() {
    let error = refused(b"<!DOCTYPE html>").await.to_string();
    assert!(
        error.contains("found `<!DO`") && error.contains("firebox build"),
        "{error}"
    );
    let error = refused(b"").await.to_string();
    assert!(error.contains("found 0 bytes"), "{error}");
}

#[tokio::test]
async fn a_core_module_is_refused_with_what_to_do() {
    let error = refused(&wat::parse_str("(module)").unwrap()).await;
    assert!(matches!(error, CompileError::CoreModule));
    assert!(error.to_string().contains("wasm32-wasip2"));
}

#[tokio::test]
async fn a_handler_that_is_not_of_wasi_0_2_is_refused() {
    let exporting = |name: &str| {
        let text = format!("(component (instance $i) (export \"{name}\" (instance $i)))");
        wat::parse_str(text).unwrap()
    };
    let error = refused(&exporting("wasi:http/incoming-handler@0.2.0")).await;
    assert!(
        matches!(error, CompileError::WrongHandler { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("handle"), "{error}");
    let error = refused(&exporting("wasi:http/handler@0.3.0")).await;
    assert!(error.to_string().contains("WASI 0.3"), "{error}");
}

#[tokio::test]
async fn a_truncated_component_is_refused() {
    let probe = guest::probe();
    let error = refused(&probe[..probe.len() / 2]).await;
    assert!(matches!(error, CompileError::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_export_is_named() {
    let error = refused(&wat::parse_str("(component)").unwrap()).await;
    assert!(
        matches!(error, CompileError::MissingExport { name: "init", .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_export_of_another_type_is_named() {
    let error = refused(&component("")).await;
    assert!(
        matches!(error, CompileError::WrongExport { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("describe") || error.to_string().contains("infer"),
        "{error}"
    );
}

#[tokio::test]
async fn an_import_that_the_host_lacks_is_named() {
    let import = r#"(import "example:database/query@1.0.0" (instance (export "run" (func))))"#;
    let error = refused(&component(import)).await;
    let CompileError::UnknownImport { name, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(name, "example:database/query@1.0.0");
}

#[tokio::test]
async fn a_function_that_an_interface_lacks_is_named() {
    let import = r#"(import "wasi:random/random@0.2.0" (instance (export "roll-dice" (func))))"#;
    let error = refused(&component(import)).await;
    let CompileError::UnknownImport { name, reason } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(name, "wasi:random/random@0.2.0");
    assert!(reason.contains("roll-dice"), "{reason}");
}

#[tokio::test]
async fn describe_becomes_the_signature() {
    let compiled = shared()
        .await
        .0
        .compile(guest::probe(), &Assets::none())
        .await
        .unwrap();
    let [x] = compiled.signature.inputs.as_slice() else {
        panic!()
    };
    assert_eq!((x.name.as_str(), x.dtype), ("x", DType::F32));
    assert_eq!(x.shape, Some(vec![Dim::Any, Dim::Fixed(2)]));
}

/// Compiles the probe with an `/init` asset; whether there is a snapshot, and
/// what instances find.
async fn with_init(task: &str, limits: Limits) -> Result<(bool, String), CompileError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("init"), task).unwrap();
    std::fs::write(dir.path().join("greeting"), "hello").unwrap();
    let assets = Assets::directory(dir.path());
    let sandbox = Sandbox::new(&SandboxConfig {
        compile: limits,
        ..config()
    })
    .unwrap();
    let compiled = sandbox.compile(guest::probe(), &assets).await?;
    let component = link(&sandbox, &compiled);
    let context = firebox_sandbox::Context {
        assets,
        ..context()
    };
    let words = component
        .invoke(request("words", &[]), context.clone())
        .await
        .unwrap();
    let read = request("read", &[("path", "/greeting")]);
    let greeting = component.invoke(read, context).await.unwrap();
    Ok((
        compiled.snapshot,
        format!("{}; {}", said(&words), said(&greeting)),
    ))
}

fn limits() -> Limits {
    Limits {
        memory: 64 << 20,
        deadline: Duration::from_secs(20),
        ..Limits::default()
    }
}

#[tokio::test]
async fn init_reads_assets_and_infer_reads_them_again() {
    let (snapshot, found) = with_init("empty", limits()).await.unwrap();
    assert_eq!(found, "0 words, last false, 1 init; hello");
    assert!(snapshot);
}

#[tokio::test]
async fn an_init_that_keeps_handles_runs_in_each_call_instead() {
    let (snapshot, found) = with_init("keep", limits()).await.unwrap();
    assert_eq!(found, "30000 words, last true, 1 init; hello");
    assert!(!snapshot);
}

/// libc keeps the handle of a stream that it has written to.
#[tokio::test]
async fn an_init_that_prints_runs_in_each_call_instead() {
    let (snapshot, found) = with_init("speak", limits()).await.unwrap();
    assert_eq!(found, "30000 words, last true, 1 init; hello");
    assert!(!snapshot);
}

#[tokio::test]
async fn a_panic_in_init_is_refused_with_its_message() {
    let error = with_init("panic", limits()).await.unwrap_err();
    assert!(
        matches!(
            error,
            CompileError::Start {
                function: "init",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("init panics on purpose"),
        "{error}"
    );
}

#[tokio::test]
async fn an_init_without_end_is_refused() {
    let limits = Limits {
        deadline: Duration::from_millis(500),
        ..limits()
    };
    let error = with_init("spin", limits).await.unwrap_err();
    let CompileError::Start { error, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error, InvokeError::Deadline { .. }), "{error:?}");
}

#[tokio::test]
async fn an_init_that_wants_too_much_memory_is_refused() {
    let error = with_init("allocate", limits()).await.unwrap_err();
    let CompileError::Start { error, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error, InvokeError::Memory { .. }), "{error:?}");
}
