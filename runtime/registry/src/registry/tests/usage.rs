//! What the registry promises of what versions have used.

use super::*;
use crate::UsageRecord;

fn used(version: u32, requests: u64) -> UsageRecord {
    UsageRecord {
        function: name(),
        version: number(version),
        since_unix_ms: 7,
        requests,
        predictions: 1,
        guest_cpu_ns: 2,
        compute_cpu_ns: 3,
        gpu_ns: 4,
        byte_seconds: 0.1,
    }
}

#[test]
fn usage_is_as_it_was_saved_last_also_after_a_restart() {
    let (dir, registry) = opened();
    commit(&registry, "one");
    commit(&registry, "two");
    assert_eq!(registry.usage(&name(), number(1)).unwrap(), None);
    registry.save_usage(&[used(1, 5), used(2, 6)]).unwrap();
    registry.save_usage(&[used(1, 8)]).unwrap();
    drop(registry);
    let registry = Registry::open(dir.path()).unwrap();
    let all = registry.all_usage().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[&(name(), number(1))], used(1, 8));
    assert_eq!(
        registry.usage(&name(), number(2)).unwrap(),
        Some(used(2, 6))
    );
}

#[test]
fn usage_goes_with_its_version_and_none_is_kept_of_one_that_is_gone() {
    let (_dir, registry) = opened();
    for content in ["one", "two"] {
        commit(&registry, content);
    }
    registry.save_usage(&[used(1, 5), used(2, 6)]).unwrap();
    registry.delete_version(&name(), number(2)).unwrap();
    registry.save_usage(&[used(1, 6), used(2, 7)]).unwrap();
    assert_eq!(registry.usage(&name(), number(2)).unwrap(), None);
    assert_eq!(
        registry.usage(&name(), number(1)).unwrap(),
        Some(used(1, 6))
    );
    registry.delete_function(&name()).unwrap();
    registry.save_usage(&[used(1, 7)]).unwrap();
    assert!(registry.all_usage().unwrap().is_empty());
}
