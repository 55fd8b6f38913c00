//! Does what standard input tells it, a call a line, and writes a line for each: what the call gave,
//! or the error's code and its text.

use std::io::{Read, Result, Write, stdin, stdout};

use firebox_wasi_nn_guests::component::wasi::nn::errors::Error;
use firebox_wasi_nn_guests::component::wasi::nn::graph::{
    self, ExecutionTarget, Graph, GraphEncoding,
};
use firebox_wasi_nn_guests::component::wasi::nn::inference::GraphExecutionContext;
use firebox_wasi_nn_guests::component::wasi::nn::tensor::{Tensor, TensorType};
use firebox_wasi_nn_guests::{bytes, dimensions, hex, number, wrong};

/// What it holds, by number; what was dropped leaves its place empty.
#[derive(Default)]
struct Held {
    graphs: Vec<Option<Graph>>,
    contexts: Vec<GraphExecutionContext>,
}

fn main() -> Result<()> {
    let mut script = String::new();
    stdin().read_to_string(&mut script)?;
    let mut held = Held::default();
    for line in script.lines() {
        let said = held.run(line)?;
        writeln!(stdout(), "{said}")?;
    }
    Ok(())
}

impl Held {
    fn run(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words.as_slice() {
            ["load", file, encoding, target] => {
                let model = std::fs::read(file)?;
                let loaded = graph::load(&[model], encoding_of(encoding)?, target_of(target)?);
                self.keep(loaded)
            }
            ["load_parts", count, encoding, target] => {
                let parts = vec![b"part".to_vec(); number(count)? as usize];
                let loaded = graph::load(&parts, encoding_of(encoding)?, target_of(target)?);
                self.keep(loaded)
            }
            ["load_by_name", name] => {
                let opened = graph::load_by_name(name);
                self.keep(opened)
            }
            ["init", graph] => match self.graph(graph)?.init_execution_context() {
                Ok(context) => {
                    self.contexts.push(context);
                    format!("ok {}", self.contexts.len() - 1)
                }
                Err(error) => text(&error),
            },
            ["drop_graph", graph] => {
                let place = self.graphs.get_mut(number(graph)? as usize);
                drop(place.and_then(Option::take));
                "ok".into()
            }
            ["drop_contexts"] => {
                self.contexts.clear();
                "ok".into()
            }
            ["compute", context, inputs @ ..] => {
                let context = self.contexts.get(number(context)? as usize);
                let context = context.ok_or_else(|| wrong("there is no such context"))?;
                let inputs = inputs.iter().map(|word| input(word));
                match context.compute(inputs.collect::<Result<_>>()?) {
                    Ok(outputs) => {
                        let outputs = outputs.iter().map(|(name, tensor)| output(name, tensor));
                        format!("ok {}", outputs.collect::<Vec<_>>().join(" "))
                    }
                    Err(error) => text(&error),
                }
            }
            other => return Err(wrong(format!("there is no call {other:?}"))),
        })
    }

    fn keep(&mut self, graph: std::result::Result<Graph, Error>) -> String {
        match graph {
            Ok(graph) => {
                self.graphs.push(Some(graph));
                format!("ok {}", self.graphs.len() - 1)
            }
            Err(error) => text(&error),
        }
    }

    fn graph(&self, word: &str) -> Result<&Graph> {
        let graph = self.graphs.get(number(word)? as usize);
        let graph = graph.and_then(Option::as_ref);
        graph.ok_or_else(|| wrong("there is no such graph"))
    }
}

fn text(error: &Error) -> String {
    let code = format!("{:?}", error.code());
    format!("{} {}", code.replace("ErrorCode::", ""), error.data())
}

/// `name:type:dimensions:bytes`
fn input(word: &str) -> Result<(String, Tensor)> {
    let parts: Vec<&str> = word.split(':').collect();
    let [name, ty, sizes, data] = parts.as_slice() else {
        return Err(wrong(format!("{word} is no tensor")));
    };
    let tensor = Tensor::new(&dimensions(sizes)?, type_of(ty)?, &bytes(data)?);
    Ok((name.to_string(), tensor))
}

fn output(name: &str, tensor: &Tensor) -> String {
    let (ty, sizes) = (format!("{:?}", tensor.ty()), tensor.dimensions());
    let ty = ty.replace("TensorType::", "").to_lowercase();
    let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
    let data = hex(&tensor.data());
    format!("{name}:{ty}:{}:{data}", sizes.join(","))
}

fn type_of(word: &str) -> Result<TensorType> {
    Ok(match word {
        "fp16" => TensorType::Fp16,
        "fp32" => TensorType::Fp32,
        "fp64" => TensorType::Fp64,
        "bf16" => TensorType::Bf16,
        "u8" => TensorType::U8,
        "i32" => TensorType::I32,
        "i64" => TensorType::I64,
        other => return Err(wrong(format!("there is no tensor type {other}"))),
    })
}

fn encoding_of(word: &str) -> Result<GraphEncoding> {
    Ok(match word {
        "openvino" => GraphEncoding::Openvino,
        "onnx" => GraphEncoding::Onnx,
        "tensorflow" => GraphEncoding::Tensorflow,
        "pytorch" => GraphEncoding::Pytorch,
        "tensorflowlite" => GraphEncoding::Tensorflowlite,
        "ggml" => GraphEncoding::Ggml,
        "autodetect" => GraphEncoding::Autodetect,
        other => return Err(wrong(format!("there is no encoding {other}"))),
    })
}

fn target_of(word: &str) -> Result<ExecutionTarget> {
    Ok(match word {
        "cpu" => ExecutionTarget::Cpu,
        "gpu" => ExecutionTarget::Gpu,
        "tpu" => ExecutionTarget::Tpu,
        other => return Err(wrong(format!("there is no target {other}"))),
    })
}
