//! The server: functions and their versions over HTTP.
//!
//! ```no_run
//! use firebox_server::{Config, Server};
//!
//! # async fn show() -> Result<(), firebox_server::ServerError> {
//! let mut config = Config::new("/var/lib/firebox");
//! config.listen.set_port(0);
//! let server = Server::bind(config).await?;
//! println!("listening on http://{}", server.local_addr());
//! server.run(async { tokio::signal::ctrl_c().await.unwrap() }).await
//! # }
//! ```
//!
//! A request flows one way: `connections` bounds what reads it, [`protocol`] decodes it, `gateway` resolves, admits,
//! runs and records it, with `routing` saying which version answers, `admission`
//! whether there is room, `cache` whether the answer is there already, `residency` what is in memory,
//! `realtime` what stays there, and `scheduler` where models compute. `rollout` moves traffic under
//! guards, `shadow` copies it; `jobs` answer many inputs on what callers leave; `cost` counts what
//! versions use. `upload` is the way of a new version and `code` that of its component, `problem` the
//! table of everything that can go wrong, and `server` the wiring.

mod admission;
mod cache;
mod code;
pub mod config;
mod connections;
mod cost;
mod diff;
mod gateway;
mod jobs;
mod metrics;
mod openapi;
mod problem;
pub mod protocol;
mod realtime;
mod residency;
mod resolver;
pub mod rollout;
mod routing;
mod scheduler;
mod server;
mod shadow;
mod statistics;
#[cfg(test)]
mod tests;
mod upload;

pub use config::Config;
pub use cost::Prices;
pub use resolver::Resolver;
pub use server::{Server, ServerError, serve};
