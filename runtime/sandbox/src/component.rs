//! Compiled code, mapped and linked, and calls of it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{Engine, PoolConcurrencyLimitError, Store, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::{Function, FunctionPre};
use crate::cpu::OutOfCpu;
use crate::engine::Inner;
use crate::limits::MemoryCap;
use crate::nn::Nn;
use crate::reuse::{Idle, Kept};
use crate::spare::{Spare, SparesOf};
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
    spares: Arc<SparesOf>,
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
        let component = map(&self.inner.engine, cwasm)?;
        let pre = self
            .inner
            .linker
            .instantiate_pre(&component)
            .and_then(FunctionPre::new);
        let pre = pre.map_err(|error| LinkError::Imports {
            path: cwasm.to_owned(),
            reason: format!("{error:#}"),
        })?;
        Ok(Component {
            inner: self.inner.clone(),
            pre,
            snapshot,
            idle: Idle::new(self.inner.idle.clone()),
            spares: Arc::new(SparesOf::new(self.inner.spares.clone())),
        })
    }
}

/// Maps a file of machine code, for a caller who holds to the contract of [`Sandbox::link`].
pub(crate) fn map(
    engine: &Engine,
    cwasm: &Path,
) -> Result<wasmtime::component::Component, LinkError> {
    let path = || cwasm.to_owned();
    if let Err(source) = std::fs::File::open(cwasm) {
        return Err(LinkError::File {
            path: path(),
            source,
        });
    }
    // SAFETY: by the contract; wasmtime refuses what another build of it, or another
    // configuration, has made.
    #[allow(
        unsafe_code,
        reason = "compiled code is trusted as the registry's digest is"
    )]
    let component = unsafe { wasmtime::component::Component::deserialize_file(engine, cwasm) };
    component.map_err(|error| LinkError::Stale {
        path: path(),
        reason: format!("{error:#}"),
    })
}

