//! What a call gives, and what it can't do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use firebox_engine::{DType, Tensor};
use firebox_sandbox::{
    Assets, ErrorCode, GuestError, InvokeError, Limits, LinkError, Network, Pooling, Sandbox,
    SandboxConfig,
};

use crate::guest;
use crate::probe::{call, config, context, link, request, said, shared};

#[tokio::test]
async fn tensors_of_every_dtype_pass_through_unchanged() {
    let dtypes = [
        (DType::Bool, 1),
        (DType::U8, 1),
        (DType::U16, 2),
        (DType::U32, 4),
        (DType::U64, 8),
        (DType::I8, 1),
        (DType::I16, 2),
        (DType::I32, 4),
        (DType::I64, 8),
        (DType::F16, 2),
        (DType::BF16, 2),
        (DType::F32, 4),
        (DType::F64, 8),
    ];
    let mut request = request("echo", &[]);
    for (dtype, size) in dtypes {
        let data: Vec<u8> = (0..6 * size).map(|at| at as u8).collect();
        request.inputs.push((
            dtype.name().into(),
            Tensor::new(dtype, vec![2, 3], data).unwrap(),
        ));
    }
    request.inputs.push((
        "body".into(),
        Tensor::from_blob(b"bytes \0 and all").unwrap(),
    ));
    request
        .inputs
        .push(("scalar".into(), Tensor::from_f32(vec![], &[1.5]).unwrap()));
    let response = shared()
        .await
        .1
        .invoke(request.clone(), context())
        .await
        .unwrap();
    assert_eq!(response.outputs, request.inputs);
    assert_eq!(response.parameters, request.parameters);
}

#[tokio::test]
async fn a_guest_error_keeps_its_code_and_message() {
    let Err(InvokeError::Guest(error)) = call("refuse", &[]).await else {
        panic!()
    };
    let message = "refused on purpose".into();
    assert_eq!(
        error,
        GuestError {
            code: ErrorCode::InvalidInput,
            message
        }
    );
}

#[tokio::test]
async fn an_output_whose_bytes_do_not_fit_is_the_functions_fault() {
    let Err(InvokeError::Guest(error)) = call("short-output", &[]).await else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("`x`"), "{error}");
    assert!(error.message.contains("needs 16 bytes, got 15"), "{error}");
}

#[tokio::test]
async fn an_output_of_too_many_dimensions_is_the_functions_fault() {
    let Err(InvokeError::Guest(error)) = call("deep-output", &[]).await else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::Internal);
    let expected = "output `x`: a tensor has at most 32 dimensions, found 100000";
    assert!(error.message.contains(expected), "{error}");
}

#[tokio::test]
async fn a_panic_is_a_trap_with_its_message_and_frames() {
    let Err(InvokeError::Trap {
        stderr, backtrace, ..
    }) = call("panic", &[]).await
    else {
        panic!()
    };
    assert!(stderr.contains("infer panics on purpose"), "{stderr}");
    assert!(backtrace.contains("modes"), "{backtrace}");
}

#[tokio::test]
async fn an_exit_is_a_trap_that_says_so() {
    let error = call("exit", &[]).await.unwrap_err();
    assert!(matches!(&error, InvokeError::Trap { message, .. } if message.contains("exit(")));
}

#[tokio::test]
async fn endless_recursion_is_a_trap_that_names_the_stack() {
    let Err(InvokeError::Trap { message, .. }) = call("recurse", &[]).await else {
        panic!()
    };
    assert!(message.contains("stack"), "{message}");
}

