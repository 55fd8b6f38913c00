//! `serve`: the server, in this process, until it is told to stop.

mod settings;

use std::path::PathBuf;

use clap::Args;
use firebox_server::config::{ConfigError, LogFormat, Sources};
use firebox_server::{Server, ServerError};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::failure::{Context, Exit, Failure, Result, causes};
use crate::output::{self, Format};
use settings::Flags;

/// What precedes the address in the line that says where the server listens.
pub const LISTENING: &str = "firebox listens on ";

/// Where everything is kept, if nobody says otherwise.
const DATA: &str = "firebox-data";

/// `firebox serve`
#[derive(Args, Debug)]
#[command(after_help = "\
One line on standard output says where the server listens, and a second one where it listens for
gRPC alone, with --grpc-listen; gRPC is answered at the first address either way. The log goes to standard error. SIGTERM
and SIGINT stop it: requests in flight are finished first. There is no authentication yet, so keep
it on loopback or behind a proxy.

Settings come from --config, over it from the environment (FIREBOX_ and the flag's name), over that
from flags. docs/configuration.md tells them all.

Examples:
  firebox serve --data /var/lib/firebox
  firebox serve --listen 127.0.0.1:0 --max-body 16MiB
  firebox serve --grpc-listen 127.0.0.1:8081
  firebox serve --config firebox-host.toml --print-config
  firebox serve --log firebox=debug --log-format json")]
pub struct ServeArgs {
    /// A file of settings, firebox-host.toml for one
    #[arg(long, value_name = "FILE", env = "FIREBOX_CONFIG")]
    config: Option<PathBuf>,
    /// Print every setting with where its value is from, and end
    #[arg(long)]
    print_config: bool,
    /// With --print-config: print JSON
    #[arg(long, requires = "print_config")]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// `firebox serve`
pub fn serve(args: ServeArgs) -> Result {
    let sources = sources(&args).map_err(|error| {
        let told = Failure::new(causes(&error)).with_exit(Exit::Usage);
        match error {
            ConfigError::File { .. } => told.hint("--config takes the path of a file that exists"),
            _ => told.hint("docs/configuration.md lists all settings; --print-config shows them"),
        }
    })?;
    if args.print_config {
        return output::print(&settings::shown(&sources, Format { json: args.json }));
    }
    let config = sources.config;
    start_log(&config.log, config.log_format)?;
    raise_file_limit(config.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context(|| "no event loop can be had".into())?;
    runtime.block_on(async {
        // Heard from here on, so that a stop during the start is an orderly one too.
        let stop = told_to_stop()?;
        bear_file_limits()?;
        let server = Server::bind(config)
            .await
            .map_err(|error| explained(&error))?;
        output::print(&format!("{LISTENING}http://{}", server.local_addr()))?;
        if let Some(address) = server.grpc_addr() {
            output::print(&format!("firebox listens for gRPC on http://{address}"))?;
        }
        server.run(stop).await.map_err(|error| explained(&error))
    })
}

fn sources(args: &ServeArgs) -> Result<Sources, ConfigError> {
    let mut sources = Sources::new(DATA);
    if let Some(file) = &args.config {
        sources.file(file)?;
    }
    sources.environment(|name| std::env::var_os(name))?;
    sources.flags(args.flags.given())?;
    Ok(sources)
}

/// Lets the process open as many files as the system allows it: each connection is one.
fn raise_file_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Code, models, records and the loop itself are files too.
    const OTHERS: u64 = 512;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files can't be raised");
        }
    }
    let allowed = getrlimit(Resource::Nofile).current;
    make_table_of_files(allowed);
    let wanted = connections as u64 + OTHERS;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files can be open than connections may need; raise the limit (ulimit -n) or \
             lower --max-connections"
        );
    }
}

/// Has the system make its table of this process's files as large as it may get. It doubles it when
/// it is full, which in a process with threads takes it some 15 ms each time, and a caller waits.
fn make_table_of_files(allowed: Option<u64>) {
    const LARGE: u64 = 16 << 10;
    let last = allowed.unwrap_or(LARGE).min(LARGE).saturating_sub(1);
    let last = i32::try_from(last).unwrap_or_default();
    // It is closed at once; the table stays.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last) {
        tracing::debug!(%error, "the table of files grows as it is needed");
    }
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

/// A write beyond the limit of a file's size (`ulimit -f`) is an error like that of a full disk. By
/// default it would end the process.
fn bear_file_limits() -> Result {
    let kind = SignalKind::from_raw(Signal::XFSZ.as_raw());
    // Once listened for, it stays so.
    signal(kind)
        .map(drop)
        .context(|| "signals can't be listened for".into())
}

fn explained(error: &ServerError) -> Failure {
    let failure = Failure::new(causes(error));
    match error {
        ServerError::Registry(error) => match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        },
        ServerError::Listen { .. } => failure
            .hint("--listen and --grpc-listen take other addresses; port 0 takes a free port"),
        ServerError::Sandbox(_) | ServerError::Io(_) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_that_is_none_is_a_wrong_command_line() {
        let failure = start_log("firebox=loud", LogFormat::Text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }
}
