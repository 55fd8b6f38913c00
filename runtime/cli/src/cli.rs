//! The command line as a whole, and which function carries out which command.

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::failure::{Context, EXIT_CODES, Exit, Failure, Result};
use crate::{
    bench, build, cost, demo, deploy, download, functions, invoke, jobs, labels, project, pull,
    push, residency, rollback, rollout, serve, shadow, traffic, versions,
};

/// Serves machine-learning functions in WebAssembly, and talks to a server that does.
#[derive(Debug, Parser)]
#[command(name = "firebox", version, after_help = AFTER_HELP.as_str())]
pub struct Cli {
    /// The server that a client command talks to
    #[arg(
        long,
        global = true,
        env = "FIREBOX_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// Whom uploads and changes of traffic are kept under; user@host where it is not given
    #[arg(
        long,
        global = true,
        env = "FIREBOX_AUTHOR",
        value_name = "NAME",
        hide_env_values = true
    )]
    author: Option<String>,
    #[command(subcommand)]
    command: Command,
}

static AFTER_HELP: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    format!(
        "Examples:\n  firebox serve --data firebox-data\n  firebox new greeter\n  firebox deploy \
         greeter\n  firebox invoke greeter 'some text'\n\n{EXIT_CODES}"
    )
});

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server
    Serve(serve::ServeArgs),
    /// Make a project for a new function
    New(project::NewArgs),
    /// Compile a project and pack its bundle
    Build(build::BuildArgs),
    /// Bring a bundle to an OCI registry
    Push(push::PushArgs),
    /// Get a bundle from an OCI registry
    Pull(pull::PullArgs),
    /// Time a model, by itself or against another engine
    Bench(bench::BenchArgs),
    #[command(flatten)]
    Ask(Ask),
    /// See it all at work: a server, a real model, two versions, down to zero and back
    Demo(demo::DemoArgs),
}

/// The commands that talk to a server.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Upload a function to a server
    Deploy(deploy::DeployArgs),
    /// Call a function
    Invoke(invoke::InvokeArgs),
    /// Submit many inputs at once, and get their results
    Jobs(jobs::JobsArgs),
    /// List the functions of a server
    Functions(functions::FunctionsArgs),
    /// List the versions of a function
    Versions(versions::VersionsArgs),
    /// Show what is in memory, and why
    Residency(residency::ResidencyArgs),
    /// Show or set which versions answer
    Traffic(traffic::TrafficArgs),
    /// Show or move the labels of versions
    Label(labels::LabelArgs),
    /// Bring an earlier traffic policy back
    Rollback(rollback::RollbackArgs),
    /// Download the bundle of a version
    Download(download::DownloadArgs),
    /// Move traffic to a version step by step, under guards
    Rollout(rollout::RolloutArgs),
    /// Show how a version that gets copies of requests compares
    Shadow(shadow::ShadowArgs),
    /// Show what versions have used, and what that costs
    Cost(cost::CostArgs),
    /// Delete a version, or a function with all of them
    Delete(functions::DeleteArgs),
    /// List what models can run on
    Devices(functions::DevicesArgs),
}

/// Carries out a command line.
pub fn run(cli: Cli) -> Result {
    match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::New(args) => project::new(&args),
        Command::Build(args) => build::run(&args),
        Command::Push(args) => wait_for(push::push(args)),
        Command::Pull(args) => wait_for(pull::pull(args)),
        Command::Bench(args) => bench::run(&args),
        Command::Ask(command) => wait_for(ask(command, &Client::new(&cli.server)?.by(cli.author))),
        Command::Demo(args) => wait_for(demo::demo(args)),
    }
}

async fn ask(command: Ask, client: &Client) -> Result {
    match command {
        Ask::Deploy(args) => deploy::deploy(args, client).await,
        Ask::Invoke(args) => invoke::invoke(args, client).await,
        Ask::Jobs(args) => jobs::jobs(args, client).await,
        Ask::Functions(args) => functions::functions(args, client).await,
        Ask::Versions(args) => versions::versions(args, client).await,
        Ask::Residency(args) => residency::residency(args, client).await,
        Ask::Traffic(args) => traffic::traffic(args, client).await,
        Ask::Label(args) => labels::label(args, client).await,
        Ask::Rollback(args) => rollback::rollback(args, client).await,
        Ask::Download(args) => download::download(args, client).await,
        Ask::Rollout(args) => rollout::rollout(args, client).await,
        Ask::Shadow(args) => shadow::shadow(args, client).await,
        Ask::Cost(args) => cost::cost(args, client).await,
        Ask::Delete(args) => functions::delete(args, client).await,
        Ask::Devices(args) => functions::devices(args, client).await,
    }
}

/// A client needs one thread. When a signal ends the work it is dropped, and takes its temporary files
/// along.
fn wait_for(work: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "no event loop can be had".into())?;
    let done = runtime.block_on(async {
        // The work first: what blocks before it waits for anything, such as a compiler or a read of
        // standard input, is ended by signals as ever.
        tokio::select! {
            biased;
            done = work => done,
            failure = interrupted() => Err(failure),
        }
    });
    // A read of standard input may be under way, and would be waited for.
    runtime.shutdown_background();
    done
}

/// What a command comes to when a signal ends it.
async fn interrupted() -> Failure {
    let sent = async |kind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = sent(SignalKind::interrupt()) => Failure::new("interrupted").with_exit(Exit::Interrupted),
        () = sent(SignalKind::terminate()) => Failure::new("terminated").with_exit(Exit::Terminated),
    }
}
