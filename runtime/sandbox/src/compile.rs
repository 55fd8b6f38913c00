//! From an uploaded component to machine code: check, run `init`, snapshot,
//! compile, ask `describe`.

use std::sync::Arc;

use firebox_engine::Signature;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wizer::{WasmtimeWizerComponent, Wizer};

use crate::bindings::{Function, FunctionPre};
use crate::component::Call;
use crate::engine::Inner;
use crate::state::{Grants, State};
use crate::{Assets, CompileError, Kind, Limits, Network, Sandbox, convert};

/// A component, compiled.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What it is.
    pub kind: Kind,
    /// Machine code for [`Sandbox::link`]; store it in a file as it is.
    pub code: Vec<u8>,
    /// What `describe` said; empty where the kind has none.
    pub signature: Signature,
    /// Whether instances start from the memory that `init` left. If not,
    /// `init` runs at the start of each request.
    pub snapshot: bool,
}

impl Sandbox {
    /// Checks a component and compiles it. One of the `firebox:function` world runs its `init`
    /// once, is snapshotted, and is asked for its signature; of any other kind, an instance is
    /// made and dropped. Takes seconds of a thread outside tokio's workers; `init` can read the
    /// assets.
    ///
    /// # Errors
    /// See [`CompileError`]; each says what to do.
    pub async fn compile(&self, wasm: &[u8], assets: &Assets) -> Result<Compiled, CompileError> {
        let kind = Kind::of(wasm)?;
        let (inner, wasm, assets) = (self.inner.clone(), wasm.to_vec(), assets.clone());
        let runtime = tokio::runtime::Handle::current();
        let compile = move || match kind {
            Kind::Function => runtime.block_on(inner.compile(&wasm, assets)),
            Kind::Http => runtime.block_on(inner.compile_handler(&wasm, &assets)),
            Kind::Command => inner.compile_command(&wasm),
        };
        tokio::task::spawn_blocking(compile)
            .await
            .unwrap_or_else(|error| Err(CompileError::Host(error.to_string())))
    }
}

impl Inner {
    async fn compile(
        self: Arc<Self>,
        wasm: &[u8],
        assets: Assets,
    ) -> Result<Compiled, CompileError> {
        let (component, snapshot) = match self.config.snapshot {
            true => match self.snapshot(wasm, &assets).await? {
                Some(snapshot) => (self.component(&snapshot)?, true),
                None => (self.component(wasm)?, false),
            },
            false => (self.component(wasm)?, false),
        };
        let pre = self.function(&component)?;
        let mut call = self.call(&assets)?;
        let failed = |function| move |error| CompileError::Start { function, error };
        let function = call
            .run(async |store| pre.instantiate_async(store).await)
            .await;
        let function = function.map_err(failed("init"))?;
        if !snapshot {
            let init = call
                .run(async |store| function.call_init(store).await)
                .await;
            init.map_err(failed("init"))?;
        }
        let signature = call
            .run(async |store| function.call_describe(store).await)
            .await;
        let signature = convert::signature(signature.map_err(failed("describe"))?);
        let code = component
            .serialize()
            .map_err(|error| CompileError::Host(error.to_string()))?;
        Ok(Compiled {
            kind: Kind::Function,
            code,
            signature,
            snapshot,
        })
    }

    /// Compiles a component that answers HTTP requests. Instances are made whole for each request,
    /// so one is made now: what can't start is refused here.
    async fn compile_handler(
        &self,
        wasm: &[u8],
        assets: &Assets,
    ) -> Result<Compiled, CompileError> {
        let component = self.component(wasm)?;
        let pre = ProxyPre::new(self.linked(&component)?).map_err(|error| {
            CompileError::WrongHandler {
                reason: format!("{error:#}"),
            }
        })?;
        let mut call = self.call(assets)?;
        let made = call.run(async |store| pre.instantiate_async(store).await);
        made.await.map_err(|error| CompileError::Start {
            function: "start",
            error,
        })?;
        let code = component
            .serialize()
            .map_err(|error| CompileError::Host(error.to_string()))?;
        Ok(Compiled {
            kind: Kind::Http,
            code,
            signature: Signature::default(),
            snapshot: false,
        })
    }

    /// Runs `init` and makes what it left in memory the component's initial
    /// memory. None where a component can't be rewritten so.
    async fn snapshot(
        &self,
        wasm: &[u8],
        assets: &Assets,
    ) -> Result<Option<Vec<u8>>, CompileError> {
        let mut wizer = Wizer::new();
        // The rewritten component still names the export, so it has to stay.
        wizer.init_func("init").keep_init_func(true);
        let (layout, instrumented) = match wizer.instrument_component(wasm) {
            Ok(parts) => parts,
            Err(error) => {
                tracing::warn!("no snapshot, `init` will run in each request: {error:#}");
                return Ok(None);
            }
        };
        let pre = self.function(&self.component(&instrumented)?)?;
        let mut call = self.call(assets)?;
        // The snapshot reads all of memory through calls of the instance.
        call.store.set_hostcall_fuel(usize::MAX);
        let instance_pre: &InstancePre<State> = pre.instance_pre();
        let instance = call.run(async |store| {
            let instance = instance_pre.instantiate_async(&mut *store).await?;
            Function::new(&mut *store, &instance)?
                .call_init(&mut *store)
                .await?;
            Ok(instance)
        });
        let instance = instance.await.map_err(|error| CompileError::Start {
            function: "init",
            error,
        })?;
        // Memory can be snapshotted, handles can't: one that the guest kept
        // would be stale, or another's, in every request.
        if !call.store.data().table.is_empty() {
            tracing::warn!("no snapshot, `init` will run in each request: it left handles open");
            return Ok(None);
        }
        let mut initialized = WasmtimeWizerComponent {
            store: &mut call.store,
            instance,
        };
        match wizer.snapshot_component(&layout, &mut initialized).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) => Err(CompileError::Host(format!("no snapshot: {error:#}"))),
        }
    }

    fn call(&self, assets: &Assets) -> Result<Call, CompileError> {
        let limits = self.config.compile;
        let limits = Limits {
            memory: limits.memory.min(self.config.memory),
            ..limits
        };
        let grants = Grants {
            id: "compile".into(),
            limits,
            assets: assets.clone(),
            network: Network::default(),
            models: None,
        };
        Call::new(self, grants).map_err(|error| CompileError::Host(error.to_string()))
    }

    fn component(&self, wasm: &[u8]) -> Result<Component, CompileError> {
        Component::from_binary(&self.engine, wasm).map_err(|error| CompileError::Invalid {
            reason: format!("{error:#}"),
        })
    }

    /// Resolves imports and checks the types of exports.
    fn function(&self, component: &Component) -> Result<FunctionPre<State>, CompileError> {
        let pre = self.linked(component)?;
        FunctionPre::new(pre).map_err(|error| CompileError::WrongExport {
            reason: format!("{error:#}"),
        })
    }

    /// Resolves imports.
    pub(crate) fn linked(&self, component: &Component) -> Result<InstancePre<State>, CompileError> {
        self.linker.instantiate_pre(component).map_err(|error| {
            let reason = format!("{error:#}");
            let ty = component.component_type();
            let mut imports = ty.imports(&self.engine).map(|(name, _)| name);
            let name = imports.find(|name| reason.contains(&format!("`{name}`")));
            CompileError::UnknownImport {
                name: name.unwrap_or("?").to_owned(),
                reason,
            }
        })
    }
}
