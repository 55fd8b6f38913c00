//! What kind of code a WebAssembly file holds, told from its exports alone.

use std::fmt;

use wasmparser::{Encoding, ExternalKind, Parser, Payload};

use crate::CompileError;

/// What a handler of HTTP requests exports, of any 0.2 release.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";

/// What the handler of WASI 0.3 exports.
const NEWER_HANDLER: &str = "wasi:http/handler@0.3.";

/// What a command exports: a core module, and a component of any 0.2 release.
const START: &str = "_start";
const RUN: &str = "wasi:cli/run@0.2.";

/// What kind of code a WebAssembly file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A component of the `firebox:function` world.
    Function,
    /// A component that exports `wasi:http/incoming-handler` of WASI 0.2.
    Http,
    /// A program: a core module of WASI 0.1 that exports `_start`, or a component that exports
    /// `wasi:cli/run` of WASI 0.2.
    Command,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function => "function",
            Self::Http => "http",
            Self::Command => "command",
        })
    }
}

impl Kind {
    /// Reads the outermost exports of a file; compiles nothing.
    ///
    /// # Errors
    /// [`CompileError::NotWasm`], [`CompileError::Invalid`], or what is missing to be of any kind.
    pub fn of(wasm: &[u8]) -> Result<Kind, CompileError> {
        if !wasm.starts_with(b"\0asm") {
            let found = match wasm.first_chunk::<4>() {
                Some(first) => format!("`{}`", first.escape_ascii()),
                None => format!("{} bytes", wasm.len()),
            };
            return Err(CompileError::NotWasm { found });
        }
        let (encoding, exports) = exports(wasm).map_err(|error| CompileError::Invalid {
            reason: error.to_string(),
        })?;
        match encoding {
            Encoding::Module if exports.iter().any(|name| name == START) => Ok(Kind::Command),
            Encoding::Module => Err(CompileError::CoreModule),
            Encoding::Component => of_component(&exports),
        }
    }
}

fn of_component(exports: &[String]) -> Result<Kind, CompileError> {
    let exported = |name: &str| exports.iter().any(|export| export == name);
    let starts = |start: &str| exports.iter().any(|export| export.starts_with(start));
    let missing = ["init", "describe", "infer"]
        .into_iter()
        .find(|name| !exported(name));
    match missing {
        None => Ok(Kind::Function),
        Some(_) if starts(HANDLER) => Ok(Kind::Http),
        Some(_) if starts(RUN) => Ok(Kind::Command),
        Some(_) if starts(NEWER_HANDLER) => Err(CompileError::NewerHandler),
        Some(name) => Err(CompileError::MissingExport {
            name,
            found: match exports {
                [] => "nothing".into(),
                exports => exports.join(", "),
            },
        }),
    }
}

/// The outermost encoding, and the names of what it exports: of functions only where it is a core
/// module.
fn exports(wasm: &[u8]) -> Result<(Encoding, Vec<String>), wasmparser::BinaryReaderError> {
    let mut outermost = Encoding::Component;
    let mut exports = Vec::new();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding, .. } if depth == 0 => outermost = encoding,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        exports.push(export.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((outermost, exports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Kind, CompileError> {
        Kind::of(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn exports_tell_the_kind() {
        assert_eq!(
            of(r#"(module (func (export "_start")))"#).unwrap(),
            Kind::Command
        );
        let handler = |name: &str| {
            of(&format!(
                "(component (instance $i) (export \"{name}\" (instance $i)))"
            ))
        };
        let kind = handler("wasi:http/incoming-handler@0.2.3").unwrap();
        assert_eq!(kind, Kind::Http);
        assert!(matches!(
            handler("wasi:http/handler@0.3.0").unwrap_err(),
            CompileError::NewerHandler
        ));
        assert_eq!(handler("wasi:cli/run@0.2.3").unwrap(), Kind::Command);
        assert!(matches!(
            handler("wasi:cli/run@0.3.0").unwrap_err(),
            CompileError::MissingExport { name: "init", .. }
        ));
    }

    #[test]
    fn a_module_that_does_not_start_is_no_command() {
        for text in [
            "(module)",
            r#"(module (global (export "_start") i32 (i32.const 0)))"#,
        ] {
            assert!(matches!(of(text).unwrap_err(), CompileError::CoreModule));
        }
    }
}
