//! Bundles: what is uploaded. A tar, optionally compressed by zstd, with `firebox.toml`, at most one
//! component, models and assets; or one bare ONNX or wasm file. Immutable: its SHA-256 names it.

mod error;
mod form;
mod pack;
mod parts;
mod unpack;

pub use error::BundleError;
pub use form::Form;
pub use pack::{Packed, pack};
pub use parts::{Part, parts};
pub use unpack::{UnpackLimits, Unpacked, unpack};

#[cfg(test)]
mod tests;
