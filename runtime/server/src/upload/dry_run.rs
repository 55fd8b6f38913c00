//! What a version is tried on before it is committed, and what that tells of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebox_engine::{Precision, Signature, Tensor, TensorSpec};
use firebox_registry::{Manifest, NewVersion};
use firebox_sandbox::Parameter;

use super::{Folder, ROOM_WAIT, blocking, file, refused};
use crate::gateway::{CallModels, InstanceCaps, Question, invoke_failure};
use crate::problem::Failure;
use crate::protocol::{invoke, utf8};
use crate::residency::{Loaded, Place, Warm};
use crate::routing::takes_raw;
use crate::scheduler::trial::trial;
use crate::scheduler::{Named, Terms, element};
use crate::server::App;

/// What the dry run asks: the manifest's sample, or zeros where a model alone
/// says all there is to know.
pub struct DryRun {
    inputs: Named,
    parameters: Vec<(String, Parameter)>,
    /// Whether sizes were made up that the signature leaves open; a model may
    /// rightly refuse those.
    guessed: bool,
}

/// The question of a version with this manifest; `sample` is the sample's file.
pub async fn question(
    manifest: &Manifest,
    is_model: bool,
    sample: Option<&Path>,
    signature: &Signature,
) -> Result<Option<DryRun>, Failure> {
    let Some((sample, file)) = manifest.sample.as_ref().zip(sample) else {
        return Ok(is_model.then(|| made_up(signature, 0)).flatten());
    };
    let body = tokio::fs::read(file).await?;
    let wrong = |failure: Failure| refused("the sample".into(), failure.to_string());
    let inputs = if !is_model && takes_raw(signature) {
        invoke::raw(&body).map_err(wrong)?
    } else {
        utf8(&body)
            .and_then(|json| invoke::named_arrays(json, signature))
            .map_err(wrong)?
    };
    let kind = Parameter::Text(sample.content_type.clone());
    Ok(Some(DryRun {
        inputs,
        parameters: vec![("content-type".into(), kind)],
        guessed: false,
    }))
}

/// `value` all over in every input; open sizes are 1. `None` where an input's elements
/// can't be that, or its fixed sizes make it huge.
fn made_up(signature: &Signature, value: i64) -> Option<DryRun> {
    const MAX_BYTES: usize = 1 << 30;
    let sizes = |spec: &TensorSpec| -> Vec<usize> {
        let dims = spec.shape.iter().flatten();
        dims.map(|dim| {
            if let firebox_engine::Dim::Fixed(size) = dim {
                *size
            } else {
                1
            }
        })
        .collect()
    };
    let inputs = signature.inputs.iter().map(|spec| {
        let shape = sizes(spec);
        let element = element(spec.dtype, value)?;
        let count = shape.iter().try_fold(1, |n: usize, &d| n.checked_mul(d))?;
        let fits = count.checked_mul(element.len())? <= MAX_BYTES;
        let tensor = fits.then(|| Tensor::new(spec.dtype, shape, element.repeat(count)));
        Some((spec.name.clone(), tensor?.ok()?))
    });
    let inputs = inputs.collect::<Option<_>>()?;
    let open = |spec: &TensorSpec| match &spec.shape {
        None => true,
        // The first dimension is a batch nearly always, and 1 a good size for one.
        Some(dims) => dims
            .iter()
            .skip(1)
            .any(|d| !matches!(d, firebox_engine::Dim::Fixed(_))),
    };
    let guessed = signature.inputs.iter().any(open);
    Some(DryRun {
        inputs,
        parameters: vec![],
        guessed,
    })
}

/// One real inference, and then one whose time is kept: the first makes plans
/// and touches memory that later ones find ready.
pub(super) async fn dry_run(
    app: &App,
    new: &NewVersion,
    warm: &Arc<Warm>,
    run: &DryRun,
) -> Result<Option<u64>, Failure> {
    let limits = &new.manifest.limits;
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let started = Instant::now();
        let once = run_once(app, &new.manifest, warm, run);
        let outcome = tokio::time::timeout(limits.deadline, once).await;
        let outcome = outcome.unwrap_or(Err(Failure::Deadline {
            limit: limits.deadline,
        }));
        took = started.elapsed();
        match outcome {
            Ok(()) => {}
            Err(failure) if run.guessed => {
                tracing::info!(function = %new.manifest.name, %failure,
                    "the model did not run on zeros of made-up sizes; give a [sample]");
                return Ok(None);
            }
            Err(failure @ (Failure::ShuttingDown | Failure::Busy(_))) => return Err(failure),
            Err(failure) => return Err(refused("the dry run failed".into(), failure.to_string())),
        }
    }
    Ok(Some(took.as_micros().try_into().unwrap_or(u64::MAX)))
}

