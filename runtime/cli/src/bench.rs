//! `firebox bench`: how fast a model runs, by itself or against another engine in turns.

mod compare;
mod difference;
mod engines;
mod inputs;
mod profile;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use firebox_engine::{Device, Precision};
use serde_json::json;

pub use compare::{Compared, compare};
pub use difference::Difference;
pub use engines::{Engine, Firebox, Footprint, Onnxruntime, timed};
pub use inputs::{Input, inputs};

use crate::failure::{Failure, Result};
use crate::output::{Format, print, table};

/// Another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// onnxruntime on the CPU, through `python3`
    Onnxruntime,
}

/// How long a model takes on this machine.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebox bench model.onnx\n  \
    firebox bench model.onnx --batch 16 --threads 2 --against onnxruntime\n  \
    firebox bench model.onnx --profile\n  \
    firebox bench model.onnx --precision int8\n  \
    firebox bench model.onnx --input ids=1x128 --input rate=:16000")]
pub struct BenchArgs {
    /// The ONNX file
    model: PathBuf,
    /// The size of the first dimension, where the model leaves it open
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Compute threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Where it computes: cpu, wgpu, wgpu:N, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How finely it computes, on the CPU: f32, or int8 for large weights in 8 bits, which is
    /// measured against f32 in turns
    #[arg(long, default_value_t)]
    precision: Precision,
    /// An input's shape and what fills it: `name=2x128`, `name=2x128:7`, `name=:7` or
    /// `name=:0..256`; left out, open sizes are 32, floats are from -0.5 to 0.5 and integers 1
    #[arg(long = "input", value_name = "NAME=SHAPE[:VALUE]")]
    inputs: Vec<Input>,
    /// Measure another engine too, in turns
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// Rounds; each takes about half a second for each engine
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Show where the time goes, by operator and by node
    #[arg(long)]
    profile: bool,
    /// Load, run once, and say how long that took and what memory: for a process of its own
    #[arg(long, hide = true)]
    once: bool,
    #[command(flatten)]
    format: Format,
}

/// Carries the command out.
pub fn run(args: &BenchArgs) -> Result {
    let threads = args.threads as usize;
    if args.precision != Precision::F32 && args.device != Device::Cpu {
        let (precision, device) = (args.precision, args.device);
        let what = format!("{precision} is for the cpu; on {device} a model computes in f32");
        return Err(Failure::usage(what).hint("leave out --device or --precision"));
    }
    if args.once {
        let given =
            |model: &Firebox| inputs(model.signature(), args.batch as usize, &args.inputs, 0);
        let footprint = engines::once(&args.model, args.device, threads, args.precision, given)?;
        return print(&json!(footprint).to_string());
    }
    let open = |precision| Firebox::open(&args.model, args.device, threads, precision);
    let mut ours = open(args.precision)?;
    let given = inputs(ours.signature(), args.batch as usize, &args.inputs, 0)?;
    ours.feed(&given)?;
    if args.profile {
        return print(&profile::report(&ours, args.format.json)?);
    }
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(ours)];
    if args.precision != Precision::F32 {
        let mut exact = open(Precision::F32)?;
        exact.feed(&given)?;
        engines.push(Box::new(exact));
    }
    if args.against == Some(Peer::Onnxruntime) {
        engines.push(Box::new(Onnxruntime::start(&args.model, threads, &given)?));
    }
    let all = compare(&mut engines, args.rounds)?;
    if args.format.json {
        let all = json!({ "engines": all });
        return print(&format!("{all:#}"));
    }
    let micros = |nanos: f64| format!("{:.1}", nanos / 1000.0);
    let rows = all.iter().map(|one| {
        let ratio = match one.ratio {
            Some([low, middle, high]) => format!("{middle:.2} ({low:.2} to {high:.2})"),
            None => String::new(),
        };
        [
            one.engine.clone(),
            micros(one.p50_ns),
            micros(one.p99_ns),
            micros(one.cpu_ns),
            one.runs.to_string(),
            ratio,
        ]
    });
    let headings = [
        "engine",
        "p50 µs",
        "p99 µs",
        "cpu µs",
        "runs",
        "ours / theirs, p50 (rounds)",
    ];
    let differences = all.iter().filter_map(|one| {
        let (found, other) = (one.difference?, &one.engine);
        Some(format!(
            "Largest difference of the answers from {other}: {found}"
        ))
    });
    let differences: Vec<_> = differences.collect();
    let table = table(headings, rows.collect());
    if differences.is_empty() {
        return print(&table);
    }
    print(&format!("{table}\n\n{}", differences.join("\n")))
}
