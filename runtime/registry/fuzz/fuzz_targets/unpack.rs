//! Any bytes as a bundle: unpacked below the folder that it is given, or refused.
//!
//! ```sh
//! cargo +nightly fuzz run unpack -- -rss_limit_mb=2048 -timeout=10
//! ```

#![no_main]

use firebox_registry::UnpackLimits;
use firebox_registry::bundle::unpack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = UnpackLimits {
        entries: 64,
        file_bytes: 1 << 20,
        total_bytes: 4 << 20,
    };
    let (Ok(outer), Ok(name)) = (tempfile::tempdir(), "fuzzed".parse()) else {
        return;
    };
    let dir = outer.path().join("inner");
    if std::fs::create_dir(&dir).is_err() {
        return;
    }
    let _ = unpack(bytes, &limits, &dir, &name);
    let beside = std::fs::read_dir(outer.path()).map(Iterator::count);
    assert_eq!(beside.ok(), Some(1), "something was written outside");
});
