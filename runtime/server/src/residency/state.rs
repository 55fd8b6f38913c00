//! Where a version stands, how it got there, and the ways on: one lock for each version, and every
//! change goes through [`Slot::change`], which notes the move.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::budget::{Candidate, Hold};
use super::load::Flight;
use super::{Code, Warm};
use crate::metrics::Metrics;

/// Moves of a version that are remembered.
const MOVES: usize = 16;

/// A version stays at least this many times as long as its load took before another may take its
/// room, so that at most a fifth of the time goes into loads where memory is short.
const STAY: u32 = 4;

/// But no longer than this.
const LONGEST_STAY: Duration = Duration::from_secs(2);

/// How soon a pinned version that couldn't be loaded is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How warm a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Warmth {
    /// On disk only.
    Cold,
    /// Code mapped, weights not there.
    Linked,
    /// Ready to answer.
    Resident,
}

impl Warmth {
    /// As it is written in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Linked => "linked",
            Self::Resident => "resident",
        }
    }
}

/// Why a version moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A request found it not loaded.
    Request,
    /// It is of the realtime tier, and a policy names it.
    Realtime,
    /// Nobody has used it for so long.
    Idle(Duration),
    /// It is of the batch tier, and nobody uses it.
    Done,
    /// Another needs the room.
    Evicted {
        /// Who: `echo version 3`.
        by: String,
    },
    /// It couldn't be loaded.
    Failed(String),
}

impl Cause {
    /// As it is written in labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Realtime => "realtime",
            Self::Idle(_) => "idle",
            Self::Done => "done",
            Self::Evicted { .. } => "evicted",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("first request"),
            Self::Realtime => f.write_str("realtime traffic"),
            Self::Idle(time) => write!(f, "idle for {}", humantime::format_duration(*time)),
            Self::Done => f.write_str("no work left"),
            Self::Evicted { by } => write!(f, "evicted for {by}"),
            Self::Failed(reason) => write!(f, "load failed: {reason}"),
        }
    }
}

/// A version has moved, or failed to.
#[derive(Clone, Debug)]
pub struct Move {
    /// Milliseconds since 1970 (UTC).
    pub unix_ms: u64,
    /// Where it was.
    pub from: Warmth,
    /// Where it is since.
    pub to: Warmth,
    /// Why.
    pub cause: Cause,
}

/// What is loaded of a version.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) code: Option<Arc<Code>>,
    pub(super) warm: Option<Arc<Warm>>,
    /// The load that is under way.
    pub(super) flight: Option<Flight<Arc<Warm>>>,
    /// What its models took when they were loaded last, in the order of their names.
    pub(super) measured: Box<[u64]>,
    moves: VecDeque<Move>,
    /// Milliseconds of [`now`] until which others of its kind may not take its room.
    stays_until: u64,
    /// Milliseconds of [`now`] before which a failed load is not tried again unasked.
    retry_at: u64,
}

impl Inner {
    fn warmth(&self) -> Warmth {
        match (&self.warm, &self.code) {
            (Some(_), _) => Warmth::Resident,
            (None, Some(_)) => Warmth::Linked,
            (None, None) => Warmth::Cold,
        }
    }

    /// Whether nobody holds or loads it. Holds are only made under the lock, so it stays so as
    /// long as that is held.
    fn is_idle(&self) -> bool {
        let held = |warm: &Arc<Warm>| Arc::strong_count(warm) > 1;
        self.flight.is_none() && !self.warm.as_ref().is_some_and(held)
    }
}

/// What a version has let go of: dropping it can take a while.
#[derive(Default)]
pub struct Dropped {
    _warm: Option<Arc<Warm>>,
    _code: Option<Arc<Code>>,
}

/// What a version holds in memory.
pub struct Held {
    /// Bytes of its code.
    pub code: u64,
    /// Bytes of its models' weights; a model has the same key in all versions that share it.
    pub models: BTreeMap<usize, usize>,
}

/// The residency of one version; it lives as long as the version's route.
#[derive(Default)]
pub struct Slot {
    inner: Mutex<Inner>,
    /// Milliseconds of [`now`] when it was last in use.
    used: AtomicU64,
    /// How many wait for it to be loaded.
    wanted: AtomicUsize,
    pinned: AtomicBool,
    waits_for_room: AtomicBool,
}

/// Somebody waits for a version.
pub(super) struct Wanted<'a>(&'a Slot);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Relaxed);
    }
}

/// How a version stands, for people.
pub struct Standing {
    /// How warm it is.
    pub warmth: Warmth,
    /// Whether it is being loaded.
    pub loading: bool,
    /// Whether somebody uses it now.
    pub in_use: bool,
    /// Whether it is never evicted.
    pub pinned: bool,
    /// Bytes of weights that it holds, alone or with others.
    pub model_bytes: u64,
    /// Bytes of code.
    pub code_bytes: u64,
    /// Its last moves, oldest first.
    pub moves: Vec<Move>,
}

