//! Runs ONNX models on burn, chosen and loaded at run time.

pub mod signature;
pub mod tensor;

pub use signature::{Dim, Signature, SignatureError, TensorSpec};
pub use tensor::{DType, Tensor, TensorError};
