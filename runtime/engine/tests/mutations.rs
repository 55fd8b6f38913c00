//! Models that were damaged in thousands of ways: each is refused or runs, or fails with an
//! error that says where. Nothing panics beyond the engine, hangs or takes memory without end.
//!
//! Seeded: the same mutations each time. `FIREBOX_MUTATIONS=N` makes N of them, and
//! `FIREBOX_MUTATION=K` only number K.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[allow(
    dead_code,
    missing_docs,
    reason = "the messages, to change and write them"
)]
#[path = "../src/onnx/proto.rs"]
mod proto;
#[path = "support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use firebox_engine::{DType, Dim, Model, Options, RunError, Tensor};
use prost::Message as _;
use proto::{AttributeProto, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto};

/// A generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn pick_mut<'a, T>(&mut self, all: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(all.len());
        all.get_mut(at)
    }
}

const INTS: [i64; 14] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    7,
    255,
    65_536,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MIN,
    -(1 << 33),
];
const FLOATS: [f32; 7] = [
    0.0,
    -1.0,
    1e30,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    1e-40,
];

fn mutate_attribute(random: &mut Random, attribute: &mut AttributeProto) {
    match random.below(8) {
        0 => attribute.i = *random.pick(&INTS),
        1 => attribute.f = *random.pick(&FLOATS),
        2 => attribute.ints.push(*random.pick(&INTS)),
        3 => attribute.r#type = random.below(16) as i32,
        4 => attribute.name = (*random.pick(&["axis", "axes", "pads", "to", "perm"])).into(),
        5 => attribute.ints.truncate(1),
        6 => attribute.s = (*random.pick(&["", "SAME_UPPER", "reflect", "\u{fffd}"])).into(),
        _ => {
            let value = *random.pick(&INTS);
            if let Some(one) = random.pick_mut(&mut attribute.ints) {
                *one = value;
            }
        }
    }
}

fn mutate_node(random: &mut Random, node: &mut NodeProto, names: &[String]) {
    const OPERATORS: [&str; 24] = [
        "Add",
        "Reshape",
        "Conv",
        "Gather",
        "Concat",
        "Slice",
        "Transpose",
        "If",
        "Loop",
        "LSTM",
        "MatMul",
        "Expand",
        "Tile",
        "Pad",
        "Resize",
        "Range",
        "ConstantOfShape",
        "TopK",
        "Split",
        "Softmax",
        "Cast",
        "ScatterND",
        "MaxPool",
        "ReduceSum",
    ];
    match random.below(9) {
        0 => node.op_type = (*random.pick(&OPERATORS)).into(),
        1 => {
            let name = random.pick(names).clone();
            if let Some(input) = random.pick_mut(&mut node.input) {
                *input = name;
            }
        }
        2 => {
            node.input.pop();
        }
        3 => node.input.push(random.pick(names).clone()),
        4 => {
            let name = random.pick(names).clone();
            if let Some(output) = random.pick_mut(&mut node.output) {
                *output = name;
            }
        }
        5 => node.attribute.clear(),
        6 => node.domain = "com.example".into(),
        _ => {
            let at = random.below(node.attribute.len());
            if let Some(attribute) = node.attribute.get_mut(at) {
                mutate_attribute(random, attribute);
            }
        }
    }
}

fn mutate_graph(random: &mut Random, graph: &mut GraphProto) {
    let names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().chain(&node.input).cloned())
        .chain(["missing".to_owned()])
        .collect();
    match random.below(12) {
        0 => {
            let count = graph.initializer.len();
            if count > 0 {
                graph.initializer.remove(random.below(count));
            }
        }
        1 => {
            let dtype = random.below(28) as i32;
            if let Some(tensor) = random.pick_mut(&mut graph.initializer) {
                tensor.data_type = dtype;
            }
        }
        2 => {
            let value = *random.pick(&INTS);
            let at = random.below(8);
            if let Some(tensor) = random.pick_mut(&mut graph.initializer)
                && let Some(dim) = tensor.dims.get_mut(at)
            {
                *dim = value;
            }
        }
        3 => {
            // What holds shapes and indices: small stored integers.
            let value = *random.pick(&INTS);
            let small = graph.initializer.iter_mut();
            let mut small: Vec<_> = small
                .filter(|t| t.data_type == 7 && t.dims.len() < 2)
                .collect();
            if let Some(tensor) = random.pick_mut(&mut small)
                && let Some(raw) = &tensor.raw_data
                && raw.len() >= 8
            {
                let mut bytes = raw.to_vec();
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                tensor.raw_data = Some(bytes.into());
            }
        }
        4 => {
            let at = random.below(graph.node.len());
            let node = graph.node[at].clone();
            graph.node.push(node);
        }
        5 => {
            let count = graph.node.len();
            let (a, b) = (random.below(count), random.below(count));
            graph.node.swap(a, b);
        }
        6 => {
            let value = *random.pick(&INTS);
            if let Some(input) = random.pick_mut(&mut graph.input)
                && let Some(tensor) = input.r#type.as_mut().and_then(|t| t.tensor_type.as_mut())
            {
                tensor.elem_type = if value % 2 == 0 { tensor.elem_type } else { 1 };
                let size = DimensionProto {
                    value: Some(DimensionValue::Size(value)),
                };
                tensor.shape.get_or_insert_default().dim.push(size);
            }
        }
        _ => {
            let at = random.below(graph.node.len());
            let node = &mut graph.node[at];
            let inner = node.attribute.iter_mut().filter_map(|a| a.g.as_mut());
            let mut inner: Vec<_> = inner.collect();
            match random.pick_mut(&mut inner) {
                Some(inner) if !random.0.is_multiple_of(4) && !inner.node.is_empty() => {
                    mutate_graph(random, inner);
                }
                _ => mutate_node(random, node, &names),
            }
        }
    }
}

