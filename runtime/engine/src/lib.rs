//! Runs ONNX models on burn, chosen and loaded at run time.

mod device;
mod error;
mod exec;
mod fold;
mod fuse;
mod graph;
mod lower;
mod model;
mod onnx;
mod ops;
mod plan;
pub mod signature;
pub mod tensor;
mod value;

pub use device::{Device, DeviceInfo, UnknownDevice, devices};
pub use error::{LoadError, OpError, RunError};
pub use model::{Model, Options};
pub use signature::{Dim, Signature, SignatureError, TensorSpec};
pub use tensor::{DType, Tensor, TensorError};
