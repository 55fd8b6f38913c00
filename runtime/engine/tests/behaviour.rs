//! What a model promises beyond its numbers: branches, plans, threads, memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/onnx.rs"]
mod onnx;
mod support;

use firebox_engine::{DType, Dim, Model, Options, Tensor};
use onnx::{Attribute, Graph};

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(shape.to_vec(), values).unwrap()
}

fn scalar(value: i64) -> Tensor {
    Tensor::from_i64(vec![], &[value]).unwrap()
}

/// `c ? (d ? x·w : x + w) : shape-changing`, with values captured from two levels up.
fn branches() -> Model {
    let leaf = |operator: &str, name: &str| {
        Graph::default()
            .node(operator, &["x", "w"], &[name], &[])
            .output(name, DType::F32)
    };
    let inner = Graph::default()
        .node(
            "If",
            &["d"],
            &["inner"],
            &[
                ("then_branch", Attribute::Graph(leaf("Mul", "product"))),
                ("else_branch", Attribute::Graph(leaf("Add", "sum"))),
            ],
        )
        .output("inner", DType::F32);
    let minus = Tensor::from_i64(vec![2], &[1, -1]).unwrap();
    let other = Graph::default()
        .weights("to", &minus)
        .node("Reshape", &["x", "to"], &["flat"], &[])
        .output("flat", DType::F32);
    let graph = Graph::default()
        .input("x", DType::F32, &[2])
        .open_input("c", DType::Bool)
        .open_input("d", DType::Bool)
        .weights("w", &f32s(&[2], &[10.0, 20.0]))
        .node(
            "If",
            &["c"],
            &["y"],
            &[
                ("then_branch", Attribute::Graph(inner)),
                ("else_branch", Attribute::Graph(other)),
            ],
        )
        .output("y", DType::F32);
    Model::load(graph.model(17), &Options::default()).unwrap()
}

#[test]
fn branches_follow_the_data_of_each_run() {
    let model = branches();
    let flag = |value: bool| Tensor::new(DType::Bool, vec![], vec![u8::from(value)]).unwrap();
    let run = |c: bool, d: bool| {
        let x = f32s(&[2], &[1.0, 2.0]);
        let inputs = vec![
            ("x".into(), x),
            ("c".into(), flag(c)),
            ("d".into(), flag(d)),
        ];
        model.run(inputs).unwrap().remove(0).1
    };
    for _ in 0..2 {
        assert_eq!(run(true, true), f32s(&[2], &[10.0, 40.0]));
        assert_eq!(run(true, false), f32s(&[2], &[11.0, 22.0]));
        assert_eq!(run(false, true), f32s(&[1, 2], &[1.0, 2.0]));
    }
}

#[test]
fn a_plan_for_one_shape_is_not_used_for_another() {
    // y = x · size(x)
    let graph = Graph::default()
        .open_input("x", DType::F32)
        .node("Size", &["x"], &["n"], &[])
        .node("Cast", &["n"], &["f"], &[("to", Attribute::Int(1))])
        .node("Mul", &["x", "f"], &["y"], &[])
        .output("y", DType::F32);
    let model = Model::load(graph.model(17), &Options::default()).unwrap();
    for size in [1, 3, 2, 3, 1] {
        let x = f32s(&[size], &vec![1.0; size]);
        let y = model.run(vec![("x".into(), x)]).unwrap().remove(0).1;
        assert_eq!(y, f32s(&[size], &vec![size as f32; size]));
    }
}

#[test]
fn inputs_are_never_changed_and_may_be_outputs() {
    let graph = Graph::default()
        .input("x", DType::F32, &[2])
        .node("Neg", &["x"], &["y"], &[])
        .node("Relu", &["y"], &["z"], &[])
        .output("x", DType::F32)
        .output("y", DType::F32)
        .output("z", DType::F32);
    let model = Model::load(graph.model(17), &Options::default()).unwrap();
    let x = f32s(&[2], &[1.0, -2.0]);
    for _ in 0..2 {
        let made = model.run(vec![("x".into(), x.clone())]).unwrap();
        assert_eq!(made[0].1, f32s(&[2], &[1.0, -2.0]));
        assert_eq!(made[1].1, f32s(&[2], &[-1.0, 2.0]));
        assert_eq!(made[2].1, f32s(&[2], &[0.0, 2.0]));
    }
    assert_eq!(x, f32s(&[2], &[1.0, -2.0]));
}

