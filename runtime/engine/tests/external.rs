//! Weights in files beside the model, and sparse ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/onnx.rs"]
mod onnx;

use std::fs;
use std::path::{Path, PathBuf};

use firebox_engine::{DType, LoadError, Model, Options, Tensor};
use onnx::{Attribute, Graph, Message, tensor};

/// An empty folder of one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Two f32 weights whose bytes lie elsewhere.
fn external(entries: &[(&str, &str)]) -> Message {
    let entry = |m: Message, (key, value): &(&str, &str)| {
        let entry = Message::default().bytes(1, key.as_bytes());
        m.bytes(13, &entry.bytes(2, value.as_bytes()).0)
    };
    let weights = Message::default().int(1, 2).int(2, 1).bytes(8, b"w");
    entries.iter().fold(weights, entry).int(14, 1)
}

/// x + w
fn sum() -> Graph {
    Graph::default()
        .open_input("x", DType::F32)
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y", DType::F32)
}

fn open(folder: &Path, weights: &Message) -> Result<Model, LoadError> {
    let path = folder.join("model.onnx");
    fs::write(&path, sum().raw_weights(weights).model(17)).unwrap();
    Model::open(&path, &Options::default())
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_f32(vec![values.len()], values).unwrap()
}

fn run(model: &Model, x: &[f32]) -> Vec<f32> {
    let outputs = model.run(vec![("x".into(), floats(x))]).unwrap();
    outputs[0].1.to_f32().unwrap()
}

fn data(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[test]
fn weights_are_read_from_the_models_folder() {
    let folder = folder("read");
    fs::create_dir(folder.join("below")).unwrap();
    fs::write(folder.join("below/data"), data(&[9.0, 1.0, 2.0, 9.0])).unwrap();
    let place = [("location", "below/data"), ("offset", "4"), ("length", "8")];
    let model = open(&folder, &external(&place)).unwrap();
    assert_eq!(run(&model, &[10.0, 20.0]), [11.0, 22.0]);
    // Without a length, as much as the tensor needs.
    let model = open(&folder, &external(&place[..2])).unwrap();
    assert_eq!(run(&model, &[0.0, 0.0]), [1.0, 2.0]);
}

#[test]
fn what_is_wrong_with_a_data_file_is_said() {
    let folder = folder("wrong");
    fs::write(folder.join("data"), data(&[1.0, 2.0])).unwrap();
    fs::write(folder.join("empty"), []).unwrap();
    let said =
        |entries: &[(&str, &str)]| open(&folder, &external(entries)).unwrap_err().to_string();
    let at = |offset, length| said(&[("location", "data"), ("offset", offset), ("length", length)]);
    assert_eq!(
        at("4", "8"),
        "stored tensor `w`: 8 bytes from 4 on reach beyond the 8 of `data`"
    );
    assert!(at("18446744073709551615", "8").contains("reach beyond"));
    assert!(at("-1", "8").contains("its offset is `-1`, expected a number"));
    assert!(at("0", "4").contains("needs 8 bytes, got 4"));
    assert!(said(&[("location", "empty")]).contains("reach beyond the 0 of `empty`"));
    assert!(said(&[("location", "missing")]).contains("its data file `missing`: "));
    assert!(said(&[("location", ".")]).contains("is no regular file"));
    assert!(said(&[]).contains("it names no file"));
}

#[test]
fn no_file_outside_the_folder_is_read() {
    let folder = folder("outside/inside");
    let secret = folder.join("../secret");
    fs::write(&secret, data(&[1.0, 2.0])).unwrap();
    let mut locations = vec![
        "../secret".to_owned(),
        "below/../../secret".to_owned(),
        secret.to_str().unwrap().to_owned(),
        String::new(),
    ];
    fs::create_dir(folder.join("below")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        locations.extend(["link".to_owned(), "up/secret".to_owned()]);
    }
    for location in locations {
        let error = open(&folder, &external(&[("location", &location)])).unwrap_err();
        let expected = format!("its data file `{location}` is not in the model's folder");
        assert!(
            matches!(&error, LoadError::Weights { reason, .. } if *reason == expected),
            "{error}"
        );
    }
}

#[test]
fn a_model_from_memory_has_no_other_files() {
    let model = sum()
        .raw_weights(&external(&[("location", "data")]))
        .model(17);
    let said = Model::load(model, &Options::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "stored tensor `w`: its bytes lie in another file, which a model loaded from memory \
         doesn't have"
    );
}

/// A sparse tensor named `w`.
fn sparse(values: &[f32], indices: &Tensor, dims: &[i64]) -> Message {
    let m = Message::default()
        .bytes(1, &tensor("w", &floats(values)).0)
        .bytes(2, &tensor("", indices).0);
    dims.iter().fold(m, |m, &size| m.int(3, size))
}

fn load_sparse(message: &Message) -> Result<Model, LoadError> {
    let model = sum().sparse_weights(message).model(17);
    Model::load(model, &Options::default())
}

#[test]
fn sparse_weights_become_dense() {
    let one = Tensor::from_i64(vec![2], &[1, 5]).unwrap();
    let two = Tensor::from_i64(vec![2, 2], &[0, 1, 1, 2]).unwrap();
    for indices in [one, two] {
        let model = load_sparse(&sparse(&[3.0, 4.0], &indices, &[2, 3])).unwrap();
        let outputs = model.run(vec![("x".into(), floats(&[0.0; 3]))]).unwrap();
        assert_eq!(outputs[0].1.shape(), [2, 3]);
        let found = outputs[0].1.to_f32().unwrap();
        assert_eq!(found, [0.0, 3.0, 0.0, 0.0, 0.0, 4.0]);

        let value = Attribute::SparseTensor(sparse(&[3.0, 4.0], &indices, &[2, 3]));
        let constant = Graph::default()
            .node("Constant", &[], &["y"], &[("sparse_value", value)])
            .output("y", DType::F32)
            .model(17);
        let model = Model::load(constant, &Options::default()).unwrap();
        assert_eq!(model.run(vec![]).unwrap()[0].1.to_f32().unwrap(), found);
    }
}

#[test]
fn sparse_weights_that_do_not_fit_are_refused() {
    let at = |numbers: &[i64]| Tensor::from_i64(vec![numbers.len()], numbers).unwrap();
    let said = |message: &Message| load_sparse(message).unwrap_err().to_string();
    assert!(said(&sparse(&[1.0], &at(&[6]), &[2, 3])).contains("index [6] is outside [2, 3]"));
    assert!(said(&sparse(&[1.0], &at(&[-1]), &[2, 3])).contains("is outside"));
    assert!(said(&sparse(&[1.0], &at(&[0, 1]), &[2, 3])).contains("2 index numbers for 1 values"));
    let huge = said(&sparse(&[1.0], &at(&[0]), &[1 << 20, 1 << 20]));
    assert!(huge.contains("larger than the limit"), "{huge}");
    let wide = Tensor::from_i64(vec![1, 3], &[0, 0, 0]).unwrap();
    assert!(said(&sparse(&[1.0], &wide, &[2, 3])).contains("indices [1, 3]"));
}
