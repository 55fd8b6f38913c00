//! What an embedder decides once for all functions, and what for each.

use std::time::Duration;

const MIB: usize = 1 << 20;

/// Settings of a [`Sandbox`](crate::Sandbox).
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Instances that can exist at the same time. One more is refused with
    /// [`InvokeError::Busy`](crate::InvokeError::Busy) while slots are pooled.
    pub instances: u32,
    /// Instances that are kept between calls, of these, at most.
    pub idle: u32,
    /// Instances that are made before they are asked for, beside [`Self::instances`], at most.
    pub spares: u32,
    /// The largest [`Limits::memory`] that a request can be given, in bytes.
    /// Address space is set aside for it, memory is not.
    pub memory: usize,
    /// Where instances get their memory from.
    pub pooling: Pooling,
    /// Bytes that an instance has written and that stay mapped, reset, for the next one in its
    /// slot, so that this one meets no page faults; on Linux 6.7 and later, else none do. Up to 64
    /// free slots hold them.
    pub keep_resident: usize,
    /// Bytes of standard output and error, each, that one instance can write to the log.
    pub output: usize,
    /// How long a guest computes before it lets other tasks of its thread run.
    pub tick: Duration,
    /// Whether `compile` runs `init` and keeps the memory that it leaves. When
    /// off, `init` runs at the start of each request.
    pub snapshot: bool,
    /// What `init` and `describe` are given when a component is compiled.
    pub compile: Limits,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            instances: 256,
            memory: 1024 * MIB,
            pooling: Pooling::Preferred,
            keep_resident: 512 << 10,
            idle: 0,
            spares: 0,
            output: 64 << 10,
            tick: Duration::from_millis(5),
            snapshot: true,
            compile: Limits {
                memory: 512 * MIB,
                deadline: Duration::from_secs(60),
                ..Limits::default()
            },
        }
    }
}

/// Where instances get their memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Slots set aside at start; no sandbox where the system refuses that much
    /// address space.
    Required,
    /// Slots where they can be had, else mapped for each instance.
    Preferred,
    /// Mapped for each instance.
    Off,
}

/// What one request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory, over all memories of the component.
    pub memory: usize,
    /// Wall-clock time from the call to the answer, waiting for models included.
    pub deadline: Duration,
    /// Processor time of the instance, without its models; none is no limit. Looked at at each
    /// [tick](SandboxConfig::tick).
    pub cpu: Option<Duration>,
    /// Bytes of tensors that the instance can hold at the host, in wasi:nn.
    pub tensors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 * MIB,
            deadline: Duration::from_secs(10),
            cpu: None,
            tensors: 256 * MIB,
        }
    }
}
