//! Commands: programs that are run once a request, as a shell would.
//!
//! They are core modules of WASI 0.1 with wasi-nn in its classic ABI (`nn/classic.rs`), or
//! components of WASI 0.2's command world, which import what functions do. The request's body is
//! standard input, and what the program writes to standard output is the answer. A program that
//! returns, or exits with code 0, ends well. Its files are the assets.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use firebox_engine::{DType, Dim, Signature, Tensor, TensorSpec};
use wasmparser::Parser;
use wasmtime::component::Component;
use wasmtime::{Caller, Engine, InstancePre, Linker, Module, Precompiled, UnknownImportError};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use crate::component::{Call, Holds, map};
use crate::engine::Inner;
use crate::limits::MemoryCap;
use crate::nn::Nn;
use crate::nn::classic::{self, Handles};
use crate::output::Output;
use crate::state::{Grants, State};
use crate::{
    CompileError, Compiled, Context, ErrorCode, GuestError, InvokeError, Kind, LinkError,
    Parameter, Request, Response, Sandbox, SandboxConfig, Usage,
};

use stdout::Stdout;

mod stdout;

/// The input, and the output.
const BODY: &str = "body";

/// Exit codes with a meaning, as `sysexits.h` has them: input that is wrong, and a failure that
/// another try may not meet. Every other code but 0 is a failure of the function.
const EX_DATAERR: i32 = 65;
const EX_TEMPFAIL: i32 = 75;

/// A command's code in memory, ready to make instances. Cloning it is cheap.
#[derive(Clone)]
pub struct Command {
    inner: Arc<Inner>,
    code: Code,
}

#[derive(Clone)]
enum Code {
    /// Of WASI 0.1.
    Module(InstancePre<CommandState>),
    /// Of WASI 0.2.
    Component(CommandPre<State>),
}

/// What each run of a command is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The arguments, the program's name first.
    pub arguments: Vec<String>,
    /// The environment: all of it.
    pub environment: Vec<(String, String)>,
    /// The media type of what it writes to standard output.
    pub content_type: String,
}

/// A run's standard streams and what it is started with.
struct Streams<'a> {
    line: &'a CommandLine,
    body: Bytes,
    stdout: Stdout,
}

impl Streams<'_> {
    fn set_up(self, wasi: &mut WasiCtxBuilder) {
        wasi.args(&self.line.arguments)
            .envs(&self.line.environment)
            .stdin(MemoryInputPipe::new(self.body))
            .stdout(self.stdout);
    }
}

/// How a run ended.
struct Ended {
    code: Result<i32, InvokeError>,
    stderr: String,
    usage: Usage,
}

impl Ended {
    fn of<S: Holds>(call: &Call<S>, code: Result<i32, InvokeError>, start: Instant) -> Self {
        Self {
            code,
            stderr: call.store.data().last_words(),
            usage: call.usage(start),
        }
    }
}

/// The data of the store of a run of WASI 0.1.
pub(crate) struct CommandState {
    pub(crate) memory: MemoryCap,
    pub(crate) nn: Nn,
    pub(crate) handles: Handles,
    wasi: WasiP1Ctx,
    stderr: Output,
}

impl Sandbox {
    /// Maps a file of what [`Sandbox::compile`] made of a command and resolves its imports. The file is
    /// machine code: it must not change while it is mapped.
    ///
    /// # Errors
    /// [`LinkError::Stale`] where it was made by another version or for other settings: compile the
    /// command again.
    pub fn link_command(&self, cwasm: &Path) -> Result<Command, LinkError> {
        let path = || cwasm.to_owned();
        if let Err(source) = std::fs::File::open(cwasm) {
            let path = path();
            return Err(LinkError::File { path, source });
        }
        let stale = |error: wasmtime::Error| LinkError::Stale {
            path: path(),
            reason: format!("{error:#}"),
        };
        let misfit = |error: wasmtime::Error| LinkError::Imports {
            path: path(),
            reason: format!("{error:#}"),
        };
        let Inner {
            engine,
            linker,
            commands,
            ..
        } = &*self.inner;
        let code = match Engine::detect_precompiled_file(cwasm).map_err(stale)? {
            Some(Precompiled::Component) => {
                let pre = linker.instantiate_pre(&map(engine, cwasm)?);
                Code::Component(pre.and_then(CommandPre::new).map_err(misfit)?)
            }
            _ => {
                // SAFETY: by the contract above; wasmtime refuses what another build of it, or
                // another configuration, has made.
                #[allow(
                    unsafe_code,
                    reason = "compiled code is trusted as the registry's digest is"
                )]
                let module = unsafe { Module::deserialize_file(engine, cwasm) };
                let pre = commands.instantiate_pre(&module.map_err(stale)?);
                Code::Module(pre.map_err(misfit)?)
            }
        };
        Ok(Command {
            inner: self.inner.clone(),
            code,
        })
    }
}

