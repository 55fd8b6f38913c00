//! What the probe can do.

use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::firebox::function::types::{Dtype, ErrorCode, Parameter, ParameterValue, Tensor};
use crate::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use crate::wasi::nn::tensor::{Tensor as NnTensor, TensorType};
use crate::{BEHAVIOUR, Error, INITS, Request, Response, WORDS};

type Answer = Result<Response, Error>;

pub fn run(request: Request) -> Answer {
    match text(&request, "mode").as_str() {
        "echo" => Ok(Response {
            outputs: request.inputs,
            parameters: request.parameters,
        }),
        "behave" => behave(request),
        "refuse" => Err(invalid("refused on purpose")),
        "unavailable" => Err(error(ErrorCode::Unavailable, "unavailable on purpose")),
        "internal" => Err(error(ErrorCode::Internal, "internal on purpose")),
        "panic" => panic!("infer panics on purpose"),
        "exit" => std::process::exit(3),
        "spin" => loop {
            black_box(0);
        },
        "burn" => {
            let rounds = text(&request, "rounds").parse::<u64>().unwrap();
            let sum = (0..rounds).fold(0, |sum: u64, n| sum.wrapping_mul(31) ^ black_box(n));
            say(&sum.to_string())
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(text(&request, "ms").parse().unwrap()));
            say("slept")
        }
        "allocate" => allocate_without_end(),
        "recurse" => say(&recurse(u64::MAX).to_string()),
        "flood" => flood(),
        "words" => say(&words()),
        "counter" => counter(),
        "read" => files(std::fs::read_to_string(text(&request, "path"))),
        "write" => files(std::fs::write(text(&request, "path"), "x").map(|()| "written".into())),
        "connect" => files(std::net::TcpStream::connect(text(&request, "to")).map(|_| "ok".into())),
        "environment" => say(&std::env::vars().count().to_string()),
        "http" => http(&text(&request, "host")),
        "model" => model(&request),
        "load" => load(),
        "hoard" => hoard(),
        "hold" => hold(),
        "open" => open(),
        "miss" => miss(),
        "short-output" => Ok(output(Tensor {
            name: "x".into(),
            dtype: Dtype::F32,
            shape: vec![2, 2],
            data: vec![0; 15],
        })),
        "deep-output" => Ok(output(Tensor {
            name: "x".into(),
            dtype: Dtype::F32,
            shape: vec![1; 100_000],
            data: vec![0; 4],
        })),
        other => Err(invalid(&format!("no mode `{other}`"))),
    }
}

/// Gives the inputs back as the words of the asset `/behaviour` say: `fail-every N` fails where the
/// first number can be divided by N, `sleep MS` takes that long, `add X` adds to every number.
fn behave(mut request: Request) -> Answer {
    let behaviour = BEHAVIOUR.lock().unwrap();
    let mut words = behaviour.split_whitespace();
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        let data = &mut request.inputs[0].data;
        let (numbers, _) = data.as_chunks_mut::<4>();
        match word {
            "fail-every" => {
                let first = f32::from_le_bytes(numbers[0]) as u32;
                if first.is_multiple_of(value.parse::<u32>().unwrap()) {
                    return Err(error(
                        ErrorCode::Internal,
                        "fails every so often on purpose",
                    ));
                }
            }
            "sleep" => std::thread::sleep(Duration::from_millis(value.parse().unwrap())),
            "add" => {
                let add: f32 = value.parse().unwrap();
                for number in numbers {
                    *number = (f32::from_le_bytes(*number) + add).to_le_bytes();
                }
            }
            other => return Err(invalid(&format!("no behaviour `{other}`"))),
        }
    }
    Ok(Response {
        outputs: request.inputs,
        parameters: vec![],
    })
}

fn text(request: &Request, name: &str) -> String {
    let found = request
        .parameters
        .iter()
        .find(|parameter| parameter.name == name);
    match found.map(|parameter| &parameter.value) {
        Some(ParameterValue::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn say(text: &str) -> Answer {
    let value = ParameterValue::Text(text.into());
    Ok(Response {
        outputs: vec![],
        parameters: vec![Parameter {
            name: "said".into(),
            value,
        }],
    })
}

fn invalid(message: &str) -> Error {
    error(ErrorCode::InvalidInput, message)
}

fn error(code: ErrorCode, message: &str) -> Error {
    Error {
        code,
        message: message.into(),
    }
}

fn output(tensor: Tensor) -> Response {
    Response {
        outputs: vec![tensor],
        parameters: vec![],
    }
}

pub fn allocate_without_end() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1u8; 1 << 20]);
        black_box(&kept);
    }
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        0
    } else {
        recurse(depth - 1) + black_box(1)
    }
}

