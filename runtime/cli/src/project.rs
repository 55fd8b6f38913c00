//! `new`: a project that builds at once and stands alone, with the SDK inside.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use firebox_registry::FunctionName;

use crate::embedded::{SDK, TEMPLATES};
use crate::failure::{Context, Failure, Result};
use crate::output;

/// Where a project keeps the SDK.
const VENDORED: &str = "vendor/firebox-sdk";
/// What a template has in place of the project's name.
const PLACEHOLDER: &str = "{{name}}";
/// Names that Rust has taken: keywords and its own crates.
const TAKEN: &str = "abstract alloc as async await become box break const continue core crate do \
    dyn else enum extern false final fn for gen if impl in let loop macro match mod move mut \
    override priv pub ref return self static std struct super test trait true try type typeof \
    unsafe unsized use virtual where while yield";

/// `firebox new`
#[derive(Args, Debug)]
#[command(after_help = "\
The project is made in a folder of the function's name. It holds the SDK's sources too, so it
needs nothing else of Firebox to compile.

Examples:
  firebox new greeter
  firebox new colours --template model")]
pub struct NewArgs {
    /// The function's name: 1 to 63 of a-z, 0-9 and -, starting with a letter
    name: FunctionName,
    /// What to start from
    #[arg(long, short, value_enum, default_value_t)]
    template: Template,
}

/// What a project starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A text in, JSON out; no model
    #[default]
    Text,
    /// Typed tensors in and out; no model
    Tensor,
    /// A model with code before and after it
    Model,
}

impl Template {
    fn folder(self) -> &'static str {
        match self {
            Template::Text => "text/",
            Template::Tensor => "tensor/",
            Template::Model => "model/",
        }
    }
}

/// `firebox new`
pub fn new(args: &NewArgs) -> Result {
    let name = args.name.as_str();
    create(Path::new(name), &args.name, args.template)?;
    output::print(&format!(
        "{name}/ is made. Next:\n\n  firebox deploy {name}     builds and uploads it to a running \
         server (`firebox serve`)\n\nThe function is in {name}/src/lib.rs, its settings in \
         {name}/firebox.toml."
    ))
}

/// Writes a project into a folder that does not exist yet.
pub fn create(folder: &Path, name: &FunctionName, template: Template) -> Result {
    if TAKEN.split_whitespace().any(|taken| taken == name.as_str()) {
        return Err(
            Failure::usage(format!("'{name}' is a word of Rust's own")).hint(
                "choose another name; `firebox deploy --name` can still publish it as this one",
            ),
        );
    }
    fs::create_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{} is there already", folder.display()))
                .hint("nothing is written over: choose another name, or move it away")
        }
        _ => Failure::new(format!("{} can't be made: {error}", folder.display())),
    })?;
    let written = files(name, template).try_for_each(|(path, bytes)| {
        let path = folder.join(path);
        write(&path, &bytes).context(|| format!("{} can't be written", path.display()))
    });
    if written.is_err() {
        // The folder is ours alone; what remains of it would stand in the way of the next try.
        drop(fs::remove_dir_all(folder));
    }
    written
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

/// All files of a new project, by their paths in it.
fn files(name: &FunctionName, template: Template) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let own = TEMPLATES.iter().filter_map(move |(path, bytes)| {
        let path = path.strip_prefix(template.folder())?;
        Some((PathBuf::from(path), named(bytes, name)))
    });
    let sdk = SDK
        .iter()
        .map(|(path, bytes)| (Path::new(VENDORED).join(path), bytes.to_vec()));
    own.chain(sdk)
}

/// A template's file with the name in place; what is no text is left as it is.
fn named(bytes: &[u8], name: &FunctionName) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.replace(PLACEHOLDER, name.as_str()).into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_makes_a_project_that_stands_alone() {
        for template in [Template::Text, Template::Tensor, Template::Model] {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("greeter");
            create(&folder, &"greeter".parse().unwrap(), template).unwrap();
            let manifest: toml::Table = read(&folder.join("Cargo.toml")).parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("greeter"));
            assert_eq!(
                manifest["dependencies"]["firebox-sdk"]["path"].as_str(),
                Some(VENDORED)
            );
            assert!(
                manifest.contains_key("workspace"),
                "no workspace around it may claim it"
            );
            assert!(read(&folder.join("firebox.toml")).contains("\"greeter\""));
            assert!(folder.join("src/lib.rs").is_file());
            for file in [
                "Cargo.toml",
                "src/lib.rs",
                "macros/Cargo.toml",
                "wit/function.wit",
            ] {
                assert!(folder.join(VENDORED).join(file).is_file(), "{file}");
            }
        }
    }

    #[test]
    fn the_vendored_sdk_inherits_nothing_from_a_workspace() {
        for (path, bytes) in SDK.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
            let text = std::str::from_utf8(bytes).unwrap();
            assert!(!text.contains("workspace = true"), "{path}");
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("mine"), "kept").unwrap();
        let failure = create(parent.path(), &"mine".parse().unwrap(), Template::Text).unwrap_err();
        assert!(failure.what.contains("there already"), "{}", failure.what);
        assert_eq!(read(&parent.path().join("mine")), "kept");
    }

    #[test]
    fn a_word_of_rusts_own_is_no_name() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("match");
        assert!(create(&folder, &"match".parse().unwrap(), Template::Text).is_err());
        assert!(!folder.exists());
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }
}
