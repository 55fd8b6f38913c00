//! The firebox binary.
fn main() {}
