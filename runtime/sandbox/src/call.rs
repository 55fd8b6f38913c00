//! One call: what goes in, what comes out, and what it is made with.

use std::sync::Arc;
use std::time::Duration;

use firebox_engine::Tensor;

use crate::{Assets, CpuMeter, Limits, Models, Network};

/// One call of a function.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's id for it; it stands beside the guest's log lines.
    pub id: String,
    /// Named tensors; a raw HTTP body is one called `body`, dtype bytes, shape `[1]`.
    pub inputs: Vec<(String, Tensor)>,
    /// Named values beside the tensors.
    pub parameters: Vec<(String, Parameter)>,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// An integer.
    Int64(i64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    Text(String),
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Response {
    /// Named tensors, each name once.
    pub outputs: Vec<(String, Tensor)>,
    /// Named values beside the tensors.
    pub parameters: Vec<(String, Parameter)>,
    /// What the call cost.
    pub usage: Usage,
}

/// What a call cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the call to the answer.
    pub total: Duration,
    /// On a thread, making the instance, unless it was there, and computing in it; without waiting
    /// and models.
    pub guest: Duration,
    /// From asking models to their answers, queueing included.
    pub compute: Duration,
    /// The most bytes of linear memory held, over all memories of the component.
    pub peak_memory: usize,
}

/// What a call is made with. Cloning it is cheap.
#[derive(Clone)]
pub struct Context {
    /// Memory and time.
    pub limits: Limits,
    /// Serves the guest's models.
    pub models: Arc<dyn Models>,
    /// The guest's files.
    pub assets: Assets,
    /// Hosts that the guest can call.
    pub network: Network,
    /// Whether the call may run in an instance that has answered before, and leave its own for
    /// others: what a function keeps in memory then goes from one request to another.
    pub reuse: bool,
    /// Counts the processor time of making the instance and computing in it. Models are not in it:
    /// others run them.
    pub cpu: CpuMeter,
}
