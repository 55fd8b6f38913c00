//! The sandbox against real components: the probe guest of `tests/guests`, and
//! small ones in WebAssembly text.

mod compile;
mod guest;
mod invoke;
mod nn;
mod probe;
