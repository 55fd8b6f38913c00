//! The table of all settings: what each is called in a file, as a variable and as a flag, what it
//! means, and how its value is read and shown.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use firebox_registry::ByteSize;

use super::{Config, LogFormat};

/// One value of [`Config`].
#[derive(Debug)]
pub struct Setting {
    /// Its place in a file: `section.key`.
    pub key: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// What it means, as one sentence without its full stop.
    pub help: &'static str,
    /// What its default is, where that depends on the machine.
    pub computed: Option<&'static str>,
    field: Field,
}

type Of<T> = fn(&mut Config) -> &mut T;

/// Where the value lies, of which kind it is, and the least that it can be.
#[derive(Debug)]
enum Field {
    Path(Of<PathBuf>),
    Address(Of<SocketAddr>),
    FurtherAddress(Of<Option<SocketAddr>>),
    Count(Of<usize>, usize),
    Percent(Of<u8>),
    Bytes(Of<usize>, RangeInclusive<usize>),
    Size(Of<u64>, u64),
    Time(Of<Duration>, Duration),
    Text(Of<String>),
    Price(Of<f64>),
    LogFormat(Of<LogFormat>),
}

use Field::{Address, Bytes, Count, FurtherAddress, Path, Percent, Price, Size, Text, Time};

const fn setting(
    key: &'static str,
    flag: &'static str,
    field: Field,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        flag,
        help,
        computed: None,
        field,
    }
}