impl Inner {
    /// Checks a command and compiles it. Nothing of it is run: it is for a request to do that.
    pub(crate) fn compile_command(&self, wasm: &[u8]) -> Result<Compiled, CompileError> {
        let invalid = |error: wasmtime::Error| CompileError::Invalid {
            reason: format!("{error:#}"),
        };
        let code = if Parser::is_core_wasm(wasm) {
            let module = Module::from_binary(&self.engine, wasm).map_err(invalid)?;
            check(self, &module)?;
            module.serialize()
        } else {
            let component = Component::from_binary(&self.engine, wasm).map_err(invalid)?;
            let program = CommandPre::new(self.linked(&component)?);
            program.map_err(|error| CompileError::WrongExport {
                reason: format!("{error:#}"),
            })?;
            component.serialize()
        };
        Ok(Compiled {
            kind: Kind::Command,
            code: code.map_err(|error| CompileError::Host(error.to_string()))?,
            signature: signature(),
            snapshot: false,
        })
    }
}

/// Whether the host gives what the module imports, and it exports what the host uses.
fn check(inner: &Inner, module: &Module) -> Result<(), CompileError> {
    if let Err(error) = inner.commands.instantiate_pre(module) {
        let name = error
            .downcast_ref::<UnknownImportError>()
            .map(|unknown| format!("{}::{}", unknown.module(), unknown.name()));
        return Err(CompileError::UnknownCommandImport {
            name: name.unwrap_or_else(|| "?".into()),
            reason: format!("{error:#}"),
            given: classic::FUNCTIONS.join(", "),
        });
    }
    let start = module.get_export("_start");
    let start = start.as_ref().and_then(|export| export.func());
    let starts = start.is_some_and(|ty| ty.params().len() + ty.results().len() == 0);
    let memory = module.get_export("memory");
    let has_memory = memory.is_some_and(|export| export.memory().is_some());
    let missing = match (starts, has_memory) {
        (false, _) => Some("a function `_start` without parameters and results"),
        (true, false) => Some("a memory `memory`"),
        (true, true) => None,
    };
    let Some(missing) = missing else {
        return Ok(());
    };
    let exports: Vec<_> = module.exports().map(|export| export.name()).collect();
    let found = match exports.as_slice() {
        [] => "nothing".into(),
        names => names.join(", "),
    };
    Err(CompileError::NotCommand { missing, found })
}

/// All that a command can import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<CommandState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CommandState| {
        &mut state.wasi
    })?;
    classic::add_to_linker(&mut linker)?;
    // wasmtime takes codes below 126 alone, and answers others with an error of no kind. What a code
    // means is said here, so each one is taken.
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |_: Caller<'_, CommandState>, code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        },
    )?;
    linker.allow_shadowing(false);
    Ok(linker)
}

