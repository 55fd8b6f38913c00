//! `new`: a project that builds at once and stands alone, with all that it needs of Firebox inside:
//! the SDK for Rust, the interface in WIT for other languages.

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
The project is made in a folder of the function's name. It holds what it needs of Firebox: the SDK's
sources for Rust, the interface for other languages. The README in it says what else to install.

Examples:
  firebox new greeter
  firebox new colours --template model
  firebox new cleaner --template python")]
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
    /// Rust: a text in, JSON out; no model
    #[default]
    #[value(alias = "text")]
    Rust,
    /// Rust: typed tensors in and out; no model
    Tensor,
    /// Rust: a model with code before and after it
    Model,
    /// Rust: a `wasi:http` component that answers HTTP requests by itself
    Http,
    /// Python, by componentize-py: a text in, JSON out
    Python,
    /// JavaScript, by ComponentizeJS: a text in, JSON out
    #[value(alias = "javascript")]
    Js,
    /// C, by any compiler for WASI: standard input in, standard output out
    C,
}

/// What of Firebox a project holds.
enum Vendored {
    Sdk,
    Wit,
    Nothing,
}

impl Template {
    fn folder(self) -> &'static str {
        match self {
            Template::Rust => "rust/",
            Template::Tensor => "tensor/",
            Template::Model => "model/",
            Template::Http => "http/",
            Template::Python => "python/",
            Template::Js => "js/",
            Template::C => "c/",
        }
    }

    fn vendored(self) -> Vendored {
        match self {
            Template::Rust | Template::Tensor | Template::Model => Vendored::Sdk,
            Template::Python | Template::Js => Vendored::Wit,
            Template::Http | Template::C => Vendored::Nothing,
        }
    }

    /// Where the function is.
    fn source(self) -> &'static str {
        match self {
            Template::Rust | Template::Tensor | Template::Model | Template::Http => "src/lib.rs",
            Template::Python => "app.py",
            Template::Js => "function.js",
            Template::C => "main.c",
        }
    }

    fn is_rust(self) -> bool {
        self.source() == "src/lib.rs"
    }

    /// What is to be installed before the first build, into the project.
    fn setup(self, name: &str) -> Vec<String> {
        match self {
            Template::Python | Template::C => vec![
                format!("python3 -m venv {name}/.venv"),
                format!("{name}/.venv/bin/pip install -r {name}/requirements.txt"),
            ],
            _ => Vec::new(),
        }
    }
}

/// `firebox new`
pub fn new(args: &NewArgs) -> Result {
    let (name, template) = (args.name.as_str(), args.template);
    create(Path::new(name), &args.name, template)?;
    let mut commands = template.setup(name);
    commands.push(format!("firebox deploy {name}"));
    output::print(&format!(
        "{name}/ is made. Next:\n\n  {}\n\nThe last builds it and uploads it to a running server \
         (`firebox serve`). The function is in {name}/{}, its settings in {name}/firebox.toml.",
        commands.join("\n  "),
        template.source()
    ))
}

/// Writes a project into a folder that does not exist yet.
pub fn create(folder: &Path, name: &FunctionName, template: Template) -> Result {
    if template.is_rust() && TAKEN.split_whitespace().any(|taken| taken == name.as_str()) {
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
    let vendored = SDK.iter().filter_map(move |(path, bytes)| {
        let path = match template.vendored() {
            Vendored::Sdk => Path::new(VENDORED).join(path),
            Vendored::Wit => path.starts_with("wit/").then(|| PathBuf::from(path))?,
            Vendored::Nothing => return None,
        };
        Some((path, bytes.to_vec()))
    });
    own.chain(vendored)
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
        for template in [Template::Rust, Template::Tensor, Template::Model] {
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
    fn every_template_is_whole_and_named_after_the_function() {
        for template in Template::value_variants() {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("greeter");
            create(&folder, &"greeter".parse().unwrap(), *template).unwrap();
            let manifest = read(&folder.join("firebox.toml"));
            let manifest = firebox_registry::Manifest::parse(&manifest).unwrap();
            assert_eq!(manifest.name.as_str(), "greeter");
            assert!(manifest.description.ends_with('.'));
            for file in [template.source(), "README.md", ".gitignore"] {
                assert!(folder.join(file).is_file(), "{template:?} has no {file}");
            }
            let readme = read(&folder.join("README.md"));
            for command in template.setup("greeter") {
                let here = command.replace("greeter/", "");
                assert!(readme.contains(&here), "{here} is not in:\n{readme}");
            }
            let has_wit = folder.join("wit/function.wit").is_file();
            assert_eq!(has_wit, matches!(template.vendored(), Vendored::Wit));
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
        let failure = create(parent.path(), &"mine".parse().unwrap(), Template::Rust).unwrap_err();
        assert!(failure.what.contains("there already"), "{}", failure.what);
        assert_eq!(read(&parent.path().join("mine")), "kept");
    }

    #[test]
    fn a_word_of_rusts_own_is_no_name() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("match");
        assert!(create(&folder, &"match".parse().unwrap(), Template::Rust).is_err());
        assert!(!folder.exists());
        create(&folder, &"match".parse().unwrap(), Template::Python).unwrap();
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }
}
