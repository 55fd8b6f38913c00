//! Answers that are kept: a version that asks for it (`[cache]` in its manifest) answers equal
//! requests from memory, without an instance, a model run or a cold start.
//!
//! ```text
//! version, question ─▶ key ─▶ kept, and fresh? ──yes──▶ hit
//!                               │ no
//!                               ▼
//!                      being computed? ──yes──▶ wait for that answer: coalesced
//!                               │ no                │ it failed, or its caller went away
//!                               ▼                   ▼
//!                            compute ◀──────────────┘
//!                               └─▶ keep it, and give it to those who wait
//! ```
//! [`key`] says what makes two requests equal, [`directives`] what a request's `Cache-Control` asks,
//! and [`store`] holds the answers within their bounds. Nothing of this outlives the server.

mod directives;
mod key;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use firebox_registry::{Digest, FunctionName, VersionNumber, VersionRecord};
use tokio::sync::watch;

pub use directives::Directives;
pub use key::key;
use store::Store;

use crate::gateway::{Answer, Question};
use crate::metrics::{CacheCounters, CacheSeries, Metrics};
use crate::problem::Failure;
use crate::routing::Version;

const CACHE: HeaderName = HeaderName::from_static("x-firebox-cache");

/// After so many answers that it waited for and that never came, a caller computes for itself:
/// where a function always fails, callers don't queue behind each other's failures.
const MAX_FOLLOWED: usize = 2;

/// What a version asks of the cache.
pub struct VersionCache {
    function: FunctionName,
    number: VersionNumber,
    /// Both, and the bundle: whose the answers are.
    owner: Digest,
    ttl: Duration,
    max_bytes: usize,
    counters: OnceLock<CacheCounters>,
}

impl VersionCache {
    /// Of a version whose manifest has `[cache]`.
    pub fn of(record: &VersionRecord) -> Option<Self> {
        let section = record.manifest.cache.as_ref()?;
        Some(Self {
            function: record.function.clone(),
            number: record.number,
            owner: key::owner(record),
            ttl: section.ttl,
            max_bytes: usize::try_from(section.max_bytes.0).unwrap_or(usize::MAX),
            counters: OnceLock::new(),
        })
    }
}

/// How a request came by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was kept, or computed for an equal request.
    Hit {
        /// How long ago it was computed.
        age: Duration,
    },
    /// It was computed, and may be kept.
    Miss,
    /// The caller would not be answered from the cache, and it was computed.
    Bypass,
}

impl Served {
    /// As headers and timings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// Tells clients how the answer came about and how long they may keep it: RFC 9111's
    /// `max-age` is counted from when it was computed, `Age` ago.
    pub fn tell(self, cache: &VersionCache, asked: &Directives, headers: &mut HeaderMap) {
        headers.insert(CACHE, HeaderValue::from_static(self.name()));
        if asked.no_store {
            let never = HeaderValue::from_static("no-store");
            headers.insert(header::CACHE_CONTROL, never);
            return;
        }
        let fresh = format!("max-age={}", cache.ttl.as_secs());
        if let Ok(fresh) = HeaderValue::from_str(&fresh) {
            headers.insert(header::CACHE_CONTROL, fresh);
        }
        let age = match self {
            Self::Hit { age } => age.as_secs(),
            Self::Miss | Self::Bypass => 0,
        };
        headers.insert(header::AGE, age.into());
    }
}

/// The answers of all versions. Cloning gives another handle.
#[derive(Clone)]
pub struct ResponseCache(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    metrics: Metrics,
    series: CacheSeries,
}

struct State {
    store: Store,
    /// Answers that are being computed, by their keys.
    flights: HashMap<Digest, Flight>,
    flown: u64,
    /// How often answers were dropped before their time. What was begun before such a drop is not
    /// kept after it.
    drops: u64,
}

/// An answer that is being computed; the channel closes without one where there will be none.
struct Flight {
    number: u64,
    owner: Digest,
    answer: watch::Receiver<Option<Arc<Answer>>>,
}

/// What a look into the cache gives.
enum Found<'a> {
    Kept(Arc<Answer>, Duration),
    Flight(watch::Receiver<Option<Arc<Answer>>>),
    Nothing(Turn<'a>),
}

/// Somebody's turn to compute an answer. Dropped without one, it is the turn of another who waits.
struct Turn<'a> {
    cache: &'a ResponseCache,
    version: &'a VersionCache,
    key: Digest,
    drops: u64,
    /// Where others wait for it; nobody does where another turn for the key is under way.
    flight: Option<(u64, watch::Sender<Option<Arc<Answer>>>)>,
}

