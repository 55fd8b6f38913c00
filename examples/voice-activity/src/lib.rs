//! A recording in, the stretches in which someone speaks out.
//!
//! The way: [`wav`] reads the file, [`resample`] brings it to a rate that the model knows,
//! [`detector`] asks the model about each 32 ms, and [`segments`] makes stretches of the answers.

pub mod detector;
pub mod resample;
pub mod segments;
pub mod wav;

use firebox_sdk::{Bytes, Error, Json, Result, function};
use serde::Serialize;

/// What is said when.
#[derive(Serialize)]
pub struct Answer {
    /// Speech, in order of time.
    segments: Vec<Stretch>,
    /// Seconds of the whole recording.
    duration: f64,
}

/// One stretch of speech, in seconds from the start of the recording.
#[derive(Serialize)]
pub struct Stretch {
    start: f64,
    end: f64,
}

#[function]
fn voice_activity(body: Bytes) -> Result<Json<Answer>> {
    let recording = wav::read(&body).map_err(Error::invalid_input)?;
    let rate = if recording.rate == 8_000 {
        8_000
    } else {
        16_000
    };
    let samples = resample::resample(&recording.samples, recording.rate, rate);

    let probabilities = detector::probabilities(&samples, rate)?;
    let window = detector::window(rate);
    let found = segments::segments(&probabilities, window, rate as usize, samples.len());

    let seconds = |samples: usize| samples as f64 / f64::from(rate);
    let stretch = |found: segments::Segment| Stretch {
        start: seconds(found.start),
        end: seconds(found.end),
    };
    Ok(Json(Answer {
        segments: found.into_iter().map(stretch).collect(),
        duration: seconds(samples.len()),
    }))
}
