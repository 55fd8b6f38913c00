//! The data of one instance's store: everything that its imports can reach.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::component::Holds;
use crate::limits::MemoryCap;
use crate::nn::Nn;
use crate::output::Output;
use crate::{Assets, Context, Limits, Models, Network, SandboxConfig};

/// Resources of all kinds (tensors, streams, headers) that one instance can hold at the host.
const RESOURCES: usize = 10_000;

pub(crate) struct State {
    pub(crate) memory: MemoryCap,
    pub(crate) nn: Nn,
    pub(crate) table: ResourceTable,
    stdout: Output,
    stderr: Output,
    output: usize,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    network: Network,
}

/// What an instance is given.
pub(crate) struct Grants {
    /// The id that its log lines bear.
    pub(crate) id: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) assets: Assets,
    pub(crate) network: Network,
    /// None while a component is compiled, and while no call is known.
    pub(crate) models: Option<Arc<dyn Models>>,
}

impl Grants {
    /// What a call gives its instance.
    pub(crate) fn of_call(id: &str, context: &Context) -> Self {
        Self {
            id: id.into(),
            models: Some(context.models.clone()),
            ..Self::of_spare(context)
        }
    }

    /// What an instance is given before its call is known: that adds an id and models.
    pub(crate) fn of_spare(context: &Context) -> Self {
        Self {
            id: "".into(),
            limits: context.limits,
            assets: context.assets.clone(),
            network: context.network.clone(),
            models: None,
        }
    }
}

impl State {
    /// Fails where the assets' directory can't be opened.
    pub(crate) fn new(grants: Grants, config: &SandboxConfig) -> wasmtime::Result<Self> {
        Self::set_up(grants, config, |_| {})
    }

    /// The same, with more that is given by WASI, or something else in its place.
    pub(crate) fn set_up(
        grants: Grants,
        config: &SandboxConfig,
        more: impl FnOnce(&mut WasiCtxBuilder),
    ) -> wasmtime::Result<Self> {
        let stderr = Output::new(grants.id.clone(), "stderr", config.output);
        let stdout = Output::new(grants.id, "stdout", config.output);
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(stdout.clone())
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Some(root) = grants.assets.root() {
            wasi.preopened_dir(root, "/", FsPerms::ReadOnly)?;
        }
        more(&mut wasi);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Ok(Self {
            memory: MemoryCap::new(grants.limits.memory),
            nn: Nn::new(grants.models, grants.limits.tensors),
            table,
            stdout,
            stderr,
            output: config.output,
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            network: grants.network,
        })
    }

    /// Readies the state of an instance that was there before its call, which may have answered
    /// others: another id for its log lines, other models, figures from zero. What the guest holds
    /// stays.
    pub(crate) fn renew(&mut self, id: &Arc<str>, models: Arc<dyn Models>) {
        self.stdout.renew(id.clone(), self.output);
        self.stderr.renew(id.clone(), self.output);
        self.nn.renew(models);
    }
}

impl Holds for State {
    fn memory(&self) -> &MemoryCap {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut MemoryCap {
        &mut self.memory
    }

    fn nn(&self) -> &Nn {
        &self.nn
    }

    fn last_words(&self) -> String {
        self.stderr.tail()
    }

    fn id(&self) -> Arc<str> {
        self.stderr.request()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.network,
        }
    }
}
