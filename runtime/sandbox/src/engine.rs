//! The sandbox itself: wasmtime's engine with its pool, the clock, and the
//! linker with all that a guest can import.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};

use crate::bindings::Function;
use crate::command::{self, CommandState};
use crate::component::Holds;
use crate::epoch::Clock;
use crate::limits::TABLE_ELEMENTS;
use crate::spare::Spares;
use crate::state::{Grants, State};
use crate::{Pooling, SandboxConfig, SandboxError};

/// Stack of a guest, beside the one in its linear memory.
const WASM_STACK: usize = 1 << 20;
/// Stack of a fiber: the guest's, and room for host calls on top of it.
const FIBER_STACK: usize = 2 << 20;
/// A component made of one Rust crate has 1 memory, 1 table, and a handful of core instances. One with
/// CPython in it has 14, and one more for each native package; they cost nothing until they are made.
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;
const CORE_INSTANCES: u32 = 64;

/// Compiles, links and runs components. Cloning it is cheap; the clock thread
/// ends with the last clone and the last [`Component`](crate::Component).
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    /// What core modules can import.
    pub(crate) commands: wasmtime::Linker<CommandState>,
    pub(crate) config: SandboxConfig,
    /// Room for instances that are kept between calls.
    pub(crate) idle: Arc<Semaphore>,
    /// Instances that are made before their calls.
    pub(crate) spares: Arc<Spares>,
    _clock: Clock,
}

impl Sandbox {
    /// Sets aside the pool and starts the clock.
    ///
    /// # Errors
    /// Where the system refuses the address space ([`Pooling::Required`]) or the thread.
    pub fn new(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let fault = |error: wasmtime::Error| SandboxError::Engine {
            reason: format!("{error:#}"),
        };
        let engine = match config.pooling {
            Pooling::Off => Engine::new(&engine_config(None)),
            Pooling::Required => Engine::new(&engine_config(Some(config))),
            Pooling::Preferred => Engine::new(&engine_config(Some(config))).or_else(|error| {
                tracing::warn!("no pool of {} instances: {error:#}", config.instances);
                Engine::new(&engine_config(None))
            }),
        };
        let engine = engine.map_err(fault)?;
        let clock = Clock::start(&engine, config.tick).map_err(SandboxError::Clock)?;
        let linker = linker(&engine).map_err(fault)?;
        let commands = command::linker(&engine).map_err(fault)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                linker,
                commands,
                idle: Arc::new(Semaphore::new(config.idle as usize)),
                spares: Spares::new(config.spares),
                config: config.clone(),
                _clock: clock,
            }),
        })
    }
}

impl Sandbox {
    /// How many instances are kept between calls now.
    pub fn idle(&self) -> usize {
        let most = self.inner.config.idle as usize;
        most.saturating_sub(self.inner.idle.available_permits())
    }

    /// How many instances wait for their first call now, with those that are being made.
    pub fn spares(&self) -> usize {
        let most = self.inner.config.spares as usize;
        most.saturating_sub(self.inner.spares.slots.available_permits())
    }
}

fn engine_config(pool: Option<&SandboxConfig>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .concurrency_support(false)
        .memory_init_cow(true);
    if let Some(settings) = pool {
        let count = settings.instances.saturating_add(settings.spares);
        // Only where the system says which pages were written is resetting them quicker than
        // giving all of them back and meeting a page fault for each that the next instance uses.
        let (memory, table) = match PoolingAllocationConfig::is_pagemap_scan_available() {
            true => (settings.keep_resident, settings.keep_resident),
            false => (0, 0),
        };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(count)
            .total_stacks(count)
            .total_core_instances(count.saturating_mul(CORE_INSTANCES))
            .total_memories(count.saturating_mul(MEMORIES))
            .total_tables(count.saturating_mul(TABLES))
            .max_core_instances_per_component(CORE_INSTANCES)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(TABLES)
            .max_tables_per_module(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .max_memory_size(settings.memory)
            .pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(memory)
            .table_keep_resident(table)
            .max_unused_warm_slots(count.min(64));
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Function::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl Inner {
    /// A store for one instance of a component.
    pub(crate) fn store(&self, grants: Grants) -> wasmtime::Result<Store<State>> {
        let copied = grants.limits.memory;
        Ok(self.store_of(State::new(grants, &self.config)?, copied))
    }

    /// A store for one instance: capped, and yielding at each epoch.
    pub(crate) fn store_of<S: Holds>(&self, state: S, copied: usize) -> Store<S> {
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| state.memory_mut());
        // What a guest returns is copied to the host; it can't be larger than
        // its memory unless it names the same bytes many times.
        store.set_hostcall_fuel(copied);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }
}
