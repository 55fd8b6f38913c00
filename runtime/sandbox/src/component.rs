//! Compiled code, mapped and linked, and calls of it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{PoolConcurrencyLimitError, Store, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::{Function, FunctionPre};
use crate::cpu::OutOfCpu;
use crate::engine::Inner;
use crate::reuse::{Idle, Kept};
use crate::state::{Grants, State};
use crate::{
    Context, CpuMeter, InvokeError, Limits, LinkError, Request, Response, Sandbox, Usage, convert,
};

/// A function's code in memory, ready to make instances. Cloning it is cheap.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
    pre: FunctionPre<State>,
    snapshot: bool,
    idle: Idle,
}

impl Sandbox {
    /// Maps a file of [`Compiled::code`](crate::Compiled::code) and resolves its
    /// imports; `snapshot` is [`Compiled::snapshot`](crate::Compiled::snapshot).
    ///
    /// The file is machine code: it must come from `compile` and must not
    /// change while it is mapped.
    ///
    /// # Errors
    /// [`LinkError::Stale`] where it was made by another version or for other
    /// settings: compile the component again.
    pub fn link(&self, cwasm: &Path, snapshot: bool) -> Result<Component, LinkError> {
        let path = || cwasm.to_owned();
        if let Err(source) = std::fs::File::open(cwasm) {
            return Err(LinkError::File {
                path: path(),
                source,
            });
        }
        // SAFETY: by the contract above; wasmtime refuses what another build of
        // it, or another configuration, has made.
        #[allow(
            unsafe_code,
            reason = "compiled code is trusted as the registry's digest is"
        )]
        let component =
            unsafe { wasmtime::component::Component::deserialize_file(&self.inner.engine, cwasm) };
        let component = component.map_err(|error| LinkError::Stale {
            path: path(),
            reason: format!("{error:#}"),
        })?;
        let pre = self
            .inner
            .linker
            .instantiate_pre(&component)
            .and_then(FunctionPre::new);
        let pre = pre.map_err(|error| LinkError::Imports {
            path: path(),
            reason: format!("{error:#}"),
        })?;
        Ok(Component {
            inner: self.inner.clone(),
            pre,
            snapshot,
            idle: Idle::new(self.inner.idle.clone()),
        })
    }
}

impl Component {
    /// Answers one request in an instance of its own, which is gone afterwards;
    /// also when the returned future is dropped. With [`Context::reuse`] in one that has answered
    /// before, if one is idle, and it is kept for a next call; but never one that was stopped, or
    /// that was refused memory or a tensor.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(
        &self,
        request: Request,
        context: Context,
    ) -> Result<Response, InvokeError> {
        let start = Instant::now();
        let reuse = context.reuse;
        let (mut call, kept) = match reuse.then(|| self.idle.take()).flatten() {
            Some(Kept { store, function }) => {
                let call = Call::again(&self.inner, store, &request.id, context);
                (call, Some(function))
            }
            None => (self.open(&request.id, context)?, None),
        };
        let request = convert::request(request);
        let answered = call.run(async |store| {
            let function = match kept {
                Some(function) => function,
                None => self.instantiate(store).await?,
            };
            let answer = function.call_infer(store, &request).await?;
            Ok((function, answer))
        });
        let (function, answer) = answered.await?;
        let state = call.store.data();
        let usage = Usage {
            total: start.elapsed(),
            guest: call.polled.saturating_sub(state.nn.polled),
            compute: state.nn.waited,
            peak_memory: state.memory.peak(),
        };
        if reuse && !state.memory.refused() && !state.nn.refused() {
            let mut store = call.store;
            store.data_mut().nn.rest();
            self.idle.put(Kept { store, function });
        }
        let (outputs, parameters) = convert::response(answer.map_err(convert::guest_error)?)?;
        Ok(Response {
            outputs,
            parameters,
            usage,
        })
    }
}