impl Slot {
    /// How warm it is now.
    pub fn warmth(&self) -> Warmth {
        self.lock().warmth()
    }

    /// What is held for it now.
    pub fn held(&self) -> Held {
        let inner = self.lock();
        let models = inner.warm.iter().flat_map(|warm| warm.models.values());
        let models = models.map(|loaded| {
            let address = Arc::as_ptr(loaded).addr();
            (address, loaded.model.weight_bytes())
        });
        Held {
            code: inner.code.as_ref().map_or(0, |code| code.bytes()),
            models: models.collect(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it is in use.
    pub(super) fn touch(&self) {
        self.used.store(now(), Relaxed);
    }

    /// Whether it is of the realtime tier and a policy names it.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Relaxed)
    }

    /// Pins it, or lets it go.
    pub fn pin(&self, pinned: bool) {
        if self.pinned.swap(pinned, Relaxed) && !pinned {
            // Its time without use begins now.
            self.touch();
        }
    }

    /// Notes that somebody waits for it, until the answer is dropped.
    pub(super) fn want(&self) -> Wanted<'_> {
        self.wanted.fetch_add(1, Relaxed);
        Wanted(self)
    }

    /// Whether somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// Notes whether its load waits for room.
    pub(super) fn wait_for_room(&self, waits: bool) {
        self.waits_for_room.store(waits, Relaxed);
    }

    /// Whether its load waits for room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.waits_for_room.load(Relaxed)
    }

    /// Whether nothing of it is loaded or being loaded.
    pub(super) fn is_at_rest(&self) -> bool {
        let inner = self.lock();
        inner.flight.is_none() && inner.warmth() == Warmth::Cold
    }

    /// Whether it is pinned and should be loaded, unasked.
    pub fn is_due(&self) -> bool {
        self.is_pinned() && {
            let inner = self.lock();
            inner.warm.is_none() && inner.flight.is_none() && inner.retry_at <= now()
        }
    }

    /// Changes what is loaded, and notes the move that this is.
    fn change<T>(
        &self,
        cause: &Cause,
        metrics: &Metrics,
        change: impl FnOnce(&mut Inner) -> T,
    ) -> T {
        let mut inner = self.lock();
        let from = inner.warmth();
        let changed = change(&mut inner);
        let to = inner.warmth();
        if from != to || matches!(cause, Cause::Failed(_)) {
            if inner.moves.len() >= MOVES {
                inner.moves.pop_front();
            }
            let (unix_ms, cause) = (unix_ms(), cause.clone());
            metrics.residency_moved(from.name(), to.name(), cause.kind());
            inner.moves.push_back(Move {
                unix_ms,
                from,
                to,
                cause,
            });
        }
        changed
    }

    /// Its code is mapped.
    pub(super) fn linked(&self, code: &Arc<Code>, cause: &Cause, metrics: &Metrics) {
        self.change(cause, metrics, |inner| inner.code = Some(code.clone()));
    }

    /// All is loaded, after `took`.
    pub(super) fn loaded(
        &self,
        warm: &Arc<Warm>,
        took: Duration,
        cause: &Cause,
        metrics: &Metrics,
    ) {
        self.touch();
        let stay = took.saturating_mul(STAY).min(LONGEST_STAY);
        self.change(cause, metrics, |inner| {
            inner.flight = None;
            inner.code = warm.code.clone();
            inner.warm = Some(warm.clone());
            inner.measured = warm.models.values().map(|model| model.bytes()).collect();
            inner.stays_until = now() + ms(stay);
        });
    }

    /// There is no room for it, and nobody waits any more.
    pub(super) fn gave_up(&self) {
        let mut inner = self.lock();
        inner.flight = None;
        inner.retry_at = now() + ms(RETRY);
    }

    /// The load has failed. What was mapped of it is given back.
    pub(super) fn failed(&self, reason: &str, metrics: &Metrics) -> Dropped {
        self.touch();
        let cause = Cause::Failed(reason.to_owned());
        let code = self.change(&cause, metrics, |inner| {
            inner.flight = None;
            inner.retry_at = now() + ms(RETRY);
            inner.code.take()
        });
        Dropped {
            _warm: None,
            _code: code,
        }
    }

    /// Gives up all, if nobody has used it for `keep_alive`; never where it is pinned.
    pub(super) fn cool(
        &self,
        keep_alive: Duration,
        cause: &Cause,
        metrics: &Metrics,
    ) -> Option<Dropped> {
        let idle = now().saturating_sub(self.used.load(Relaxed));
        if idle < ms(keep_alive) || self.is_pinned() {
            return None;
        }
        self.unload(true, cause, metrics)
    }