#[tokio::test]
async fn a_loop_ends_at_the_deadline_and_its_thread_serves_others_meanwhile() {
    let component = &shared().await.1;
    let limit = Duration::from_millis(400);
    let mut context = context();
    context.limits.deadline = limit;
    let start = Instant::now();
    // One thread: both calls share it.
    let spin = component.invoke(request("spin", &[]), context);
    let others = async {
        for _ in 0..10 {
            call("counter", &[]).await.unwrap();
        }
        start.elapsed()
    };
    let (spun, served) = tokio::join!(spin, others);
    assert!(matches!(spun, Err(InvokeError::Deadline { limit: found }) if found == limit));
    assert!(served < limit, "the others waited {served:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn sleeping_counts_against_the_deadline() {
    let component = &shared().await.1;
    let mut context = context();
    context.limits.deadline = Duration::from_millis(100);
    let start = Instant::now();
    let sleep = component
        .invoke(request("sleep", &[("ms", "10000")]), context)
        .await;
    assert!(matches!(sleep, Err(InvokeError::Deadline { .. })));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn allocating_without_end_meets_the_memory_cap() {
    let error = call("allocate", &[]).await.unwrap_err();
    assert!(
        matches!(error, InvokeError::Memory { limit } if limit == 64 << 20),
        "{error:?}"
    );
    // The next instance is as good as new.
    assert_eq!(said(&call("counter", &[]).await.unwrap()), "1");
}

#[tokio::test]
async fn a_cap_below_the_initial_memory_is_a_memory_error() {
    let mut context = context();
    context.limits.memory = 64 << 10;
    let error = shared()
        .await
        .1
        .invoke(request("counter", &[]), context)
        .await
        .unwrap_err();
    assert!(matches!(error, InvokeError::Memory { .. }), "{error:?}");
}

#[tokio::test]
async fn a_flood_of_output_is_swallowed() {
    assert_eq!(said(&call("flood", &[]).await.unwrap()), "flooded");
}

#[tokio::test]
async fn nothing_leaks_from_one_call_to_the_next() {
    for _ in 0..3 {
        assert_eq!(said(&call("counter", &[]).await.unwrap()), "1");
    }
}

#[tokio::test]
async fn what_init_built_is_in_every_instance_without_running_again() {
    for _ in 0..2 {
        let response = call("words", &[]).await.unwrap();
        assert_eq!(said(&response), "30000 words, last true, 1 init");
    }
}

#[tokio::test]
async fn without_a_snapshot_init_runs_in_each_call() {
    let sandbox = Sandbox::new(&SandboxConfig {
        snapshot: false,
        ..config()
    })
    .unwrap();
    let compiled = sandbox
        .compile(guest::probe(), &Assets::none())
        .await
        .unwrap();
    assert!(!compiled.snapshot);
    let component = link(&sandbox, &compiled);
    let response = component
        .invoke(request("words", &[]), context())
        .await
        .unwrap();
    assert_eq!(said(&response), "30000 words, last true, 1 init");
}

#[tokio::test]
async fn assets_can_be_read_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("blob");
    std::fs::write(&blob, "hello").unwrap();
    let files = BTreeMap::from([("deep/vocab.txt".to_string(), blob)]);
    let assets = Assets::link(&files, &dir.path().join("root")).unwrap();
    let (sandbox, _) = shared().await;
    let compiled = sandbox.compile(guest::probe(), &assets).await.unwrap();
    let component = link(sandbox, &compiled);
    let call = async |mode, path| {
        let context = firebox_sandbox::Context {
            assets: assets.clone(),
            ..context()
        };
        component
            .invoke(request(mode, &[("path", path)]), context)
            .await
    };
    assert_eq!(
        said(&call("read", "/deep/vocab.txt").await.unwrap()),
        "hello"
    );
    for (mode, path) in [
        ("write", "/deep/vocab.txt"),
        ("write", "/new.txt"),
        ("read", "/../blob"),
        ("read", "/deep/../../blob"),
        ("read", "/etc/passwd"),
    ] {
        let error = call(mode, path).await.unwrap_err();
        assert!(
            matches!(error, InvokeError::Guest(_)),
            "{mode} {path}: {error:?}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(dir.path().join("blob")).unwrap(),
        "hello"
    );
}

#[tokio::test]
async fn without_assets_there_are_no_files_and_no_environment() {
    for path in ["/", "/etc/passwd", "Cargo.toml"] {
        let error = call("read", &[("path", path)]).await.unwrap_err();
        assert!(matches!(error, InvokeError::Guest(_)), "{path}: {error:?}");
    }
    assert_eq!(said(&call("environment", &[]).await.unwrap()), "0");
}

#[tokio::test]
async fn sockets_are_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let error = call("connect", &[("to", &to)]).await.unwrap_err();
    assert!(matches!(error, InvokeError::Guest(_)), "{error:?}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[tokio::test]
async fn http_goes_to_listed_hosts_only() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut peer, _) = listener.accept().await.unwrap();
        assert!(peer.read(&mut [0; 1024]).await.unwrap() > 0);
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
    });
    let error = call("http", &[("host", &host)]).await.unwrap_err();
    assert!(error.to_string().contains("HttpRequestDenied"), "{error}");

    let network = Network::new([host.clone()]);
    let context = firebox_sandbox::Context {
        network,
        ..context()
    };
    let component = &shared().await.1;
    let response = component
        .invoke(request("http", &[("host", &host)]), context)
        .await
        .unwrap();
    assert_eq!(said(&response), "204");
    served.await.unwrap();
}

