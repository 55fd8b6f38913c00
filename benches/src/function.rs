//! A function run in this process: the component by the sandbox, its models by the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firebox_engine::{Model, Options, Signature, Tensor};
use firebox_sandbox::{
    Assets, Component, Context, CpuMeter, Limits, ModelError, Models, Network, Parameter, Request,
    Response, Sandbox, SandboxConfig,
};
use futures::future::BoxFuture;
use tempfile::TempDir;

/// A compiled and linked component, with its models loaded.
pub struct Function {
    component: Component,
    context: Context,
    models: Arc<Recorded>,
    /// How long the code took to map and link.
    pub linked_in: Duration,
    _files: TempDir,
    _sandbox: Sandbox,
}

impl Function {
    /// Compiles a component, with the memory of its `init` kept or with `init` run in each request.
    pub async fn new(
        wasm: &[u8],
        assets: &BTreeMap<String, PathBuf>,
        models: Arc<Recorded>,
        snapshot: bool,
    ) -> Function {
        let config = SandboxConfig {
            snapshot,
            idle: 1,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(&config).expect("a sandbox can be made");
        let files = TempDir::new().expect("a temporary folder can be made");
        let assets =
            Assets::link(assets, &files.path().join("assets")).expect("assets are laid out");
        let compiled = sandbox
            .compile(wasm, &assets)
            .await
            .expect("the component compiles");
        assert_eq!(compiled.snapshot, snapshot);
        let code = files.path().join("function.cwasm");
        std::fs::write(&code, &compiled.code).expect("the code can be written");
        let began = Instant::now();
        let component = sandbox
            .link(&code, compiled.snapshot)
            .expect("the code links");
        let linked_in = began.elapsed();
        let context = Context {
            limits: Limits::default(),
            models: models.clone(),
            assets,
            network: Network::default(),
            reuse: false,
            cpu: CpuMeter::default(),
        };
        Function {
            component,
            context,
            models,
            linked_in,
            _files: files,
            _sandbox: sandbox,
        }
    }

    /// The same function, whose calls run in one instance after another's.
    pub fn reused(mut self) -> Function {
        self.context.reuse = true;
        self
    }

    /// One call with one input, which must be answered.
    pub async fn invoke(&self, input: (&str, Tensor), parameters: &[(&str, &str)]) -> Response {
        let text =
            |(name, value): &(&str, &str)| (name.to_string(), Parameter::Text(value.to_string()));
        let request = Request {
            id: "bench".into(),
            inputs: vec![(input.0.into(), input.1)],
            parameters: parameters.iter().map(text).collect(),
        };
        self.component
            .invoke(request, self.context.clone())
            .await
            .expect("the function answers")
    }

    /// What the last call gave its model, run again by the engine alone.
    pub fn run_model_alone(&self) {
        let last = self.models.last.lock().unwrap().clone();
        let (name, inputs) = last.expect("a model was called");
        self.models.models[&name]
            .0
            .run(inputs)
            .expect("the model runs");
    }
}

type Named = Vec<(String, Tensor)>;

/// Models in memory, run on the calling thread; remembers the last call.
pub struct Recorded {
    models: BTreeMap<String, (Model, Arc<Signature>)>,
    last: Mutex<Option<(String, Named)>>,
}

impl Recorded {
    /// Loads models by name.
    pub fn load(files: &[(&str, Vec<u8>)]) -> Arc<Recorded> {
        let load = |(name, onnx): &(&str, Vec<u8>)| {
            let model = Model::load(onnx.clone().into(), &Options::default()).expect("it loads");
            let signature = Arc::new(model.signature().clone());
            (name.to_string(), (model, signature))
        };
        Arc::new(Recorded {
            models: files.iter().map(load).collect(),
            last: Mutex::default(),
        })
    }
}

impl Models for Recorded {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        Box::pin(async move { Ok(self.models[name].1.clone()) })
    }

    fn run<'a>(&'a self, name: &'a str, inputs: Named) -> BoxFuture<'a, Result<Named, ModelError>> {
        *self.last.lock().unwrap() = Some((name.to_owned(), inputs.clone()));
        let outputs = self.models[name].0.run(inputs).expect("the model runs");
        Box::pin(async move { Ok(outputs) })
    }
}
