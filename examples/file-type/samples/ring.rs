//! A fixed-size ring buffer that drops its oldest element when full.

use std::collections::VecDeque;

/// Holds the last `capacity` values.
#[derive(Debug, Clone)]
pub struct Ring<T> {
    values: VecDeque<T>,
    capacity: usize,
}

impl<T> Ring<T> {
    pub fn new(capacity: usize) -> Self {
        Self { values: VecDeque::with_capacity(capacity), capacity }
    }

    /// Adds a value; returns the one that had to go.
    pub fn push(&mut self, value: T) -> Option<T> {
        let oldest = if self.values.len() == self.capacity { self.values.pop_front() } else { None };
        self.values.push_back(value);
        oldest
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ones() {
        let mut ring = Ring::new(2);
        assert_eq!((ring.push(1), ring.push(2), ring.push(3)), (None, None, Some(1)));
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [2, 3]);
    }
}
