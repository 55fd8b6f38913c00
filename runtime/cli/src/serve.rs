//! `serve`: the server, in this process, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use firebox_registry::ByteSize;
use firebox_server::{Config, Server, ServerError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::failure::{Context, Failure, Result, causes};
use crate::output;

/// What precedes the address in the line that says where the server listens.
pub const LISTENING: &str = "firebox listens on ";

/// `firebox serve`
#[derive(Args, Debug)]
#[command(after_help = "\
One line on standard output says where the server listens; the log goes to standard error. SIGTERM
and SIGINT stop it: requests in flight are finished first. There is no authentication yet, so keep
it on loopback or behind a proxy.

Examples:
  firebox serve --data /var/lib/firebox
  firebox serve --listen 127.0.0.1:0 --max-body 16MiB
  firebox serve --log firebox=debug --log-format json")]
pub struct ServeArgs {
    /// The folder that holds everything the server keeps; made where it is missing
    #[arg(long, value_name = "DIR", default_value = "firebox-data")]
    data: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The most bytes of a request's body
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    max_body: ByteSize,
    /// The most bytes of an uploaded bundle
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    max_upload: ByteSize,
    /// The most instances that run at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    instances: usize,
    /// Threads that run models; as many as there are cores, if left out
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// The most memory for models' weights, such as 4GiB; idle versions are dropped to make room.
    /// Half of what the machine or the control group has, if left out
    #[arg(long, value_name = "SIZE")]
    model_memory: Option<ByteSize>,
    /// The most compiled code that is mapped; an eighth, if left out
    #[arg(long, value_name = "SIZE")]
    code_memory: Option<ByteSize>,
    /// How long requests in flight may go on after the server was told to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    grace: Duration,
    /// What is logged: error, warn, info, debug or trace, also for each part (`firebox=debug,info`)
    #[arg(
        long,
        value_name = "FILTER",
        env = "FIREBOX_LOG",
        default_value = "info"
    )]
    log: String,
    /// How the log is written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a whole number from 1".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; expected something like 30s"))
}

/// `firebox serve`
pub fn serve(args: ServeArgs) -> Result {
    start_log(&args.log, args.log_format)?;
    let config = config(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context(|| "no event loop can be had".into())?;
    runtime.block_on(async {
        // Heard from here on, so that a stop during the start is an orderly one too.
        let stop = told_to_stop()?;
        let server = Server::bind(config)
            .await
            .map_err(|error| explained(&error))?;
        output::print(&format!("{LISTENING}http://{}", server.local_addr()))?;
        server.run(stop).await.map_err(|error| explained(&error))
    })
}

fn config(args: &ServeArgs) -> Result<Config> {
    let mut config = Config::new(&args.data);
    config.listen = args.listen;
    config.max_body = usize::try_from(args.max_body.0)
        .map_err(|_| Failure::usage(format!("--max-body {} is more than memory", args.max_body)))?;
    config.max_upload = args.max_upload.0;
    config.max_instances = args.instances;
    config.compute_threads = args.threads.unwrap_or(config.compute_threads);
    config.model_memory = args.model_memory.map_or(config.model_memory, |size| size.0);
    config.code_memory = args.code_memory.map_or(config.code_memory, |size| size.0);
    config.grace = args.grace;
    Ok(config)
}

fn start_log(filter: &str, format: LogFormat) -> Result {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("--log {filter}: {error}"))
            .hint("try --log debug, or --log warn,firebox_server=debug")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Done at the first SIGTERM or SIGINT.
fn told_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let listen = |kind| signal(kind).context(|| "signals can't be listened for".into());
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop; requests in flight are finished first");
    })
}

fn explained(error: &ServerError) -> Failure {
    let failure = Failure::new(causes(error));
    match error {
        ServerError::Registry(error) => match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        },
        ServerError::Listen { .. } => {
            failure.hint("--listen takes another address; port 0 takes a free port")
        }
        ServerError::Sandbox(_) | ServerError::Io(_) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_checked_at_the_border() {
        assert_eq!(at_least_one("3"), Ok(3));
        assert!(at_least_one("0").is_err() && at_least_one("-1").is_err());
        assert_eq!(time("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(time("soon").unwrap_err().contains("30s"));
    }

    #[test]
    fn a_log_filter_that_is_none_is_a_wrong_command_line() {
        let failure = start_log("firebox=loud", LogFormat::Text).unwrap_err();
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
    }
}