impl Command {
    /// Answers one request in an instance of its own, which is gone afterwards; also when the
    /// returned future is dropped. The answer can be as large as the tensors that the instance can
    /// hold.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(
        &self,
        request: Request,
        context: Context,
        line: &CommandLine,
    ) -> Result<Response, InvokeError> {
        let (start, limits) = (Instant::now(), context.limits);
        let stdout = Stdout::new(limits.tensors);
        let streams = Streams {
            line,
            body: body(request.inputs)?,
            stdout: stdout.clone(),
        };
        let grants = Grants::of_call(&request.id, &context);
        let (inner, cpu) = (&*self.inner, context.cpu);
        let fault = |error: wasmtime::Error| InvokeError::Host(format!("{error:#}"));
        let ended = match &self.code {
            Code::Module(pre) => {
                let state = CommandState::new(grants, &inner.config, streams).map_err(fault)?;
                let store = inner.store_of(state, limits.memory);
                let mut call = Call::of(inner, store, limits).metered(cpu);
                let code = call.run(async |store| {
                    let instance = pre.instantiate_async(&mut *store).await?;
                    let main = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                    exit_code(main.call_async(&mut *store, ()).await.map(|()| 0))
                });
                let code = code.await;
                Ended::of(&call, code, start)
            }
            Code::Component(pre) => {
                let state = State::set_up(grants, &inner.config, |wasi| streams.set_up(wasi));
                let store = inner.store_of(state.map_err(fault)?, limits.memory);
                let mut call = Call::of(inner, store, limits).metered(cpu);
                let code = call.run(async |store| {
                    let program = pre.instantiate_async(&mut *store).await?;
                    let main = program.wasi_cli_run().call_run(&mut *store).await;
                    exit_code(main.map(|done| if done.is_ok() { 0 } else { 1 }))
                });
                let code = code.await;
                Ended::of(&call, code, start)
            }
        };
        let Ended {
            code,
            stderr,
            usage,
        } = ended;
        if stdout.is_over() {
            let limit = limits.tensors;
            return Err(InvokeError::Trap {
                message: format!(
                    "it wrote more than {limit} bytes to standard output, which `limits.tensors` bounds"
                ),
                stderr,
                backtrace: String::new(),
            });
        }
        match code? {
            0 => {}
            code => return Err(exited(code, &stderr).into()),
        }
        let output = Tensor::new(DType::Bytes, vec![1], stdout.take());
        let output = output.map_err(|error| InvokeError::Host(error.to_string()))?;
        let content_type = Parameter::Text(line.content_type.clone());
        Ok(Response {
            outputs: vec![(BODY.into(), output)],
            parameters: vec![("content-type".into(), content_type)],
            usage,
        })
    }
}

/// An exit is an error to wasmtime.
fn exit_code(run: wasmtime::Result<i32>) -> wasmtime::Result<i32> {
    run.or_else(|error| match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(code)) => Ok(*code),
        None => Err(error),
    })
}

/// What every command takes and gives: some bytes.
fn signature() -> Signature {
    let body = TensorSpec {
        name: BODY.into(),
        dtype: DType::Bytes,
        shape: Some(vec![Dim::Fixed(1)]),
    };
    Signature {
        inputs: vec![body.clone()],
        outputs: vec![body],
    }
}

/// The request's body; the server has checked that it is there.
fn body(inputs: Vec<(String, Tensor)>) -> Result<Bytes, InvokeError> {
    let body = inputs.iter().find(|(name, _)| name == BODY);
    let bytes = body.and_then(|(_, tensor)| tensor.blobs().into_iter().next());
    bytes.ok_or_else(|| {
        let message = "a command takes one input, `body`, of dtype bytes and shape [1]".into();
        let code = ErrorCode::InvalidInput;
        GuestError { code, message }.into()
    })
}

/// What an exit that is no success says, with the end of its standard error.
fn exited(code: i32, stderr: &str) -> GuestError {
    let who = match code {
        EX_DATAERR => ErrorCode::InvalidInput,
        EX_TEMPFAIL => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    };
    let mut message = format!("the command exited with code {code}");
    if !stderr.trim().is_empty() {
        message.push('\n');
        message.push_str(stderr.trim());
    }
    GuestError { code: who, message }
}

impl CommandState {
    /// Fails where the assets' directory can't be opened.
    fn new(grants: Grants, config: &SandboxConfig, streams: Streams<'_>) -> wasmtime::Result<Self> {
        let stderr = Output::new(grants.id, "stderr", config.output);
        let mut wasi = WasiCtxBuilder::new();
        wasi.stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Some(root) = grants.assets.root() {
            wasi.preopened_dir(root, "/", FsPerms::ReadOnly)?;
        }
        streams.set_up(&mut wasi);
        Ok(Self {
            memory: MemoryCap::new(grants.limits.memory),
            nn: Nn::new(grants.models, grants.limits.tensors),
            handles: Handles::default(),
            wasi: wasi.build_p1(),
            stderr,
        })
    }

    /// Says something to the guest's owner that its ABI has no way to tell the guest.
    pub(crate) fn note(&self, text: &str) {
        self.stderr.note(text);
    }
}

impl Holds for CommandState {
    fn memory(&self) -> &MemoryCap {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut MemoryCap {
        &mut self.memory
    }

    fn nn(&self) -> &Nn {
        &self.nn
    }

    fn last_words(&self) -> String {
        self.stderr.tail()
    }

    fn id(&self) -> Arc<str> {
        self.stderr.request()
    }
}
