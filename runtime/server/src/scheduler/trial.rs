//! Whether calls of a model can share runs, tried before a version is taken: two questions, each
//! asked alone and both in one run, must be answered the same.

use firebox_engine::{DType, Tensor, deviations};
use firebox_registry::Batching;

use super::batch::{Batch, Shape, element, fill_up, unfit};
use super::{Compute, Named};

/// How far a number may be off, as a part of the output's largest one.
const MAX_RELATIVE: f64 = 1e-3;
/// How far it may be off however small the others are.
const MAX_ABSOLUTE: f64 = 1e-5;

/// Asks `model` with `inputs` and with others like them. Blocking.
///
/// # Errors
/// Why the model can't be run as `batching` wants it to. A model that refuses the inputs, as it
/// may where they are made up, is not tried.
pub fn trial(model: &dyn Compute, batching: &Batching, inputs: &Named) -> Result<(), String> {
    let signature = model.signature();
    if let Some(reason) = unfit(signature, batching) {
        return Err(reason);
    }
    let Some((first, longer)) = shapes(model, batching, inputs) else {
        return Ok(());
    };
    let Ok(first_alone) = model.compute(inputs.clone()) else {
        return Ok(());
    };
    // Longer by one where that is allowed; some models have a longest.
    let others = [longer, other(inputs)];
    let found = others.into_iter().flatten().find_map(|other| {
        let shape = Shape::of(&other, signature, batching)?;
        let alone = model.compute(other.clone()).ok()?;
        Some((other, shape, alone))
    });
    let Some((second, second_shape, second_alone)) = found else {
        return Ok(());
    };
    let mut batch = Batch::new(&first);
    if !batch.add(&second_shape, usize::MAX) {
        return Ok(());
    }
    let Some(stacked) = batch.stack(&[inputs, &second], signature, batching) else {
        return Ok(());
    };
    let told = |what: String| {
        format!(
            "{what}, so calls can't share a run of this model: leave `batching` out, or export \
             the model so that each row of its outputs depends on the same row of its inputs alone"
        )
    };
    let outputs = model.compute(stacked);
    let outputs =
        outputs.map_err(|error| told(format!("two questions in one run fail: {error}")))?;
    let parts = batch.split(&outputs, &[&first, &second_shape], signature);
    let parts = parts.map_err(|reason| told(format!("in one run of two questions, {reason}")))?;
    for (part, alone) in parts.iter().zip([&first_alone, &second_alone]) {
        for off in deviations(part, alone) {
            if off.max_absolute > MAX_ABSOLUTE && off.max_relative > MAX_RELATIVE {
                return Err(told(format!(
                    "two questions in one run are answered otherwise than alone: output `{}` is \
                     off by {:.3e}",
                    off.output, off.max_absolute
                )));
            }
        }
    }
    Ok(())
}

/// The shape of the question, and another question that is longer by one where it may be.
fn shapes(
    model: &dyn Compute,
    batching: &Batching,
    inputs: &Named,
) -> Option<(Shape, Option<Named>)> {
    let shape = Shape::of(inputs, model.signature(), batching)?;
    let longer = inputs.iter().map(|(name, tensor)| {
        let sizes = shape.longer(name, tensor.shape())?;
        if sizes == tensor.shape() {
            return Some((name.clone(), tensor.clone()));
        }
        let mut data = vec![];
        let filling = element(tensor.dtype(), 1)?;
        fill_up(&mut data, tensor, sizes.get(1..)?, &filling)?;
        Some((name.clone(), Tensor::new(tensor.dtype(), sizes, data).ok()?))
    });
    let longer: Option<Named> = longer.collect();
    let longer = longer.filter(|longer| longer != inputs);
    Some((shape, longer.and_then(|longer| other(&longer))))
}

/// The same with other numbers where any will do. Integers, which often name something, stay.
fn other(inputs: &Named) -> Option<Named> {
    let each = inputs.iter().map(|(name, tensor)| {
        let DType::F32 = tensor.dtype() else {
            return Some((name.clone(), tensor.clone()));
        };
        let values = tensor.to_f32()?.into_iter().map(|x| 0.25 + 0.5 * x);
        let values: Vec<f32> = values.collect();
        let tensor = Tensor::from_f32(tensor.shape().to_vec(), &values).ok()?;
        Some((name.clone(), tensor))
    });
    each.collect()
}
