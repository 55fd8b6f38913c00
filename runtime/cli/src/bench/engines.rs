//! Engines that run a model: ours, and those of others.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use firebox_engine::{
    DType, Device, Model, Options, Precision, Signature, StepTime, Tensor, Tensors,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::{Context, Failure, Result, causes};

/// Something that runs a model on inputs that it holds.
pub trait Engine {
    /// What tables call it.
    fn name(&self) -> String;

    /// What the model gives.
    fn answer(&mut self) -> Result<Tensors>;

    /// Runs so many times: the time of each run, and the processor's time for all of them.
    fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)>;
}

/// Time and memory from a file to the first answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Footprint {
    /// From opening the file to the first answer, in milliseconds.
    pub first_answer_ms: f64,
    /// How much the process grew by at most, in KiB.
    pub peak_kib: u64,
}

/// This engine.
pub struct Firebox {
    model: Model,
    precision: Precision,
    inputs: Tensors,
}

impl Firebox {
    /// Loads a model.
    pub fn open(path: &Path, device: Device, threads: usize, precision: Precision) -> Result<Self> {
        let options = Options {
            device,
            threads: Some(threads),
            precision,
        };
        let model = Model::open(path, &options)
            .context(|| format!("{} can't be loaded", path.display()))?;
        let inputs = Vec::new();
        Ok(Self {
            model,
            precision,
            inputs,
        })
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        self.model.signature()
    }

    /// Holds these inputs, on which the model runs.
    pub fn feed(&mut self, inputs: &Tensors) -> Result {
        self.inputs.clone_from(inputs);
        self.answer().map(drop)
    }

    /// The time of each step of one run.
    pub fn profile(&self) -> Result<Vec<StepTime>> {
        let ran = self.model.profile(self.inputs.clone());
        Ok(ran.context(|| "the model fails".into())?.1)
    }
}

impl Engine for Firebox {
    fn name(&self) -> String {
        match self.precision {
            Precision::F32 => "firebox".into(),
            precision => format!("firebox {precision}"),
        }
    }

    fn answer(&mut self) -> Result<Tensors> {
        let answer = self.model.run(self.inputs.clone());
        answer.context(|| "the model fails".into())
    }

    fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)> {
        timed(count, || self.answer().map(drop))
    }
}

/// Runs something in this process so many times: the time of each run, and the processor's time
/// for all of them.
pub fn timed(count: u32, mut run: impl FnMut() -> Result) -> Result<(Vec<Duration>, Duration)> {
    let before = cpu_time();
    let each = (0..count).map(|_| {
        let started = Instant::now();
        run().map(|()| started.elapsed())
    });
    let times = each.collect::<Result<_>>()?;
    Ok((times, cpu_time().saturating_sub(before)))
}

/// What this process used of the processors.
fn cpu_time() -> Duration {
    let clock = rustix::time::ClockId::ProcessCPUTime;
    let time = rustix::time::clock_gettime(clock);
    Duration::try_from(time).unwrap_or_default()
}

/// Loads a model and runs it once in this process, which has done nothing else yet.
pub fn once(
    path: &Path,
    device: Device,
    threads: usize,
    precision: Precision,
    inputs: impl FnOnce(&Firebox) -> Result<Tensors>,
) -> Result<Footprint> {
    let before = memory("VmRSS:");
    let started = Instant::now();
    let mut engine = Firebox::open(path, device, threads, precision)?;
    let inputs = inputs(&engine)?;
    engine.feed(&inputs)?;
    Ok(Footprint {
        first_answer_ms: started.elapsed().as_secs_f64() * 1000.0,
        peak_kib: memory("VmHWM:").saturating_sub(before),
    })
}

/// A line of this process' status, in KiB; 0 where there is none.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let number = found.and_then(|text| text.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// onnxruntime's Python package in a process of its own, on the CPU.
pub struct Onnxruntime {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    files: tempfile::TempDir,
    version: String,
    /// From the file to the first answer.
    pub footprint: Footprint,
}

#[derive(Deserialize)]
struct Hello {
    version: String,
    footprint: Footprint,
}