#[test]
fn signatures_leave_out_weights_and_keep_names() {
    let model = support::open("minilm");
    let names: Vec<_> = model
        .signature()
        .inputs
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    assert_eq!(names, ["input_ids", "attention_mask", "token_type_ids"]);
    let shape = model.signature().outputs[0].shape.as_ref().unwrap();
    assert_eq!(shape[0], Dim::Named("batch".into()));
    assert_eq!(shape[2], Dim::Fixed(384));
    let megabytes = model.weight_bytes() >> 20;
    assert!((80..100).contains(&megabytes), "{megabytes}");
}

#[test]
fn a_stored_tensor_that_is_an_input_too_is_none() {
    let graph = Graph::default()
        .input("x", DType::F32, &[1])
        .input("w", DType::F32, &[1])
        .weights("w", &f32s(&[1], &[5.0]))
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y", DType::F32);
    let model = Model::load(graph.model(17), &Options::default()).unwrap();
    let made = model.run(vec![("x".into(), f32s(&[1], &[1.0]))]).unwrap();
    assert_eq!(made[0].1, f32s(&[1], &[6.0]));
}

#[test]
fn a_scalar_input_may_come_as_one_element() {
    let graph = Graph::default()
        .input("x", DType::I64, &[])
        .node("Add", &["x", "x"], &["y"], &[])
        .output("y", DType::I64);
    let model = Model::load(graph.model(17), &Options::default()).unwrap();
    let made = model
        .run(vec![("x".into(), Tensor::from_i64(vec![1], &[4]).unwrap())])
        .unwrap();
    assert_eq!(made[0].1, scalar(8));
}

#[test]
fn many_threads_run_one_model_at_once() {
    let case = support::case("magika_1");
    for threads in [None, Some(1), Some(2)] {
        let options = Options {
            threads,
            ..Options::default()
        };
        let model = Model::open(&support::model_path("magika"), &options).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2 {
                        let outputs = model.run(support::inputs(&case)).unwrap();
                        support::assert_expected(&case, &outputs);
                    }
                });
            }
        });
    }
}

