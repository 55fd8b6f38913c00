//! What the benchmarks share: series of times, and functions run in this process by the sandbox and
//! the engine alone, without a server.
//!
//! Machines drift, so what is compared is measured in turns within one run ([`in_turns`]), and a
//! result is a difference or a ratio with its spread over the rounds.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark ends by panicking"
)]

mod function;
mod load;
mod onnxruntime;
mod series;

pub use function::{Function, Recorded};
pub use load::load;
pub use onnxruntime::know_onnxruntime;
pub use series::{Series, Spread, in_turns, millis};
