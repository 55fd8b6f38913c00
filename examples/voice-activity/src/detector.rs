//! The model, window by window: each call gets the state that the one before left.

use firebox_sdk::{Result, Tensor, model};

/// The probability of speech in each window of `samples`, in order.
///
/// The model knows two rates, 8 and 16 kHz. At 16 kHz a window is 512 samples, with the 64 before
/// it in front as context; at 8 kHz, half of both. The last window is filled up with silence.
pub fn probabilities(samples: &[f32], rate: u32) -> Result<Vec<f32>> {
    let (window, context) = (window(rate), window(rate) / 8);
    let vad = model("vad")?;
    let mut state = Tensor::new([2, 1, 128], vec![0f32; 256])?;
    let mut input = vec![0f32; context + window];
    let mut probabilities = Vec::with_capacity(samples.len().div_ceil(window));
    for chunk in samples.chunks(window) {
        input.drain(..window);
        input.extend_from_slice(chunk);
        input.resize(context + window, 0.0);
        let mut outputs = vad.run((
            ("input", Tensor::new([1, input.len()], input.as_slice())?),
            ("state", state),
            ("sr", Tensor::scalar(i64::from(rate))),
        ))?;
        state = outputs.take("stateN")?;
        probabilities.extend(outputs.take::<f32>("output")?.data().first());
    }
    Ok(probabilities)
}

/// Samples in a window at `rate`: 32 ms.
pub fn window(rate: u32) -> usize {
    if rate == 8_000 { 256 } else { 512 }
}
