//! Classifies an image with a model that it loads from a file of its own.

use std::error::Error;
use std::fs;

use firebox_wasi_nn_guests::component::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load};
use firebox_wasi_nn_guests::component::wasi::nn::tensor::{Tensor, TensorType};
use firebox_wasi_nn_guests::{floats, sorted};

fn main() -> Result<(), Box<dyn Error>> {
    let model = fs::read("fixture/model.onnx")?;
    let graph = load(&[model], GraphEncoding::Onnx, ExecutionTarget::Cpu);
    let graph = graph.map_err(|error| error.data())?;
    let image = fs::read("fixture/tensor.rgb")?;
    let context = graph.init_execution_context();
    let context = context.map_err(|error| error.data())?;
    let tensor = Tensor::new(&[1, 3, 224, 224], TensorType::Fp32, &image);
    let outputs = context.compute(vec![("0".to_owned(), tensor)]);
    let outputs = outputs.map_err(|error| error.data())?;
    let (_, scores) = outputs.first().ok_or("the model gave nothing")?;
    println!("classes: {:?}", sorted(&floats(&scores.data())));
    Ok(())
}
