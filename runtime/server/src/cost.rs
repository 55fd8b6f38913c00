//! What versions use, and what that costs: processor time of instances and models, time on graphics
//! processors, and memory for as long as it is held.
//!
//! ```text
//! call ─ Meter ──▶ Account of the version ◀── memory, looked at twice a second
//! scheduler ─ Used ──▶ │
//!                      │ every few seconds
//!                      ▼
//!                   registry
//! ```
//! A [`Meter`] counts while a call goes on, and the scheduler counts every run of a model, so that
//! a call that fails, traps or is given up costs what it had used. Memory is that of code and weights while a version is not cold; a model that
//! several versions hold is split evenly among them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firebox_registry::{Registry, RegistryError, UsageRecord};
use firebox_sandbox::CpuMeter;
use serde::Serialize;
use utoipa::ToSchema;

use crate::residency::Residency;
use crate::routing::{Routing, Version};
use crate::scheduler::{Computed, Used};

/// How often what was used is saved: a crash loses no more than this.
pub const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a gigabyte, as prices mean it.
const GB: f64 = 1e9;

/// What is charged; everything is free where nothing is said.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Prices {
    /// What the others are in: a word beside the figures, nothing is converted.
    #[schema(example = "USD")]
    pub currency: String,
    /// For a second of one processor core.
    #[schema(example = 0.0000125)]
    pub cpu_second: f64,
    /// For a second of a graphics processor.
    #[schema(example = 0.0007)]
    pub gpu_second: f64,
    /// For 10⁹ bytes of memory, held for a second.
    #[schema(example = 0.0000015)]
    pub gb_second: f64,
    /// For a request, whatever became of it.
    #[schema(example = 0.0000002)]
    pub request: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            currency: "USD".into(),
            cpu_second: 0.0,
            gpu_second: 0.0,
            gb_second: 0.0,
            request: 0.0,
        }
    }
}

/// Counts what one call uses, while it goes on. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Processor time of the instance.
    pub guest: CpuMeter,
    compute: CpuMeter,
    gpu: CpuMeter,
}

impl Meter {
    /// Adds a model's run.
    pub fn computed(&self, computed: &Computed) {
        self.compute.add(computed.cpu);
        self.gpu.add(computed.gpu);
    }

    /// Processor time so far, of the instance and of models.
    pub fn cpu(&self) -> Duration {
        self.guest.get() + self.compute.get()
    }

    /// What a request costs that used this, for people: memory is its version's, not a request's.
    pub fn cost(&self, prices: &Prices) -> String {
        let usage = Usage {
            requests: 1,
            guest_cpu_seconds: self.guest.get().as_secs_f64(),
            compute_cpu_seconds: self.compute.get().as_secs_f64(),
            gpu_seconds: self.gpu.get().as_secs_f64(),
            ..Usage::default()
        };
        format!("{:.12} {}", usage.cost(prices).total, prices.currency)
    }
}

/// What one version has used.
pub struct Account {
    since_unix_ms: u64,
    requests: AtomicU64,
    predictions: AtomicU64,
    guest_cpu_ns: AtomicU64,
    /// What models took before this server started.
    compute_cpu_before_ns: u64,
    gpu_before_ns: u64,
    /// And since: the scheduler counts it, as runs that fail, or whose callers have gone, end
    /// there.
    models: Used,
    byte_seconds: Mutex<f64>,
    /// Whether there is something that wasn't saved.
    changed: AtomicBool,
}

impl Account {
    /// Goes on from what was saved; `models` counts what models take from now on.
    pub fn new(models: Used, saved: Option<UsageRecord>) -> Self {
        let saved = saved.as_ref();
        let before = |read: fn(&UsageRecord) -> u64| saved.map_or(0, read);
        let number = |read: fn(&UsageRecord) -> u64| AtomicU64::new(before(read));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX));
        Self {
            since_unix_ms: saved.map_or(now, |saved| saved.since_unix_ms),
            requests: number(|saved| saved.requests),
            predictions: number(|saved| saved.predictions),
            guest_cpu_ns: number(|saved| saved.guest_cpu_ns),
            compute_cpu_before_ns: before(|saved| saved.compute_cpu_ns),
            gpu_before_ns: before(|saved| saved.gpu_ns),
            models,
            byte_seconds: Mutex::new(saved.map_or(0.0, |saved| saved.byte_seconds)),
            changed: AtomicBool::new(false),
        }
    }

    /// Charges a request that has ended; `answered` where it got a good answer.
    pub fn charge(&self, meter: &Meter, answered: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.predictions.fetch_add(u64::from(answered), Relaxed);
        self.add(meter);
    }

    /// A meter of work that is no request of its own, charged when it is dropped.
    pub fn meter(&self) -> Charged<'_> {
        Charged {
            account: self,
            meter: Meter::default(),
        }
    }

    fn add(&self, meter: &Meter) {
        let guest = nanoseconds(meter.guest.get());
        self.guest_cpu_ns.fetch_add(guest, Relaxed);
        self.changed.store(true, Relaxed);
    }

    fn hold(&self, byte_seconds: f64) {
        *self.byte_seconds() += byte_seconds;
        self.changed.store(true, Relaxed);
    }

    fn byte_seconds(&self) -> MutexGuard<'_, f64> {
        let sum = self.byte_seconds.lock();
        sum.unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// See [`Account::meter`].
