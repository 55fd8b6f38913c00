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
