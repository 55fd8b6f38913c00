//! The models of a call, and calls that nobody at a connection waits for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use firebox_engine::{RunError, Signature};
use firebox_sandbox::{
    Context, ErrorCode, InvokeError, Limits, LoadCause, LoadedModel, ModelError, Models, Request,
    Target,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{Answer, Question};
use crate::cost::Meter;
use crate::metrics::Clock;
use crate::problem::Failure;
use crate::residency::{Loaded, Program, Warm};
use crate::routing::Version;
use crate::scheduler::{ComputeError, Named, Scheduler, Terms};

/// Asks a loaded version aside from the way of a request: nobody waits at a connection for the
/// answer, and no place is taken. Its models run on `terms`; `id` names the answer in logs.
pub async fn ask(
    version: &Version,
    terms: &Arc<Terms>,
    warm: &Arc<Warm>,
    scheduler: &Arc<Scheduler>,
    question: Question,
    limits: Limits,
    id: Uuid,
) -> Result<Answer, Failure> {
    version.check(&question.inputs)?;
    // What it uses is its version's cost, as that of any call.
    let meter = version.account.meter();
    let models = CallModels::new(warm.clone(), scheduler.clone(), terms.clone());
    let models = Arc::new(models.metered(&meter));
    let deadline = limits.deadline;
    // It must not change what the version's callers find in an instance that is kept.
    let answer = models.ask(question, limits, false, &id, |error| {
        tracing::debug!(prediction_id = %id, ?error, "a call aside from callers failed");
        invoke_failure(error, deadline)
    });
    answer.await
}

/// A function's failure as a request's; `limit` is the deadline that it had.
pub fn invoke_failure(error: InvokeError, limit: Duration) -> Failure {
    match error {
        InvokeError::Guest(error) => match error.code {
            ErrorCode::InvalidInput => Failure::GuestInvalidInput(error.message),
            ErrorCode::Unavailable => Failure::GuestUnavailable(error.message),
            ErrorCode::Internal => Failure::GuestInternal(error.message),
        },
        InvokeError::Deadline { .. } => Failure::Deadline { limit },
        InvokeError::Memory { limit } => Failure::Memory { limit },
        InvokeError::Cpu { limit } => Failure::Cpu { limit },
        InvokeError::Busy { .. } => Failure::Busy(error.to_string()),
        InvokeError::Trap { .. } => Failure::Trap(error.to_string()),
        InvokeError::NoResponse { .. } => Failure::NoResponse(error.to_string()),
        InvokeError::Host(_) => Failure::Internal("the host failed to run the function".into()),
    }
}

impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Full { .. } => Self::Busy(error.to_string()),
            ComputeError::Run(RunError::Input(error)) => Self::WrongTensor(error.to_string()),
            ComputeError::Run(_) | ComputeError::Panic(_) => Self::Model(error.to_string()),
            ComputeError::Stopped => Self::ShuttingDown,
        }
    }
}

/// The models of one call: runs them on the scheduler and adds up the time.
pub struct CallModels {
    warm: Arc<Warm>,
    scheduler: Arc<Scheduler>,
    terms: Arc<Terms>,
    /// Those that the guest loaded from bytes, by digest.
    loaded: Mutex<BTreeMap<Arc<str>, Arc<Loaded>>>,
    pub(super) queued: Clock,
    pub(super) computed: Clock,
    /// Time in the instance of a call that ended well.
    pub(super) guest: Clock,
    meter: Meter,
}

impl CallModels {
    /// For one call of a loaded version.
    pub fn new(warm: Arc<Warm>, scheduler: Arc<Scheduler>, terms: Arc<Terms>) -> Self {
        Self {
            warm,
            scheduler,
            terms,
            loaded: Mutex::default(),
            queued: Clock::default(),
            computed: Clock::default(),
            guest: Clock::default(),
            meter: Meter::default(),
        }
    }

    /// What is used from now on is counted by `meter`.
    pub fn metered(self, meter: &Meter) -> Self {
        Self {
            meter: meter.clone(),
            ..self
        }
    }

