//! `serve`: the server, in this process, until it is told to stop.

/// What precedes the address in the line that says where the server listens.
pub const LISTENING: &str = "firebox listens on ";
