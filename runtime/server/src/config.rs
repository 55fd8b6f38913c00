//! Everything that can be set about a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::cost::Prices;
use crate::residency::memory;

const MIB: usize = 1 << 20;

/// How a server is set up. `Config::new(data)` is a sound default for one machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory: records, blobs, staging.
    pub data: PathBuf,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The most instances that run at once.
    pub max_instances: usize,
    /// The most requests that wait for an instance or a cold version; more get 429.
    pub max_queued: usize,
    /// The longest wait for an instance before 429, if the deadline isn't nearer.
    pub max_queue_wait: Duration,
    /// The most bytes of a request's body.
    pub max_body: usize,
    /// The most bytes of an uploaded bundle.
    pub max_upload: u64,
    /// The most bytes that a bundle may unpack to.
    pub max_unpacked: u64,
    /// The most uploads that are checked at once; others wait.
    pub max_uploads: usize,
    /// The most memory that one instance may be given, whatever its manifest says.
    pub max_instance_memory: usize,
    /// Threads that run models.
    pub compute_threads: usize,
    /// How many model runs may wait for a compute thread.
    pub max_compute_queue: usize,
    /// How many cold versions and models load at once.
    pub max_loads: usize,
    /// Memory of all kept answers, in bytes; 0 keeps none.
    pub cache_memory: usize,
    /// What is charged for what versions use.
    pub prices: Prices,
    /// The most bytes of models' weights in memory; idle versions go where another needs the room.
    pub model_memory: u64,
    /// The most bytes of compiled code that are mapped; likewise.
    pub code_memory: u64,
    /// How often idle versions are looked for.
    pub sweep_interval: Duration,
    /// How long requests in flight may go on after the server was told to stop.
    pub grace: Duration,
}

impl Config {
    /// The defaults, with everything kept under `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = memory::available();
        Self {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_instances: 64,
            max_queued: 512,
            max_queue_wait: Duration::from_secs(10),
            max_body: 64 * MIB,
            max_upload: 4 << 30,
            max_unpacked: 16 << 30,
            max_uploads: 2,
            max_instance_memory: 1024 * MIB,
            compute_threads: cores,
            max_compute_queue: 1024,
            max_loads: cores,
            cache_memory: 64 * MIB,
            prices: Prices::default(),
            model_memory: memory / 2,
            code_memory: memory / 8,
            sweep_interval: Duration::from_millis(500),
            grace: Duration::from_secs(30),
        }
    }
}
