//! The sandbox against real components: the probe guest of `tests/guests`, and
//! small ones in WebAssembly text.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what fails in a test should panic"
)]

mod compile;
mod engine;
mod guest;
mod invoke;
mod nn;
mod probe;
mod reuse;
mod spare;
