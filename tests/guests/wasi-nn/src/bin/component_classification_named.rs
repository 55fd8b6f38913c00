//! Classifies the image on standard input with a model that the host has, by the name that is the
//! first argument.

use std::error::Error;
use std::io::{Read, stdin};

use firebox_wasi_nn_guests::component::wasi::nn::graph::load_by_name;
use firebox_wasi_nn_guests::component::wasi::nn::tensor::{Tensor, TensorType};
use firebox_wasi_nn_guests::{floats, sorted};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args()
        .nth(1)
        .ok_or("the model's name is missing")?;
    let graph = load_by_name(&name).map_err(|error| error.data())?;
    let mut image = Vec::new();
    stdin().read_to_end(&mut image)?;
    let context = graph.init_execution_context();
    let context = context.map_err(|error| error.data())?;
    let tensor = Tensor::new(&[1, 3, 224, 224], TensorType::Fp32, &image);
    let outputs = context.compute(vec![("x".to_owned(), tensor)]);
    let outputs = outputs.map_err(|error| error.data())?;
    let (_, scores) = outputs.first().ok_or("the model gave nothing")?;
    println!("classes: {:?}", sorted(&floats(&scores.data())));
    Ok(())
}
