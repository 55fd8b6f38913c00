//! What the `firebox` binary does: a server, and the commands that make, upload and call functions.
//!
//! [`cli`] has the command line; each command has a module with its arguments and its work.
//! The commands that talk to a server do so through [`client`], which knows [`api`]; what they
//! print goes through [`output`]; what goes wrong is a [`failure::Failure`].

pub mod api;
pub mod bench;
pub mod build;
pub mod cli;
pub mod client;
pub mod compile;
pub mod cost;
pub mod demo;
pub mod deploy;
pub mod download;
mod embedded;
pub mod failure;
pub mod functions;
pub mod invoke;
pub mod jobs;
pub mod labels;
pub mod oci;
pub mod output;
pub mod progress;
pub mod project;
pub mod pull;
pub mod push;
pub mod residency;
pub mod rollback;
pub mod rollout;
pub mod serve;
pub mod shadow;
pub mod silence;
pub mod tls;
pub mod traffic;
pub mod versions;