#[tokio::test]
async fn one_instance_too_many_is_busy_and_a_dropped_call_frees_its_slot() {
    let config = SandboxConfig {
        instances: 2,
        pooling: Pooling::Required,
        ..config()
    };
    let sandbox = Sandbox::new(&config).unwrap();
    let compiled = sandbox
        .compile(guest::probe(), &Assets::none())
        .await
        .unwrap();
    let component = link(&sandbox, &compiled);
    let sleep = async |ms| {
        component
            .invoke(request("sleep", &[("ms", ms)]), context())
            .await
            .map(drop)
    };
    let (first, second, third) = tokio::join!(sleep("200"), sleep("200"), sleep("200"));
    assert!(first.is_ok() && second.is_ok());
    assert!(
        matches!(third, Err(InvokeError::Busy { instances: 2 })),
        "{third:?}"
    );

    for _ in 0..5 {
        let dropped = tokio::time::timeout(Duration::from_millis(20), sleep("10000")).await;
        assert!(dropped.is_err());
    }
    let (first, second) = tokio::join!(sleep("1"), sleep("1"));
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn usage_tells_guest_time_from_waiting() {
    let response = call("sleep", &[("ms", "200")]).await.unwrap();
    assert!(response.usage.total >= Duration::from_millis(200));
    assert!(
        response.usage.guest < Duration::from_millis(150),
        "{:?}",
        response.usage
    );
    assert!(response.usage.guest > Duration::ZERO);
    assert!(response.usage.peak_memory >= 1 << 20);
}

#[tokio::test]
async fn code_of_another_configuration_or_build_is_stale() {
    let (sandbox, _) = shared().await;
    let compiled = sandbox
        .compile(guest::probe(), &Assets::none())
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();

    let missing = sandbox
        .link(&dir.path().join("missing"), true)
        .map(drop)
        .unwrap_err();
    assert!(matches!(missing, LinkError::File { .. }), "{missing:?}");

    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "not machine code").unwrap();
    let error = sandbox.link(&garbage, true).map(drop).unwrap_err();
    assert!(matches!(error, LinkError::Stale { .. }), "{error:?}");

    // The same code with another wasmtime's version in its header.
    let version = compiled
        .code
        .windows(6)
        .position(|bytes| bytes == b"48.0.8");
    let mut other = compiled.code.clone();
    if let Some(at) = version {
        other[at..at + 6].copy_from_slice(b"47.0.0");
        let path = dir.path().join("other");
        std::fs::write(&path, other).unwrap();
        let error = sandbox.link(&path, true).map(drop).unwrap_err();
        assert!(matches!(error, LinkError::Stale { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn instances_need_no_pool() {
    let sandbox = Sandbox::new(&SandboxConfig {
        pooling: Pooling::Off,
        ..config()
    })
    .unwrap();
    let compiled = sandbox
        .compile(guest::probe(), &Assets::none())
        .await
        .unwrap();
    let component = link(&sandbox, &compiled);
    let limits = Limits {
        memory: 32 << 20,
        ..Limits::default()
    };
    let context = || firebox_sandbox::Context {
        limits,
        ..context()
    };
    let error = component
        .invoke(request("allocate", &[]), context())
        .await
        .unwrap_err();
    assert!(matches!(error, InvokeError::Memory { .. }), "{error:?}");
    let response = component
        .invoke(request("words", &[]), context())
        .await
        .unwrap();
    assert_eq!(said(&response), "30000 words, last true, 1 init");
}
