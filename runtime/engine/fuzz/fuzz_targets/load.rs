//! Any bytes as a model: refused with an error, or run on ones.
//!
//! ```sh
//! cargo +nightly fuzz run load -- -rss_limit_mb=8192 -timeout=60
//! ```

#![no_main]

use firebox_engine::{DType, Dim, Model, Options, RunError, Tensor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = Options {
        threads: Some(1),
        ..Options::default()
    };
    let Ok(model) = Model::load(bytes.to_vec().into(), &options) else {
        return;
    };
    let Some(inputs) = inputs(&model) else {
        return;
    };
    if let Err(RunError::Internal { node, message }) = model.run(inputs) {
        panic!("{node}: {message}");
    }
});

/// Ones of the declared sizes, where they are small.
fn inputs(model: &Model) -> Option<Vec<(String, Tensor)>> {
    let specs = model.signature().inputs.iter();
    let made = specs.map(|spec| {
        let dims = spec.shape.iter().flatten();
        let sizes = dims.map(|dim| if let Dim::Fixed(size) = dim { *size } else { 2 });
        let shape: Vec<usize> = sizes.collect();
        let count = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size))?;
        if count > 1 << 16 {
            return None;
        }
        let tensor = match spec.dtype {
            DType::Bytes => Tensor::from_blobs(shape, &vec![b"x"; count]),
            dtype => Tensor::new(dtype, shape, vec![1; count * dtype.size()?]),
        };
        Some((spec.name.clone(), tensor.ok()?))
    });
    made.collect()
}
