//! The classic ABI, `wasi_ephemeral_nn`, as core modules import it: wasi-nn's witx interface, the
//! one that the crate `wasi-nn` and C headers are written for.
//!
//! Each function takes addresses in the module's exported memory and answers with an error number;
//! results go to the address that comes last. Handles are numbers in a table of the instance that
//! only grows, as the interface has no call that drops one. As it has no texts either, what is wrong
//! stands in the guest's standard error.

use std::collections::BTreeMap;

use bytes::Bytes;
use firebox_engine::{Tensor, check_rank};
use wasmtime::{Caller, Extern, Linker, Memory};

use super::{Encoding, Error, HostTensor, OpenModel, to_model};
use crate::Target;
use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::tensor::TensorType;
use crate::command::CommandState;

/// The module that guests import from.
const MODULE: &str = "wasi_ephemeral_nn";

/// Graphs, and contexts, that an instance can have.
const HANDLES: usize = 1024;

/// The longest name of a model that is read: those of a bundle have at most 64 bytes.
const LONGEST_NAME: u32 = 1024;

/// Bytes of the record `tensor`: two lists of address and length, and a type between them.
const TENSOR_RECORD: usize = 20;

/// What an instance has opened.
#[derive(Default)]
pub(crate) struct Handles {
    graphs: Vec<OpenModel>,
    contexts: Vec<Context>,
}

/// A run in the making, and what came of the last one.
struct Context {
    model: OpenModel,
    inputs: BTreeMap<usize, Input>,
    outputs: Vec<(String, HostTensor)>,
}

/// An input that fits its model.
struct Input {
    tensor: Tensor,
    /// Bytes that it counts for.
    size: usize,
}

/// Functions that can be imported.
pub(crate) const FUNCTIONS: [&str; 6] = [
    "load",
    "load_by_name",
    "init_execution_context",
    "set_input",
    "compute",
    "get_output",
];

type Instance<'a> = Caller<'a, CommandState>;

/// Gives the functions to modules.
pub(crate) fn add_to_linker(linker: &mut Linker<CommandState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        MODULE,
        "load",
        |caller: Instance<'_>, arguments: (u32, u32, u32, u32, u32)| {
            Box::new(load(caller, arguments))
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "load_by_name",
        |caller: Instance<'_>, (name, length, result): (u32, u32, u32)| {
            Box::new(load_by_name(caller, name, length, result))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "init_execution_context",
        |mut caller: Instance<'_>, graph: u32, result: u32| {
            let made = init_execution_context(&mut caller, graph, result);
            answer(&mut caller, "init_execution_context", made)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "set_input",
        |mut caller: Instance<'_>, context: u32, index: u32, tensor: u32| {
            let set = set_input(&mut caller, context, index, tensor);
            answer(&mut caller, "set_input", set)
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "compute",
        |caller: Instance<'_>, (context,): (u32,)| Box::new(compute(caller, context)),
    )?;
    linker.func_wrap(
        MODULE,
        "get_output",
        |mut caller: Instance<'_>,
         context: u32,
         index: u32,
         buffer: u32,
         size: u32,
         result: u32| {
            let got = get_output(&mut caller, context, index, (buffer, size), result);
            answer(&mut caller, "get_output", got)
        },
    )?;
    Ok(())
}

async fn load(
    mut caller: Instance<'_>,
    (builders, count, encoding, target, result): (u32, u32, u32, u32, u32),
) -> u32 {
    let loaded = load_graph(&mut caller, (builders, count), encoding, target, result).await;
    answer(&mut caller, "load", loaded)
}

async fn load_graph(
    caller: &mut Instance<'_>,
    (builders, count): (u32, u32),
    encoding: u32,
    target: u32,
    result: u32,
) -> Result<(), Refusal> {
    let (encoding, target) = (encoding_of(encoding)?, target_of(target)?);
    let memory = memory(caller)?;
    room_for_graph(caller, &memory, result)?;
    if count != 1 {
        return Err(Error::not_one_file(count as usize).into());
    }
    let [address, length] = numbers(read(&memory, caller, builders, 8)?);
    // Refused before it is copied.
    let size = read(&memory, caller, address, length)?.len();
    caller.data_mut().nn.fits(size, "model file")?;
    let onnx = Bytes::copy_from_slice(read(&memory, caller, address, length)?);
    let model = caller.data_mut().nn.load(onnx, encoding, target).await?;
    keep_graph(caller, &memory, model, result)
}

