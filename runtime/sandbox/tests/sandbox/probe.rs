//! The probe, compiled and linked once for all tests, and models that compute.

use std::sync::Arc;
use std::time::Duration;

use firebox_engine::{DType, Dim, Signature, Tensor, TensorSpec};
use firebox_sandbox::{
    Assets, Compiled, Component, Context, CpuMeter, InvokeError, Limits, ModelError, Models,
    Network, Parameter, Request, Response, Sandbox, SandboxConfig,
};
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::guest;

/// Settings small enough for a test machine.
pub fn config() -> SandboxConfig {
    SandboxConfig {
        instances: 32,
        memory: 256 << 20,
        idle: 4,
        ..Default::default()
    }
}

/// A sandbox, and the probe with a snapshot in it.
pub async fn shared() -> &'static (Sandbox, Component) {
    static SHARED: OnceCell<(Sandbox, Component)> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let sandbox = Sandbox::new(&config()).unwrap();
            let compiled = sandbox
                .compile(guest::probe(), &Assets::none())
                .await
                .unwrap();
            assert!(compiled.snapshot);
            let component = link(&sandbox, &compiled);
            (sandbox, component)
        })
        .await
}

/// Links compiled code through a file that is gone when this returns: the
/// mapping holds it.
pub fn link(sandbox: &Sandbox, compiled: &Compiled) -> Component {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &compiled.code).unwrap();
    sandbox.link(file.path(), compiled.snapshot).unwrap()
}

pub fn context() -> Context {
    Context {
        limits: Limits {
            memory: 64 << 20,
            deadline: Duration::from_secs(20),
            tensors: 8 << 20,
            cpu: None,
        },
        models: Arc::new(Arithmetic),
        assets: Assets::none(),
        network: Network::default(),
        reuse: false,
        cpu: CpuMeter::default(),
    }
}

/// A request for a mode, with text parameters.
pub fn request(mode: &str, parameters: &[(&str, &str)]) -> Request {
    let text = |&(name, value): &(&str, &str)| (name.into(), Parameter::Text(value.into()));
    let parameters = [("mode", mode)]
        .iter()
        .chain(parameters)
        .map(text)
        .collect();
    Request {
        id: format!("test-{mode}"),
        inputs: vec![],
        parameters,
    }
}

/// Calls a mode of the shared probe.
pub async fn call(mode: &str, parameters: &[(&str, &str)]) -> Result<Response, InvokeError> {
    shared()
        .await
        .1
        .invoke(request(mode, parameters), context())
        .await
}

/// What the probe said.
pub fn said(response: &Response) -> &str {
    match response.parameters.as_slice() {
        [(name, Parameter::Text(text))] if name == "said" => text,
        other => panic!("expected one parameter `said`, found {other:?}"),
    }
}

/// `double` (f32, any length), `invert` (bool), `narrow` (gives i8), `slow`
/// (as `double`, after a while) and `broken`.
pub struct Arithmetic;

impl Models for Arithmetic {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        Box::pin(async move {
            let (input, output) = match name {
                "double" | "slow" | "broken" => (DType::F32, DType::F32),
                "invert" => (DType::Bool, DType::Bool),
                "narrow" => (DType::F32, DType::I8),
                _ => {
                    let known = vec!["double".into(), "invert".into()];
                    return Err(ModelError::NotFound {
                        name: name.into(),
                        known,
                    });
                }
            };
            let x = |dtype| {
                vec![TensorSpec {
                    name: "x".into(),
                    dtype,
                    shape: Some(vec![Dim::Any]),
                }]
            };
            Ok(Arc::new(Signature {
                inputs: x(input),
                outputs: x(output),
            }))
        })
    }

    fn run<'a>(
        &'a self,
        name: &'a str,
        inputs: Vec<(String, Tensor)>,
    ) -> BoxFuture<'a, Result<Vec<(String, Tensor)>, ModelError>> {
        Box::pin(async move {
            let [(_, x)] = inputs.as_slice() else {
                panic!("the host checks the inputs")
            };
            let y = match name {
                "invert" => {
                    let flipped: Vec<u8> = x.data().iter().map(|byte| 1 - byte).collect();
                    Tensor::new(DType::Bool, x.shape().to_vec(), flipped).unwrap()
                }
                "broken" => {
                    let reason = "division by zero in node 7".into();
                    return Err(ModelError::Failed {
                        model: name.into(),
                        reason,
                    });
                }
                _ => {
                    if name == "slow" {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    let doubled: Vec<f32> = x
                        .to_f32()
                        .unwrap()
                        .iter()
                        .map(|value| value * 2.0)
                        .collect();
                    Tensor::from_f32(x.shape().to_vec(), &doubled).unwrap()
                }
            };
            Ok(vec![("x".into(), y)])
        })
    }
}
