use firebox_sdk::{Bytes, function};

#[function]
struct Classifier;

#[function]
async fn later(body: Bytes) -> Vec<u8> {
    body.0
}

#[function]
fn any<T>(body: Bytes) -> Vec<u8> {
    body.0
}

#[function(start = now)]
fn unknown_option(body: Bytes) -> Vec<u8> {
    body.0
}

fn main() {}
