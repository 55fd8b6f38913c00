//! A function that behaves as it is told, well or badly, so that the sandbox's
//! tests can see what the host does about it. The parameter `mode` names a
//! function of `modes.rs`; the asset `/init`, if there is one, tells `init`
//! what to do, and `/behaviour` the mode `behave`.
#![cfg(target_family = "wasm")]
#![allow(
    missing_docs,
    unsafe_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "generated bindings, and a test program in which what fails should panic"
)]

mod modes;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

wit_bindgen::generate!({ path: "../../../wit", world: "function", generate_all });

use firebox::function::types::{Dtype, TensorSpec};

static WORDS: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);
static INITS: AtomicU32 = AtomicU32::new(0);
static BEHAVIOUR: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" {
    fn __wasilibc_reset_preopens();
}

struct Probe;

impl Guest for Probe {
    fn init() {
        INITS.fetch_add(1, Relaxed);
        let task = std::fs::read_to_string("/init").unwrap_or_default();
        match task.trim() {
            "panic" => panic!("init panics on purpose"),
            "spin" => loop {
                std::hint::black_box(0);
            },
            "allocate" => modes::allocate_without_end(),
            "speak" => println!("init speaks"),
            _ => {}
        }
        *BEHAVIOUR.lock().unwrap() = std::fs::read_to_string("/behaviour").unwrap_or_default();
        let count = if task.trim() == "empty" { 0 } else { 30_000 };
        let words = (0..count).map(|at| (format!("word-{at}"), at)).collect();
        *WORDS.lock().unwrap() = Some(words);
        if task.trim() != "keep" {
            // Handles don't outlive `init`, so libc must not keep those of `/`.
            unsafe { __wasilibc_reset_preopens() }
        }
    }

    fn describe() -> Signature {
        let shape = vec![None, Some(2)];
        let x = TensorSpec {
            name: "x".into(),
            dtype: Dtype::F32,
            shape,
        };
        Signature {
            inputs: vec![x.clone()],
            outputs: vec![x],
        }
    }

    fn infer(request: Request) -> Result<Response, Error> {
        modes::run(request)
    }
}

export!(Probe);
