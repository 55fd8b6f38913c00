//! What `[function]` says of a command: how it is started, and what it answers with.

use super::{FunctionSection, ManifestError, value};

/// Bytes of all arguments, and of the environment: each run copies them into the program.
const MOST_BYTES: usize = 64 << 10;

/// What is answered where the manifest doesn't say.
const ANY_BYTES: &str = "application/octet-stream";

impl FunctionSection {
    /// The media type of a command's answer.
    pub fn answer_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or(ANY_BYTES)
    }

    /// The keys that only a command has a use for, as far as they are set.
    pub fn command_keys(&self) -> Vec<&'static str> {
        let set = [
            ("function.args", !self.args.is_empty()),
            ("function.env", !self.env.is_empty()),
            ("function.content_type", self.content_type.is_some()),
        ];
        let set = set.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(key, _)| key).collect()
    }

    pub(super) fn check_command(&self) -> Result<(), ManifestError> {
        let total = |key, bytes: usize| match bytes > MOST_BYTES {
            false => Ok(()),
            true => {
                let problem = format!("has {bytes} bytes: it can have {MOST_BYTES}");
                Err(value(key, problem))
            }
        };
        if let Some(argument) = self.args.iter().find(|argument| argument.contains('\0')) {
            let problem = format!("has {argument:?}: an argument can't have a zero byte");
            return Err(value("function.args", problem));
        }
        total("function.args", self.args.iter().map(String::len).sum())?;
        for (name, content) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || content.contains('\0') {
                let problem = "can't be set: a variable's name has no `=`, neither has a zero byte, \
                               and the name isn't empty";
                return Err(value(format!("function.env.{name:?}"), problem));
            }
        }
        let env = self.env.iter();
        total("function.env", env.map(|(n, c)| n.len() + c.len()).sum())?;
        match &self.content_type {
            Some(kind) if !is_media_type(kind) => {
                let problem = format!("is {kind:?}: write a media type, like \"application/json\"");
                Err(value("function.content_type", problem))
            }
            _ => Ok(()),
        }
    }
}

/// Whether it looks like a media type and can stand in a header.
fn is_media_type(text: &str) -> bool {
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let essence = text.split(';').next().unwrap_or_default().trim();
    let token = |part: &str| !part.is_empty() && !part.contains([' ', '/']);
    let parts = essence.split_once('/');
    printable && text.len() <= 255 && parts.is_some_and(|(kind, sub)| token(kind) && token(sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Manifest};

    #[test]
    fn a_commands_keys_survive_toml() {
        let text = "name = 'a'\n[function]\nargs = ['--top', '5']\nload_models = 'auto'\n\
                    content_type = 'text/plain; charset=utf-8'\nenv = { LANG = 'C' }";
        let manifest = Manifest::parse(text).unwrap();
        let function = manifest.function.clone().unwrap();
        assert_eq!(function.args, ["--top", "5"]);
        assert_eq!(function.load_models, Some(Device::Auto));
        assert_eq!(function.answer_type(), "text/plain; charset=utf-8");
        let keys = ["function.args", "function.env", "function.content_type"];
        assert_eq!(function.command_keys(), keys);
        let again = Manifest::parse(&manifest.to_toml().unwrap()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn what_no_program_can_be_started_with_is_refused() {
        let long = format!("args = ['{}']", "x".repeat(MOST_BYTES + 1));
        for (line, meant) in [
            ("args = [\"a\\u0000\"]", "zero byte"),
            (&*long, "it can have 65536"),
            (
                "env = { 'A=B' = 'c' }",
                "function.env.\"A=B\"` can't be set",
            ),
            ("env = { A = \"\\u0000\" }", "zero byte"),
            ("content_type = 'text'", "write a media type"),
            ("content_type = \"text/plain\\n\"", "write a media type"),
            ("load_models = 'tpu'", "auto"),
            ("arg = ['a']", "did you mean `function.args`"),
        ] {
            let text = format!("name = 'a'\n[function]\n{line}");
            let said = Manifest::parse(&text).unwrap_err().to_string();
            assert!(said.contains(meant), "{line}: {said}");
        }
    }
}
