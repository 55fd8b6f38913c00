//! Operators on images, signals and windows refuse what doesn't fit, and draw what they should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/onnx.rs"]
mod onnx;

use firebox_engine::{DType, Model, OpError, Options, RunError, Tensor};
use onnx::{Attribute, Graph};

type Attributes<'a> = &'a [(&'a str, Attribute)];

fn f32s(shape: &[usize], value: f32) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape.to_vec(), &vec![value; count]).unwrap()
}

fn text(value: &str) -> Attribute {
    Attribute::Text(value.into())
}

/// Runs one node on an f32 input `x` and stored tensors.
fn run(
    operator: &str,
    x: Tensor,
    stored: &[Tensor],
    attributes: Attributes,
) -> Result<Tensor, OpError> {
    let names: Vec<_> = (0..stored.len()).map(|at| format!("w{at}")).collect();
    let mut graph = Graph::default().open_input("x", DType::F32);
    for (name, tensor) in names.iter().zip(stored) {
        graph = graph.weights(name, tensor);
    }
    let inputs: Vec<_> = ["x"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let graph = graph
        .node(operator, &inputs, &["y"], attributes)
        .output("y", DType::F32);
    let model = Model::load(graph.model(20), &Options::default()).unwrap();
    match model.run(vec![("x".into(), x)]) {
        Ok(mut outputs) => Ok(outputs.remove(0).1),
        Err(RunError::Operator { source, .. }) => Err(source),
        Err(other) => panic!("{other}"),
    }
}

fn refused(operator: &str, x: Tensor, stored: &[Tensor], attributes: Attributes) -> String {
    run(operator, x, stored, attributes)
        .unwrap_err()
        .to_string()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64(vec![values.len()], values).unwrap()
}

#[test]
fn sizes_that_no_memory_holds_are_refused() {
    let x = || f32s(&[1, 1, 2, 2], 1.0);
    let none = || f32s(&[0], 0.0);
    let huge = Tensor::from_f32(vec![4], &[1.0, 1.0, 1e30, 1.0]).unwrap();
    assert!(refused("Resize", x(), &[none(), huge], &[]).contains("larger than the limit"));
    let sizes = ints(&[1, 1, i64::MAX, 2]);
    assert!(
        refused("Resize", x(), &[none(), none(), sizes], &[]).contains("larger than the limit")
    );
    let rois = Tensor::from_f32(vec![1, 4], &[0.0, 0.0, 1e20, 1e20]).unwrap();
    let found = refused("RoiAlign", x(), &[rois, ints(&[0])], &[]);
    assert!(found.contains("samples along an axis"), "{found}");
    let size = ints(&[1, 1, i64::MAX, i64::MAX]);
    let found = refused("AffineGrid", f32s(&[1, 2, 3], 0.0), &[size], &[]);
    assert!(found.contains("larger than the limit"), "{found}");
}

#[test]
fn tensors_that_do_not_fit_each_other_are_refused() {
    let found = refused(
        "GridSample",
        f32s(&[1, 1, 3, 3], 0.0),
        &[f32s(&[2, 2, 2, 2], 0.0)],
        &[],
    );
    assert!(found.contains("a grid [2, 2, 2, 2]"), "{found}");
    let rois = f32s(&[1, 4], 0.0);
    let found = refused(
        "RoiAlign",
        f32s(&[1, 1, 3, 3], 0.0),
        &[rois, ints(&[1])],
        &[],
    );
    assert_eq!(found, "index 1 is outside a dimension of size 1");
    let equation = [("equation", text("ij,jk->ik"))];
    let found = refused(
        "Einsum",
        f32s(&[2, 3], 0.0),
        &[f32s(&[2, 3], 0.0)],
        &equation,
    );
    assert!(found.contains("do not broadcast"), "{found}");
    let found = refused("Einsum", f32s(&[2], 0.0), &[f32s(&[2, 3], 0.0)], &equation);
    assert!(found.contains("axes `ij`"), "{found}");
    let found = refused("ReverseSequence", f32s(&[2, 1], 0.0), &[ints(&[3])], &[]);
    assert!(found.contains("[3]"), "{found}");
    let found = refused("Det", f32s(&[2, 3], 0.0), &[], &[]);
    assert!(found.contains("square"), "{found}");
    let length = Tensor::from_i64(vec![], &[-1]).unwrap();
    let found = refused("DFT", f32s(&[1, 4, 1], 0.0), &[length], &[]);
    assert!(found.contains("found [-1]"), "{found}");
}

#[test]
fn equations_that_name_nothing_are_refused() {
    for equation in ["ij->ik", "ij,jk->ik", "i1->i", "ij->ii"] {
        let graph = Graph::default()
            .open_input("x", DType::F32)
            .node("Einsum", &["x"], &["y"], &[("equation", text(equation))])
            .output("y", DType::F32);
        let loaded = Model::load(graph.model(20), &Options::default());
        assert!(loaded.is_err(), "{equation}");
    }
}

#[test]
fn a_seed_makes_draws_repeat_and_numbers_keep_to_their_distribution() {
    let zeros = || f32s(&[10_000], 0.0);
    let seeded = || {
        let seed = [("seed", Attribute::Float(3.0))];
        run("RandomNormalLike", zeros(), &[], &seed)
            .unwrap()
            .to_f32()
            .unwrap()
    };
    let numbers = seeded();
    assert_eq!(numbers, seeded());
    let mean = numbers.iter().sum::<f32>() / 1e4;
    let variance = numbers.iter().map(|x| x * x).sum::<f32>() / 1e4;
    assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05);

    let draw = || {
        let bounds = [
            ("low", Attribute::Float(2.0)),
            ("high", Attribute::Float(4.0)),
        ];
        run("RandomUniformLike", zeros(), &[], &bounds)
            .unwrap()
            .to_f32()
            .unwrap()
    };
    let numbers = draw();
    assert_ne!(numbers, draw());
    assert!(numbers.iter().all(|x| (2.0..4.0).contains(x)));

    let hits = run("Bernoulli", f32s(&[10_000], 0.25), &[], &[])
        .unwrap()
        .to_f32()
        .unwrap();
    let share = hits.iter().sum::<f32>() / 1e4;
    assert!(hits.iter().all(|x| *x == 0.0 || *x == 1.0) && (share - 0.25).abs() < 0.03);

    let logits = Tensor::from_f32(vec![1, 3], &[f32::NEG_INFINITY, 0.0, 3f32.ln()]).unwrap();
    let size = [("sample_size", Attribute::Int(4000))];
    let drawn = run("Multinomial", logits, &[], &size).unwrap();
    let drawn = drawn
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|n| i32::from_le_bytes(*n));
    let counts = drawn.fold([0; 3], |mut counts, class| {
        counts[class as usize] += 1;
        counts
    });
    assert!(
        counts[0] == 0 && (counts[2] - 3000i32).abs() < 200,
        "{counts:?}"
    );
}

#[test]
fn dropout_in_training_drops_its_part_and_grows_the_rest() {
    let ratio = Tensor::from_f32(vec![], &[0.75]).unwrap();
    let training = Tensor::new(DType::Bool, vec![], vec![1]).unwrap();
    let kept = run("Dropout", f32s(&[10_000], 1.0), &[ratio, training], &[]).unwrap();
    let kept = kept.to_f32().unwrap();
    assert!(kept.iter().all(|x| *x == 0.0 || *x == 4.0));
    let share = kept.iter().filter(|x| **x > 0.0).count() as f32 / 1e4;
    assert!((share - 0.25).abs() < 0.03, "{share}");
}
