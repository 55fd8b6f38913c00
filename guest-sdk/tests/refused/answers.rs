use firebox_sdk::{Outputs, Result, Tensor, function};

#[function]
fn silent(text: String) {
    println!("{text}");
}

#[function]
fn shapeless() -> Result<Tensor<f32>> {
    Tensor::new([1], [0.5])
}

#[function]
fn undeclared() -> Outputs {
    Outputs::default()
}

#[function(outputs = [score: float[_]])]
fn no_such_dtype() -> Outputs {
    Outputs::default()
}

#[function]
fn number() -> Result<f32> {
    Ok(0.5)
}

fn main() {}
