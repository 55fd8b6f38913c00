//! Kernels of our own for f32 tensors on the CPU, where burn's take several passes or know
//! less of the processor. Each is tested against burn's or against the plain formula.

mod activation;
mod conv;
mod depthwise;
mod flex;
mod floats;
mod gemm;
mod int8;
pub(crate) mod integer;
mod lstm;
mod rows;
mod simd;
pub(crate) mod spare;
mod tile;

pub(crate) use activation::Activation;
pub(crate) use conv::{Filters, Geometry, conv};
pub(crate) use flex::{F32, elements, unary};
pub(crate) use floats::Numbers;
pub(crate) use gemm::{Bias, Left, Matrix, Packed, Right, gemm};
pub(crate) use int8::{Int8, Int8Filters, filters_pay, pays as weights_pay};
pub(crate) use lstm::Lstm;
pub(crate) use rows::{layer_norm, reduce, reduce_columns, reduces, softmax};
pub use spare::release_memory;

/// Elements for which it pays to ask other threads.
const PART: usize = 1 << 15;
