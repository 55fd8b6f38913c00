//! The picture of a page in, the way it is turned out.
//!
//! The way: [`picture`] decodes the file, scales the page and cuts its middle out; the model gives
//! a probability for each quarter turn.

pub mod picture;

use std::collections::BTreeMap;

use firebox_sdk::{Bytes, Error, Json, Result, Tensor, argmax, function, model};
use serde::Serialize;

/// What the model's four outputs stand for, in degrees clockwise.
const ROTATIONS: [u16; 4] = [0, 90, 180, 270];

/// How a page is turned.
#[derive(Serialize)]
pub struct Answer {
    /// Degrees by which the page is turned clockwise; turn it back by as much to read it.
    rotation: u16,
    /// The probability of that.
    confidence: f32,
    /// The probability of each rotation.
    probabilities: BTreeMap<u16, f32>,
}

#[function]
fn page_orientation(body: Bytes) -> Result<Json<Answer>> {
    let page = picture::decode(&body).map_err(Error::invalid_input)?;
    let side = picture::SIDE as usize;
    let input = Tensor::new([1, 3, side, side], picture::middle(&page))?;

    let probabilities = model("orientation")?
        .run([("x", input)])?
        .take::<f32>("fetch_name_0")?;
    let probabilities = probabilities.data();
    let best = argmax(probabilities)
        .and_then(|at| Some((*ROTATIONS.get(at)?, *probabilities.get(at)?)))
        .ok_or_else(|| Error::internal("the model gave no probabilities"))?;
    let (rotation, confidence) = best;
    let probabilities = ROTATIONS
        .into_iter()
        .zip(probabilities.iter().copied())
        .collect();
    Ok(Json(Answer {
        rotation,
        confidence,
        probabilities,
    }))
}
