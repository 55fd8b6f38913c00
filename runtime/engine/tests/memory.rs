//! Memory goes back. Alone in its process, as it looks at the whole of it.

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
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 90 << 20,
        "{} MiB more after four models came and went",
        grown >> 20
    );
}
