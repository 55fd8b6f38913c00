//! Memory goes back. Alone in its process, as it looks at the whole of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

#[test]
#[cfg(target_os = "linux")]
fn memory_goes_back_when_models_are_dropped() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let start = resident();
    drop(support::open("minilm"));
    let before = resident();
    for _ in 0..4 {
        drop(support::open("minilm"));
    }
    let after = resident();
    let grown = after.saturating_sub(before) >> 20;
    assert!(
        grown < 45,
        "{grown} MiB more after four models of 86 MiB came and went"
    );
    let left = after.saturating_sub(start) >> 20;
    println!("{left} MiB are left of five models");
    assert!(left < 60, "{left} MiB are left of five models of 86 MiB");
}
