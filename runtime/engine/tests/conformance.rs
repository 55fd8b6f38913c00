//! The ONNX backend tests, all of them: `conformance/cases.py` writes the cases.
//!
//! `conformance/known.txt` lists the cases that are not passed, each with its reason. A case
//! that newly fails, or that newly passes and is still listed, fails this test, so the list
//! only shrinks. The counts go to `docs/operators.md`.
//!
//! With the feature `wgpu` those of common element types are run on a GPU too.
//!
//! Environment: `FIREBOX_CONFORMANCE=text` runs only the cases whose name holds the text and
//! prints each one's outcome; `FIREBOX_DEVICE=wgpu:1` picks the GPU,
//! which has to be there then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
#[cfg(feature = "wgpu")]
use firebox_engine::Device;
use firebox_engine::{DType, Model, Options, RunError, Tensor};
use half::{bf16, f16};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    group: String,
    operator: String,
    rtol: f64,
    atol: f64,
    model: (usize, usize),
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    #[serde(flatten)]
    held: Held,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Held {
    Tensor {
        dtype: String,
        shape: Vec<usize>,
        data: (usize, usize),
    },
    /// A sequence, or nothing: models take and give tensors only.
    Other {},
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    /// An error that says what is not supported.
    Refused,
    /// A wrong answer, or an error where an answer is due.
    Failed,
    /// A defect that was caught at the engine's edge.
    Panicked,
}

fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("FIREBOX_CONFORMANCE_CASES").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| workspace.join("target/conformance"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases.py");
    let ran = Command::new("python3").arg(script).arg(&folder).status();
    assert!(ran.unwrap().success(), "cases.py failed");
    folder
}

fn bytes(data: &Bytes, (at, len): (usize, usize)) -> Bytes {
    data.slice(at..at + len)
}

/// The tensor of a value; `None` for a sequence, or a type that the engine does not have.
fn tensor(value: &Value, data: &Bytes) -> Option<Tensor> {
    let Held::Tensor {
        dtype,
        shape,
        data: place,
    } = &value.held
    else {
        return None;
    };
    let dtype: DType = serde_json::from_value(dtype.clone().into()).ok()?;
    Some(Tensor::new(dtype, shape.clone(), bytes(data, *place)).unwrap())
}

fn run(case: &Case, data: &Bytes, options: &Options) -> (Outcome, String) {
    match Model::load(bytes(data, case.model), options) {
        Ok(model) => run_sets(&model, case, data, 0.0),
        Err(error) => (Outcome::Refused, error.to_string()),
    }
}

/// Runs a case, with a relative error of at least `tolerance` allowed.
fn run_sets(model: &Model, case: &Case, data: &Bytes, tolerance: f64) -> (Outcome, String) {
    let rtol = case.rtol.max(tolerance);
    for set in &case.sets {
        let inputs: Option<Vec<_>> = set
            .inputs
            .iter()
            .map(|value| Some((value.name.clone(), tensor(value, data)?)))
            .collect();
        let Some(inputs) = inputs else {
            return (Outcome::Refused, "an input is no tensor".into());
        };
        // The first run makes the plan, the second one follows it.
        for round in ["first", "planned"] {
            let outputs = match model.run(inputs.clone()) {
                Ok(outputs) => outputs,
                Err(error @ RunError::Internal { .. }) => {
                    return (Outcome::Panicked, error.to_string());
                }
                Err(error) => return (Outcome::Failed, format!("{round}: {error}")),
            };
            for (value, (name, found)) in set.outputs.iter().zip(&outputs) {
                let Some(wanted) = tensor(value, data) else {
                    return (Outcome::Refused, format!("output `{name}` is no tensor"));
                };
                if let Err(difference) = compare(&wanted, found, rtol, case.atol) {
                    return (Outcome::Failed, format!("{round}: {name}: {difference}"));
                }
            }
        }
    }
    (Outcome::Passed, String::new())
}