impl Component {
    /// Answers one request in an instance of its own, which is gone afterwards;
    /// also when the returned future is dropped. With [`Context::reuse`] in one that has answered
    /// before, if one is idle, and it is kept for a next call; but never one that was stopped, or
    /// that was refused memory or a tensor.
    ///
    /// Where [`SandboxConfig::spares`](crate::SandboxConfig::spares) leave room, the instance goes
    /// behind the answer, in a task of the runtime's, and the next one is made then.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(
        &self,
        request: Request,
        context: Context,
    ) -> Result<Response, InvokeError> {
        let start = Instant::now();
        // One that answers again stays, and so has none that comes after it.
        let next = (!context.reuse).then(|| Grants::of_spare(&context));
        let (mut call, made) = match self.ready(&context) {
            Some(Kept { store, function }) => {
                let call = Call::again(&self.inner, store, &request.id, context);
                (call, Some(function))
            }
            None => {
                let grants = Grants::of_call(&request.id, &context);
                (Call::new(&self.inner, grants)?.metered(context.cpu), None)
            }
        };
        let request = convert::request(request);
        let answered = call.run(async |store| {
            let function = match made {
                Some(function) => function,
                None => self.instantiate(store).await?,
            };
            let answer = function.call_infer(store, &request).await?;
            Ok((function, answer))
        });
        let (function, answer) = answered.await?;
        let (state, usage) = (call.store.data(), call.usage(start));
        if let Some(next) = next {
            self.replace(call.store, next);
        } else if !state.memory.refused() && !state.nn.refused() {
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

    /// An instance that can be asked at once, if there is one.
    fn ready(&self, context: &Context) -> Option<Kept> {
        if context.reuse
            && let Some(kept) = self.idle.take()
        {
            return Some(kept);
        }
        let spare = self.spares.take(&context.limits)?;
        context.cpu.add(spare.cpu);
        Some(spare.instance)
    }

    /// Drops a used instance and makes a spare, both behind the answer; where there is no room for
    /// that, drops it now.
    fn replace(&self, used: Store<State>, grants: Grants) {
        let Some(slot) = self.spares.slot() else {
            return;
        };
        let component = self.clone();
        tokio::spawn(async move {
            drop(used);
            // Without a snapshot, making one takes an `init`, and the last clone has no next call.
            let kept = Arc::strong_count(&component.spares) > 1;
            if component.snapshot && kept && component.spares.wanted() {
                let limits = grants.limits;
                match component.spare(grants).await {
                    Ok((instance, cpu)) => component.spares.put(Spare {
                        instance,
                        limits,
                        cpu,
                        _slot: slot,
                        since: Instant::now(),
                    }),
                    Err(error) => tracing::debug!(%error, "no spare instance"),
                }
            }
        });
    }

    /// An instance that has not been asked anything, and the processor time that making it took.
    async fn spare(&self, grants: Grants) -> Result<(Kept, Duration), InvokeError> {
        let cpu = CpuMeter::default();
        let mut call = Call::new(&self.inner, grants)?.metered(cpu.clone());
        let function = call
            .run(async |store| self.instantiate(store).await)
            .await?;
        let store = call.store;
        Ok((Kept { store, function }, cpu.get()))
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

/// What a call asks of the data of its store, whatever kind of code runs there.
pub(crate) trait Holds: Send + 'static {
    /// The memory cap.
    fn memory(&self) -> &MemoryCap;
    /// The same, to be asked for more.
    fn memory_mut(&mut self) -> &mut MemoryCap;
    /// Its models.
    fn nn(&self) -> &Nn;
    /// What the guest wrote to standard error last.
    fn last_words(&self) -> String;
    /// The id that its log lines bear.
    fn id(&self) -> Arc<str>;
}

/// A store with the time that is left for it.
pub(crate) struct Call<S: 'static = State> {
    /// How many there can be at once.
    instances: u32,
    pub(crate) store: Store<S>,
    limits: Limits,
    deadline: tokio::time::Instant,
    /// Time on the thread.
    polled: Duration,
    /// Processor time, and what was on the meter at the start.
    cpu: CpuMeter,
    cpu_before: Duration,
}

impl Call {
    pub(crate) fn new(inner: &Inner, grants: Grants) -> Result<Self, InvokeError> {
        let limits = grants.limits;
        let store = inner
            .store(grants)
            .map_err(|error| InvokeError::Host(format!("{error:#}")))?;
        Ok(Self::of(inner, store, limits))
    }

    /// The next call of an instance.
    fn again(inner: &Inner, mut store: Store<State>, id: &str, context: Context) -> Self {
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
}

impl<S: Holds> Call<S> {
    /// What it spends is counted by `meter`.
    pub(crate) fn metered(self, meter: CpuMeter) -> Self {
        Self {
            cpu_before: meter.get(),
            cpu: meter,
            ..self
        }
    }

    pub(crate) fn of(inner: &Inner, store: Store<S>, limits: Limits) -> Self {
        Self {
            instances: inner.config.instances,
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
        step: impl AsyncFnOnce(&mut Store<S>) -> wasmtime::Result<T>,
    ) -> Result<T, InvokeError> {
        let Limits { cpu, deadline, .. } = self.limits;
        let outcome = {
            // In place: each wrapper would have room for two of what it is given.
            let step = pin!(step(&mut self.store));
            let step = pin!(timed(step, &mut self.polled));
            let most = cpu.map(|limit| self.cpu_before + limit);
            let step = self.cpu.count(most, step);
            tokio::time::timeout_at(self.deadline, step).await
        };
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.diagnose(&error)),
            Ok(Err(OutOfCpu)) => Err(InvokeError::Cpu {
                limit: cpu.unwrap_or_default(),
            }),
            Err(_) => Err(InvokeError::Deadline { limit: deadline }),
        }
    }

    /// What it cost, begun at `start`.
    pub(crate) fn usage(&self, start: Instant) -> Usage {
        let state = self.store.data();
        Usage {
            total: start.elapsed(),
            guest: self.polled.saturating_sub(state.nn().polled),
            compute: state.nn().waited,
            peak_memory: state.memory().peak(),
        }
    }

    fn diagnose(&self, error: &wasmtime::Error) -> InvokeError {
        let state = self.store.data();
        if error.is::<PoolConcurrencyLimitError>() {
            return InvokeError::Busy {
                instances: self.instances,
            };
        }
        let message = match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => format!("it called exit({code})"),
            None => error.root_cause().to_string(),
        };
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(WasmBacktrace::to_string);
        let (stderr, backtrace) = (state.last_words(), backtrace.unwrap_or_default());
        if state.memory().refused() {
            // Most guests stop because of it; what this one says of its end is not lost.
            tracing::warn!(
                request = &*state.id(),
                message,
                stderr,
                backtrace,
                "an instance that was refused memory stopped"
            );
            return InvokeError::Memory {
                limit: self.limits.memory,
            };
        }
        InvokeError::Trap {
            message,
            stderr,
            backtrace,
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
