//! What no single value of a manifest can tell.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::{Manifest, ManifestError, is_plain_path, value};
use crate::ByteSize;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Manifest {
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        match (&self.function, self.models.len()) {
            (None, 0) => return Err(ManifestError::Empty),
            (None, count) if count > 1 => return Err(ManifestError::ManyModels { count }),
            _ => {}
        }
        if let Some(function) = &self.function {
            function.check_command()?;
        }
        let build = self
            .function
            .as_ref()
            .and_then(|function| function.build.as_ref());
        if build.is_some_and(|command| command.trim().is_empty()) {
            let problem = "is empty: write the command that makes the component, or leave it out";
            return Err(value("function.build", problem));
        }
        for (name, model) in &self.models {
            check_model_name(name)?;
            if let Some(batching) = &model.batching {
                batching.check(name)?;
            }
        }
        let guest_paths: BTreeSet<&str> = self.assets.keys().map(String::as_str).collect();
        for path in &guest_paths {
            let key = || format!("assets.\"{path}\"");
            if !is_plain_path(path) {
                let problem = "isn't a path below the function's root: write it relative, with /, \
                               without . and ..";
                return Err(value(key(), problem));
            }
            let mut parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
            if let Some(parent) = parents.find(|parent| guest_paths.contains(parent)) {
                let problem = format!("lies in `{parent}`, which is a file itself");
                return Err(value(key(), problem));
            }
        }
        let memory = self.limits.memory;
        if !(ByteSize(1 << 20)..=ByteSize(4 << 30)).contains(&memory) {
            let problem = format!("is {memory}: it must be from 1MiB to 4GiB");
            return Err(value("limits.memory", problem));
        }
        if self.limits.tensors > ByteSize(4 << 30) {
            let problem = format!("is {}: it must be at most 4GiB", self.limits.tensors);
            return Err(value("limits.tensors", problem));
        }
        if let Some(cache) = &self.cache
            && !(ByteSize(1 << 10)..=ByteSize(64 << 30)).contains(&cache.max_bytes)
        {
            let problem = format!("is {}: it must be from 1KiB to 64GiB", cache.max_bytes);
            return Err(value("cache.max_bytes", problem));
        }
        let ttl = self.cache.clone().unwrap_or_default().ttl;
        let times = [
            ("cache.ttl", ttl, Duration::from_millis(1), DAY * 365),
            (
                "limits.deadline",
                self.limits.deadline,
                Duration::from_millis(1),
                DAY,
            ),
            (
                "limits.cpu",
                self.limits.cpu.unwrap_or(DAY),
                Duration::from_millis(1),
                DAY,
            ),
            (
                "limits.stream",
                self.limits.stream(),
                Duration::from_millis(1),
                DAY,
            ),
            (
                "scaling.keep_alive",
                self.scaling.keep_alive,
                Duration::ZERO,
                DAY * 365,
            ),
        ];
        for (key, time, least, most) in times {
            if !(least..=most).contains(&time) {
                let show = humantime::format_duration;
                let (time, least, most) = (show(time), show(least), show(most));
                return Err(value(
                    key,
                    format!("is {time}: it must be from {least} to {most}"),
                ));
            }
        }
        self.network
            .hosts
            .iter()
            .try_for_each(|host| check_host(host))
    }
}

fn check_model_name(name: &str) -> Result<(), ManifestError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let problem = "isn't a model's name: it takes 1 to 64 of the characters a-z, A-Z, 0-9, -, _ \
                   and .";
    Err(value(format!("models.\"{name}\""), problem))
}

fn check_host(host: &str) -> Result<(), ManifestError> {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if !name.is_empty() && name.bytes().all(allowed) && port.parse::<u16>().is_ok() {
        return Ok(());
    }
    let problem = format!("has {host:?}: write a host as \"example.com\" or \"example.com:8080\"");
    Err(value("network.hosts", problem))
}
