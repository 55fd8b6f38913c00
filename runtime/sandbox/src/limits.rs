//! The memory cap of one instance: counts all its linear memories and
//! remembers whether it refused.

use wasmtime::ResourceLimiter;

/// Elements of one table; function tables of big guests have thousands.
pub(crate) const TABLE_ELEMENTS: usize = 50_000;

pub(crate) struct MemoryCap {
    limit: usize,
    held: usize,
    peak: usize,
    refused: bool,
}

impl MemoryCap {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            peak: 0,
            refused: false,
        }
    }

    /// Whether the guest asked for more than it may have. A Rust guest aborts
    /// then, which by itself looks like any other trap.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// The most bytes ever held.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }
}

impl ResourceLimiter for MemoryCap {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let held = self.held.saturating_add(desired.saturating_sub(current));
        // What the module forbids itself is not refused by its host, which would blame the limit for
        // whatever stops the guest later.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if held > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.held = held;
        self.peak = self.peak.max(held);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_counts_all_memories_together() {
        let mut cap = MemoryCap::new(100);
        assert!(cap.memory_growing(0, 60, None).unwrap());
        assert!(cap.memory_growing(0, 40, None).unwrap());
        assert!(!cap.refused());
        assert!(!cap.memory_growing(40, 41, None).unwrap());
        assert!(cap.refused());
        assert_eq!(cap.peak(), 100);
    }

    #[test]
    fn what_a_module_forbids_itself_is_not_refused_by_the_cap() {
        let mut cap = MemoryCap::new(100);
        assert!(!cap.memory_growing(10, 30, Some(20)).unwrap());
        assert!(!cap.memory_growing(10, 300, Some(20)).unwrap());
        assert!(!cap.refused());
        assert!(cap.memory_growing(10, 20, Some(20)).unwrap());
    }
}
