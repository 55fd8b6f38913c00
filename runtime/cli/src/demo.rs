//! `demo`: the whole way of a function, on a real model and real files, checked at every step.
//!
//! A server runs as a child process on a free port with a fresh data folder. Everything else goes
//! through the same code as the commands of the same names, over HTTP.

mod child;
mod steps;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::client::Client;
use crate::failure::{Context, Failure, Result};

/// `firebox demo`
#[derive(Args, Debug)]
#[command(after_help = "\
Needs a checkout of Firebox (its examples and scripts), Rust, and python3 with pip. Nothing is left
behind but the model, in target/models.

Examples:
  cargo run --release -- demo")]
pub struct DemoArgs {
    /// The checkout; found by itself where this runs in one or was built in one
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
}

/// `firebox demo`
pub async fn demo(args: DemoArgs) -> Result {
    let checkout = match args.checkout {
        Some(checkout) if is_checkout(&checkout) => checkout,
        Some(checkout) => return Err(no_checkout(&format!("{} is none", checkout.display()))),
        None => find_checkout().ok_or_else(|| no_checkout("none was found"))?,
    };
    run(&checkout).await
}

/// Dropping this future midway kills the server and removes its data.
async fn run(checkout: &Path) -> Result {
    let folder = tempfile::Builder::new().prefix("firebox-demo-").tempdir();
    let folder = folder.context(|| "no temporary folder can be made".into())?;
    println!("One function, two versions, real files.");
    let server = steps::start(folder.path()).await?;
    let client = Client::new(server.url())?;
    let tried = try_all(checkout, folder.path(), &client).await;
    match tried {
        Ok(()) => steps::stop(server).await,
        Err(failure) => {
            server.stop().await.ok();
            Err(failure)
        }
    }
}

async fn try_all(checkout: &Path, folder: &Path, client: &Client) -> Result {
    steps::fetch_model(checkout).await?;
    let project = checkout.join("examples/file-type");
    let component = steps::build(&project).await?;
    let first = steps::deploy_first(client, &project, &component, folder).await?;
    let samples = project.join("samples");
    steps::invoke_all(client, &samples).await?;
    steps::deploy_second(client, &project, &component, folder, &first).await?;
    steps::split(client, &samples).await?;
    steps::scale_to_zero(client, &samples).await
}

fn find_checkout() -> Option<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = here.ancestors().chain(built_in.ancestors());
    candidates
        .map(Path::to_path_buf)
        .find(|folder| is_checkout(folder))
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("scripts/models.py").is_file()
        && folder.join("examples/file-type/firebox.toml").is_file()
}

fn no_checkout(why: &str) -> Failure {
    Failure::new(format!("the demo needs a checkout of Firebox, and {why}"))
        .hint("run `cargo run --release -- demo` in one, or name it with --checkout")
}
