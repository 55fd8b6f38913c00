//! Classifies the image on standard input with a model that the host has, by the name that is the
//! first argument.

use std::error::Error;
use std::io::{Read, stdin};

use firebox_wasi_nn_guests::sorted;
use wasi_nn::{ExecutionTarget, GraphBuilder, GraphEncoding, TensorType};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args()
        .nth(1)
        .ok_or("the model's name is missing")?;
    let graph =
        GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::CPU).build_from_cache(&name)?;
    let mut tensor = Vec::new();
    stdin().read_to_end(&mut tensor)?;
    let mut context = graph.init_execution_context()?;
    context.set_input(0, TensorType::F32, &[1, 3, 224, 224], &tensor)?;
    context.compute()?;
    let mut scores = [0f32; 4];
    context.get_output(0, &mut scores)?;
    println!("classes: {:?}", sorted(&scores));
    Ok(())
}
