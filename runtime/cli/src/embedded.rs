//! The files that the binary carries for `firebox new`, gathered by `build.rs`.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