async fn load_by_name(mut caller: Instance<'_>, name: u32, length: u32, result: u32) -> u32 {
    let opened = open_graph(&mut caller, name, length, result).await;
    answer(&mut caller, "load_by_name", opened)
}

async fn open_graph(
    caller: &mut Instance<'_>,
    name: u32,
    length: u32,
    result: u32,
) -> Result<(), Refusal> {
    let memory = memory(caller)?;
    room_for_graph(caller, &memory, result)?;
    if length > LONGEST_NAME {
        let found = format!("expected a model's name, found {length} bytes");
        return Err(invalid(found));
    }
    let name = str::from_utf8(read(&memory, caller, name, length)?);
    let name = name.map_err(|error| invalid(format!("the model's name: {error}")))?;
    let name = name.to_owned();
    let model = caller.data_mut().nn.open(&name).await?;
    keep_graph(caller, &memory, model, result)
}

/// Makes sure that a graph can be answered with, before anything is done for it.
fn room_for_graph(caller: &Instance<'_>, memory: &Memory, result: u32) -> Result<(), Refusal> {
    read(memory, caller, result, 4)?;
    if caller.data().handles.graphs.len() < HANDLES {
        return Ok(());
    }
    let data = format!("an instance can have {HANDLES} graphs; use those it has");
    Err(Error::new(ErrorCode::TooLarge, data).into())
}

fn keep_graph(
    caller: &mut Instance<'_>,
    memory: &Memory,
    model: OpenModel,
    result: u32,
) -> Result<(), Refusal> {
    let graphs = &mut caller.data_mut().handles.graphs;
    let handle = number(graphs.len());
    graphs.push(model);
    write(memory, caller, result, &handle.to_le_bytes())
}

fn init_execution_context(
    caller: &mut Instance<'_>,
    graph: u32,
    result: u32,
) -> Result<(), Refusal> {
    let memory = memory(caller)?;
    read(&memory, caller, result, 4)?;
    let CommandState { nn, handles, .. } = caller.data_mut();
    let known = handles.graphs.len();
    let Some(model) = handles.graphs.get(graph as usize) else {
        return Err(invalid(format!(
            "there is no graph {graph}; {known} were loaded, from 0"
        )));
    };
    if handles.contexts.len() >= HANDLES {
        let data = format!("an instance can have {HANDLES} contexts; one can compute many times");
        return Err(Error::new(ErrorCode::TooLarge, data).into());
    }
    let handle = number(handles.contexts.len());
    handles.contexts.push(Context {
        model: nn.again(model),
        inputs: BTreeMap::new(),
        outputs: Vec::new(),
    });
    write(&memory, caller, result, &handle.to_le_bytes())
}

fn set_input(
    caller: &mut Instance<'_>,
    context: u32,
    index: u32,
    tensor: u32,
) -> Result<(), Refusal> {
    let memory = memory(caller)?;
    let at = index as usize;
    let Context { model, inputs, .. } = caller.data().context(context)?;
    let replaced = inputs.get(&at).map_or(0, |input| input.size);
    let model = model.clone();
    let Some(spec) = model.signature.inputs.get(at) else {
        let names = model.signature.inputs.iter().enumerate();
        let names: Vec<_> = names
            .map(|(at, spec)| format!("{at}: `{}`", spec.name))
            .collect();
        let (name, names) = (&model.name, names.join(", "));
        return Err(invalid(format!(
            "model `{name}` has no input {index}; its inputs are {names}"
        )));
    };
    let tensor = read_tensor(caller, &memory, tensor, replaced)?;
    let size = tensor.size();
    let tensor = to_model(&model.name, &spec.name, tensor, Some(spec))?;
    spec.check(&tensor)
        .map_err(|error| Error::misfit(&model.name, &error))?;
    let state = caller.data_mut();
    // The one that it takes the place of makes room first.
    if let Some(earlier) = state.context_mut(context)?.inputs.remove(&at) {
        state.nn.give_back(earlier.size);
    }
    state.nn.take(size, "tensor")?;
    let inputs = &mut state.context_mut(context)?.inputs;
    inputs.insert(at, Input { tensor, size });
    Ok(())
}

