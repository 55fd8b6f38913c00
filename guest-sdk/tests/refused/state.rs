use firebox_sdk::{Bytes, function};

struct Words(Vec<String>);

fn words() -> Vec<String> {
    vec![]
}

#[function]
fn nothing_makes_it(words: &Words, body: Bytes) -> String {
    words.0.join(&body.len().to_string())
}

#[function(init = words)]
fn nothing_takes_it(body: Bytes) -> String {
    body.len().to_string()
}

#[function(init = words)]
fn changes_it(words: &mut Words) -> String {
    words.0.remove(0)
}

#[function(init = words)]
fn of_another_type(words: &Words) -> String {
    words.0.concat()
}

fn main() {}