#[derive(Deserialize)]
struct Answered {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    file: PathBuf,
}

#[derive(Deserialize)]
struct Ran {
    times_ns: Vec<u64>,
    cpu_ns: u64,
}

impl Onnxruntime {
    /// Starts `python3`, or the interpreter that `FIREBOX_PYTHON` names, which has the packages
    /// `onnxruntime` and `numpy`.
    pub fn start(path: &Path, threads: usize, inputs: &Tensors) -> Result<Self> {
        let python = std::env::var("FIREBOX_PYTHON").unwrap_or_else(|_| "python3".into());
        let process = Command::new(&python)
            .args(["-c", include_str!("onnxruntime.py")])
            .arg(path)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.context(|| format!("{python} can't be started"))?;
        let (Some(mut ask), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::new("onnxruntime's process has no pipes"));
        };
        let mut answers = BufReader::new(answers);
        let files = tempfile::tempdir().context(|| "no folder for the tensors".into())?;
        let described = describe(files.path(), inputs)?;
        let hello: Result<Hello> = exchange(&mut ask, &mut answers, &described);
        match hello {
            Ok(hello) => Ok(Self {
                process,
                ask,
                answers,
                files,
                version: hello.version,
                footprint: hello.footprint,
            }),
            Err(failure) => {
                // It has ended, or says nothing that is understood.
                let _ = process.kill();
                let _ = process.wait();
                let hint = format!("`{python} -m pip install onnxruntime numpy`");
                Err(failure.hint(hint))
            }
        }
    }

    /// Holds other inputs.
    pub fn feed(&mut self, inputs: &Tensors) -> Result {
        let described = describe(self.files.path(), inputs)?;
        let _: Value = exchange(&mut self.ask, &mut self.answers, &described)?;
        Ok(())
    }
}

/// Writes tensors to files, and says where they are.
fn describe(folder: &Path, inputs: &Tensors) -> Result<Value> {
    let each = inputs.iter().enumerate().map(|(number, (name, tensor))| {
        let file = folder.join(number.to_string());
        std::fs::write(&file, tensor.data()).context(|| "the inputs can't be written".into())?;
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        Ok(json!({ "name": name, "dtype": dtype, "shape": shape, "file": file }))
    });
    each.collect::<Result<Vec<_>>>()
        .map(|all| json!({ "feed": all }))
}

/// Sends a line and reads one.
fn exchange<T: for<'a> Deserialize<'a>>(
    ask: &mut ChildStdin,
    answers: &mut BufReader<ChildStdout>,
    line: &Value,
) -> Result<T> {
    let broken = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(format!(
            "onnxruntime's process broke off: {}",
            causes(error)
        ))
    };
    let sent = writeln!(ask, "{line}").and_then(|()| ask.flush());
    sent.map_err(|error| broken(&error))?;
    let mut text = String::new();
    let read = answers.read_line(&mut text);
    read.map_err(|error| broken(&error))?;
    serde_json::from_str(&text).map_err(|error| broken(&error))
}

impl Engine for Onnxruntime {
    fn name(&self) -> String {
        format!("onnxruntime {}", self.version)
    }

    fn answer(&mut self) -> Result<Tensors> {
        let line = json!({ "answer": self.files.path() });
        let answered: Answered = exchange(&mut self.ask, &mut self.answers, &line)?;
        let each = answered.outputs.into_iter().map(|output| {
            let bytes =
                std::fs::read(&output.file).context(|| "no answer of onnxruntime".into())?;
            let tensor = Tensor::new(output.dtype, output.shape, bytes);
            Ok((
                output.name,
                tensor.context(|| "onnxruntime's answer".into())?,
            ))
        });
        each.collect()
    }

    fn run(&mut self, count: u32) -> Result<(Vec<Duration>, Duration)> {
        let ran: Ran = exchange(&mut self.ask, &mut self.answers, &json!({ "run": count }))?;
        let times = ran.times_ns.into_iter().map(Duration::from_nanos);
        Ok((times.collect(), Duration::from_nanos(ran.cpu_ns)))
    }
}

impl Drop for Onnxruntime {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
