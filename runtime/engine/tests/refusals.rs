//! Bad models and bad inputs get an error that says what is wrong, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/onnx.rs"]
mod onnx;

use firebox_engine::{DType, LoadError, Model, OpError, Options, RunError, Tensor};
use onnx::{Attribute, Graph, Message};

fn load(graph: &Graph) -> Result<Model, LoadError> {
    Model::load(graph.model(17), &Options::default())
}

fn f32s(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape.to_vec(), &vec![1.0; count]).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64(vec![values.len()], values).unwrap()
}

/// A model of one node with an f32 input `x` and stored integers `n`.
fn one_node(operator: &str, numbers: &[i64]) -> Model {
    let graph = Graph::default()
        .open_input("x", DType::F32)
        .weights("n", &ints(numbers))
        .node(operator, &["x", "n"], &["y"], &[])
        .output("y", DType::F32);
    load(&graph).unwrap()
}

fn failure(model: &Model, x: Tensor) -> OpError {
    match model.run(vec![("x".into(), x)]).unwrap_err() {
        RunError::Operator { source, .. } => source,
        other => panic!("{other}"),
    }
}

fn relu() -> Graph {
    Graph::default()
        .input("x", DType::F32, &[2, 3])
        .node("Relu", &["x"], &["y"], &[])
        .output("y", DType::F32)
}

#[test]
fn every_truncation_of_a_model_is_refused_or_still_a_model() {
    let whole = relu().model(17);
    for length in 0..whole.len() {
        let cut = Model::load(whole.slice(..length), &Options::default());
        assert!(
            cut.is_err() || length >= whole.len() - 4,
            "cut to {length} of {}",
            whole.len()
        );
    }
}

#[test]
fn no_changed_byte_makes_it_panic() {
    let whole = relu().weights("w", &f32s(&[4])).model(17).to_vec();
    for at in 0..whole.len() {
        for value in [0x00, 0x7f, 0xff, whole[at] ^ 0x08] {
            let mut changed = whole.clone();
            changed[at] = value;
            let _ = Model::load(changed.into(), &Options::default());
        }
    }
}