/// Checks a graph of one f32 input `x` against a function of its rows of four.
fn check_rows(graph: Graph, expected: impl Fn(&[f64]) -> Vec<f64>) {
    let graph = graph
        .input("x", DType::F32, &[2, 4])
        .output("y", DType::F32);
    let model = Model::load(graph.model(17), &Options::default()).unwrap();
    let values = [-3.0, -1.2, 0.3, 2.5, 0.0, 4.0, -0.7, 1.1f32];
    let made = model
        .run(vec![("x".into(), f32s(&[2, 4], &values))])
        .unwrap()
        .remove(0)
        .1;
    let rows = values
        .chunks(4)
        .map(|row| row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    let expected: Vec<_> = rows.flat_map(|row| expected(&row)).collect();
    for (found, expected) in made.to_f32().unwrap().into_iter().zip(expected) {
        let off = (f64::from(found) - expected).abs();
        assert!(off < 1e-5, "{found}, expected {expected}");
    }
}

#[test]
fn a_layer_norm_that_is_spelt_out_keeps_its_numbers() {
    let last = || [("axes", Attribute::Ints(vec![-1]))];
    let scalar = |value: f32| f32s(&[], &[value]);
    let graph = Graph::default()
        .weights("two", &scalar(2.0))
        .weights("epsilon", &scalar(0.01))
        .weights("scale", &f32s(&[4], &[1.0, 2.0, 3.0, 4.0]))
        .weights("bias", &f32s(&[4], &[0.1, 0.2, 0.3, 0.4]))
        .node("ReduceMean", &["x"], &["mean"], &last())
        .node("Sub", &["x", "mean"], &["centred"], &[])
        .node("Pow", &["centred", "two"], &["square"], &[])
        .node("ReduceMean", &["square"], &["variance"], &last())
        .node("Add", &["variance", "epsilon"], &["sum"], &[])
        .node("Sqrt", &["sum"], &["deviation"], &[])
        .node("Div", &["centred", "deviation"], &["normal"], &[])
        .node("Mul", &["normal", "scale"], &["scaled"], &[])
        .node("Add", &["scaled", "bias"], &["y"], &[]);
    check_rows(graph, |row| {
        let mean = row.iter().sum::<f64>() / 4.0;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4.0;
        let place = |(at, v): (usize, &f64)| {
            (v - mean) / (variance + 0.01).sqrt() * (at as f64 + 1.0) + (at as f64 + 1.0) * 0.1
        };
        row.iter().enumerate().map(place).collect()
    });
}

#[test]
fn activations_that_are_spelt_out_keep_their_numbers() {
    let scalar = |value: f32| f32s(&[], &[value]);
    let hard_swish = Graph::default()
        .weights("three", &scalar(3.0))
        .weights("six", &scalar(6.0))
        .weights("zero", &scalar(0.0))
        .node("Add", &["x", "three"], &["a"], &[])
        .node("Clip", &["a", "zero", "six"], &["c"], &[])
        .node("Mul", &["x", "c"], &["m"], &[])
        .node("Div", &["m", "six"], &["y"], &[]);
    check_rows(hard_swish, |row| {
        row.iter()
            .map(|v| v * (v + 3.0).clamp(0.0, 6.0) / 6.0)
            .collect()
    });
    let silu =
        Graph::default()
            .node("Sigmoid", &["x"], &["s"], &[])
            .node("Mul", &["x", "s"], &["y"], &[]);
    check_rows(silu, |row| {
        row.iter().map(|v| v / (1.0 + (-v).exp())).collect()
    });
    // Twice what a Gelu is: no pattern, so it must stay as it is.
    let double = Graph::default()
        .weights("root", &scalar(2f32.sqrt()))
        .weights("one", &scalar(1.0))
        .node("Div", &["x", "root"], &["d"], &[])
        .node("Erf", &["d"], &["e"], &[])
        .node("Add", &["e", "one"], &["p"], &[])
        .node("Mul", &["x", "p"], &["y"], &[]);
    let erf = |x: f64| {
        // The series, exact enough for these arguments.
        let term = |n: i32| {
            let factorial: f64 = (1..=n).map(f64::from).product();
            (-1f64).powi(n) * x.powi(2 * n + 1) / (factorial * f64::from(2 * n + 1))
        };
        2.0 / std::f64::consts::PI.sqrt() * (0..60).map(term).sum::<f64>()
    };
    check_rows(double, |row| {
        row.iter()
            .map(|v| v * (1.0 + erf(v / std::f64::consts::SQRT_2)))
            .collect()
    });
}

#[test]
fn what_would_be_a_map_of_probabilities_is_a_row_of_them() {
    let labels = Attribute::Texts(vec!["no".into(), "yes".into()]);
    let graph = Graph::default()
        .open_input("x", DType::F32)
        .node_of(
            "ai.onnx.ml",
            "ZipMap",
            &["x"],
            &["y"],
            &[("classlabels_strings", labels)],
        )
        .output_of_maps("y");
    let model = graph.model_of(&[("", 17), ("ai.onnx.ml", 1)]);
    let model = Model::load(model, &Options::default()).unwrap();
    let rows = f32s(&[2, 2], &[0.1, 0.9, 0.7, 0.3]);
    let made = model.run(vec![("x".into(), rows.clone())]).unwrap();
    assert_eq!(made, [("y".into(), rows)]);
}

#[test]
fn long_attention_gives_what_it_gives_in_steps() {
    // Heads · queries · keys beyond what is held at once.
    let (heads, length, size) = (2, 800, 4);
    let count = heads * length * size;
    let wave: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = f32s(&[1, heads, length, size], &wave);
    let run = |outputs: &[&str]| {
        let attributes = [
            ("is_causal", Attribute::Int(1)),
            ("softcap", Attribute::Float(2.0)),
        ];
        let mut graph = Graph::default()
            .open_input("x", DType::F32)
            .node("Attention", &["x", "x", "x"], outputs, &attributes)
            .output("y", DType::F32);
        if outputs.len() > 1 {
            graph = graph.output("scores", DType::F32);
        }
        let model = Model::load(graph.model(23), &Options::default()).unwrap();
        let made = model.run(vec![("x".into(), x.clone())]).unwrap();
        made[0].1.to_f32().unwrap()
    };
    let (whole, steps) = (run(&["y"]), run(&["y", "", "", "scores"]));
    for (at, (a, b)) in whole.iter().zip(&steps).enumerate() {
        assert!((a - b).abs() < 1e-5, "element {at} is {a}, expected {b}");
    }
}
