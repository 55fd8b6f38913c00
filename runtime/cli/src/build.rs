//! `build`: a project folder to a bundle, the file that is uploaded.
//!
//! The component is made by the manifest's own command, where it has one; else by cargo, where the
//! project is a package; else it is there already.

use std::fs;
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use firebox_registry::{FunctionName, FunctionSection, Manifest, Packed, bundle};
use serde_json::json;

use crate::compile;
use crate::failure::{Context, Failure, Result};
use crate::output::{self, Format, bytes, facts};

/// `firebox build`
#[derive(Args, Debug)]
#[command(after_help = "\
A project is a folder with a firebox.toml. Where that names a command as function.build, it is run
by the shell in the project's folder, and makes function.wasm. Otherwise, with a Cargo.toml beside
it, the function is compiled to WebAssembly: a library to a component, a program to a command.
Without one, the bundle is what firebox.toml names. Rust's targets wasm32-wasip2 and wasm32-wasip1
are added by rustup where they are missing.

Examples:
  firebox build
  firebox build greeter --output greeter-1.firebox")]
pub struct BuildArgs {
    /// The project
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The bundle's file; NAME.firebox in the project, if left out
    #[arg(long, short, alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// A bundle file.
#[derive(Clone, Debug)]
pub struct Built {
    /// The function's name in its manifest.
    pub name: FunctionName,
    /// The file.
    pub path: PathBuf,
    /// Its digest, size and content.
    pub packed: Packed,
}

/// `firebox build`
pub fn run(args: &BuildArgs) -> Result {
    let Built { name, path, packed } = build(&args.path, args.output.as_deref())?;
    if args.format.json {
        let value = json!({
            "name": name, "bundle": path, "bytes": packed.bytes, "digest": packed.digest,
        });
        return output::print(&format!("{value:#}"));
    }
    let files: Vec<_> = packed
        .files
        .iter()
        .map(|(name, size)| (name.as_str(), bytes(*size)))
        .collect();
    let head = format!(
        "{}, {}, {}",
        path.display(),
        bytes(packed.bytes),
        packed.digest
    );
    output::print(&format!("{head}\n{}", facts(&files)))
}

/// Compiles and packs a project, into `NAME.firebox` in its folder unless told otherwise.
pub fn build(project: &Path, out: Option<&Path>) -> Result<Built> {
    let manifest = manifest(project)?;
    let out = match out {
        Some(out) => out.to_owned(),
        None => project.join(format!("{}.firebox", manifest.name)),
    };
    let command = manifest
        .function
        .as_ref()
        .and_then(|function| function.build.as_deref());
    let component = match command {
        Some(command) => {
            run_command(command, project)?;
            made(&manifest, project)?;
            None
        }
        None if needs_compiling(&manifest, project) => Some(compile::compile(project)?),
        None => None,
    };
    pack(&manifest, project, component.as_deref(), &out)
}

/// Runs the project's own command. What it has to say goes to standard error.
fn run_command(command: &str, project: &Path) -> Result {
    const NOT_FOUND: i32 = 127;
    eprintln!("{}: {command}", project.display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).current_dir(project);
    shell.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = shell.status();
    let status = status.context(|| "sh, which runs `function.build`, can't be run".into())?;
    if status.success() {
        return Ok(());
    }
    let what = format!("`function.build` of {} failed: {status}", project.display());
    Err(Failure::new(what).hint(match status.code() {
        Some(NOT_FOUND) => "the message above names the program that is missing: install it",
        _ => "its messages above say why",
    }))
}

/// Makes sure that there is a component where the manifest, or the convention, says.
fn made(manifest: &Manifest, project: &Path) -> Result {
    let named = manifest.function.as_ref();
    let named = named.and_then(|function| function.component.as_deref());
    let file = named.unwrap_or(FunctionSection::COMPONENT);
    match project.join(file).is_file() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "`function.build` of {} has made no {file}",
            project.display()
        ))
        .hint("let the command write this file, or name the one it writes: function.component")),
    }
}

fn needs_compiling(manifest: &Manifest, project: &Path) -> bool {
    let unnamed = manifest
        .function
        .as_ref()
        .is_some_and(|function| function.component.is_none());
    unnamed && project.join("Cargo.toml").is_file()
}

/// Reads a project's manifest, and makes sure that what it names is there: to learn after minutes
/// of compiling that a model is missing would be late.
pub fn manifest(project: &Path) -> Result<Manifest> {
    let path = project.join(Manifest::FILE);
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format!("{} has no {}", project.display(), Manifest::FILE))
                .hint("`firebox new NAME` makes a project; name its folder")
        }
        _ => Failure::new(format!("{} can't be read: {error}", path.display())),
    })?;
    let manifest = Manifest::parse(&text).map_err(|error| {
        Failure::new(format!("{}: {error}", project.display()))
            .hint("every key of firebox.toml is described in docs/manifest.md")
    })?;
    let files = named_files(&manifest);
    let missing = files
        .into_iter()
        .find(|(_, file)| !project.join(file).is_file());
    match missing {
        Some((key, file)) => Err(absent(project, &key, file)),
        None => Ok(manifest),
    }
}