/// Reads the record `tensor` and what it points to, which takes the place of so many bytes.
fn read_tensor(
    caller: &mut Instance<'_>,
    memory: &Memory,
    tensor: u32,
    replaced: usize,
) -> Result<HostTensor, Refusal> {
    let record = read(memory, caller, tensor, TENSOR_RECORD as u32)?;
    let ty = type_of(record.get(8).copied().unwrap_or(u8::MAX))?;
    let [dimensions, rank, _, data, length] = numbers(record);
    check_rank(rank as usize).map_err(|error| invalid(error.to_string()))?;
    let dimensions = read(memory, caller, dimensions, rank.saturating_mul(4))?;
    let dimensions = dimensions.as_chunks::<4>().0.iter();
    let dimensions = dimensions.map(|size| u32::from_le_bytes(*size)).collect();
    let size = read(memory, caller, data, length)?.len();
    if size > replaced {
        // Refused before it is copied.
        caller.data_mut().nn.fits(size - replaced, "tensor")?;
    }
    let data = Bytes::copy_from_slice(read(memory, caller, data, length)?);
    Ok(HostTensor {
        dimensions,
        ty,
        data: Ok(data),
    })
}

async fn compute(mut caller: Instance<'_>, context: u32) -> u32 {
    let computed = run(&mut caller, context).await;
    answer(&mut caller, "compute", computed)
}

/// Inputs stay set: a context can compute again with some of them changed.
async fn run(caller: &mut Instance<'_>, handle: u32) -> Result<(), Refusal> {
    let state = caller.data_mut();
    let context = state.context_mut(handle)?;
    for (_, earlier) in std::mem::take(&mut context.outputs) {
        state.nn.drop_tensor(&earlier);
    }
    let context = state.context(handle)?;
    let model = context.model.clone();
    let set = context.inputs.iter().filter_map(|(&at, input)| {
        let spec = model.signature.inputs.get(at)?;
        Some((spec.name.clone(), input.tensor.clone()))
    });
    let inputs = set.collect();
    let outputs = state.nn.run(&model, inputs).await?;
    state.context_mut(handle)?.outputs = outputs;
    Ok(())
}

fn get_output(
    caller: &mut Instance<'_>,
    context: u32,
    index: u32,
    (buffer, size): (u32, u32),
    result: u32,
) -> Result<(), Refusal> {
    let memory = memory(caller)?;
    read(&memory, caller, result, 4)?;
    read(&memory, caller, buffer, size)?;
    let Context { model, outputs, .. } = caller.data().context(context)?;
    if outputs.is_empty() {
        let data = format!("context {context} has no outputs: call compute first");
        return Err(Error::new(ErrorCode::RuntimeError, data).into());
    }
    let Some((name, tensor)) = outputs.get(index as usize) else {
        let (model, count) = (&model.name, outputs.len());
        return Err(invalid(format!(
            "model `{model}` has no output {index}; it has {count}, from 0"
        )));
    };
    let data = tensor.data.clone()?;
    if data.len() > size as usize {
        let length = data.len();
        let data = format!("output `{name}` has {length} bytes, and the buffer {size}");
        return Err(Error::new(ErrorCode::TooLarge, data).into());
    }
    write(&memory, caller, buffer, &data)?;
    write(&memory, caller, result, &number(data.len()).to_le_bytes())
}

impl CommandState {
    fn context(&self, handle: u32) -> Result<&Context, Refusal> {
        let contexts = &self.handles.contexts;
        let missing = || no_context(handle, contexts.len());
        contexts.get(handle as usize).ok_or_else(missing)
    }

    fn context_mut(&mut self, handle: u32) -> Result<&mut Context, Refusal> {
        let contexts = &mut self.handles.contexts;
        let known = contexts.len();
        let missing = || no_context(handle, known);
        contexts.get_mut(handle as usize).ok_or_else(missing)
    }
}

fn no_context(handle: u32, known: usize) -> Refusal {
    invalid(format!(
        "there is no execution context {handle}; {known} were made, from 0"
    ))
}

/// Why a call gets an error number.
enum Refusal {
    /// The module exports no memory.
    MissingMemory,
    /// As in the other ABI.
    Nn(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Nn(error)
    }
}

fn invalid(data: String) -> Refusal {
    Error::new(ErrorCode::InvalidArgument, data).into()
}

