//! Everything that can be set about a server. `settings` is the table of the names that files,
//! variables and flags have for it, `sources` reads those.

mod settings;
mod sources;

pub use settings::{SETTINGS, Setting};
pub use sources::{ConfigError, Origin, Sources};

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
    /// Where to listen for gRPC alone. It is answered at `listen` either way.
    pub grpc_listen: Option<SocketAddr>,
    /// The most connections at once; more are answered 503 and closed.
    pub max_connections: usize,
    /// How long a connection may take to send a request's head, the wait for its beginning included.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a request's body.
    pub body_timeout: Duration,
    /// The fewest bytes a second of a request's body, averaged over the time that it is waited for.
    pub body_rate: usize,
    /// The longest time that a caller may take none of its answer.
    pub send_timeout: Duration,
    /// The longest pause between two messages of a gRPC stream.
    pub stream_timeout: Duration,
    /// The most requests at once over one HTTP/2 connection.
    pub max_streams: usize,
    /// The most instances that run at once.
    pub max_instances: usize,
    /// The most requests that wait for an instance or a cold version; more are refused.
    pub max_queued: usize,
    /// Per cent of instances and of waiting room that are kept for the realtime tier.
    pub realtime_share: u8,
    /// The longest that a realtime request waits for an instance.
    pub realtime_wait: Duration,
    /// The most instances that are kept for a next request, where functions ask for reuse.
    pub max_idle_instances: usize,
    /// The most instances that are made before a request asks for them.
    pub max_spare_instances: usize,
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
    /// The most bytes of tensors that one instance may hold, whatever its manifest says.
    pub max_instance_tensors: usize,
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
    /// The most bytes of a job's body.
    pub max_job_bytes: u64,
    /// The most items of a job.
    pub max_job_items: usize,
    /// The most jobs that are kept, those that have ended included.
    pub max_jobs: usize,
    /// The most jobs that run at once; others wait.
    pub max_running_jobs: usize,
    /// The most items of one job that are in flight at once.
    pub max_job_concurrency: usize,
    /// How long a job is kept after its end.
    pub job_retention: Duration,
    /// How often idle versions are looked for.
    pub sweep_interval: Duration,
    /// How long requests in flight may go on after the server was told to stop.
    pub grace: Duration,
    /// What is logged, in the syntax of `tracing_subscriber`'s filters. Whoever embeds the server
    /// sets its own log up.
    pub log: String,
    /// How the log is written.
    pub log_format: LogFormat,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The defaults, with everything kept under `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(data, cores, memory::available())
    }

    /// The defaults for a machine with so many cores and bytes of memory.
    pub fn of(data: impl Into<PathBuf>, cores: usize, memory: u64) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            grpc_listen: None,
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            body_rate: 1 << 10,
            send_timeout: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(10 * 60),
            max_streams: 128,
            max_instances: 64,
            max_queued: 512,
            realtime_share: 25,
            realtime_wait: Duration::from_secs(1),
            max_idle_instances: 32,
            max_spare_instances: 64,
            max_body: 64 * MIB,
            max_upload: 4 << 30,
            max_unpacked: 16 << 30,
            max_uploads: 2,
            max_instance_memory: 1024 * MIB,
            max_instance_tensors: 1024 * MIB,
            compute_threads: cores,
            max_compute_queue: 1024,
            max_loads: cores,
            cache_memory: 64 * MIB,
            prices: Prices::default(),
            model_memory: memory / 2,
            code_memory: memory / 8,
            max_job_bytes: 4 << 30,
            max_job_items: 10_000_000,
            max_jobs: 10_000,
            max_running_jobs: 2,
            max_job_concurrency: 32,
            job_retention: Duration::from_secs(7 * 24 * 3600),
            sweep_interval: Duration::from_millis(500),
            grace: Duration::from_secs(30),
            log: "info".into(),
            log_format: LogFormat::Text,
        }
    }
}
