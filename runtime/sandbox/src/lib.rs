//! Runs functions as WebAssembly components: one instance per request, from
//! code compiled once, behind a memory cap, a deadline and a narrow set of imports.
//!
//! The way of a component, and the file of each step:
//!
//! 1. [`Sandbox::compile`] (`compile.rs`) finds its kind (`kind.rs`), runs its `init` once,
//!    snapshots what that left in memory, and compiles the result.
//! 2. [`Sandbox::link`] (`component.rs`) maps the compiled code from a file and
//!    resolves its imports.
//! 3. [`Component::invoke`] (`component.rs`) makes an instance, calls `infer`,
//!    and drops the instance, or keeps it for a next call (`reuse.rs`). Behind the answer it makes
//!    the next call's instance (`spare.rs`).
//!
//! A component that answers HTTP requests goes the same way, without `init` and
//! a snapshot: [`Sandbox::link_handler`] and [`Handler::handle`] (`handler.rs`).
//! A command, a program of WASI, goes a shorter way, all of it in `command.rs`.
//!
//! What an instance can reach is its store's data (`state.rs`): WASI 0.2
//! without files but the assets, without sockets, and with captured output
//! (`output.rs`); HTTP requests to listed hosts (`network.rs`); and models
//! (`nn.rs`), which the embedder serves through [`Models`]. `limits.rs` holds
//! the memory cap and `epoch.rs` the clock that makes a looping guest yield.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use firebox_engine::Tensor;
//! use firebox_sandbox::{
//!     Assets, Context, CpuMeter, Limits, Models, Network, Request, Sandbox, SandboxConfig,
//! };
//!
//! # async fn show(models: Arc<dyn Models>) -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::new(&SandboxConfig::default())?;
//!
//! // At upload.
//! let compiled = sandbox.compile(&std::fs::read("function.wasm")?, &Assets::none()).await?;
//! std::fs::write("function.cwasm", &compiled.code)?;
//!
//! // At the first request.
//! let component = sandbox.link(Path::new("function.cwasm"), compiled.snapshot)?;
//!
//! // At each request.
//! let request = Request {
//!     id: "1".into(),
//!     inputs: vec![("body".into(), Tensor::from_blob(b"hello")?)],
//!     parameters: vec![],
//! };
//! let context = Context {
//!     limits: Limits::default(),
//!     models,
//!     assets: Assets::none(),
//!     network: Network::default(),
//!     reuse: false,
//!     cpu: CpuMeter::default(),
//! };
//! let response = component.invoke(request, context).await?;
//! println!("{} outputs in {:?}", response.outputs.len(), response.usage.total);
//! # Ok(())
//! # }
//! ```

mod assets;
mod bindings;
mod call;
mod command;
mod compile;
mod component;
mod config;
mod convert;
mod cpu;
mod engine;
mod epoch;
mod error;
mod handler;
mod kind;
mod limits;
mod models;
mod network;
mod nn;
mod output;
mod reuse;
mod spare;
mod state;

pub use assets::Assets;
pub use call::{Context, Parameter, Request, Response, Usage};
pub use command::{Command, CommandLine};
pub use compile::Compiled;
pub use component::Component;
pub use config::{Limits, Pooling, SandboxConfig};
pub use cpu::CpuMeter;
pub use engine::Sandbox;
pub use error::{CompileError, ErrorCode, GuestError, InvokeError, LinkError, SandboxError};
pub use handler::{Handler, ResponseBody};
pub use kind::Kind;
pub use models::{LoadCause, LoadedModel, ModelError, Models, Target};
pub use network::Network;
