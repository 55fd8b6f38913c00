//! The models of the function's bundle, run by the host.

use crate::Result;
use crate::host::Context;
use crate::outputs::{Outputs, Tensors};

/// A model of the function's bundle, by the name that `firebox.toml` gives it.
///
/// ```no_run
/// use firebox_sdk::{Tensor, model};
///
/// let scores: Tensor<f32> =
///     model("magika")?.run([("bytes", Tensor::new([1, 2048], vec![0i32; 2048])?)])?.take("target_label")?;
/// # Ok::<(), firebox_sdk::Error>(())
/// ```
///
/// # Errors
/// `internal` where the manifest names no such model; `unavailable` outside
/// Firebox, such as in a native test.
pub fn model(name: &str) -> Result<Model> {
    Ok(Model {
        context: Context::open(name)?,
    })
}

/// A model that is ready to run, as often as wanted.
#[derive(Debug)]
pub struct Model {
    context: Context,
}

impl Model {
    /// Runs the model. The instance sleeps meanwhile.
    ///
    /// A model takes and gives f16, bf16, f32, f64, u8, i32 and i64.
    ///
    /// # Errors
    /// `internal` where the tensors aren't what the model takes, as the function
    /// made them; `unavailable` where the model took too long.
    pub fn run(&self, inputs: impl Tensors) -> Result<Outputs> {
        self.context.compute(inputs.into_pairs()).map(Outputs::new)
    }
}
