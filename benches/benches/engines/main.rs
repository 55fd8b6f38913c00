//! The engine against onnxruntime on real models, in turns within one run: batches of 1 and 16,
//! one thread and two; whether both give the same answers; and how long the first answer takes
//! and how much memory. With the feature `peers` also against other engines in Rust. Prints the tables of `docs/performance.md`.
//!
//! Fails where the geometric mean of the ratios is above 1.3 at batch 1 or 1.2 at batch 16, or
//! one is above 2, where answers differ by more than 1e-3 of the largest number of an output, or
//! where the engine takes more than 1.3 times as much memory.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

#[cfg(feature = "peers")]
mod peers;
mod real;

use std::path::Path;
use std::process::Command;

use firebox::bench::{self, Compared, Difference, Engine, Firebox, Footprint, Input, Onnxruntime};
#[cfg(feature = "peers")]
use firebox::failure::Failure;
use firebox::failure::Result;
use firebox_benches::know_onnxruntime;
use firebox_engine::{Device, Precision, Tensors};
use firebox_tests::{binary, guests};

/// A model of `scripts/models.py`.
struct Subject {
    source: &'static str,
    file: &'static str,
    /// Lengths of the axis that is open besides the batch; the first one is timed.
    lengths: &'static [usize],
    /// Random inputs, where the defaults don't fit.
    inputs: fn(batch: usize, length: usize) -> Vec<String>,
    /// What the model is made for.
    real: fn(first: usize, batch: usize) -> Tensors,
}

const SUBJECTS: [Subject; 6] = [
    Subject {
        source: "magika",
        file: "magika.onnx",
        lengths: &[2048],
        inputs: |batch, length| vec![format!("bytes={batch}x{length}:0..257")],
        real: real::files,
    },
    Subject {
        source: "minilm",
        file: "minilm.onnx",
        lengths: &[32, 7, 128],
        inputs: |batch, length| {
            vec![
                format!("input_ids={batch}x{length}:1..30000"),
                format!("attention_mask={batch}x{length}"),
                format!("token_type_ids={batch}x{length}:0"),
            ]
        },
        real: real::sentences,
    },
    Subject {
        source: "silero",
        file: "silero_vad.onnx",
        lengths: &[576],
        inputs: speech,
        real: real::speech,
    },
    Subject {
        source: "silero",
        file: "silero_vad_16k_op15.onnx",
        lengths: &[576],
        inputs: speech,
        real: real::speech,
    },
    Subject {
        source: "orientation",
        file: "orientation.onnx",
        lengths: &[224],
        inputs: |batch, length| vec![format!("x={batch}x3x224x{length}")],
        real: real::pages,
    },
    Subject {
        source: "text-direction",
        file: "text_direction.onnx",
        lengths: &[192, 96, 320],
        inputs: |batch, length| vec![format!("x={batch}x3x48x{length}")],
        real: real::lines,
    },
];

/// A window of 16 kHz, with what stands before it.
fn speech(batch: usize, length: usize) -> Vec<String> {
    vec![
        format!("input={batch}x{length}"),
        format!("state=2x{batch}x128"),
        "sr=:16000".into(),
    ]
}

fn main() {
    know_onnxruntime();
    let mut failed = Vec::new();
    println!("| model | batch | random inputs | real inputs | largest difference |");
    println!("|---|---:|---:|---:|---|");
    for subject in &SUBJECTS {
        for batch in [1, 3, 16] {
            let (random, found) = difference(subject, batch);
            let file = subject.file;
            println!("| {file} | {batch} | {random} | {} | {found} |", real::EACH);
            if found.relative > 1e-3 {
                failed.push(format!("{file} at batch {batch}: {found}"));
            }
        }
    }
    println!();
    println!("| model | batch | threads | ours | onnxruntime | ratio (rounds) | cpu ratio |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for batch in [1, 16] {
        for threads in [1, 2] {
            let mut logs = 0.0;
            for subject in &SUBJECTS {
                let all = measure(subject, batch, threads, 7, onnxruntime).unwrap();
                let (ours, theirs) = (&all[0], &all[1]);
                let [low, ratio, high] = theirs.ratio.unwrap();
                println!(
                    "| {} | {batch} | {threads} | {} | {} | {ratio:.2} ({low:.2} to {high:.2}) | {:.2} |",
                    subject.file,
                    millis(ours.p50_ns),
                    millis(theirs.p50_ns),
                    ours.cpu_ns / theirs.cpu_ns,
                );
                logs += ratio.ln();
                if ratio > 2.0 {
                    failed.push(format!(
                        "{} at batch {batch}, {threads} threads: {ratio:.2}",
                        subject.file
                    ));
                }
            }
            let mean = (logs / SUBJECTS.len() as f64).exp();
            println!("| **geometric mean** | {batch} | {threads} | | | **{mean:.2}** | |");
            let target = if batch == 1 { 1.3 } else { 1.2 };
            if mean > target {
                failed.push(format!(
                    "geometric mean at batch {batch}, {threads} threads: {mean:.2}"
                ));
            }
        }
    }
    println!(
        "\n| model | batch | first answer, ours | onnxruntime | peak memory, ours | onnxruntime |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for subject in &SUBJECTS {
        for batch in [1, 16] {
            let (ours, theirs) = footprints(subject, batch);
            println!(
                "| {} | {batch} | {:.0} ms | {:.0} ms | {} MiB | {} MiB |",
                subject.file,
                ours.first_answer_ms,
                theirs.first_answer_ms,
                ours.peak_kib >> 10,
                theirs.peak_kib >> 10,
            );
            let ratio = ours.peak_kib as f64 / theirs.peak_kib as f64;
            if ratio > 1.3 {
                failed.push(format!(
                    "memory of {} at batch {batch}: {ratio:.2}",
                    subject.file
                ));
            }
        }
    }
    #[cfg(feature = "peers")]
    against_peers();
    assert!(
        failed.is_empty(),
        "above the target:\n{}",
        failed.join("\n")
    );
}