pub struct Charged<'a> {
    account: &'a Account,
    meter: Meter,
}

impl Deref for Charged<'_> {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.meter
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.account.add(&self.meter);
    }
}

/// What a version has used, in the units of the prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Usage {
    /// Requests that were let in, whatever became of them.
    pub requests: u64,
    /// Those that got a good answer.
    pub predictions: u64,
    /// Processor time in instances.
    #[schema(example = 12.5)]
    pub guest_cpu_seconds: f64,
    /// Processor time of models.
    #[schema(example = 80.25)]
    pub compute_cpu_seconds: f64,
    /// Time of models on a graphics processor.
    #[schema(example = 0.0)]
    pub gpu_seconds: f64,
    /// Code and weights, in 10⁹ bytes, times the seconds that they were in memory.
    #[schema(example = 340.2)]
    pub memory_gb_seconds: f64,
}

/// What that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Cost {
    /// Processor time.
    #[schema(example = 0.00116)]
    pub cpu: f64,
    /// Time of graphics processors.
    #[schema(example = 0.0)]
    pub gpu: f64,
    /// Memory.
    #[schema(example = 0.00051)]
    pub memory: f64,
    /// Requests.
    #[schema(example = 0.002)]
    pub requests: f64,
    /// All of it.
    #[schema(example = 0.00367)]
    pub total: f64,
}

impl Usage {
    fn of(record: &UsageRecord) -> Self {
        let seconds = |ns: u64| ns as f64 / 1e9;
        Self {
            requests: record.requests,
            predictions: record.predictions,
            guest_cpu_seconds: seconds(record.guest_cpu_ns),
            compute_cpu_seconds: seconds(record.compute_cpu_ns),
            gpu_seconds: seconds(record.gpu_ns),
            memory_gb_seconds: record.byte_seconds / GB,
        }
    }

    /// At these prices.
    pub fn cost(&self, prices: &Prices) -> Cost {
        let cpu = (self.guest_cpu_seconds + self.compute_cpu_seconds) * prices.cpu_second;
        let gpu = self.gpu_seconds * prices.gpu_second;
        let memory = self.memory_gb_seconds * prices.gb_second;
        let requests = self.requests as f64 * prices.request;
        Cost {
            cpu,
            gpu,
            memory,
            requests,
            total: cpu + gpu + memory + requests,
        }
    }

    /// What 1,000 good answers cost on average: what failed is paid for by them. `None` before the
    /// first.
    pub fn cost_per_1000_predictions(&self, prices: &Prices) -> Option<f64> {
        let total = self.cost(prices).total;
        (self.predictions > 0).then(|| total / self.predictions as f64 * 1000.0)
    }
}

/// Further labels of a series' sample, and its value.
type Sample<'a> = (&'a str, fn(&Usage) -> f64);

/// The books: the accounts of all versions, saved now and then.
pub struct Costs {
    registry: Registry,
    routing: Arc<Routing>,
    residency: Residency,
    /// When memory was looked at last.
    looked: Mutex<Instant>,
}

impl Costs {
    /// Counts from now on.
    pub fn new(registry: Registry, routing: Arc<Routing>, residency: Residency) -> Self {
        Self {
            registry,
            routing,
            residency,
            looked: Mutex::new(Instant::now()),
        }
    }

    /// Charges memory for the time since this was done last, by what is held now. So it is done
    /// often, and before memory is given back.
    pub fn charge_memory(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seconds = now.saturating_duration_since(*looked).as_secs_f64();
        *looked = now;
        let versions = self.residency.loaded();
        let held: Vec<_> = versions
            .iter()
            .map(|version| (version, version.slot.held()))
            .collect();
        let mut holders: HashMap<usize, f64> = HashMap::new();
        for model in held.iter().flat_map(|(_, held)| held.models.keys()) {
            *holders.entry(*model).or_default() += 1.0;
        }
        for (version, held) in &held {
            let models = held.models.iter();
            let models = models.map(|(model, bytes)| {
                let holders = holders.get(model).copied().unwrap_or(1.0);
                *bytes as f64 / holders
            });
            let bytes = held.code as f64 + models.sum::<f64>();
            if bytes > 0.0 {
                version.account.hold(bytes * seconds);
            }
        }
    }

    /// What a version has used up to now, and since when.
    pub fn usage(&self, version: &Version) -> (Usage, u64) {
        let record = record(version);
        (Usage::of(&record), record.since_unix_ms)
    }