impl Component {
    /// A store for a new instance.
    fn open(&self, id: &str, context: Context) -> Result<Call<'_>, InvokeError> {
        let grants = Grants {
            id: id.into(),
            limits: context.limits,
            assets: context.assets,
            network: context.network,
            models: Some(context.models),
        };
        Ok(Call::new(&self.inner, grants)?.metered(context.cpu))
    }

    /// A new instance, its `init` run.
    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Function> {
        let function = self.pre.instantiate_async(&mut *store).await?;
        if !self.snapshot {
            function.call_init(store).await?;
        }
        Ok(function)
    }
}

/// A store with the time that is left for it.
pub(crate) struct Call<'a> {
    inner: &'a Inner,
    pub(crate) store: Store<State>,
    limits: Limits,
    deadline: tokio::time::Instant,
    /// Time on the thread.
    polled: Duration,
    /// Processor time, and what was on the meter at the start.
    cpu: CpuMeter,
    cpu_before: Duration,
}

impl<'a> Call<'a> {
    pub(crate) fn new(inner: &'a Inner, grants: Grants) -> Result<Self, InvokeError> {
        let limits = grants.limits;
        let store = inner
            .store(grants)
            .map_err(|error| InvokeError::Host(format!("{error:#}")))?;
        Ok(Self::of(inner, store, limits))
    }

    /// The next call of an instance.
    fn again(inner: &'a Inner, mut store: Store<State>, id: &str, context: Context) -> Self {
        let Context {
            limits,
            models,
            cpu,
            ..
        } = context;
        store.data_mut().renew(&id.into(), models);
        store.set_hostcall_fuel(limits.memory);
        Self::of(inner, store, limits).metered(cpu)
    }

    /// What it spends is counted by `meter`.
    fn metered(self, meter: CpuMeter) -> Self {
        Self {
            cpu_before: meter.get(),
            cpu: meter,
            ..self
        }
    }

    fn of(inner: &'a Inner, store: Store<State>, limits: Limits) -> Self {
        Self {
            inner,
            store,
            limits,
            deadline: tokio::time::Instant::now() + limits.deadline,
            polled: Duration::ZERO,
            cpu: CpuMeter::default(),
            cpu_before: Duration::ZERO,
        }
    }

    /// Runs one step in the guest and says what went wrong, if anything did.
    pub(crate) async fn run<T>(
        &mut self,
        step: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, InvokeError> {
        let Limits { cpu, deadline, .. } = self.limits;
        let step = timed(step(&mut self.store), &mut self.polled);
        let most = cpu.map(|limit| self.cpu_before + limit);
        let step = self.cpu.count(most, step);
        match tokio::time::timeout_at(self.deadline, step).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.diagnose(&error)),
            Ok(Err(OutOfCpu)) => Err(InvokeError::Cpu {
                limit: cpu.unwrap_or_default(),
            }),
            Err(_) => Err(InvokeError::Deadline { limit: deadline }),
        }
    }

    fn diagnose(&self, error: &wasmtime::Error) -> InvokeError {
        let state = self.store.data();
        if error.is::<PoolConcurrencyLimitError>() {
            return InvokeError::Busy {
                instances: self.inner.config.instances,
            };
        }
        if state.memory.refused() {
            return InvokeError::Memory {
                limit: self.limits.memory,
            };
        }
        let message = match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => format!("it called exit({code})"),
            None => error.root_cause().to_string(),
        };
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(WasmBacktrace::to_string);
        InvokeError::Trap {
            message,
            stderr: state.last_words(),
            backtrace: backtrace.unwrap_or_default(),
        }
    }
}

/// Awaits a future and adds up the time that it holds the thread.
pub(crate) async fn timed<F: Future>(future: F, spent: &mut Duration) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let start = Instant::now();
        let answer: Poll<_> = future.as_mut().poll(context);
        *spent += start.elapsed();
        answer
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only while calls can be moved between threads.
    #[allow(dead_code, reason = "checked by the compiler")]
    fn calls_can_be_spawned(component: Component, request: Request, context: Context) {
        let call = async move { component.invoke(request, context).await };
        drop(tokio::spawn(call));
    }
}
