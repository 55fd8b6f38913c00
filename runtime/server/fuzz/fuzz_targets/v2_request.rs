//! Any bytes as an inference request of the Open Inference Protocol, of which the first two say how
//! long its JSON is: read, or refused as the sender's fault.
//!
//! ```sh
//! cargo +nightly fuzz run v2_request -- -rss_limit_mb=2048 -timeout=10
//! ```

#![no_main]

use std::sync::LazyLock;

use firebox_server::protocol::v2::decode_request;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// What is left of a refused body is waited for, and so needs a clock.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime can be made")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let _in_runtime = RUNTIME.enter();
    let length = usize::from(u16::from_le_bytes(*length));
    for length in [None, Some(length)] {
        if let Err(status) = decode_request(body.to_vec().into(), length) {
            assert!((400..500).contains(&status), "{status}");
        }
    }
});