const MS: Duration = Duration::from_millis(1);
/// Sums and products of counts stay far below what a number can hold.
const MOST: usize = 1_000_000_000;
const MOST_BYTES: usize = 1 << 50;
/// What 32 bits can address, which is all that a guest can use.
const GUEST_MEMORY: usize = 4 << 30;
const MIB: usize = 1 << 20;
const CORES: Option<&str> = Some("one a core");

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    setting(
        "server.data",
        "data",
        Path(|c| &mut c.data),
        "The folder that holds everything the server keeps; made where it is missing",
    ),
    setting(
        "server.listen",
        "listen",
        Address(|c| &mut c.listen),
        "Where to listen; port 0 takes a free one",
    ),
    setting(
        "server.grpc_listen",
        "grpc-listen",
        FurtherAddress(|c| &mut c.grpc_listen),
        "Where to listen for gRPC alone, which is answered at `listen` too; or none",
    ),
    setting(
        "server.grace",
        "grace",
        Time(|c| &mut c.grace, Duration::ZERO),
        "How long requests in flight may go on after the server was told to stop",
    ),
    setting(
        "connections.max",
        "max-connections",
        Count(|c| &mut c.max_connections, 1),
        "The most connections at once; more are answered 503 and closed",
    ),
    setting(
        "connections.header_timeout",
        "header-timeout",
        Time(|c| &mut c.header_timeout, MS),
        "How long a connection may take to send a request's head; idle ones are closed after it",
    ),
    setting(
        "connections.body_timeout",
        "body-timeout",
        Time(|c| &mut c.body_timeout, MS),
        "The longest pause between two pieces of a request's body",
    ),
    setting(
        "connections.body_rate",
        "body-rate",
        Bytes(|c| &mut c.body_rate, 0..=MOST_BYTES),
        "The fewest bytes a second of a request's body; 0B sets none",
    ),
    setting(
        "connections.send_timeout",
        "send-timeout",
        Time(|c| &mut c.send_timeout, MS),
        "The longest time that a caller may take none of its answer",
    ),
    setting(
        "connections.stream_timeout",
        "stream-timeout",
        Time(|c| &mut c.stream_timeout, MS),
        "The longest pause between two messages of a gRPC stream",
    ),
    setting(
        "connections.max_streams",
        "max-streams",
        Count(|c| &mut c.max_streams, 1),
        "The most requests at once over one HTTP/2 connection; more wait",
    ),
    setting(
        "requests.max_body",
        "max-body",
        Bytes(|c| &mut c.max_body, 1..=MOST_BYTES),
        "The most bytes of a request's body",
    ),
    setting(
        "uploads.max_size",
        "max-upload",
        Size(|c| &mut c.max_upload, 1),
        "The most bytes of an uploaded bundle",
    ),
    setting(
        "uploads.max_unpacked",
        "max-unpacked",
        Size(|c| &mut c.max_unpacked, 1),
        "The most bytes that a bundle may unpack to",
    ),
    setting(
        "uploads.max_at_once",
        "max-uploads",
        Count(|c| &mut c.max_uploads, 1),
        "The most uploads that are checked at once; others wait",
    ),
    setting(
        "admission.queue",
        "queue",
        Count(|c| &mut c.max_queued, 0),
        "The most requests that wait for an instance or a cold version; more are refused",
    ),
    setting(
        "admission.realtime_share",
        "realtime-share",
        Percent(|c| &mut c.realtime_share),
        "Per cent of instances and of waiting room that are kept for the realtime tier",
    ),
    setting(
        "admission.realtime_wait",
        "realtime-wait",
        Time(|c| &mut c.realtime_wait, Duration::ZERO),
        "The longest that a realtime request waits for an instance",
    ),
    setting(
        "instances.max",
        "instances",
        Count(|c| &mut c.max_instances, 1),
        "The most instances that run at once",
    ),
    setting(
        "instances.memory",
        "instance-memory",
        Bytes(|c| &mut c.max_instance_memory, MIB..=GUEST_MEMORY),
        "The most memory of one instance, whatever its manifest says",
    ),
    setting(
        "instances.tensors",
        "instance-tensors",
        Bytes(|c| &mut c.max_instance_tensors, 0..=MOST_BYTES),
        "The most bytes of tensors that one instance holds, whatever its manifest says",
    ),
    setting(
        "instances.max_idle",
        "idle-instances",
        Count(|c| &mut c.max_idle_instances, 0),
        "The most instances that are kept for a next request, of functions that ask for reuse",
    ),
    setting(
        "instances.max_spare",
        "spare-instances",
        Count(|c| &mut c.max_spare_instances, 0),
        "The most instances that are made before a request asks for them",
    ),
    Setting {
        computed: CORES,
        ..setting(
            "compute.threads",
            "threads",
            Count(|c| &mut c.compute_threads, 1),
            "Threads that run models",
        )
    },
    setting(
        "compute.queue",
        "compute-queue",
        Count(|c| &mut c.max_compute_queue, 1),
        "The most model runs that wait for a thread",
    ),
    Setting {
        computed: CORES,
        ..setting(
            "residency.max_loads",
            "max-loads",
            Count(|c| &mut c.max_loads, 1),
            "How many cold versions and models load at once",
        )
    },
    Setting {
        computed: Some("half of the memory"),
        ..setting(
            "residency.model_memory",
            "model-memory",
            Size(|c| &mut c.model_memory, 1),
            "The most memory of models' weights; idle versions go where another needs the room",
        )
    },
    Setting {
        computed: Some("an eighth of the memory"),
        ..setting(
            "residency.code_memory",
            "code-memory",
            Size(|c| &mut c.code_memory, 1),
            "The most compiled code that is mapped; likewise",
        )
    },
    setting(
        "residency.sweep_interval",
        "sweep-interval",
        Time(|c| &mut c.sweep_interval, MS),
        "How often idle versions are looked for",
    ),
    setting(
        "jobs.max_size",
        "max-job-size",
        Size(|c| &mut c.max_job_bytes, 1),
        "The most bytes of a job's body",
    ),
    setting(
        "jobs.max_items",
        "max-job-items",
        Count(|c| &mut c.max_job_items, 1),
        "The most items of a job",
    ),
    setting(
        "jobs.max",
        "max-jobs",
        Count(|c| &mut c.max_jobs, 1),
        "The most jobs that are kept, those that have ended included",
    ),
    setting(
        "jobs.running",
        "running-jobs",
        Count(|c| &mut c.max_running_jobs, 1),
        "The most jobs that run at once; others wait",
    ),
    setting(
        "jobs.concurrency",
        "job-concurrency",
        Count(|c| &mut c.max_job_concurrency, 1),
        "The most items of one job that are in flight at once",
    ),
    setting(
        "jobs.retention",
        "job-retention",
        Time(|c| &mut c.job_retention, Duration::ZERO),
        "How long a job is kept after its end",
    ),
    setting(
        "cache.memory",
        "cache-memory",
        Bytes(|c| &mut c.cache_memory, 0..=MOST_BYTES),
        "Memory of all kept answers; 0B keeps none",
    ),
    setting(
        "prices.currency",
        "price-currency",
        Text(|c| &mut c.prices.currency),
        "What prices are in: a word beside the figures",
    ),
    setting(
        "prices.cpu_second",
        "price-cpu-second",
        Price(|c| &mut c.prices.cpu_second),
        "What a second of one processor core costs",
    ),
    setting(
        "prices.gpu_second",
        "price-gpu-second",
        Price(|c| &mut c.prices.gpu_second),
        "What a second of a graphics processor costs",
    ),
    setting(
        "prices.gb_second",
        "price-gb-second",
        Price(|c| &mut c.prices.gb_second),
        "What 10⁹ bytes of memory cost, held for a second",
    ),
    setting(
        "prices.request",
        "price-request",
        Price(|c| &mut c.prices.request),
        "What a request costs, whatever became of it",
    ),
    setting(
        "log.filter",
        "log",
        Text(|c| &mut c.log),
        "What is logged: error, warn, info, debug or trace, also for each part (firebox=debug,info)",
    ),
    setting(
        "log.format",
        "log-format",
        Field::LogFormat(|c| &mut c.log_format),
        "How the log is written: text or json",
    ),
];