/// The number for a call's end; what is wrong goes to the guest's standard error.
fn answer(caller: &mut Instance<'_>, call: &str, outcome: Result<(), Refusal>) -> u32 {
    let (errno, text) = match outcome {
        Ok(()) => return 0,
        Err(Refusal::MissingMemory) => (3, "the module exports no memory named `memory`".into()),
        Err(Refusal::Nn(error)) => {
            let Error { code, data } = error.clipped();
            (errno(code), data)
        }
    };
    caller.data_mut().note(&format!("wasi-nn: {call}: {text}"));
    errno
}

/// The interface's numbers for what can go wrong. `busy` is what the other ABI calls `timeout`;
/// what it has no number for is `unsupported_operation` or `runtime_error`.
fn errno(code: ErrorCode) -> u32 {
    match code {
        ErrorCode::InvalidArgument => 1,
        ErrorCode::InvalidEncoding => 2,
        ErrorCode::Timeout => 4,
        ErrorCode::RuntimeError | ErrorCode::Unknown => 5,
        ErrorCode::UnsupportedOperation | ErrorCode::Security => 6,
        ErrorCode::TooLarge => 7,
        ErrorCode::NotFound => 8,
    }
}

fn encoding_of(number: u32) -> Result<Encoding, Refusal> {
    Ok(match number {
        0 => Encoding::Other("openvino"),
        1 | 5 => Encoding::Onnx,
        2 => Encoding::Other("tensorflow"),
        3 => Encoding::Other("pytorch"),
        4 => Encoding::Other("tensorflowlite"),
        _ => {
            return Err(invalid(format!(
                "expected a graph encoding from 0 to 5, found {number}"
            )));
        }
    })
}

/// 3 isn't in the interface; the crate `wasi-nn` calls it `AUTO`.
fn target_of(number: u32) -> Result<Target, Refusal> {
    Ok(match number {
        0 => Target::Cpu,
        1 => Target::Gpu,
        2 => Target::Tpu,
        3 => Target::Any,
        _ => {
            return Err(invalid(format!(
                "expected an execution target from 0 to 3, found {number}"
            )));
        }
    })
}

fn type_of(number: u8) -> Result<TensorType, Refusal> {
    Ok(match number {
        0 => TensorType::Fp16,
        1 => TensorType::Fp32,
        2 => TensorType::Fp64,
        3 => TensorType::U8,
        4 => TensorType::I32,
        5 => TensorType::I64,
        _ => {
            return Err(invalid(format!(
                "expected a tensor type from 0 to 5, found {number}"
            )));
        }
    })
}

fn memory(caller: &mut Instance<'_>) -> Result<Memory, Refusal> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err(Refusal::MissingMemory),
    }
}

/// Bytes of the guest, where it has them.
fn read<'a>(
    memory: &Memory,
    caller: &'a Instance<'_>,
    address: u32,
    length: u32,
) -> Result<&'a [u8], Refusal> {
    let all = memory.data(caller);
    let end = (address as usize).checked_add(length as usize);
    let bytes = end.and_then(|end| all.get(address as usize..end));
    bytes.ok_or_else(|| outside(address, length, all.len()))
}

fn write(
    memory: &Memory,
    caller: &mut Instance<'_>,
    address: u32,
    bytes: &[u8],
) -> Result<(), Refusal> {
    let all = memory.data_size(&*caller);
    let written = memory.write(caller, address as usize, bytes);
    written.map_err(|_| outside(address, number(bytes.len()), all))
}

fn outside(address: u32, length: u32, all: usize) -> Refusal {
    invalid(format!(
        "{length} bytes at address {address:#x} are not within the {all} bytes of memory"
    ))
}

/// The first little-endian numbers of a record, those beyond its end 0.
fn numbers<const N: usize>(record: &[u8]) -> [u32; N] {
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(record.as_chunks::<4>().0) {
        *number = u32::from_le_bytes(*bytes);
    }
    numbers
}

/// What a 32-bit guest can be told; sizes here come from such.
fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_far_as_it_goes() {
        let record = [1, 0, 0, 0, 0, 1, 0, 0, 9];
        assert_eq!(numbers(&record), [1, 256, 0]);
    }

    #[test]
    fn each_code_of_the_other_abi_has_its_number() {
        use ErrorCode::*;
        let codes = [
            InvalidArgument,
            InvalidEncoding,
            Timeout,
            RuntimeError,
            UnsupportedOperation,
            TooLarge,
            NotFound,
            Security,
            Unknown,
        ];
        assert_eq!(codes.map(errno), [1, 2, 4, 5, 6, 7, 8, 6, 5]);
    }
}
