//! Compiled code, mapped and linked, and calls of it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{PoolConcurrencyLimitError, Store, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::FunctionPre;
use crate::engine::Inner;
use crate::state::{Grants, State};
use crate::{
    Context, CpuMeter, InvokeError, LinkError, Request, Response, Sandbox, Usage, convert,
};

/// A function's code in memory, ready to make instances. Cloning it is cheap.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
    pre: FunctionPre<State>,
    snapshot: bool,
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
        })
    }
}

impl Component {
    /// Answers one request in an instance of its own, which is gone afterwards;
    /// also when the returned future is dropped.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(
        &self,
        request: Request,
        context: Context,
    ) -> Result<Response, InvokeError> {
        let start = Instant::now();
        let limits = context.limits;
        let grants = Grants {
            id: request.id.as_str().into(),
            memory: limits.memory,
            assets: context.assets,
            network: context.network,
            models: Some(context.models),
        };
        let mut call = Call::new(&self.inner, grants, limits.deadline)?;
        call.cpu = context.cpu;
        let function = call
            .run(async |store| self.pre.instantiate_async(store).await)
            .await?;
        if !self.snapshot {
            call.run(async |store| function.call_init(store).await)
                .await?;
        }
        let request = convert::request(request);
        let answer = call
            .run(async |store| function.call_infer(store, &request).await)
            .await?;
        let (outputs, parameters) = convert::response(answer.map_err(convert::guest_error)?)?;
        let state = call.store.data();
        let usage = Usage {
            total: start.elapsed(),
            guest: call.polled.saturating_sub(state.nn.polled),
            compute: state.nn.waited,
            peak_memory: state.memory.peak(),
        };
        Ok(Response {
            outputs,
            parameters,
            usage,
        })
    }
}

/// A store with the time that is left for it.
pub(crate) struct Call<'a> {
    inner: &'a Inner,
    pub(crate) store: Store<State>,
    limit: Duration,
    deadline: tokio::time::Instant,
    memory: usize,
    /// Time on the thread.
    polled: Duration,
    cpu: CpuMeter,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        grants: Grants,
        limit: Duration,
    ) -> Result<Self, InvokeError> {
        let deadline = tokio::time::Instant::now() + limit;
        let memory = grants.memory;
        let store = inner
            .store(grants)
            .map_err(|error| InvokeError::Host(format!("{error:#}")))?;
        Ok(Self {
            inner,
            store,
            limit,
            deadline,
            memory,
            polled: Duration::ZERO,
            cpu: CpuMeter::default(),
        })
    }

    /// Runs one step in the guest and says what went wrong, if anything did.
    pub(crate) async fn run<T>(
        &mut self,
        step: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, InvokeError> {
        let step = timed(step(&mut self.store), &mut self.polled);
        let step = self.cpu.count(step);
        match tokio::time::timeout_at(self.deadline, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.diagnose(&error)),
            Err(_) => Err(InvokeError::Deadline { limit: self.limit }),
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
            return InvokeError::Memory { limit: self.memory };
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
