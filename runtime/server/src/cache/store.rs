//! The kept answers, within their bounds: each version's own, and that of all. Where one is
//! passed, the answer that was not asked for longest goes. Pure: the time is given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firebox_engine::Tensor;
use firebox_registry::Digest;
use firebox_sandbox::Parameter;

use crate::gateway::Answer;

/// What an answer costs beside its own bytes: its place in the maps below, with their slack.
const OVERHEAD: usize = 512;

/// What a tensor or a parameter costs beside its bytes.
const PART_OVERHEAD: usize = 128;

/// An answer as it is kept.
pub struct Kept {
    answer: Arc<Answer>,
    bytes: usize,
}

impl Kept {
    /// A copy of an answer that holds nothing but its own bytes: as it came, its tensors may be
    /// slices of a buffer that is many times larger. `None` where it alone takes more than `most`.
    pub fn of(answer: &Answer, most: usize) -> Option<Self> {
        let bytes = bytes_of(answer);
        if bytes > most {
            return None;
        }
        let outputs = answer.outputs.iter().map(|(name, tensor)| {
            let data = Bytes::copy_from_slice(tensor.data());
            let copy = Tensor::new(tensor.dtype(), tensor.shape().to_vec(), data).ok()?;
            Some((name.clone(), copy))
        });
        let answer = Answer {
            outputs: outputs.collect::<Option<_>>()?,
            parameters: answer.parameters.clone(),
        };
        Some(Self {
            answer: Arc::new(answer),
            bytes,
        })
    }
}

fn bytes_of(answer: &Answer) -> usize {
    let outputs = answer.outputs.iter().map(|(name, tensor)| {
        let shape = size_of_val(tensor.shape());
        PART_OVERHEAD + name.len() + shape + tensor.data().len()
    });
    let parameters = answer.parameters.iter().map(|(name, value)| {
        let text = match value {
            Parameter::Text(text) => text.len(),
            _ => 0,
        };
        PART_OVERHEAD + name.len() + text
    });
    OVERHEAD + outputs.chain(parameters).sum::<usize>()
}

/// How many answers went, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Their time was over.
    pub expired: u64,
    /// Their version's answers took too much.
    pub over_version: u64,
    /// All answers together took too much.
    pub over_memory: u64,
    /// Their version lost its traffic to a rollback, or is gone.
    pub dropped: u64,
}

/// The answers.
pub struct Store {
    most: usize,
    bytes: usize,
    entries: HashMap<Digest, Entry>,
    /// Turns of use → keys: the first was not asked for longest.
    used: BTreeMap<u64, Digest>,
    turn: u64,
    expiries: BTreeSet<(Instant, Digest)>,
    shelves: HashMap<Digest, Shelf>,
    evicted: Evicted,
}

struct Entry {
    owner: Digest,
    kept: Kept,
    since: Instant,
    expires: Instant,
    used: u64,
}

/// One version's answers.
#[derive(Default)]
struct Shelf {
    bytes: usize,
    used: BTreeMap<u64, Digest>,
}

