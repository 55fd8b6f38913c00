//! Real models at batch 1: the shapes that people send.
//!
//! Reads the models as the tests do; a model that can't be had is left out with a message.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use firebox_engine::{Model, Options, Tensor};
use support::filled;

type Inputs = Vec<(String, Tensor)>;

fn text(sequence: usize) -> Inputs {
    let shape = [1, sequence];
    let fills = [
        ("input_ids", "ids"),
        ("attention_mask", "mask"),
        ("token_type_ids", "zeros"),
    ];
    fills
        .into_iter()
        .map(|(name, fill)| (name.into(), filled(fill, &shape)))
        .collect()
}

fn voice() -> Inputs {
    vec![
        ("input".into(), filled("small-wave", &[1, 576])),
        ("state".into(), filled("wave", &[2, 1, 128])),
        ("sr".into(), filled("16000", &[])),
    ]
}

fn models(criterion: &mut Criterion) {
    let cases: [(&str, &str, Inputs); 6] = [
        (
            "magika",
            "magika",
            vec![("bytes".into(), filled("bytes", &[1, 2048]))],
        ),
        ("minilm/32", "minilm", text(32)),
        ("minilm/128", "minilm", text(128)),
        ("silero", "silero_vad", voice()),
        (
            "orientation",
            "orientation",
            vec![("x".into(), filled("wave", &[1, 3, 224, 224]))],
        ),
        (
            "text direction",
            "text_direction",
            vec![("x".into(), filled("wave", &[1, 3, 48, 192]))],
        ),
    ];
    for (name, file, inputs) in &cases {
        for threads in [None, Some(1)] {
            let options = Options {
                threads,
                ..Options::default()
            };
            let model = match Model::open(&support::model_path(file), &options) {
                Ok(model) => model,
                Err(error) => {
                    println!("{name} is left out: {error}");
                    continue;
                }
            };
            let label = threads.map_or("all threads".into(), |n| format!("{n} thread"));
            criterion.bench_function(&format!("{name}, {label}"), |bencher| {
                bencher.iter(|| model.run(inputs.clone()));
            });
        }
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = models }
criterion_main!(benches);
