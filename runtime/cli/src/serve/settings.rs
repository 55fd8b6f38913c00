//! The server's settings as flags of the command line, and as text.

use std::fmt::Write;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use firebox_server::config::{Config, SETTINGS, Sources};
use serde_json::json;

use super::DATA;
use crate::output::Format;

/// One flag for each setting.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Those that were given.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.0.iter().cloned()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        // Made for every command: what depends on the machine is told in words, and not measured.
        let defaults = Config::of(DATA, 1, 0);
        SETTINGS.iter().fold(command, |command, setting| {
            let (section, _) = setting.key.split_once('.').unwrap_or_default();
            let default = match setting.computed {
                Some(computed) => computed.to_owned(),
                None => setting.show(&defaults),
            };
            let help = format!(
                "{} [env: {}] [default: {default}]",
                setting.help,
                setting.variable()
            );
            let flag = Arg::new(setting.flag).long(setting.flag).help(help);
            command.arg(flag.value_name(setting.value_name()).help_heading(section))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(text) = matches.get_one::<String>(setting.flag) {
                self.0.push((setting.flag, text.clone()));
            }
        }
        Ok(())
    }
}

/// Every setting with where its value is from: a file that says the same, or JSON.
pub fn shown(sources: &Sources, format: Format) -> String {
    let settings = sources.settings().map(|(setting, origin)| {
        let value = setting.show(&sources.config);
        (setting, value, origin.to_string())
    });
    if format.json {
        let settings = settings.map(|(setting, value, origin)| {
            json!({"key": setting.key, "value": value, "origin": origin})
        });
        return format!("{:#}", json!({ "settings": settings.collect::<Vec<_>>() }));
    }
    let mut text = String::new();
    let mut last = "";
    for (setting, value, origin) in settings {
        let (section, key) = setting.key.split_once('.').unwrap_or_default();
        if section != last {
            let _ = writeln!(
                text,
                "{}[{section}]",
                if last.is_empty() { "" } else { "\n" }
            );
            last = section;
        }
        let value = match setting.is_number() {
            true => value,
            // JSON's escapes are among TOML's.
            false => json!(value).to_string(),
        };
        let _ = writeln!(text, "{:<40} # {origin}", format!("{key} = {value}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_back() {
        let mut sources = Sources::new("da\"ta");
        sources.flags([("instances", "7".to_owned())]).unwrap();
        let text = shown(&sources, Format::default());
        assert!(text.contains("max = 7") && text.contains("# flag --instances"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let mut again = Sources::new("other");
        again.file(file.path()).unwrap();
        assert_eq!(
            format!("{:?}", again.config),
            format!("{:?}", sources.config)
        );
    }

    #[test]
    fn each_setting_is_a_flag_and_an_unknown_flag_is_told_the_nearest() {
        let command = Flags::augment_args(Command::new("serve"));
        for setting in SETTINGS {
            let given = ["serve", &format!("--{}", setting.flag), "7"];
            let matches = command.clone().try_get_matches_from(given).unwrap();
            let flags = Flags::from_arg_matches(&matches).unwrap();
            assert_eq!(flags.0, [(setting.flag, "7".to_owned())]);
        }
        let wrong = command.try_get_matches_from(["serve", "--instnaces", "7"]);
        assert!(wrong.unwrap_err().to_string().contains("--instances"));
    }
}