impl Setting {
    /// The one with this key.
    pub fn of(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("FIREBOX_{}", self.flag.replace('-', "_").to_uppercase())
    }

    /// What stands for its value in help texts.
    pub fn value_name(&self) -> &'static str {
        match self.field {
            Path(_) => "DIR",
            Address(_) | FurtherAddress(_) => "ADDRESS",
            Count(..) => "N",
            Percent(_) => "PERCENT",
            Bytes(..) | Size(..) => "SIZE",
            Time(..) => "TIME",
            Text(_) => "TEXT",
            Price(_) => "PRICE",
            Field::LogFormat(_) => "FORMAT",
        }
    }

    /// Whether a file holds it as a number; all others are texts.
    pub fn is_number(&self) -> bool {
        matches!(self.field, Count(..) | Percent(_) | Price(_))
    }

    /// Sets it in `config`.
    ///
    /// # Errors
    /// What was expected of the text.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match &self.field {
            Path(_) if text.is_empty() => return Err("a folder's path".into()),
            Path(of) => *of(config) = text.into(),
            Address(of) => *of(config) = parsed(text, "an address such as 127.0.0.1:8080")?,
            FurtherAddress(of) => {
                *of(config) = match text {
                    "none" => None,
                    text => Some(parsed(text, "an address such as 127.0.0.1:8081, or none")?),
                }
            }
            Count(of, least) => {
                let range = *least..=MOST;
                let number = text.parse().ok().filter(|number| range.contains(number));
                let expected = || format!("a whole number from {least} to {MOST}");
                *of(config) = number.ok_or_else(expected)?;
            }
            Percent(of) => {
                let number = text.parse().ok().filter(|number| *number <= 90);
                *of(config) = number.ok_or("a whole number from 0 to 90")?;
            }
            Bytes(of, range) => {
                let (least, most) = (*range.start() as u64, *range.end() as u64);
                let bytes = size(text, least..=most)?;
                *of(config) = usize::try_from(bytes).map_err(|_| "less than all memory")?;
            }
            Size(of, least) => *of(config) = size(text, *least..=MOST_BYTES as u64)?,
            Time(of, least) => {
                let time = humantime::parse_duration(text).ok();
                let time = time.filter(|time| time >= least && *time <= YEAR);
                let expected = || {
                    let least = humantime::format_duration(*least);
                    format!("a time from {least} to 365days, such as 30s")
                };
                *of(config) = time.ok_or_else(expected)?;
            }
            Text(of) => text.clone_into(of(config)),
            Price(of) => {
                let price = text.parse::<f64>().ok();
                let price = price.filter(|price| price.is_finite() && *price >= 0.0);
                *of(config) = price.ok_or("a number from 0, such as 0.0000125")?;
            }
            Field::LogFormat(of) => {
                *of(config) = match text {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err("text or json".into()),
                }
            }
        }
        Ok(())
    }

    /// Its value in `config`, as [`set`](Self::set) takes it.
    pub fn show(&self, config: &Config) -> String {
        let mut config = config.clone();
        match &self.field {
            Path(of) => of(&mut config).display().to_string(),
            Address(of) => of(&mut config).to_string(),
            FurtherAddress(of) => of(&mut config).map_or("none".into(), |at| at.to_string()),
            Count(of, _) => of(&mut config).to_string(),
            Percent(of) => of(&mut config).to_string(),
            Bytes(of, _) => ByteSize(*of(&mut config) as u64).to_string(),
            Size(of, _) => ByteSize(*of(&mut config)).to_string(),
            Time(of, _) => humantime::format_duration(*of(&mut config)).to_string(),
            Text(of) => of(&mut config).clone(),
            Price(of) => of(&mut config).to_string(),
            Field::LogFormat(of) => match of(&mut config) {
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            },
        }
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn parsed<T: std::str::FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.to_owned())
}

fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let size = text.parse::<ByteSize>().ok();
    let expected = || {
        let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
        format!("a size from {least} to {most}, such as 64MiB (B, KiB, MiB or GiB)")
    };
    let size = size.filter(|size| range.contains(&size.0));
    size.map(|size| size.0).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A value that is no default.
    fn another(setting: &Setting) -> &'static str {
        match setting.field {
            Path(_) => "elsewhere",
            Address(_) | FurtherAddress(_) => "127.0.0.1:9",
            Count(..) => "77",
            Percent(_) => "7",
            Bytes(..) | Size(..) => "77MiB",
            Time(..) => "7s",
            Text(_) => "debug",
            Price(_) => "0.0000125",
            Field::LogFormat(_) => "json",
        }
    }

    /// The fields of `Config`, as lines of its debug form.
    fn fields(config: &Config) -> Vec<String> {
        let text = format!("{config:#?}").replace("\n        ", " ");
        let lines = text.lines().filter(|line| line.starts_with("    "));
        lines
            .filter(|line| line.contains(": "))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_field_can_be_set_and_is_shown_as_it_was_set() {
        let plain = Config::new("data");
        let mut changed = BTreeSet::new();
        for setting in SETTINGS {
            let mut config = plain.clone();
            setting.set(&mut config, another(setting)).unwrap();
            assert_eq!(setting.show(&config), another(setting), "{}", setting.key);
            let (before, after) = (fields(&plain), fields(&config));
            let fields = before.iter().zip(&after).filter(|(a, b)| a != b);
            let fields: Vec<_> = fields.map(|(field, _)| field.clone()).collect();
            assert_eq!(fields.len(), 1, "{} sets {fields:?}", setting.key);
            changed.extend(fields);
        }
        let all: BTreeSet<_> = fields(&plain).into_iter().collect();
        let missing: Vec<_> = all.difference(&changed).collect();
        assert!(
            missing.is_empty(),
            "these fields have no setting: {missing:?}"
        );
    }

    #[test]
    fn names_are_unique_and_defaults_can_be_given_back() {
        let plain = Config::new("data");
        let mut names = BTreeSet::new();
        for setting in SETTINGS {
            assert!(names.insert(setting.key) && names.insert(setting.flag));
            assert_eq!(setting.key.matches('.').count(), 1, "{}", setting.key);
            let mut config = plain.clone();
            setting.set(&mut config, &setting.show(&plain)).unwrap();
            assert_eq!(format!("{config:?}"), format!("{plain:?}"));
        }
    }

    #[test]
    fn the_page_lists_every_setting_as_it_is() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(page).unwrap();
        let plain = Config::new("firebox-data");
        let rows = SETTINGS.iter().map(|setting| {
            let default = match setting.computed {
                Some(computed) => computed.to_owned(),
                None => format!("`{}`", setting.show(&plain)),
            };
            let (key, flag, variable) = (setting.key, setting.flag, setting.variable());
            format!(
                "| `{key}` | {default} | `--{flag}` | `{variable}` | {} |",
                setting.help
            )
        });
        let expected: Vec<_> = rows.collect();
        let found: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        assert_eq!(
            found,
            expected,
            "docs/configuration.md should be:\n{}",
            expected.join("\n")
        );
    }

    #[test]
    fn a_wrong_value_is_told_what_was_expected() {
        let said = |key, text| {
            let mut config = Config::new("data");
            Setting::of(key)
                .unwrap()
                .set(&mut config, text)
                .unwrap_err()
        };
        assert!(said("server.listen", "8080").contains("127.0.0.1:8080"));
        assert!(said("instances.max", "0").contains("from 1"));
        assert!(said("instances.max", "18446744073709551615").contains("to 1000000000"));
        assert!(said("requests.max_body", "64MB").contains("64MiB"));
        assert!(said("instances.memory", "5GiB").contains("to 4GiB"));
        assert!(said("connections.header_timeout", "0s").contains("from 1ms"));
        assert!(said("admission.realtime_share", "91").contains("0 to 90"));
        assert!(said("log.format", "xml").contains("text or json"));
    }
}
