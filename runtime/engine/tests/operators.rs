//! Operators give what onnxruntime gives, family by family; `operators.py` made the cases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/onnx.rs"]
mod onnx;

use firebox_engine::{DType, Model, Options, Tensor};
use onnx::{Attribute, Graph};
use serde_json::Value as Json;

fn sizes(json: &Json) -> Vec<usize> {
    json.as_array()
        .unwrap()
        .iter()
        .map(|size| size.as_u64().unwrap() as usize)
        .collect()
}

fn number(json: &Json) -> f64 {
    match json {
        Json::Bool(value) => f64::from(u8::from(*value)),
        Json::String(text) => text.parse().unwrap(),
        other => other.as_f64().unwrap(),
    }
}

fn tensor(json: &Json) -> Tensor {
    let shape = sizes(&json["shape"]);
    let values = json["values"].as_array().unwrap();
    let floats = || values.iter().map(number);
    match json["dtype"].as_str().unwrap() {
        "f32" => Tensor::from_f32(shape, &floats().map(|v| v as f32).collect::<Vec<_>>()),
        "f64" => Tensor::from_f64(shape, &floats().collect::<Vec<_>>()),
        "i32" => Tensor::from_i32(shape, &floats().map(|v| v as i32).collect::<Vec<_>>()),
        "i64" => {
            let ints: Vec<_> = values.iter().map(|v| v.as_i64().unwrap()).collect();
            Tensor::from_i64(shape, &ints)
        }
        "bytes" => {
            let texts: Vec<_> = values.iter().map(|v| v.as_str().unwrap()).collect();
            Tensor::from_blobs(shape, &texts)
        }
        "bool" => Tensor::new(
            DType::Bool,
            shape,
            floats().map(|v| v as u8).collect::<Vec<_>>(),
        ),
        "u8" => {
            let bytes: Vec<_> = floats().map(|v| v as u8).collect();
            Tensor::new(DType::U8, shape, bytes)
        }
        "i8" => {
            let bytes: Vec<_> = floats().map(|v| v as i8 as u8).collect();
            Tensor::new(DType::I8, shape, bytes)
        }
        other => panic!("dtype {other}"),
    }
    .unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor
            .to_f32()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect(),
        DType::F64 => tensor.to_f64().unwrap(),
        DType::I32 => tensor
            .to_i32()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect(),
        DType::I64 => tensor
            .to_i64()
            .unwrap()
            .into_iter()
            .map(|v| v as f64)
            .collect(),
        _ => tensor.data().iter().map(|&v| f64::from(v)).collect(),
    }
}

fn attribute(json: &Json) -> Attribute {
    match json {
        Json::String(text) if text == "nan" => Attribute::Float(f32::NAN),
        Json::String(text) => Attribute::Text(text.clone()),
        Json::Number(number) if number.is_i64() => Attribute::Int(number.as_i64().unwrap()),
        Json::Number(number) => Attribute::Float(number.as_f64().unwrap() as f32),
        Json::Array(all) => match &all[0] {
            Json::String(text) if text != "nan" => Attribute::Texts(
                all.iter()
                    .map(|text| text.as_str().unwrap().to_owned())
                    .collect(),
            ),
            Json::Number(number) if number.is_i64() => {
                Attribute::Ints(all.iter().map(|n| n.as_i64().unwrap()).collect())
            }
            _ => Attribute::Floats(all.iter().map(|n| number(n) as f32).collect()),
        },
        other => panic!("attribute {other}"),
    }
}

/// Runs a case with inputs as inputs (twice: planning, then by plan), then with all but the
/// first stored in the model.
fn check(case: &Json) -> Result<(), String> {
    let inputs: Vec<_> = case["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, json)| !json.is_null())
        .map(|(at, json)| (format!("i{at}"), tensor(json)))
        .collect();
    let names: Vec<_> = case["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(at, json)| {
            if json.is_null() {
                String::new()
            } else {
                format!("i{at}")
            }
        })
        .collect();
    let wanted = case["outputs"].as_array().unwrap();
    let expected: Vec<_> = wanted
        .iter()
        .filter(|json| !json.is_null())
        .map(tensor)
        .collect();
    let outputs: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(at, json)| match json.is_null() {
            true => String::new(),
            false => format!("o{at}"),
        })
        .collect();
    let attributes: Vec<_> = case["attributes"].as_object().unwrap().iter().collect();
    let attributes: Vec<_> = attributes
        .iter()
        .map(|(name, json)| (name.as_str(), attribute(json)))
        .collect();

    for stored in [false, true] {
        let mut graph = Graph::default();
        let mut given = Vec::new();
        for (at, (name, tensor)) in inputs.iter().enumerate() {
            if stored && at > 0 {
                graph = graph.weights(name, tensor);
            } else {
                graph = graph.open_input(name, tensor.dtype());
                given.push((name.clone(), tensor.clone()));
            }
        }
        let refs = |names: &[String]| names.to_vec();
        let (ins, outs) = (refs(&names), refs(&outputs));
        let ins: Vec<_> = ins.iter().map(String::as_str).collect();
        let outs: Vec<_> = outs.iter().map(String::as_str).collect();
        let domain = case["domain"].as_str().unwrap();
        let operator = case["operator"].as_str().unwrap();
        graph = graph.node_of(domain, operator, &ins, &outs, &attributes);
        let outputs = outputs.iter().filter(|name| !name.is_empty());
        for (name, tensor) in outputs.zip(&expected) {
            graph = graph.output(name, tensor.dtype());
        }
        let opset = case["opset"].as_i64().unwrap();
        let model = match domain {
            "" => graph.model(opset),
            domain => graph.model_of(&[("", 17), (domain, opset)]),
        };
        let model = Model::load(model, &Options::default()).map_err(|e| e.to_string())?;
        for _ in 0..2 {
            let found = model.run(given.clone()).map_err(|e| e.to_string())?;
            for ((name, found), expected) in found.iter().zip(&expected) {
                compare(found, expected).map_err(|e| format!("{name}: {e}"))?;
            }
        }
    }
    Ok(())
}

fn compare(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!(
            "{} {:?}, expected {} {:?}",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    for (at, (found, expected)) in numbers(found).iter().zip(numbers(expected)).enumerate() {
        let same = found.is_nan() && expected.is_nan() || *found == expected;
        let close = (found - expected).abs() <= 1e-5 + 1e-4 * expected.abs();
        if !same && !close {
            return Err(format!("element {at} is {found}, expected {expected}"));
        }
    }
    Ok(())
}

fn family(name: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected/operators.json");
    let cases: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases: Vec<_> = cases
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["family"] == name)
        .collect();
    assert!(!cases.is_empty());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let error = check(case).err()?;
            let shapes: Vec<_> = case["inputs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| i["shape"].to_string())
                .collect();
            let (operator, attributes) = (&case["operator"], &case["attributes"]);
            Some(format!(
                "{operator} {attributes} of {}: {error}",
                shapes.join(" ")
            ))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

macro_rules! families {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            family(stringify!($name));
        }
    )*};
}

families! {
    elementwise
    logic
    products
    pools
    norms
    reductions
    shapes
    indexing
    recurrent
    quantized
    contrib
    strings
    classical
}