#[test]
fn an_unsupported_operator_is_named_with_its_node_also_inside_a_branch() {
    let strange = |name: &str| {
        Graph::default()
            .node("Frobnicate", &["x"], &[name], &[])
            .output(name, DType::F32)
    };
    let said = load(&strange("a").input("x", DType::F32, &[1]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "operator Frobnicate of node `a` is not supported (opset 17)"
    );

    let plain = Graph::default()
        .node("Relu", &["x"], &["b"], &[])
        .output("b", DType::F32);
    let graph = Graph::default()
        .input("x", DType::F32, &[1])
        .input("c", DType::Bool, &[])
        .node(
            "If",
            &["c"],
            &["y"],
            &[
                ("then_branch", Attribute::Graph(plain)),
                ("else_branch", Attribute::Graph(strange("inner"))),
            ],
        )
        .output("y", DType::F32);
    let error = load(&graph).unwrap_err();
    assert!(
        matches!(&error, LoadError::Unsupported { operator, node, opset: 17 }
            if operator == "Frobnicate" && node == "inner"),
        "{error}"
    );
}

#[test]
fn wiring_mistakes_are_told_apart() {
    let start = || Graph::default().input("x", DType::F32, &[1]);
    let end = |graph: Graph| load(&graph.output("y", DType::F32)).unwrap_err();
    let missing = end(start().node("Add", &["x", "w"], &["y"], &[]));
    assert!(matches!(missing, LoadError::Missing { value, .. } if value == "w"));
    let unsorted = end(start()
        .node("Relu", &["a"], &["y"], &[])
        .node("Relu", &["x"], &["a"], &[]));
    assert!(matches!(unsorted, LoadError::Order { value, .. } if value == "a"));
    let cycle =
        end(start()
            .node("Add", &["x", "b"], &["a"], &[])
            .node("Relu", &["a"], &["b"], &[]));
    assert!(matches!(cycle, LoadError::Order { value, .. } if value == "b"));
    let twice = end(start()
        .node("Relu", &["x"], &["y"], &[])
        .node("Abs", &["x"], &["y"], &[]));
    assert!(matches!(twice, LoadError::Duplicate { name } if name == "y"));
    let no_output = end(start());
    assert!(matches!(no_output, LoadError::Missing { value, .. } if value == "y"));
}

#[test]
fn weights_must_have_the_size_of_their_shape() {
    let weights = |dims: &[i64], bytes: &[u8]| {
        let dims = dims.iter().fold(Message::default(), |m, &d| m.int(1, d));
        relu().raw_weights(&dims.int(2, 1).bytes(8, b"w").bytes(9, bytes))
    };
    let said = |graph: Graph| load(&graph).unwrap_err().to_string();
    let short = said(weights(&[2, 3], &[0; 20]));
    assert_eq!(
        short,
        "stored tensor `w`: f32 tensor of shape [2, 3] needs 24 bytes, got 20"
    );
    assert!(said(weights(&[i64::MAX, 8], &[])).contains("more elements than can be addressed"));
    assert!(said(weights(&[-1], &[])).contains("a dimension is -1"));
    let huge = said(weights(&[0, 1 << 40], &[]));
    assert!(huge.contains("larger than the limit"), "{huge}");
}

#[test]
fn complex_numbers_are_refused() {
    let complex = Message::default().int(1, 1).int(2, 14).bytes(8, b"w");
    let error = load(&relu().raw_weights(&complex)).unwrap_err();
    assert!(matches!(error, LoadError::UnsupportedType { found, .. } if found == "complex64"));
}

#[test]
fn a_wrong_attribute_names_the_node() {
    let graph = Graph::default()
        .input("x", DType::F32, &[1, 1, 4])
        .node(
            "MaxPool",
            &["x"],
            &["y"],
            &[("kernel_shape", Attribute::Ints(vec![0]))],
        )
        .output("y", DType::F32);
    let said = load(&graph).unwrap_err().to_string();
    assert_eq!(
        said,
        "node `y` (MaxPool): attribute `kernel_shape` holds 0, expected ≥ 1"
    );
}

#[test]
fn inputs_must_fit_the_signature() {
    let model = load(&relu()).unwrap();
    let said = |inputs| model.run(inputs).unwrap_err().to_string();
    assert_eq!(said(vec![]), "input `x` is missing; expected `x`");
    assert_eq!(
        said(vec![("x".into(), f32s(&[3, 2]))]),
        "input `x`: expected shape [2, 3], found [3, 2]"
    );
}

#[test]
fn what_would_take_all_memory_is_refused() {
    let large = 1 << 40;
    for (operator, numbers) in [("Expand", [large, 1]), ("Tile", [large, large])] {
        let error = failure(&one_node(operator, &numbers), f32s(&[1, 1]));
        assert!(
            matches!(error, OpError::TooLarge { .. }),
            "{operator}: {error}"
        );
    }
    let error = failure(&one_node("Pad", &[0, i64::MAX]), f32s(&[1]));
    assert!(matches!(error, OpError::TooLarge { .. }), "{error}");
    let error = failure(&one_node("Reshape", &[large, large]), f32s(&[1]));
    assert!(matches!(error, OpError::Shape(_)), "{error}");

    let graph = Graph::default()
        .open_input("x", DType::I64)
        .node("ConstantOfShape", &["x"], &["y"], &[])
        .output("y", DType::F32);
    let error = failure(&load(&graph).unwrap(), ints(&[large, large]));
    assert!(matches!(error, OpError::TooLarge { .. }), "{error}");

    let (zero, one) = (
        Tensor::from_i64(vec![], &[0]).unwrap(),
        Tensor::from_i64(vec![], &[1]).unwrap(),
    );
    let graph = Graph::default()
        .input("x", DType::I64, &[])
        .weights("zero", &zero)
        .weights("one", &one)
        .node("Range", &["zero", "x", "one"], &["y"], &[])
        .output("y", DType::I64);
    let limit = Tensor::from_i64(vec![], &[i64::MAX]).unwrap();
    let error = failure(&load(&graph).unwrap(), limit);
    assert!(matches!(error, OpError::TooLarge { .. }), "{error}");
}

#[test]
fn two_long_vectors_do_not_broadcast_to_a_huge_matrix() {
    let graph = Graph::default()
        .open_input("x", DType::F32)
        .weights("w", &f32s(&[200_000, 1]))
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y", DType::F32);
    let error = failure(&load(&graph).unwrap(), f32s(&[1, 200_000]));
    assert!(matches!(error, OpError::TooLarge { .. }), "{error}");
}

#[test]
fn integers_are_not_divided_by_zero() {
    for operator in ["Div", "Mod"] {
        let graph = Graph::default()
            .open_input("x", DType::I64)
            .weights("n", &ints(&[2, 0]))
            .node(operator, &["x", "n"], &["y"], &[])
            .output("y", DType::I64);
        let error = failure(&load(&graph).unwrap(), ints(&[4, 4]));
        assert_eq!(error, OpError::DivisionByZero);
    }
}

#[test]
fn indices_and_axes_outside_are_refused() {
    for number in [3, -4, i64::MAX, i64::MIN] {
        let error = failure(&one_node("Gather", &[number]), f32s(&[3, 2]));
        assert_eq!(
            error,
            OpError::Index {
                index: number,
                size: 3
            }
        );
    }
    for number in [2, -3, i64::MIN] {
        let error = failure(&one_node("Squeeze", &[number]), f32s(&[1, 1]));
        assert_eq!(
            error,
            OpError::Axis {
                axis: number,
                rank: 2
            }
        );
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for (operator, weights, x) in [
        ("MatMul", f32s(&[4, 2]), f32s(&[2, 3])),
        ("Add", f32s(&[4]), f32s(&[3])),
        ("Conv", f32s(&[2, 3, 9, 9]), f32s(&[1, 3, 4, 4])),
        ("Conv", f32s(&[2, 2, 1, 1]), f32s(&[1, 3, 4, 4])),
        ("PRelu", f32s(&[2]), f32s(&[3])),
    ] {
        let graph = Graph::default()
            .open_input("x", DType::F32)
            .weights("w", &weights)
            .node(operator, &["x", "w"], &["y"], &[])
            .output("y", DType::F32);
        let error = failure(&load(&graph).unwrap(), x);
        assert!(matches!(error, OpError::Shape(_)), "{operator}: {error}");
    }
}

#[test]
fn an_unknown_operator_of_another_domain_is_named_with_it() {
    for domain in ["com.microsoft", "example"] {
        let graph = Graph::default()
            .input("x", DType::F32, &[1])
            .node_of(domain, "Relu", &["x"], &["y"], &[])
            .output("y", DType::F32);
        let said = load(&graph).unwrap_err().to_string();
        let expected = format!("operator {domain}.Relu of node `y` is not supported (opset 1)");
        assert_eq!(said, expected);
    }
}

#[test]
fn quantised_operators_refuse_what_does_not_fit() {
    let bytes = |shape: &[usize]| {
        let count = shape.iter().product();
        Tensor::new(DType::U8, shape.to_vec(), vec![1; count]).unwrap()
    };
    let said = |operator: &str, x: Tensor, w: &Tensor, zero: Option<&Tensor>| {
        let mut graph = Graph::default().open_input("x", x.dtype()).weights("w", w);
        let mut inputs = vec!["x", "w"];
        if let Some(zero) = zero {
            graph = graph.weights("z", zero);
            inputs.push("z");
        }
        let graph = graph
            .node(operator, &inputs, &["y"], &[])
            .output("y", DType::I32);
        failure(&load(&graph).unwrap(), x).to_string()
    };
    assert_eq!(
        said("MatMulInteger", bytes(&[2, 3]), &bytes(&[4, 2]), None),
        "shapes [2, 3] and [4, 2] don't multiply"
    );
    assert_eq!(
        said("MatMulInteger", f32s(&[2, 3]), &bytes(&[3, 2]), None),
        "expected i8 or u8, found f32"
    );
    assert_eq!(
        said(
            "MatMulInteger",
            bytes(&[2, 3]),
            &bytes(&[3, 2]),
            Some(&bytes(&[5]))
        ),
        "5 zero points for a tensor [2, 3], expected 1 or 2"
    );
    assert!(said("ConvInteger", bytes(&[1, 3, 4]), &bytes(&[2, 2, 1]), None).contains("don't fit"));
    let scales = said("DequantizeLinear", bytes(&[2, 3]), &f32s(&[2]), None);
    assert_eq!(
        scales,
        "scales [2] for a tensor [2, 3], axis 1, blocks of 0"
    );
}

#[test]
fn a_device_that_is_not_built_in_is_refused() {
    let options = Options {
        device: "cuda:7".parse().unwrap(),
        ..Options::default()
    };
    let error = Model::load(relu().model(17), &options).unwrap_err();
    assert!(matches!(error, LoadError::Device { .. }), "{error}");
}

fn classical(operator: &str, attributes: &[(&str, Attribute)]) -> Result<Model, LoadError> {
    let graph = Graph::default()
        .open_input("x", DType::F32)
        .node_of("ai.onnx.ml", operator, &["x"], &["y"], attributes)
        .output("y", DType::F32);
    let model = graph.model_of(&[("", 17), ("ai.onnx.ml", 3)]);
    Model::load(model, &Options::default())
}

#[test]
fn trees_that_are_none_are_refused() {
    let forest = |yes: [i64; 3]| {
        let modes = ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"].map(String::from);
        let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
        let lists = [
            ("nodes_treeids", ints(&[0; 3])),
            ("nodes_nodeids", ints(&[0, 1, 2])),
            ("nodes_featureids", ints(&[0, 1, 0])),
            ("nodes_values", Attribute::Floats(vec![0.5; 3])),
            ("nodes_modes", Attribute::Texts(modes.to_vec())),
            ("nodes_truenodeids", ints(&yes)),
            ("nodes_falsenodeids", ints(&[2, 2, 0])),
            ("target_treeids", ints(&[0])),
            ("target_nodeids", ints(&[2])),
            ("target_ids", ints(&[0])),
            ("target_weights", Attribute::Floats(vec![2.0])),
        ];
        classical("TreeEnsembleRegressor", &lists)
    };
    let refused = |yes, why: &str| {
        let said = forest(yes).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    refused([1, 7, 0], "has no node 7");
    refused([1, 1, 0], "reached twice");
    let two_features = forest([1, 2, 0]).unwrap();
    assert_eq!(
        two_features
            .run(vec![("x".into(), f32s(&[1, 2]))])
            .unwrap()
            .remove(0)
            .1,
        Tensor::from_f32(vec![1, 1], &[2.0]).unwrap()
    );
    let said = failure(&two_features, f32s(&[1, 1])).to_string();
    assert!(said.contains("the trees read 2"), "{said}");
}

#[test]
fn attention_that_does_not_fit_is_refused() {
    let run = |keys: &[usize], attributes: &[(&str, Attribute)]| {
        let graph = Graph::default()
            .open_input("x", DType::F32)
            .weights("k", &f32s(keys))
            .node("Attention", &["x", "k", "k"], &["y"], attributes)
            .output("y", DType::F32);
        let model = Model::load(graph.model(23), &Options::default()).unwrap();
        failure(&model, f32s(&[1, 2, 12])).to_string()
    };
    let heads = |q, kv| {
        [
            ("q_num_heads", Attribute::Int(q)),
            ("kv_num_heads", Attribute::Int(kv)),
        ]
    };
    assert!(run(&[1, 4, 12], &[]).contains("without a number of heads"));
    assert!(run(&[1, 4, 12], &heads(5, 4)).contains("don't divide into 5 heads"));
    assert!(run(&[1, 4, 8], &heads(3, 3)).contains("don't divide into 3 heads"));
    assert!(run(&[2, 4, 12], &heads(4, 4)).contains("queries [1, 4, 2, 3]"));
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let pattern = [("pattern", Attribute::Text("(".into()))];
    let graph = Graph::default()
        .open_input("x", DType::Bytes)
        .node("RegexFullMatch", &["x"], &["y"], &pattern)
        .output("y", DType::Bool);
    let said = load(&graph).unwrap_err().to_string();
    assert!(said.contains("its pattern"), "{said}");
}
