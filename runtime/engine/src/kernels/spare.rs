//! Memory that is handed on: what one operator has read is what a later one writes to, in this
//! run or the next. Large tensors then cost no fresh pages, which the system would have to clear
//! first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Floats below which a fresh allocation costs as little.
const LARGE: usize = 1 << 14;
/// Buffers that a run keeps at a time.
const MOST: usize = 4;
/// Floats in all buffers that are kept between runs, those of all models: 64 MiB.
const KEPT: usize = 1 << 24;

thread_local! {
    /// Buffers of the run on this thread.
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers of runs that have ended, the oldest first.
static BETWEEN: Mutex<VecDeque<Vec<f32>>> = Mutex::new(VecDeque::new());

fn between() -> MutexGuard<'static, VecDeque<Vec<f32>>> {
    BETWEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the smallest buffer stands that holds so many numbers, and not many times more.
fn fitting<'a>(buffers: impl Iterator<Item = &'a Vec<f32>>, count: usize) -> Option<usize> {
    let sizes = buffers.map(Vec::capacity).enumerate();
    let fitting = sizes.filter(|&(_, size)| size >= count && size / 8 <= count);
    fitting.min_by_key(|&(_, size)| size).map(|(at, _)| at)
}

/// So many numbers, which are to be overwritten.
pub(crate) fn take(count: usize) -> Vec<f32> {
    let found = SPARE.with_borrow_mut(|spare| {
        let at = fitting(spare.iter(), count)?;
        Some(spare.swap_remove(at))
    });
    let found = found.or_else(|| {
        let mut between = (count >= LARGE).then(between)?;
        let at = fitting(between.iter(), count)?;
        between.remove(at)
    });
    match found {
        Some(mut buffer) => {
            buffer.resize(count, 0.0);
            buffer
        }
        None => vec![0.0; count],
    }
}

/// Keeps a buffer for [`take`]; the smallest goes where there are too many.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.capacity() < LARGE {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push(buffer);
        if spare.len() > MOST {
            let sizes = spare.iter().map(Vec::capacity).enumerate();
            if let Some((at, _)) = sizes.min_by_key(|&(_, size)| size) {
                spare.swap_remove(at);
            }
        }
    });
}

/// A run on this thread, at whose end its buffers are there for others. Beyond [`KEPT`] the oldest
/// go.
pub(crate) struct Scope;

impl Drop for Scope {
    fn drop(&mut self) {
        let mut spare = SPARE.take();
        spare.retain(|buffer| buffer.capacity() <= KEPT);
        if spare.is_empty() {
            return;
        }
        let mut between = between();
        between.extend(spare);
        let mut sum: usize = between.iter().map(Vec::capacity).sum();
        while sum > KEPT {
            sum -= between.pop_front().map_or(sum, |oldest| oldest.capacity());
        }
    }
}

/// Frees what is kept between runs to spare the next one fresh memory: up to 64 MiB, of all models
/// together. For when no run is to come soon.
pub fn release_memory() {
    between().clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_handed_on_until_the_run_ends() {
        let scope = Scope;
        let buffer = vec![1.0; 2 * LARGE];
        let place = buffer.as_ptr();
        give(buffer);
        let taken = take(LARGE);
        assert_eq!((taken.as_ptr(), taken.len()), (place, LARGE));
        // It is not there twice, and a much smaller one doesn't take it.
        let other = take(LARGE);
        assert_ne!(other.as_ptr(), place);
        give(taken);
        let small = take(8);
        assert_ne!(small.as_ptr(), place);
        drop(scope);
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
    }

    /// Buffers so large that no other test asks for one.
    #[test]
    fn what_a_run_leaves_is_there_for_the_next_within_bounds() {
        let leave = |counts: &[usize]| {
            let _scope = Scope;
            let buffers = counts.iter().map(|&count| vec![0.0; count]);
            let buffers: Vec<Vec<f32>> = buffers.collect();
            let places: Vec<_> = buffers.iter().map(|buffer| buffer.as_ptr()).collect();
            buffers.into_iter().for_each(give);
            places
        };
        let sizes = || between().iter().map(Vec::capacity).collect::<Vec<_>>();
        let half = KEPT / 2 + 1;
        let places = leave(&[half, KEPT + 1]);
        let taken = take(half);
        assert_eq!(taken.as_ptr(), places[0]);
        assert!(sizes().iter().all(|&size| size < half), "{:?}", sizes());
        for _ in 0..3 {
            leave(&[half]);
            assert!(sizes().iter().sum::<usize>() <= KEPT, "{:?}", sizes());
            assert!(sizes().contains(&half), "{:?}", sizes());
        }
        release_memory();
        assert!(sizes().iter().all(|&size| size < half), "{:?}", sizes());
    }

    #[test]
    fn only_so_many_buffers_are_kept() {
        let _scope = Scope;
        for count in 1..=3 * MOST {
            give(vec![0.0; LARGE * count]);
        }
        assert_eq!(SPARE.with_borrow(Vec::len), MOST);
        let least = SPARE.with_borrow(|spare| spare.iter().map(Vec::capacity).min());
        assert!(least.unwrap() > 2 * MOST * LARGE);
    }
}