impl Store {
    /// Holds at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            bytes: 0,
            entries: HashMap::new(),
            used: BTreeMap::new(),
            turn: 0,
            expiries: BTreeSet::new(),
            shelves: HashMap::new(),
            evicted: Evicted::default(),
        }
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers that are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What went since this was asked last.
    pub fn take_evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    /// The answer of a key and its age, if it is there and its time not over.
    pub fn get(&mut self, key: &Digest, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let entry = self.entries.get_mut(key)?;
        if entry.expires <= now {
            return None;
        }
        self.turn += 1;
        let before = std::mem::replace(&mut entry.used, self.turn);
        self.used.remove(&before);
        self.used.insert(self.turn, *key);
        if let Some(shelf) = self.shelves.get_mut(&entry.owner) {
            shelf.used.remove(&before);
            shelf.used.insert(self.turn, *key);
        }
        let age = now.saturating_duration_since(entry.since);
        Some((entry.kept.answer.clone(), age))
    }

    /// Keeps an answer for `ttl`, in the place of an older one of the key; its owner's answers
    /// take at most `most` bytes afterwards.
    pub fn insert(
        &mut self,
        key: Digest,
        owner: Digest,
        kept: Kept,
        now: Instant,
        ttl: Duration,
        most: usize,
    ) {
        let Some(expires) = now.checked_add(ttl) else {
            return;
        };
        let bytes = kept.bytes;
        if bytes > most.min(self.most) {
            return;
        }
        self.expire(now);
        self.remove(&key);
        self.turn += 1;
        self.bytes += bytes;
        self.used.insert(self.turn, key);
        self.expiries.insert((expires, key));
        let shelf = self.shelves.entry(owner).or_default();
        shelf.bytes += bytes;
        shelf.used.insert(self.turn, key);
        let entry = Entry {
            owner,
            kept,
            since: now,
            expires,
            used: self.turn,
        };
        self.entries.insert(key, entry);
        // The new one was used last, so it is never the one that goes.
        while let Some(shelf) = self.shelves.get(&owner).filter(|shelf| shelf.bytes > most)
            && let Some((_, &oldest)) = shelf.used.first_key_value()
        {
            self.remove(&oldest);
            self.evicted.over_version += 1;
        }
        while self.bytes > self.most
            && let Some((_, &oldest)) = self.used.first_key_value()
        {
            self.remove(&oldest);
            self.evicted.over_memory += 1;
        }
    }

    /// Drops the answers whose time is over.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.expiries.first()
            && at <= now
        {
            self.remove(&key);
            self.evicted.expired += 1;
        }
    }

    /// Drops all answers of an owner.
    pub fn drop_owner(&mut self, owner: &Digest) {
        let shelf = self.shelves.get(owner);
        let keys = shelf.map(|shelf| shelf.used.values().copied().collect::<Vec<_>>());
        for key in keys.unwrap_or_default() {
            self.remove(&key);
            self.evicted.dropped += 1;
        }
    }

    fn remove(&mut self, key: &Digest) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.bytes -= entry.kept.bytes;
        self.used.remove(&entry.used);
        self.expiries.remove(&(entry.expires, *key));
        if let Some(shelf) = self.shelves.get_mut(&entry.owner) {
            shelf.bytes -= entry.kept.bytes;
            shelf.used.remove(&entry.used);
            if shelf.used.is_empty() {
                self.shelves.remove(&entry.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn answer(bytes: usize) -> Answer {
        let tensor = Tensor::from_blob(&vec![7; bytes]).unwrap();
        Answer {
            outputs: vec![("body".into(), tensor)],
            parameters: vec![],
        }
    }

    fn kept(bytes: usize) -> Kept {
        Kept::of(&answer(bytes), usize::MAX).unwrap()
    }

    fn name(n: u8) -> Digest {
        Digest::of(&[n])
    }

    #[test]
    fn an_answer_is_kept_until_its_time_is_over() {
        let (start, mut store) = (Instant::now(), Store::new(1 << 20));
        store.insert(name(1), name(0), kept(10), start, TTL, 1 << 20);
        let (found, age) = store.get(&name(1), start + TTL / 2).unwrap();
        assert_eq!((&found.outputs, age), (&answer(10).outputs, TTL / 2));
        assert!(store.get(&name(1), start + TTL).is_none());
        store.expire(start + TTL);
        assert_eq!((store.len(), store.bytes()), (0, 0));
        assert_eq!(store.take_evicted().expired, 1);
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let now = Instant::now();
        let each = kept(1000).bytes;
        let mut store = Store::new(3 * each);
        for n in 1..=3 {
            store.insert(name(n), name(0), kept(1000), now, TTL, usize::MAX);
        }
        store.get(&name(1), now);
        store.insert(name(4), name(0), kept(1000), now, TTL, usize::MAX);
        let there: Vec<bool> = (1..=4)
            .map(|n| store.get(&name(n), now).is_some())
            .collect();
        assert_eq!(there, [true, false, true, true]);
        assert_eq!(store.take_evicted().over_memory, 1);
    }

    #[test]
    fn a_version_over_its_bound_loses_its_own_answers_alone() {
        let now = Instant::now();
        let each = kept(1000).bytes;
        let mut store = Store::new(100 * each);
        store.insert(name(9), name(8), kept(1000), now, TTL, each);
        for n in 1..=3 {
            store.insert(name(n), name(0), kept(1000), now, TTL, 2 * each);
        }
        assert!(store.get(&name(1), now).is_none());
        assert!(store.get(&name(3), now).is_some() && store.get(&name(9), now).is_some());
        assert_eq!(store.take_evicted().over_version, 1);
    }

    #[test]
    fn an_answer_over_the_bound_is_not_kept_and_drives_nothing_out() {
        let now = Instant::now();
        assert!(Kept::of(&answer(2000), 1000).is_none());
        let mut store = Store::new(4000);
        store.insert(name(1), name(0), kept(1000), now, TTL, usize::MAX);
        store.insert(name(2), name(0), kept(5000), now, TTL, usize::MAX);
        assert!(store.get(&name(1), now).is_some() && store.get(&name(2), now).is_none());
    }

    #[test]
    fn a_kept_answer_holds_no_larger_buffer() {
        let whole = Bytes::from(vec![0_u8; 1 << 20]);
        let part = Tensor::new(firebox_engine::DType::U8, vec![4], whole.slice(8..12)).unwrap();
        let answer = Answer {
            outputs: vec![("y".into(), part)],
            parameters: vec![],
        };
        let kept = Kept::of(&answer, 4096).unwrap();
        let inside = whole.as_ptr_range();
        let copy = kept.answer.outputs.first().unwrap().1.data().as_ptr();
        assert!(!inside.contains(&copy));
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_books_agree_whatever_happens(
            steps in prop::collection::vec((0_u8..6, 0_u8..12, 0_u8..3, 0_usize..3000, 0_u64..90), 1..200),
        ) {
            let (start, mut store) = (Instant::now(), Store::new(16 << 10));
            let mut now = start;
            for (step, key, owner, bytes, seconds) in steps {
                // A key belongs to one owner.
                let (key, owner) = (name(key * 3 + owner), name(100 + owner));
                match step {
                    0 => now += Duration::from_secs(seconds),
                    1 => store.drop_owner(&owner),
                    2 => store.expire(now),
                    3 => drop(store.get(&key, now)),
                    _ => {
                        let ttl = Duration::from_secs(seconds);
                        store.insert(key, owner, kept(bytes), now, ttl, 8 << 10);
                    }
                }
                let held: usize = store.entries.values().map(|entry| entry.kept.bytes).sum();
                let shelved: usize = store.shelves.values().map(|shelf| shelf.bytes).sum();
                prop_assert_eq!((store.bytes, store.bytes), (held, shelved));
                prop_assert!(store.bytes <= 16 << 10);
                prop_assert!(store.shelves.values().all(|shelf| shelf.bytes <= 8 << 10));
                let shelves: usize = store.shelves.values().map(|shelf| shelf.used.len()).sum();
                let counts = [store.used.len(), store.expiries.len(), shelves];
                prop_assert_eq!(counts, [store.entries.len(); 3]);
            }
        }
    }
}