fn mutated(random: &mut Random, whole: &[u8], model: &ModelProto) -> Vec<u8> {
    match random.below(10) {
        0 => whole[..random.below(whole.len())].to_vec(),
        1 | 2 => {
            let mut bytes = whole.to_vec();
            for _ in 0..1 + random.below(8) {
                // Most of a file is weights; its structure is where it hurts.
                let end = if random.next().is_multiple_of(2) {
                    4096
                } else {
                    bytes.len()
                };
                let at = random.below(end.min(bytes.len()));
                bytes[at] ^= 1 << random.below(8);
            }
            bytes
        }
        _ => {
            let mut model = model.clone();
            if random.below(20) == 0 {
                let version = *random.pick(&[0, 1, 6, 7, 13, 28, 99, -5]);
                model
                    .opset_import
                    .iter_mut()
                    .for_each(|set| set.version = Some(version));
            }
            let graph = model.graph.as_mut().unwrap();
            for _ in 0..1 + random.below(3) {
                mutate_graph(random, graph);
            }
            model.encode_to_vec()
        }
    }
}

/// Inputs as the damaged model declares them, where they are small enough to make.
fn inputs(model: &Model) -> Option<Vec<(String, Tensor)>> {
    let specs = model.signature().inputs.iter();
    specs
        .map(|spec| {
            let size = |(at, dim): (usize, &Dim)| match dim {
                Dim::Fixed(size) => *size,
                _ if at == 0 => 1,
                _ => 96,
            };
            let dims = spec.shape.iter().flatten().enumerate();
            let shape: Vec<usize> = dims.map(size).collect();
            let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            if count > 1 << 20 {
                return None;
            }
            let tensor = match spec.dtype {
                DType::Bytes => Tensor::from_blobs(shape, &vec![b"x"; count]),
                DType::I64 if count == 1 => Tensor::from_i64(shape, &[16_000]),
                dtype => Tensor::new(dtype, shape, vec![1; count * dtype.size()?]),
            };
            Some((spec.name.clone(), tensor.ok()?))
        })
        .collect()
}

#[test]
fn damaged_models_are_refused_or_run() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count: usize = number("FIREBOX_MUTATIONS").unwrap_or(2000);
    let only: Option<usize> = number("FIREBOX_MUTATION");
    let files = [
        "text_direction",
        "silero_vad_16k_op15",
        "silero_vad",
        "magika",
    ];
    let models: Vec<_> = files
        .iter()
        .map(|name| {
            let bytes = bytes::Bytes::from(std::fs::read(support::model_path(name)).unwrap());
            (bytes.clone(), ModelProto::decode(bytes).unwrap())
        })
        .collect();

    // A mutation that hangs ends the test with its number.
    static AT: AtomicUsize = AtomicUsize::new(0);
    std::thread::spawn(|| {
        let mut seen = (usize::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let at = AT.load(Relaxed);
            if at != seen.0 {
                seen = (at, Instant::now());
            } else if seen.1.elapsed() > Duration::from_secs(60) {
                eprintln!("mutation {at} is not done after a minute");
                std::process::exit(1);
            }
        }
    });

    let options = Options {
        threads: Some(1),
        ..Options::default()
    };
    let mut defects = Vec::new();
    let (mut refused, mut failed, mut ran) = (0, 0, 0);
    for at in (0..count).filter(|at| only.is_none_or(|only| only == *at)) {
        AT.store(at, Relaxed);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (at as u64 + 1).wrapping_mul(0x2545_f491));
        (0..4).for_each(|_| {
            random.next();
        });
        let (whole, proto) = &models[at % models.len()];
        let bytes = mutated(&mut random, whole, proto);
        let model = match Model::load(bytes.into(), &options) {
            Ok(model) => model,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
                continue;
            }
        };
        let Some(given) = inputs(&model) else {
            refused += 1;
            continue;
        };
        match model.run(given) {
            Ok(_) => ran += 1,
            Err(RunError::Internal { node, message }) => {
                defects.push(format!("{at}: {node}: {message}"));
            }
            Err(_) => failed += 1,
        }
    }
    println!(
        "{refused} refused, {failed} failed, {ran} ran, {} defects",
        defects.len()
    );
    assert!(defects.is_empty(), "caught panics:\n{}", defects.join("\n"));
}