    /// Answers a question: by the version's component, in an instance of its own or with `reuse` in
    /// one that has answered before, else by its model. `id` is the question's where it has none, and
    /// `refusal` says what a component's failure is to the one who asks.
    pub async fn ask(
        self: Arc<Self>,
        question: Question,
        limits: Limits,
        reuse: bool,
        id: &impl Display,
        refusal: impl FnOnce(InvokeError) -> Failure,
    ) -> Result<Answer, Failure> {
        let warm = self.warm.clone();
        let Some(code) = &warm.code else {
            let model = warm.models.iter().next();
            let missing = || Failure::Internal("the version has neither code nor a model".into());
            let (name, model) = model.ok_or_else(missing)?;
            let inputs = question.inputs;
            return Ok(Answer {
                outputs: self.compute(name, model.clone(), inputs).await?,
                parameters: vec![],
            });
        };
        let request = Request {
            id: question.id.unwrap_or_else(|| id.to_string()),
            inputs: question.inputs,
            parameters: question.parameters,
        };
        let context = Context {
            limits,
            cpu: self.meter.guest.clone(),
            models: self.clone(),
            assets: code.assets.clone(),
            network: code.network.clone(),
            reuse,
        };
        let response = match &code.program {
            Program::Function(component) => component.invoke(request, context).await,
            Program::Command(command) => command.invoke(request, context, &code.line).await,
            Program::Http(_) => {
                let reason = "a handler of HTTP requests was asked in tensors";
                Err(InvokeError::Host(reason.into()))
            }
        };
        let response = response.map_err(refusal)?;
        self.guest.add(response.usage.guest);
        Ok(Answer {
            outputs: response.outputs,
            parameters: response.parameters,
        })
    }

    /// Runs a model, and counts what that takes.
    async fn compute(
        &self,
        name: &str,
        model: Arc<Loaded>,
        inputs: Named,
    ) -> Result<Named, ComputeError> {
        let computed = self.scheduler.run(&self.terms, name, model, inputs).await?;
        self.queued.add(computed.queued);
        self.computed.add(computed.compute);
        self.meter.computed(&computed);
        Ok(computed.outputs)
    }

    fn find(&self, name: &str) -> Result<Arc<Loaded>, ModelError> {
        if let Some(model) = self.warm.models.get(name) {
            return Ok(model.clone());
        }
        let loaded = self.loaded().get(name).cloned();
        loaded.ok_or_else(|| ModelError::NotFound {
            name: name.to_owned(),
            known: self.warm.models.keys().cloned().collect(),
        })
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Loaded>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Models for CallModels {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Signature>, ModelError>> {
        std::future::ready(self.find(name).map(|model| model.signature.clone())).boxed()
    }

    fn load<'a>(
        &'a self,
        onnx: Bytes,
        target: Target,
    ) -> BoxFuture<'a, Result<LoadedModel, ModelError>> {
        let loader = self
            .warm
            .code
            .as_ref()
            .and_then(|code| code.loader.as_ref());
        let load = async move {
            let loader = loader.ok_or_else(forbidden)?;
            let (name, model) = loader.load(onnx, target).await?;
            let given = LoadedModel {
                name: name.clone(),
                signature: model.signature.clone(),
                bytes: usize::try_from(model.bytes()).unwrap_or(usize::MAX),
            };
            self.loaded().insert(name, model);
            Ok(given)
        };
        load.boxed()
    }

    fn unload(&self, name: &str) {
        self.loaded().remove(name);
    }

    fn run<'a>(&'a self, name: &'a str, inputs: Named) -> BoxFuture<'a, Result<Named, ModelError>> {
        let run = async move {
            let model = self.find(name)?;
            let computed = self.compute(name, model, inputs).await;
            computed.map_err(|error| model_error(name.to_owned(), error))
        };
        run.boxed()
    }
}

/// What a guest is told that may not load models from bytes.
fn forbidden() -> ModelError {
    let reason = "this function may not; list the model in firebox.toml and use load-by-name, or \
                  set `load_models` of [function]";
    ModelError::Load {
        cause: LoadCause::Forbidden,
        reason: reason.into(),
    }
}

fn model_error(model: String, error: ComputeError) -> ModelError {
    match error {
        ComputeError::Run(RunError::Input(error)) => ModelError::Input { model, error },
        ComputeError::Run(_) | ComputeError::Panic(_) => ModelError::Failed {
            model,
            reason: error.to_string(),
        },
        ComputeError::Full { .. } | ComputeError::Stopped => ModelError::Unavailable {
            model,
            reason: error.to_string(),
        },
    }
}
