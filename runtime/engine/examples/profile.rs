//! Times a model on inputs of zeros or ones, and says where the time goes.
//!
//! ```sh
//! cargo run --release -p firebox-engine --example profile -- MODEL.onnx [batch] [threads] [other open sizes] [precision]
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use firebox_engine::{DType, Dim, Model, Options, Precision, Tensor};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let path: PathBuf = arguments.next().ok_or("which model?")?.into();
    let batch: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let open: usize = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let precision = arguments.next().map_or(Ok(Precision::F32), |t| t.parse())?;
    let options = Options {
        threads: Some(threads),
        precision,
        ..Options::default()
    };
    let model = Model::open(&path, &options)?;
    let inputs = inputs(&model, batch, open)?;
    model.run(inputs.clone())?;

    let mut times = Vec::new();
    let started = Instant::now();
    while times.len() < 10 || started.elapsed() < Duration::from_secs(2) {
        let begin = Instant::now();
        model.run(inputs.clone())?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("median {middle:.1?} of {} runs", times.len());

    let mut by_operator: BTreeMap<String, (Duration, usize)> = BTreeMap::new();
    let mut slowest = Vec::new();
    for _ in 0..5 {
        (_, slowest) = model.profile(inputs.clone())?;
    }
    for step in &slowest {
        let entry = by_operator.entry(step.operator.clone()).or_default();
        *entry = (entry.0 + step.time, entry.1 + 1);
    }
    let mut operators: Vec<_> = by_operator.into_iter().collect();
    operators.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
    for (operator, (time, steps)) in operators {
        println!("{time:>10.1?} {steps:>4} {operator}");
    }
    println!();
    slowest.sort_by_key(|step| std::cmp::Reverse(step.time));
    for step in slowest.iter().take(20) {
        println!(
            "{:>10.1?} {} {} {:?}",
            step.time, step.operator, step.node, step.made
        );
    }
    Ok(())
}

/// Ones of the declared sizes; open ones are `batch` in front and `open` elsewhere.
fn inputs(model: &Model, batch: usize, open: usize) -> Result<Vec<(String, Tensor)>, Failure> {
    let size = |(at, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        _ if at == 0 => batch,
        _ => open,
    };
    let specs = model.signature().inputs.iter();
    let made = specs.map(|spec| {
        let dims = spec.shape.iter().flatten().enumerate();
        let shape: Vec<usize> = dims.map(size).collect();
        let count = shape.iter().product();
        let tensor = match spec.dtype {
            DType::F32 => Tensor::from_f32(shape, &vec![0.5; count])?,
            // The rate that models of speech ask for.
            DType::I64 if count == 1 => Tensor::from_i64(shape, &[16_000])?,
            DType::I64 => Tensor::from_i64(shape, &vec![1; count])?,
            DType::I32 => Tensor::from_i32(shape, &vec![1; count])?,
            other => return Err(format!("no inputs of {other} are made here").into()),
        };
        Ok((spec.name.clone(), tensor))
    });
    made.collect()
}