/// Refuses models with `batching` whose calls can't share runs. A model alone is asked its sample;
/// one whose questions nobody knows, ones: zeros would mask everything out.
pub(super) async fn batching(
    new: &NewVersion,
    warm: &Arc<Warm>,
    question: Option<&DryRun>,
) -> Result<(), Failure> {
    for (name, loaded) in &warm.models {
        let section = new.manifest.models.get(name);
        let Some(batching) = section.and_then(|section| section.batching.clone()) else {
            continue;
        };
        let sample = question.filter(|_| warm.code.is_none() && new.manifest.sample.is_some());
        let asked = match sample {
            Some(sample) => sample.inputs.clone(),
            None => made_up(&loaded.signature, 1).map_or(vec![], |ones| ones.inputs),
        };
        let model = loaded.clone();
        let tried = blocking(move || Ok(trial(&*model, &batching, &asked))).await?;
        tried.map_err(|reason| refused(format!("model `{name}`"), reason))?;
    }
    Ok(())
}

/// How far a model alone, of less precision than f32, is off on the manifest's sample. Null
/// where there is nothing to measure, or it can't be measured.
///
/// A component asks its models in ways of its own, of which a sample says nothing.
pub(super) async fn deviation(
    app: &Arc<App>,
    folder: &Folder,
    new: &NewVersion,
    warm: &Warm,
    run: DryRun,
) -> serde_json::Value {
    let model = warm.models.iter().next().zip(new.models.values().next());
    let Some(((name, loaded), path)) = model else {
        return serde_json::Value::Null;
    };
    let place = app.residency.place(new.manifest.models.get(name));
    let measured = warm.code.is_none() && new.manifest.sample.is_some();
    if !measured || place.precision == Precision::F32 {
        return serde_json::Value::Null;
    }
    let exact = Place {
        precision: Precision::F32,
        ..place
    };
    let off = async {
        let exact = file(folder, path, exact).await?;
        let exact = app.residency.model(exact, ROOM_WAIT).await?;
        let expected = answer(app, new, name, &exact, run.inputs.clone()).await?;
        let found = answer(app, new, name, loaded, run.inputs).await?;
        blocking(move || {
            let off = firebox_engine::deviations(&found, &expected);
            serde_json::to_value(off).map_err(|error| Failure::Internal(error.to_string()))
        })
        .await
    };
    off.await.unwrap_or_else(|failure: Failure| {
        tracing::warn!(function = %new.manifest.name, %failure,
            "the deviation from f32 could not be measured");
        serde_json::Value::Null
    })
}

/// One run of a model alone, within the deadline of a request.
async fn answer(
    app: &App,
    new: &NewVersion,
    name: &str,
    loaded: &Arc<Loaded>,
    inputs: Named,
) -> Result<Named, Failure> {
    let limit = new.manifest.limits.deadline;
    let terms = Arc::new(Terms::of(&new.manifest.name, &new.manifest));
    let run = app.scheduler.run(&terms, name, loaded.clone(), inputs);
    match tokio::time::timeout(limit, run).await {
        Ok(done) => Ok(done?.outputs),
        Err(_) => Err(Failure::Deadline { limit }),
    }
}

/// Asks the question once.
pub async fn run_once(
    app: &App,
    manifest: &Manifest,
    warm: &Arc<Warm>,
    run: &DryRun,
) -> Result<(), Failure> {
    let limits = &manifest.limits;
    let terms = Arc::new(Terms::of(&manifest.name, manifest));
    let models = Arc::new(CallModels::new(warm.clone(), app.scheduler.clone(), terms));
    let bounds = InstanceCaps::new(&app.config).limits(limits, limits.deadline);
    let question = Question {
        id: None,
        inputs: run.inputs.clone(),
        parameters: run.parameters.clone(),
    };
    let refusal = |error| invoke_failure(error, limits.deadline);
    let answer = models.ask(question, bounds, false, &"dry-run", refusal);
    answer.await.map(drop)
}
