//! Runs ONNX models on burn, chosen and loaded at run time.
//!
//! ```
//! use firebox_engine::{Model, Options, Tensor};
//!
//! fn halves(onnx: bytes::Bytes) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
//!     let model = Model::load(onnx, &Options::default())?;
//!     let x = Tensor::from_f32(vec![2], &[1.0, 3.0])?;
//!     let mut outputs = model.run(vec![("x".into(), x)])?;
//!     let (_name, tensor) = outputs.remove(0);
//!     tensor.to_f32().ok_or("the output is no f32 tensor".into())
//! }
//! # // A graph with one node, Mul(x, 0.5), written by hand.
//! # let half = [&[0x08, 1, 0x10, 1, 0x42, 1, b'h', 0x4a, 4][..], &0.5f32.to_le_bytes()].concat();
//! # let node = b"\x0a\x01x\x0a\x01h\x12\x01y\x22\x03Mul";
//! # let (x, y) = (b"\x0a\x01x\x12\x04\x0a\x02\x08\x01", b"\x0a\x01y\x12\x04\x0a\x02\x08\x01");
//! # let mut graph = Vec::new();
//! # for (field, part) in [(0x0a, &node[..]), (0x2a, &half), (0x5a, &x[..]), (0x62, &y[..])] {
//! #     graph.extend([field, part.len() as u8]);
//! #     graph.extend(part);
//! # }
//! # let mut model = vec![0x08, 8, 0x3a, graph.len() as u8];
//! # model.extend(graph);
//! # model.extend([0x42, 2, 0x10, 17]);
//! assert_eq!(halves(model.into())?, [0.5, 1.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Data flows one way: [`Model::load`] decodes (`onnx`), lowers to a graph of our own
//! (`lower`, `graph`), computes what is constant (`fold`) and joins nodes (`fuse`).
//! [`Model::run`] follows a `plan` for the shapes of its inputs, whose steps are operators
//! (`ops`) on burn tensors (`value`).

mod deviation;
mod device;
mod error;
mod exec;
mod fold;
mod fuse;
mod graph;
mod kernels;
mod layout;
mod lower;
mod model;
mod narrow;
mod onnx;
mod ops;
mod place;
mod plan;
mod precision;
pub mod signature;
pub mod tensor;
mod value;

pub use deviation::{Deviation, deviations};
pub use device::{Device, DeviceInfo, UnknownDevice, devices};
pub use error::{LoadError, OpError, RunError};
pub use kernels::release_memory;
pub use model::{Model, Options, Tensors};
pub use narrow::Narrow;
pub use place::Place;
pub use plan::StepTime;
pub use precision::{Precision, UnknownPrecision};
pub use signature::{Dim, Signature, SignatureError, TensorSpec};
pub use tensor::{DType, MAX_RANK, Tensor, TensorError, check_rank};