    /// Gives up weights and, where `all`, code, unless somebody has it in use.
    pub(super) fn unload(&self, all: bool, cause: &Cause, metrics: &Metrics) -> Option<Dropped> {
        self.change(cause, metrics, |inner| {
            if !inner.is_idle() || inner.warmth() == Warmth::Cold {
                return None;
            }
            Some(Dropped {
                _warm: inner.warm.take(),
                _code: inner.code.take_if(|_| all),
            })
        })
    }

    /// What it could free, if it may be evicted now. `urgent` is what comes before its stay.
    pub(super) fn candidate(&self, urgent: bool) -> Option<Candidate> {
        let inner = self.lock();
        let stays = !urgent && now() < inner.stays_until;
        if self.is_pinned() || stays || !inner.is_idle() || inner.warmth() == Warmth::Cold {
            return None;
        }
        let models = inner.warm.iter().flat_map(|warm| warm.models.values());
        let models = models.map(|model| Hold {
            model: Arc::as_ptr(model).addr(),
            bytes: model.bytes(),
            holds: Arc::strong_count(model),
        });
        Some(Candidate {
            used: self.used.load(Relaxed),
            models: models.collect(),
            code: inner.code.as_ref().map_or(0, |code| code.bytes()),
        })
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let inner = self.lock();
        Standing {
            warmth: inner.warmth(),
            loading: inner.flight.is_some(),
            in_use: inner.warm.is_some() && !inner.is_idle(),
            pinned: self.is_pinned(),
            model_bytes: inner.warm.as_ref().map_or(0, |warm| warm.model_bytes()),
            code_bytes: inner.code.as_ref().map_or(0, |code| code.bytes()),
            moves: inner.moves.iter().cloned().collect(),
        }
    }
}

/// Milliseconds since the first call.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    ms(START.elapsed())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm() -> Arc<Warm> {
        Arc::new(Warm::new(None, Default::default()))
    }

    fn loaded(slot: &Slot, took: Duration) {
        slot.loaded(&warm(), took, &Cause::Request, &Metrics::new());
    }

    #[test]
    fn a_version_in_use_or_pinned_is_no_candidate_and_never_cooled() {
        let (slot, metrics) = (Slot::default(), Metrics::new());
        assert!(slot.candidate(true).is_none(), "cold");
        loaded(&slot, Duration::ZERO);
        let lease = slot.lock().warm.clone();
        assert!(slot.candidate(true).is_none());
        assert!(slot.cool(Duration::ZERO, &Cause::Done, &metrics).is_none());
        drop(lease);
        slot.pin(true);
        assert!(slot.candidate(true).is_none());
        assert!(slot.cool(Duration::ZERO, &Cause::Done, &metrics).is_none());
        slot.pin(false);
        assert!(slot.candidate(true).is_some());
        assert!(slot.cool(Duration::ZERO, &Cause::Done, &metrics).is_some());
        assert_eq!(slot.warmth(), Warmth::Cold);
    }

    #[test]
    fn a_version_stays_for_some_time_after_a_long_load_but_not_before_an_urgent_one() {
        let slot = Slot::default();
        loaded(&slot, Duration::from_secs(1));
        assert!(slot.candidate(false).is_none());
        assert!(slot.candidate(true).is_some());
        let quick = Slot::default();
        loaded(&quick, Duration::ZERO);
        assert!(quick.candidate(false).is_some());
    }

    #[test]
    fn the_last_moves_are_remembered_with_their_reasons() {
        let (slot, metrics) = (Slot::default(), Metrics::new());
        for round in 0..20 {
            loaded(&slot, Duration::ZERO);
            let by = format!("other version {round}");
            assert!(
                slot.unload(true, &Cause::Evicted { by }, &metrics)
                    .is_some()
            );
        }
        slot.failed("no such file", &metrics);
        let moves = slot.standing().moves;
        assert_eq!(moves.len(), MOVES);
        let texts: Vec<_> = moves.iter().rev().map(|m| m.cause.to_string()).collect();
        assert_eq!(
            texts[..3],
            [
                "load failed: no such file",
                "evicted for other version 19",
                "first request"
            ]
        );
        let text = metrics.render();
        let line =
            r#"firebox_residency_moves_total{from="resident",to="cold",reason="evicted"} 20"#;
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_pinned_version_that_failed_is_not_tried_at_once() {
        let slot = Slot::default();
        assert!(!slot.is_due());
        slot.pin(true);
        assert!(slot.is_due());
        slot.failed("broken", &Metrics::new());
        assert!(!slot.is_due());
    }
}
