//! Models and inputs for tests and benchmarks.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use firebox_engine::{DType, Model, Options, Tensor};
use serde_json::Value as Json;

/// The file of a model: from `FIREBOX_MODELS`, else `target/models`, fetched where missing.
pub fn model_path(name: &str) -> PathBuf {
    let file = format!("{name}.onnx");
    if let Some(folder) = std::env::var_os("FIREBOX_MODELS") {
        return PathBuf::from(folder).join(file);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = workspace.join("target/models").join(file);
    if !path.exists() {
        let script = workspace.join("scripts/models.py");
        let source = match name {
            "silero_vad" | "silero_vad_16k_op15" => "silero",
            "text_direction" => "text-direction",
            name => name,
        };
        let ran = Command::new("python3")
            .arg(script)
            .arg(source)
            .status()
            .unwrap();
        assert!(ran.success(), "scripts/models.py {source} failed");
    }
    path
}

pub fn open(name: &str) -> Model {
    Model::open(&model_path(name), &Options::default()).unwrap()
}

/// A tensor made by formula, as `expected.py` makes it.
pub fn filled(fill: &str, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let floats = |f: fn(f64) -> f64| {
        let values: Vec<_> = (0..count).map(|i| f(i as f64) as f32).collect();
        Tensor::from_f32(shape.to_vec(), &values).unwrap()
    };
    let ints = |f: &dyn Fn(i64) -> i64| {
        let values: Vec<_> = (0..count as i64).map(f).collect();
        Tensor::from_i64(shape.to_vec(), &values).unwrap()
    };
    match fill {
        "wave" => floats(|i| (i * 0.1).sin()),
        "small-wave" => floats(|i| ((i * 0.3).sin() as f32 * 0.3) as f64),
        "ids" => ints(&|i| (i * 7919) % 30000),
        "mask" => ints(&|i| i64::from(i % 13 != 12)),
        "zeros" => ints(&|_| 0),
        "bytes" => {
            let values: Vec<_> = (0..count as i32).map(|i| (i * 7919) % 257).collect();
            Tensor::from_i32(shape.to_vec(), &values).unwrap()
        }
        number => {
            let number = number.parse().unwrap();
            ints(&|_| number)
        }
    }
}

/// A case of `expected/`.
pub fn case(name: &str) -> Json {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn sizes(json: &Json) -> Vec<usize> {
    json.as_array()
        .unwrap()
        .iter()
        .map(|size| size.as_u64().unwrap() as usize)
        .collect()
}

pub fn inputs(case: &Json) -> Vec<(String, Tensor)> {
    let input = |input: &Json| {
        let name = input["name"].as_str().unwrap().to_owned();
        (
            name,
            filled(input["fill"].as_str().unwrap(), &sizes(&input["shape"])),
        )
    };
    case["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(input)
        .collect()
}

/// Asserts that outputs are those of the case, to 1e-3 relative and 1e-5 absolute.
pub fn assert_expected(case: &Json, outputs: &[(String, Tensor)]) {
    let expected = case["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), expected.len());
    for (expected, (name, tensor)) in expected.iter().zip(outputs) {
        assert_eq!(expected["name"].as_str(), Some(name.as_str()));
        assert_eq!(tensor.shape(), sizes(&expected["shape"]), "shape of {name}");
        assert_eq!(tensor.dtype(), DType::F32);
        let values = tensor.to_f32().unwrap();
        let close = |found: f64, expected: f64, what: &str| {
            let off = (found - expected).abs();
            assert!(
                off <= 1e-5 + 1e-3 * expected.abs(),
                "{what}: {found}, expected {expected}"
            );
        };
        for pair in expected["sample"].as_array().unwrap() {
            let at = pair[0].as_u64().unwrap() as usize;
            close(
                f64::from(values[at]),
                pair[1].as_f64().unwrap(),
                &format!("{name}[{at}]"),
            );
        }
        let sum = values.iter().map(|v| f64::from(v.abs())).sum();
        close(
            sum,
            expected["abs_sum"].as_f64().unwrap(),
            &format!("sum of {name}"),
        );
    }
}