/// As the backend tests compare: floats within tolerances, anything else exactly.
fn compare(wanted: &Tensor, found: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if wanted.dtype() != found.dtype() || wanted.shape() != found.shape() {
        return Err(format!(
            "expected {} {:?}, found {} {:?}",
            wanted.dtype(),
            wanted.shape(),
            found.dtype(),
            found.shape()
        ));
    }
    let (Some(expected), Some(got)) = (floats(wanted), floats(found)) else {
        return if wanted.data() == found.data() {
            Ok(())
        } else {
            let (wanted, found) = (wanted.data(), found.data());
            let head = |bytes: &Bytes| format!("{:?}", bytes.slice(..bytes.len().min(64)));
            Err(format!("expected {}, found {}", head(wanted), head(found)))
        };
    };
    for (at, (&e, &g)) in expected.iter().zip(&got).enumerate() {
        let near = e == g
            || e.is_nan() && g.is_nan()
            || e.is_finite() && (e - g).abs() <= atol + rtol * e.abs();
        if !near {
            return Err(format!("element {at}: expected {e}, found {g}"));
        }
    }
    Ok(())
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let wide = |pair: &[u8; 2]| u16::from_le_bytes(*pair);
    let pairs = tensor.data().as_chunks::<2>().0.iter();
    match tensor.dtype() {
        DType::F64 => tensor.to_f64(),
        DType::F32 => Some(tensor.to_f32()?.into_iter().map(f64::from).collect()),
        DType::F16 => Some(
            pairs
                .map(|pair| f16::from_bits(wide(pair)).to_f64())
                .collect(),
        ),
        DType::BF16 => Some(
            pairs
                .map(|pair| bf16::from_bits(wide(pair)).to_f64())
                .collect(),
        ),
        _ => None,
    }
}

/// Known failures by case, with their reasons.
fn known() -> BTreeMap<String, String> {
    let text = include_str!("conformance/known.txt");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| line.split_once(": ").expect("`case: reason`"));
    pairs.map(|(case, why)| (case.into(), why.into())).collect()
}

type Counts = BTreeMap<Outcome, usize>;

fn row(what: &str, counts: &Counts) -> String {
    let of = |outcome| counts.get(&outcome).copied().unwrap_or(0);
    let failed = of(Outcome::Failed) + of(Outcome::Panicked);
    let (passed, refused) = (of(Outcome::Passed), of(Outcome::Refused));
    format!("| {what} | {passed} | {refused} | {failed} |\n")
}

/// All cases, and the bytes that they lie in.
fn cases() -> (Vec<Case>, Bytes) {
    let folder = folder();
    let data = Bytes::from(std::fs::read(folder.join("data.bin")).unwrap());
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    (serde_json::from_str(&index).unwrap(), data)
}

fn only() -> Option<String> {
    std::env::var("FIREBOX_CONFORMANCE").ok()
}

#[test]
fn backend_tests_pass_but_for_those_that_are_known() {
    let (cases, data) = cases();
    let only = only();
    let options = Options::default();
    let known = known();
    let mut unexpected = Vec::new();
    let mut groups: BTreeMap<String, Counts> = BTreeMap::new();
    let mut operators: BTreeMap<String, Counts> = BTreeMap::new();
    for case in &cases {
        if only.as_ref().is_some_and(|text| !case.name.contains(text)) {
            continue;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| run(case, &data, &options)));
        let (outcome, said) = ran.unwrap_or((Outcome::Panicked, "a panic escaped".into()));
        let counts = groups.entry(case.group.clone()).or_default();
        *counts.entry(outcome).or_default() += 1;
        if case.group == "node" {
            let counts = operators.entry(case.operator.clone()).or_default();
            *counts.entry(outcome).or_default() += 1;
        }
        if only.is_some() {
            println!("{outcome:?} {} {said}", case.name);
        }
        match (outcome, known.get(&case.name)) {
            (Outcome::Passed, Some(_)) => {
                unexpected.push(format!("{} passes: take it off the list", case.name));
            }
            (Outcome::Passed, None) | (Outcome::Refused | Outcome::Failed, Some(_)) => {}
            (outcome, _) => unexpected.push(format!("{}: {outcome:?}: {said}", case.name)),
        }
    }
    if only.is_some() {
        groups
            .iter()
            .for_each(|(group, counts)| print!("{}", row(group, counts)));
        return;
    }
    let names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    for name in known.keys().filter(|name| !names.contains(name)) {
        unexpected.push(format!("{name} is listed, but there is no such case"));
    }
    assert!(
        unexpected.is_empty(),
        "{} surprises:\n{}",
        unexpected.len(),
        unexpected.join("\n")
    );
    let page = page(&groups, &operators, &known);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
    if std::fs::read_to_string(&file).is_ok_and(|text| text == page) {
        return;
    }
    std::fs::write(&file, page).unwrap();
    panic!("docs/operators.md did not say what this run found; it does now: commit it");
}

