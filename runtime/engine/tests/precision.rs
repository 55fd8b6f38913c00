//! Models in 8 bits still say what they say in f32.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use firebox_engine::{Deviation, Model, Options, Precision, Tensor};

type Tensors = Vec<(String, Tensor)>;

/// The model in f32 and in 8 bits.
fn both(name: &str) -> [Model; 2] {
    [Precision::F32, Precision::Int8].map(|precision| {
        let options = Options {
            precision,
            ..Options::default()
        };
        Model::open(&support::model_path(name), &options).unwrap()
    })
}

fn case_inputs(case: &str) -> Tensors {
    support::inputs(&support::case(case))
}

fn first(model: &Model, inputs: &Tensors) -> (Vec<usize>, Vec<f32>) {
    let outputs = model.run(inputs.clone()).unwrap();
    let (_, tensor) = outputs.into_iter().next().unwrap();
    (tensor.shape().to_vec(), tensor.to_f32().unwrap())
}

/// The places of the largest elements of each row.
fn labels((shape, values): &(Vec<usize>, Vec<f32>)) -> Vec<usize> {
    let largest = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let rows = values.chunks(*shape.last().unwrap());
    rows.map(|row| largest(row).unwrap()).collect()
}

fn check_deviation([f32, int8]: &[Model; 2], inputs: &Tensors, least_cosine: f64) {
    let all = int8.deviation(f32, inputs.clone()).unwrap();
    assert!(!all.is_empty());
    for off in all {
        println!("{off:?}");
        let Deviation {
            cosine,
            max_absolute,
            mean_absolute,
            ..
        } = off;
        assert!(cosine >= least_cosine, "cosine {cosine}");
        // The 8 bits are in use.
        assert!(mean_absolute > 0.0 && max_absolute >= mean_absolute);
    }
}

const SENTENCES: [&[i64]; 5] = [
    // a man is playing guitar
    &[101, 1037, 2158, 2003, 2652, 2858, 102],
    // the cat sits outside
    &[101, 1996, 4937, 7719, 2648, 102],
    // the new movie is awesome
    &[101, 1996, 2047, 3185, 2003, 12476, 102],
    // how do i reset my password ?
    &[101, 2129, 2079, 1045, 25141, 2026, 20786, 1029, 102],
    // a woman watches tv in the evening while the children sleep
    &[
        101, 1037, 2450, 12197, 2694, 1999, 1996, 3944, 2096, 1996, 2336, 3637, 102,
    ],
];

fn sentence(ids: &[i64]) -> Tensors {
    let tensor = |values: &[i64]| Tensor::from_i64(vec![1, ids.len()], values).unwrap();
    vec![
        ("input_ids".into(), tensor(ids)),
        ("attention_mask".into(), tensor(&vec![1; ids.len()])),
        ("token_type_ids".into(), tensor(&vec![0; ids.len()])),
    ]
}

#[test]
fn sentences_keep_their_embeddings() {
    let models = both("minilm");
    let pooled = |model: &Model, inputs: &Tensors| -> Vec<f64> {
        let (shape, values) = first(model, inputs);
        let mut sum = vec![0.0; shape[2]];
        for token in values.chunks(shape[2]) {
            let each = sum.iter_mut().zip(token);
            each.for_each(|(sum, x)| *sum += f64::from(*x));
        }
        sum
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for ids in SENTENCES {
        let inputs = sentence(ids);
        let [a, b] = [0, 1].map(|at| pooled(&models[at], &inputs));
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        println!("{cosine}");
        assert!(cosine >= 0.99, "{cosine}");
        check_deviation(&models, &inputs, 0.99);
    }
    check_deviation(&models, &case_inputs("minilm_2x17"), 0.99);
    let [f32, int8] = &models;
    // All but the embedding, which is looked up.
    assert!(int8.weight_bytes() < f32.weight_bytes() * 2 / 3);
}

#[test]
fn files_keep_their_labels() {
    check_labels("magika", ["magika_1", "magika_3"]);
}

#[test]
fn images_keep_their_orientation() {
    check_labels("orientation", ["orientation_1", "orientation_2"]);
}

fn check_labels(name: &str, cases: [&str; 2]) {
    let models = both(name);
    for case in cases {
        let inputs = case_inputs(case);
        check_deviation(&models, &inputs, 0.99);
        let [a, b] = [0, 1].map(|at| labels(&first(&models[at], &inputs)));
        assert_eq!(a, b);
    }
    let [f32, int8] = &models;
    assert!(int8.weight_bytes() < f32.weight_bytes() * 2 / 5);
}

#[test]
fn voices_and_lines_of_text_stay_close() {
    for (name, case) in [
        ("silero_vad", "silero_16k"),
        ("text_direction", "text_direction_1"),
    ] {
        check_deviation(&both(name), &case_inputs(case), 0.99);
    }
}