fn flood() -> Answer {
    let line = [b'x'; 1023];
    let mut out = std::io::stdout().lock();
    for _ in 0..4096 {
        out.write_all(&line).unwrap();
        out.write_all(b"\n").unwrap();
    }
    say("flooded")
}

/// How many words there are, and how often `init` ran in this instance's life.
fn words() -> String {
    let words = WORDS.lock().unwrap();
    let count = words.as_ref().map_or(0, |words| words.len());
    let last = words
        .as_ref()
        .and_then(|words| words.get("word-29999"))
        .is_some();
    format!("{count} words, last {last}, {} init", INITS.load(Relaxed))
}

fn counter() -> Answer {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    say(&(CALLS.fetch_add(1, Relaxed) + 1).to_string())
}

fn files(result: std::io::Result<String>) -> Answer {
    match result {
        Ok(text) => say(&text),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

fn http(host: &str) -> Answer {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(host)).unwrap();
    request.set_path_with_query(Some("/")).unwrap();
    let answer = handle(request, None).map_err(|error| invalid(&format!("{error:?}")))?;
    answer.subscribe().block();
    match answer.get().unwrap().unwrap() {
        Ok(response) => say(&response.status().to_string()),
        Err(error) => Err(invalid(&format!("{error:?}"))),
    }
}

/// Runs the model `model` on all inputs, `times` in a row, each time on the
/// outputs of the time before.
fn model(request: &Request) -> Answer {
    let times = text(request, "times").parse().unwrap_or(1);
    let said = |error: crate::wasi::nn::errors::Error| {
        invalid(&format!("{:?}: {}", error.code(), error.data()))
    };
    let model = graph::load_by_name(&text(request, "model")).map_err(said)?;
    let context = model.init_execution_context().map_err(said)?;
    let mut tensors: Vec<(String, NnTensor)> = request.inputs.iter().map(to_nn).collect();
    for _ in 0..times {
        tensors = context.compute(tensors).map_err(said)?;
    }
    Ok(Response {
        outputs: tensors.iter().map(from_nn).collect(),
        parameters: vec![],
    })
}

/// The parameter-free part of a tensor; shapes are passed on even where they are wrong.
fn to_nn(tensor: &Tensor) -> (String, NnTensor) {
    let ty = match tensor.dtype {
        Dtype::U8 => TensorType::U8,
        Dtype::I64 => TensorType::I64,
        _ => TensorType::Fp32,
    };
    // An input called `short` loses its last byte on the way.
    let keep = tensor.data.len() - usize::from(tensor.name == "short");
    let shape: Vec<u32> = tensor.shape.iter().map(|&size| size as u32).collect();
    (
        tensor.name.clone(),
        NnTensor::new(&shape, ty, &tensor.data[..keep]),
    )
}

fn from_nn((name, tensor): &(String, NnTensor)) -> Tensor {
    let dtype = match tensor.ty() {
        TensorType::U8 => Dtype::U8,
        TensorType::I64 => Dtype::I64,
        _ => Dtype::F32,
    };
    let shape = tensor.dimensions().into_iter().map(u64::from).collect();
    Tensor {
        name: name.clone(),
        dtype,
        shape,
        data: tensor.data(),
    }
}

fn load() -> Answer {
    match graph::load(&[vec![1, 2, 3]], GraphEncoding::Onnx, ExecutionTarget::Cpu) {
        Ok(_) => say("loaded"),
        Err(error) => Err(invalid(&format!("{:?}: {}", error.code(), error.data()))),
    }
}

/// Holds a model's context, and computes nothing with it.
fn hold() -> Answer {
    let model = graph::load_by_name("double").unwrap();
    let context = model.init_execution_context().unwrap();
    loop {
        black_box(&context);
    }
}

/// Opens a model over and over, and keeps all that it is given.
fn open() -> Answer {
    let mut held = Vec::new();
    loop {
        held.push(graph::load_by_name("double").unwrap());
    }
}

/// Asks for models that aren't there by long names, and keeps the errors.
fn miss() -> Answer {
    let name = "x".repeat(1 << 20);
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(graph::load_by_name(&name).unwrap_err());
    }
    say(&held[0].data().len().to_string())
}

/// Makes tensors at the host until it refuses.
fn hoard() -> Answer {
    let megabyte = vec![0u8; 1 << 20];
    let mut tensors = Vec::new();
    for _ in 0..64 {
        tensors.push(NnTensor::new(&[1 << 20], TensorType::U8, &megabyte));
    }
    let model = graph::load_by_name("double").unwrap();
    let context = model.init_execution_context().unwrap();
    let last = tensors.pop().unwrap();
    match context.compute(vec![("x".into(), last)]) {
        Ok(_) => say("computed"),
        Err(error) => Err(invalid(&format!("{:?}: {}", error.code(), error.data()))),
    }
}