impl ResponseCache {
    /// Keeps at most `memory` bytes.
    pub fn new(memory: usize, metrics: Metrics) -> Self {
        let state = State {
            store: Store::new(memory),
            flights: HashMap::new(),
            flown: 0,
            drops: 0,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            series: metrics.cache(),
            metrics,
        }))
    }

    /// The key of a question to a version, where its answers are kept.
    pub fn key<'a>(
        version: &'a Version,
        question: &Question,
    ) -> Option<(Digest, &'a VersionCache)> {
        let cache = version.cache.as_ref()?;
        // A model alone never sees the parameters.
        let parameters = match version.is_model() {
            true => &[][..],
            false => &question.parameters,
        };
        Some((key(&cache.owner, &question.inputs, parameters), cache))
    }

    /// The answer to the question of this key: kept, or of another caller who asks the same, or
    /// that of `compute`, which is only begun where it is needed. A caller that leaves breaks off
    /// nothing but what it computes itself, and then another who waits goes on.
    pub async fn answer(
        &self,
        (key, cache): (Digest, &VersionCache),
        asked: &Directives,
        compute: impl Future<Output = Result<Answer, Failure>>,
    ) -> Result<(Answer, Served), Failure> {
        let counters = cache.counters.get_or_init(|| {
            let (function, number) = (cache.function.as_str(), cache.number.get());
            self.0.metrics.cached(function, number)
        });
        if asked.no_store {
            counters.bypass.increment(1);
            return Ok((compute.await?, Served::Bypass));
        }
        let mut followed = 0;
        let turn = loop {
            match self.look(key, cache, asked, followed < MAX_FOLLOWED) {
                Found::Kept(answer, age) => {
                    counters.hit.increment(1);
                    return Ok((Answer::clone(&answer), Served::Hit { age }));
                }
                Found::Flight(mut flight) => {
                    let landed = flight.wait_for(Option::is_some).await;
                    if let Some(answer) = landed.ok().and_then(|answer| answer.clone()) {
                        counters.coalesced.increment(1);
                        let age = Duration::ZERO;
                        return Ok((Answer::clone(&answer), Served::Hit { age }));
                    }
                    followed += 1;
                }
                Found::Nothing(turn) => break turn,
            }
        };
        let served = match asked.no_cache {
            true => Served::Bypass,
            false => Served::Miss,
        };
        match served {
            Served::Bypass => counters.bypass.increment(1),
            _ => counters.miss.increment(1),
        }
        let answer = Arc::new(compute.await?);
        turn.keep(&answer);
        Ok((Arc::unwrap_or_clone(answer), served))
    }

    fn look<'a>(
        &'a self,
        key: Digest,
        version: &'a VersionCache,
        asked: &Directives,
        follow: bool,
    ) -> Found<'a> {
        let now = Instant::now();
        let mut state = self.lock();
        if !asked.no_cache {
            if let Some((answer, age)) = state.store.get(&key, now)
                && asked.max_age.is_none_or(|most| age <= most)
            {
                return Found::Kept(answer, age);
            }
            if follow && let Some(flight) = state.flights.get(&key) {
                return Found::Flight(flight.answer.clone());
            }
        }
        let flight = (!state.flights.contains_key(&key)).then(|| {
            state.flown += 1;
            let (sender, answer) = watch::channel(None);
            let (number, owner) = (state.flown, version.owner);
            let flight = Flight {
                number,
                owner,
                answer,
            };
            state.flights.insert(key, flight);
            (number, sender)
        });
        Found::Nothing(Turn {
            cache: self,
            version,
            key,
            drops: state.drops,
            flight,
        })
    }

    /// Forgets the answers of versions, those too that are being computed: they lost their traffic
    /// to a rollback, or are gone.
    pub fn drop_versions<'a>(&self, versions: impl Iterator<Item = &'a Version>) {
        let owners = versions.filter_map(|version| Some(version.cache.as_ref()?.owner));
        self.drop_owners(&owners.collect::<Vec<_>>());
    }

    fn drop_owners(&self, owners: &[Digest]) {
        if owners.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.drops += 1;
        state.flights.retain(|_, f| !owners.contains(&f.owner));
        for owner in owners {
            state.store.drop_owner(owner);
        }
        self.0.series.show(&mut state.store);
    }

    /// Lets go of answers whose time is over.
    pub fn expire(&self) {
        let mut state = self.lock();
        state.store.expire(Instant::now());
        self.0.series.show(&mut state.store);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheSeries {
    fn show(&self, store: &mut Store) {
        self.bytes.set(store.bytes() as f64);
        self.entries.set(store.len() as f64);
        let evicted = store.take_evicted();
        self.expired.increment(evicted.expired);
        self.over_version.increment(evicted.over_version);
        self.over_memory.increment(evicted.over_memory);
        self.dropped.increment(evicted.dropped);
    }
}

impl Turn<'_> {
    /// Keeps the answer, and gives it to those who wait.
    fn keep(mut self, answer: &Arc<Answer>) {
        // Bytes are copied before the lock is taken.
        let kept = store::Kept::of(answer, self.version.max_bytes);
        let flight = self.flight.take();
        {
            let mut state = self.cache.lock();
            if let Some((number, _)) = &flight {
                state.land(&self.key, *number);
            }
            if let Some(kept) = kept
                && state.drops == self.drops
            {
                let (owner, ttl) = (self.version.owner, self.version.ttl);
                let now = Instant::now();
                let store = &mut state.store;
                store.insert(self.key, owner, kept, now, ttl, self.version.max_bytes);
            }
            self.cache.0.series.show(&mut state.store);
        }
        if let Some((_, sender)) = flight {
            // An error says that nobody waits.
            let _ = sender.send(Some(answer.clone()));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((number, _)) = &self.flight {
            self.cache.lock().land(&self.key, *number);
        }
    }
}

impl State {
    /// Ends a flight, if it is still the one of this number.
    fn land(&mut self, key: &Digest, number: u64) {
        if self.flights.get(key).is_some_and(|f| f.number == number) {
            self.flights.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