/// All files that a manifest names, but for the component: that may be yet to be made.
fn named_files(manifest: &Manifest) -> Vec<(String, &str)> {
    let models = &manifest.models;
    let models = models
        .iter()
        .map(|(name, model)| (format!("models.{name}.path"), &*model.path));
    let assets = &manifest.assets;
    let assets = assets
        .iter()
        .map(|(guest, file)| (format!("assets.\"{guest}\""), &**file));
    let sample = manifest
        .sample
        .iter()
        .map(|sample| ("sample.body".to_owned(), &*sample.body));
    models.chain(assets).chain(sample).collect()
}

fn absent(project: &Path, key: &str, file: &str) -> Failure {
    let what = format!(
        "firebox.toml: `{key}` names {file}, which is not in {}",
        project.display()
    );
    let script = project.canonicalize().ok().and_then(|project| {
        let scripts = project
            .ancestors()
            .map(|folder| folder.join("scripts/models.py"));
        scripts.into_iter().find(|script| script.is_file())
    });
    match script {
        Some(script) if file.contains("target/models/") => {
            Failure::new(what).hint(format!("fetch it: python3 {}", script.display()))
        }
        _ => Failure::new(what).hint("put the file there, or correct the path in firebox.toml"),
    }
}

/// Packs a bundle of a project with this manifest. The file is whole or not there.
pub fn pack(
    manifest: &Manifest,
    project: &Path,
    component: Option<&Path>,
    out: &Path,
) -> Result<Built> {
    let unwritten = || format!("{} can't be written", out.display());
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(".bundle-")
        .permissions(fs::Permissions::from_mode(0o644));
    let file = builder.tempfile_in(folder).context(unwritten)?;
    let packed = bundle::pack(project, manifest, component, BufWriter::new(&file));
    let packed = packed.map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    file.persist(out).context(unwritten)?;
    Ok(Built {
        name: manifest.name.clone(),
        path: out.to_owned(),
        packed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(manifest: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("firebox.toml"), manifest).unwrap();
        for file in files {
            fs::write(folder.path().join(file), "content").unwrap();
        }
        folder
    }

    const MODEL: &str = "name = \"adder\"\n[models.model]\npath = \"adder.onnx\"\n";

    #[test]
    fn a_model_alone_is_packed_without_compiling() {
        let project = project(MODEL, &["adder.onnx", "Cargo.toml"]);
        let built = build(project.path(), None).unwrap();
        assert_eq!(built.path, project.path().join("adder.firebox"));
        let (digest, size) = firebox_registry::Digest::of_file(&built.path).unwrap();
        assert_eq!((digest, size), (built.packed.digest, built.packed.bytes));
        let files: Vec<_> = built
            .packed
            .files
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(files, ["firebox.toml", "models/adder.onnx"]);
    }

    #[test]
    fn a_file_that_is_missing_is_named_with_its_key() {
        let project = project(MODEL, &[]);
        let failure = build(project.path(), None).unwrap_err();
        assert!(
            failure
                .what
                .contains("`models.model.path` names adder.onnx"),
            "{}",
            failure.what
        );
        assert!(failure.hint.unwrap().contains("put the file there"));
    }

    #[test]
    fn a_model_that_a_script_fetches_is_told_with_the_script() {
        let manifest = MODEL.replace("adder.onnx", "target/models/adder.onnx");
        let project = project(&manifest, &[]);
        fs::create_dir(project.path().join("scripts")).unwrap();
        fs::write(project.path().join("scripts/models.py"), "").unwrap();
        let hint = build(project.path(), None).unwrap_err().hint.unwrap();
        assert!(hint.contains("scripts/models.py"), "{hint}");
    }

    #[test]
    fn a_command_makes_the_component_and_is_not_packed() {
        let manifest = "name = \"adder\"\n[function]\nbuild = \"cp made.bin function.wasm\"\n";
        let project = project(manifest, &["made.bin", "Cargo.toml"]);
        let built = build(project.path(), None).unwrap();
        let names: Vec<_> = built.packed.files.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["firebox.toml", "function.wasm"]);
    }

    #[test]
    fn a_command_that_fails_or_makes_nothing_is_told() {
        let says = |command: &str| {
            let manifest = format!("name = \"adder\"\n[function]\nbuild = \"{command}\"\n");
            let project = project(&manifest, &[]);
            build(project.path(), None).unwrap_err().to_string()
        };
        let failed = says("exit 3");
        assert!(
            failed.contains("function.build") && failed.contains('3'),
            "{failed}"
        );
        let missing = says("no-such-program");
        assert!(missing.contains("install it"), "{missing}");
        let nothing = says("true");
        assert!(nothing.contains("has made no function.wasm"), "{nothing}");
    }

    #[test]
    fn a_folder_without_a_manifest_is_no_project() {
        let folder = tempfile::tempdir().unwrap();
        let failure = build(folder.path(), None).unwrap_err();
        assert!(
            failure.what.contains("has no firebox.toml"),
            "{}",
            failure.what
        );
    }

    #[test]
    fn the_component_is_compiled_only_where_the_manifest_leaves_it_open() {
        let manifest = |text: &str| Manifest::parse(&format!("name = \"f\"\n{text}")).unwrap();
        let with_cargo = project(MODEL, &["Cargo.toml"]);
        assert!(needs_compiling(&manifest("[function]"), with_cargo.path()));
        let named = manifest("[function]\ncomponent = \"f.wasm\"");
        assert!(!needs_compiling(&named, with_cargo.path()));
        let without_cargo = project(MODEL, &[]);
        assert!(!needs_compiling(
            &manifest("[function]"),
            without_cargo.path()
        ));
    }
}
