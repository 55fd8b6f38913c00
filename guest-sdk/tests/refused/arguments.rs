use firebox_sdk::{Bytes, Request, Tensor, function};

#[function]
fn reference(text: &str) -> String {
    text.into()
}

#[function]
fn shapeless(image: Tensor<f32>) -> String {
    format!("{:?}", image.shape())
}

#[function]
fn two_bodies(text: String, body: Bytes) -> String {
    format!("{text}{}", body.len())
}

#[function]
fn everything_and_more(request: Request, text: String) -> String {
    request.id + &text
}

#[function]
fn not_in_a_request(count: usize) -> String {
    count.to_string()
}

#[function]
fn bad_size(#[shape(1, n)] image: Tensor<f32>) -> String {
    format!("{:?}", image.shape())
}

fn main() {}