fn page(
    groups: &BTreeMap<String, Counts>,
    operators: &BTreeMap<String, Counts>,
    known: &BTreeMap<String, String>,
) -> String {
    let mut out = String::from(
        "# ONNX operators\n\n\
         The cases are the [ONNX backend tests](https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md) \
         of the `onnx` package 1.23.2, run on the CPU. *Refused* is an error that says what isn't \
         supported; *failed* is any other outcome but the expected one. The test that runs them writes this page.\n\n\
         | group | passed | refused | failed |\n|---|---:|---:|---:|\n",
    );
    groups
        .iter()
        .for_each(|(group, counts)| out.push_str(&row(group, counts)));
    out.push_str("\n## Node cases by operator\n\n| operator | passed | refused | failed |\n|---|---:|---:|---:|\n");
    operators
        .iter()
        .for_each(|(name, counts)| out.push_str(&row(name, counts)));
    out.push_str("\n## Cases that are not passed\n\n");
    for (case, why) in known {
        writeln!(out, "- `{case}`: {why}").unwrap();
    }
    out
}

/// Cases of these types run on a GPU; each passes there, or falls back to the processor.
#[cfg(feature = "wgpu")]
const GPU_TYPES: [DType; 4] = [DType::F32, DType::I64, DType::I32, DType::Bool];

/// The least relative error that is allowed on a GPU, whose functions are less exact.
#[cfg(feature = "wgpu")]
const GPU_TOLERANCE: f64 = 1e-4;

/// The part of the cases that has to pass on a GPU.
#[cfg(feature = "wgpu")]
const GPU_SHARE: f64 = 0.85;

#[cfg(feature = "wgpu")]
#[test]
fn most_backend_tests_pass_on_a_gpu() {
    let asked = std::env::var("FIREBOX_DEVICE").ok();
    let device: Device = asked.as_deref().unwrap_or("wgpu").parse().unwrap();
    let found = firebox_engine::devices();
    let found = found.iter().find(|found| found.device == device).unwrap();
    println!("{}: {}, {:?}", found.device, found.name, found.note);
    if !found.available {
        assert!(asked.is_none(), "{device} is not there");
        println!("skipped: there is no such device");
        return;
    }
    let options = Options {
        device,
        threads: None,
        ..Options::default()
    };
    let ((mut cases, data), only, known) = (cases(), only(), known());
    cases.retain(|case| {
        only.as_ref().is_none_or(|text| case.name.contains(text)) && is_common(case, &data)
    });
    // One case waits for its kernels to be compiled while another one runs.
    let threads = std::thread::available_parallelism().unwrap().get().min(4);
    let share = &|first| {
        let cases = cases.iter().skip(first).step_by(threads);
        let ran = cases.map(|case| (case, run_on_gpu(case, &data, &options)));
        ran.collect::<Vec<_>>()
    };
    let ran = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || share(first)))
            .collect();
        let shares = threads.into_iter().map(|thread| thread.join().unwrap());
        shares.flatten().collect::<Vec<_>>()
    });
    let mut counts = Counts::new();
    let (mut fell, mut whole) = (BTreeMap::<String, usize>::new(), 0);
    for (case, ((outcome, said), fallbacks)) in ran {
        *counts.entry(outcome).or_default() += 1;
        if fallbacks > 0 {
            *fell.entry(case.operator.clone()).or_default() += 1;
        } else if outcome == Outcome::Passed {
            whole += 1;
        }
        if only.is_some() || outcome != Outcome::Passed && !known.contains_key(&case.name) {
            println!("{outcome:?} {} {said} ({fallbacks} fall back)", case.name);
        }
    }
    print!("{}", row("on a GPU", &counts));
    println!("{whole} passed without a fallback; cases that fall back: {fell:?}");
    let of = |outcome| counts.get(&outcome).copied().unwrap_or(0);
    let all: usize = counts.values().sum();
    assert_eq!(of(Outcome::Panicked), 0, "kernels panicked");
    assert!(
        of(Outcome::Passed) as f64 >= all as f64 * GPU_SHARE,
        "{} of {all} passed",
        of(Outcome::Passed)
    );
}

/// What became of a case on a GPU, and how many of its nodes fell back to the processor.
#[cfg(feature = "wgpu")]
fn run_on_gpu(case: &Case, data: &Bytes, options: &Options) -> ((Outcome, String), usize) {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        match Model::load(bytes(data, case.model), options) {
            Ok(model) => (
                run_sets(&model, case, data, GPU_TOLERANCE),
                model.fallbacks(),
            ),
            Err(error) => ((Outcome::Refused, error.to_string()), 0),
        }
    }));
    ran.unwrap_or(((Outcome::Panicked, "a panic escaped".into()), 0))
}

/// Whether all tensors of a case are of [`GPU_TYPES`].
#[cfg(feature = "wgpu")]
fn is_common(case: &Case, data: &Bytes) -> bool {
    let values = case
        .sets
        .iter()
        .flat_map(|set| set.inputs.iter().chain(&set.outputs));
    let common =
        |value| tensor(value, data).is_some_and(|found| GPU_TYPES.contains(&found.dtype()));
    values.map(common).all(|common| common)
}
