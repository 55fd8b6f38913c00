//! Memory that a run hands on: what one operator has read is what a later one writes to. Large
//! tensors then cost no fresh pages, which the system would have to clear first.

use std::cell::RefCell;

/// Floats below which a fresh allocation costs as little.
const LARGE: usize = 1 << 14;
/// Buffers that are kept at a time.
const MOST: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// So many numbers, which are to be overwritten.
pub(crate) fn take(count: usize) -> Vec<f32> {
    let found = SPARE.with_borrow_mut(|spare| {
        let sizes = spare.iter().map(Vec::capacity).enumerate();
        let fitting = sizes.filter(|&(_, size)| size >= count && size / 8 <= count);
        let best = fitting.min_by_key(|&(_, size)| size);
        best.map(|(at, _)| spare.swap_remove(at))
    });
    match found {
        Some(mut buffer) => {
            buffer.resize(count, 0.0);
            buffer
        }
        None => vec![0.0; count],
    }
}

/// Keeps a buffer for [`take`], until the run ends; the smallest goes where there are too many.
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

/// A stretch of work on this thread, at whose end kept buffers go.
pub(crate) struct Scope;

impl Drop for Scope {
    fn drop(&mut self) {
        SPARE.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_handed_on_until_the_scope_ends() {
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
