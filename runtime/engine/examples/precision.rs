//! Times a model in 8 bits against itself in f32, in turns, and says how far its outputs are off.
//!
//! ```sh
//! cargo run --release -p firebox-engine --example precision -- MODEL.onnx [open sizes] [threads]
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use firebox_engine::{DType, Dim, Model, Options, Precision, Tensor};

type Failure = Box<dyn std::error::Error>;

/// How long each computes in a round.
const ROUND: Duration = Duration::from_millis(300);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let path: PathBuf = arguments.next().ok_or("which model?")?.into();
    let open: usize = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let load = |precision| {
        let threads = Some(threads);
        let options = Options {
            threads,
            precision,
            ..Options::default()
        };
        Model::open(&path, &options)
    };
    let models = [load(Precision::F32)?, load(Precision::Int8)?];
    let [f32, int8] = &models;
    let inputs = inputs(f32, open)?;
    for off in int8.deviation(f32, inputs.clone())? {
        println!("{off:?}");
    }
    println!(
        "weights {} and {} KiB",
        f32.weight_bytes() >> 10,
        int8.weight_bytes() >> 10
    );
    let mut ratios = Vec::new();
    let mut least = [f64::INFINITY; 2];
    for _ in 0..9 {
        let mut times = [0.0; 2];
        for (time, model) in times.iter_mut().zip(&models) {
            let (begin, started, mut runs) = (used()?, Instant::now(), 0);
            while started.elapsed() < ROUND {
                model.run(inputs.clone())?;
                runs += 1;
            }
            *time = (used()? - begin) / f64::from(runs);
        }
        let [f32, int8] = times;
        ratios.push(int8 / f32);
        let [a, b] = &mut least;
        (*a, *b) = (a.min(f32), b.min(int8));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let [f32, int8] = least.map(|time| time / 1000.0);
    println!("cpu µs, least: f32 {f32:.1}, int8 {int8:.1}; int8 / f32, median {middle:.3}");
    Ok(())
}

/// Processor time of all threads so far, in nanoseconds.
fn used() -> Result<f64, Failure> {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().ok_or("no time")?;
        sum += first.parse::<f64>()?;
    }
    Ok(sum)
}

/// Numbers of a fixed series, of the declared sizes; open ones are 1 in front and `open`
/// elsewhere.
fn inputs(model: &Model, open: usize) -> Result<Vec<(String, Tensor)>, Failure> {
    let size = |(at, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        _ if at == 0 => 1,
        _ => open,
    };
    let specs = model.signature().inputs.iter();
    let made = specs.map(|spec| {
        let dims = spec.shape.iter().flatten().enumerate();
        let shape: Vec<usize> = dims.map(size).collect();
        let count: usize = shape.iter().product();
        let wave: Vec<f32> = (0..count).map(|i| (i as f32 * 0.1).sin()).collect();
        let whole = |most: i64| -> Vec<i64> {
            let series = (0..count as i64).map(|i| i * 7919 % most);
            series.collect()
        };
        let tensor = match spec.dtype {
            DType::F32 => Tensor::from_f32(shape, &wave)?,
            // The rate that models of speech ask for.
            DType::I64 if count == 1 => Tensor::from_i64(shape, &[16_000])?,
            DType::I64 if spec.name.contains("ids") && !spec.name.contains("type") => {
                Tensor::from_i64(shape, &whole(30_000))?
            }
            DType::I64 if spec.name.contains("type") => Tensor::from_i64(shape, &whole(1))?,
            DType::I64 => Tensor::from_i64(shape, &vec![1; count])?,
            DType::I32 => {
                let bytes: Vec<i32> = whole(257).into_iter().map(|x| x as i32).collect();
                Tensor::from_i32(shape, &bytes)?
            }
            other => return Err(format!("no inputs of {other} are made here").into()),
        };
        Ok((spec.name.clone(), tensor))
    });
    made.collect()
}
