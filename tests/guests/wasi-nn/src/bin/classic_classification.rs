//! Classifies an image with a model that it loads from a file of its own.

use std::error::Error;
use std::fs;

use firebox_wasi_nn_guests::{floats, sorted};
use wasi_nn::{ExecutionTarget, GraphBuilder, GraphEncoding, TensorType};

fn main() -> Result<(), Box<dyn Error>> {
    let model = fs::read("fixture/model.onnx")?;
    let graph =
        GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::CPU).build_from_bytes([&model])?;
    println!("loaded {} bytes as {graph}", model.len());
    let tensor = fs::read("fixture/tensor.rgb")?;
    let mut context = graph.init_execution_context()?;
    context.set_input(0, TensorType::F32, &[1, 3, 224, 224], &tensor)?;
    context.compute()?;
    let mut buffer = vec![0u8; 1001 * size_of::<f32>()];
    let length = context.get_output(0, &mut buffer)?;
    buffer.truncate(length);
    println!("classes: {:?}", sorted(&floats(&buffer)));
    Ok(())
}