    /// Saves what has changed. Blocking.
    pub fn save(&self) {
        self.charge_memory();
        let table = self.routing.table();
        let changed = |version: &&Arc<Version>| version.account.changed.swap(false, Relaxed);
        let changed: Vec<_> = table.versions().filter(changed).collect();
        if changed.is_empty() {
            return;
        }
        let records: Vec<_> = changed.iter().map(|version| record(version)).collect();
        if let Err(error) = self.registry.save_usage(&records) {
            // They are saved with what comes next.
            for version in changed {
                version.account.changed.store(true, Relaxed);
            }
            match error {
                RegistryError::DiskFull { .. } => tracing::warn!(%error, "usage can't be saved"),
                error => tracing::error!(%error, "usage can't be saved"),
            }
        }
    }

    /// The series of all versions that have used something, in Prometheus' text format. They are
    /// fractions, which counters of the recorder can't be, and they outlive the server.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let table = self.routing.table();
        let used: Vec<_> = table
            .versions()
            .map(|version| (version, Usage::of(&record(version))))
            .filter(|(_, usage)| *usage != Usage::default())
            .collect();
        let mut series = |name: &str, help: &str, samples: &[Sample<'_>]| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
            for (version, usage) in &used {
                let (function, number) = (&version.record.function, version.record.number);
                for (label, value) in samples {
                    let labels = format!("function=\"{function}\",version=\"{number}\"{label}");
                    let _ = writeln!(text, "{name}{{{labels}}} {}", value(usage));
                }
            }
            text.push('\n');
        };
        series(
            "firebox_cpu_seconds_total",
            "Processor time of instances (guest) and of models (compute).",
            &[
                (",part=\"guest\"", |usage| usage.guest_cpu_seconds),
                (",part=\"compute\"", |usage| usage.compute_cpu_seconds),
            ],
        );
        series(
            "firebox_gpu_seconds_total",
            "Time of models on a graphics processor.",
            &[("", |usage| usage.gpu_seconds)],
        );
        series(
            "firebox_memory_gb_seconds_total",
            "Code and weights in memory: 10^9 bytes times seconds.",
            &[("", |usage| usage.memory_gb_seconds)],
        );
        text
    }
}

fn record(version: &Version) -> UsageRecord {
    let account = &version.account;
    let number = |sum: &AtomicU64| sum.load(Relaxed);
    UsageRecord {
        function: version.record.function.clone(),
        version: version.record.number,
        since_unix_ms: account.since_unix_ms,
        requests: number(&account.requests),
        predictions: number(&account.predictions),
        guest_cpu_ns: number(&account.guest_cpu_ns),
        compute_cpu_ns: account.compute_cpu_before_ns + nanoseconds(account.models.cpu.get()),
        gpu_ns: account.gpu_before_ns + nanoseconds(account.models.gpu.get()),
        byte_seconds: *account.byte_seconds(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_the_sum_of_its_parts_and_failures_are_paid_by_good_answers() {
        let usage = Usage {
            requests: 2500,
            predictions: 2000,
            guest_cpu_seconds: 3.0,
            compute_cpu_seconds: 5.0,
            gpu_seconds: 2.0,
            memory_gb_seconds: 100.0,
        };
        let prices = Prices {
            cpu_second: 0.5,
            gpu_second: 10.0,
            gb_second: 0.25,
            request: 0.002,
            ..Prices::default()
        };
        let cost = usage.cost(&prices);
        assert_eq!((cost.cpu, cost.gpu, cost.memory), (4.0, 20.0, 25.0));
        assert_eq!((cost.requests, cost.total), (5.0, 54.0));
        assert_eq!(usage.cost_per_1000_predictions(&prices), Some(27.0));
        let none = Usage::default();
        assert_eq!(none.cost_per_1000_predictions(&prices), None);
        assert_eq!(usage.cost(&Prices::default()), Cost::default());
    }

    #[test]
    fn an_account_goes_on_from_what_was_saved() {
        let saved = UsageRecord {
            function: "adder".parse().unwrap(),
            version: 1.try_into().unwrap(),
            since_unix_ms: 7,
            requests: 3,
            predictions: 2,
            guest_cpu_ns: 10,
            compute_cpu_ns: 20,
            gpu_ns: 0,
            byte_seconds: 1.5,
        };
        let account = Account::new(Used::default(), Some(saved));
        let meter = Meter::default();
        meter.guest.add(Duration::from_nanos(5));
        account.charge(&meter, false);
        drop(account.meter());
        account.hold(0.5);
        let sums = [
            &account.requests,
            &account.predictions,
            &account.guest_cpu_ns,
        ];
        assert_eq!(sums.map(|sum| sum.load(Relaxed)), [4, 2, 15]);
        assert_eq!(*account.byte_seconds(), 2.0);
    }
}