fn millis(nanos: f64) -> String {
    format!("{:.3} ms", nanos / 1e6)
}

fn file(subject: &Subject) -> std::path::PathBuf {
    guests::model(subject.source, subject.file);
    binary::target().join("models").join(subject.file)
}

fn given(subject: &Subject, batch: usize, length: usize) -> Vec<Input> {
    let texts = (subject.inputs)(batch, length);
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Random inputs for each model and batch; other lengths than the first one have fewer.
const SEEDS: u64 = 20;

/// How many random inputs were compared, and the largest difference of all.
fn difference(subject: &Subject, batch: usize) -> (usize, Difference) {
    let path = file(subject);
    let mut ours = Firebox::open(&path, Device::Cpu, 2, Precision::F32).unwrap();
    let mut all = Vec::new();
    for (at, &length) in subject.lengths.iter().enumerate() {
        let given = given(subject, batch, length);
        let seeds = if at == 0 { SEEDS } else { SEEDS / 4 };
        let random = |seed| bench::inputs(ours.signature(), batch, &given, seed).unwrap();
        all.extend((0..seeds).map(random));
    }
    let random = all.len();
    all.extend((0..real::EACH).map(|first| (subject.real)(first, batch)));
    let mut theirs = Onnxruntime::start(&path, 2, &all[0]).unwrap();
    let mut largest = Difference::default();
    for inputs in &all {
        ours.feed(inputs).unwrap();
        theirs.feed(inputs).unwrap();
        let found = Difference::of(&ours.answer().unwrap(), &theirs.answer().unwrap()).unwrap();
        largest.absolute = largest.absolute.max(found.absolute);
        largest.relative = largest.relative.max(found.relative);
    }
    (random, largest)
}

/// Opens another engine, with so many threads, for these inputs.
type Open = fn(&Path, &Tensors, usize) -> Result<Box<dyn Engine>>;

/// The engine in turns with another one.
fn measure(
    subject: &Subject,
    batch: usize,
    threads: usize,
    rounds: u32,
    open: Open,
) -> Result<Vec<Compared>> {
    let path = file(subject);
    let mut ours = Firebox::open(&path, Device::Cpu, threads, Precision::F32)?;
    let given = given(subject, batch, subject.lengths[0]);
    let inputs = bench::inputs(ours.signature(), batch, &given, 0)?;
    ours.feed(&inputs)?;
    let theirs = open(&path, &inputs, threads)?;
    bench::compare(&mut [Box::new(ours), theirs], rounds)
}

fn onnxruntime(path: &Path, inputs: &Tensors, threads: usize) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Onnxruntime::start(path, threads, inputs)?))
}

/// The engine against others in Rust; one that refuses a model says why.
#[cfg(feature = "peers")]
fn against_peers() {
    println!("\n| model | batch | threads | peer | ours | theirs | ratio (rounds) |");
    println!("|---|---:|---:|---|---:|---:|---:|");
    let all: [(&str, Open); 2] = [
        ("tract", |path, inputs, threads| match threads {
            1 => Ok(Box::new(peers::Tract::open(path, inputs)?)),
            _ => Err(Failure::new("runs on one thread")),
        }),
        ("rten", |path, inputs, threads| {
            Ok(Box::new(peers::Rten::open(path, inputs, threads)?))
        }),
    ];
    for batch in [1, 16] {
        for (subject, (name, open)) in SUBJECTS.iter().flat_map(|s| all.map(|peer| (s, peer))) {
            for threads in [1, 2] {
                let compared = measure(subject, batch, threads, 3, open);
                let head = format!("| {} | {batch} | {threads} | {name} |", subject.file);
                match compared {
                    Ok(all) => {
                        let (ours, theirs) = (millis(all[0].p50_ns), millis(all[1].p50_ns));
                        let [low, ratio, high] = all[1].ratio.unwrap();
                        println!("{head} {ours} | {theirs} | {ratio:.2} ({low:.2} to {high:.2}) |");
                    }
                    Err(failure) => println!("{head} | | {failure} |"),
                }
            }
        }
    }
}

/// Each in a process of its own that has done nothing before.
fn footprints(subject: &Subject, batch: usize) -> (Footprint, Footprint) {
    let path = file(subject);
    let mut command = Command::new(binary::firebox());
    command.arg("bench").arg(&path).arg("--once");
    command.arg("--batch").arg(batch.to_string());
    for input in (subject.inputs)(batch, subject.lengths[0]) {
        command.arg("--input").arg(input);
    }
    let said = command.output().unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let ours = serde_json::from_slice(&said.stdout).unwrap();
    let given = given(subject, batch, subject.lengths[0]);
    let model = Firebox::open(&path, Device::Cpu, 1, Precision::F32).unwrap();
    let inputs = bench::inputs(model.signature(), batch, &given, 0).unwrap();
    drop(model);
    let theirs = Onnxruntime::start(&path, 1, &inputs).unwrap().footprint;
    (ours, theirs)
}
