//! What a function should not do.

use std::hint::black_box;

use wasip2::http::types::{ErrorCode, ResponseOutparam};

use crate::{begin, number, sleep};

/// Half an answer, a pause, and a panic; with a length that is announced where `length` is 1.
pub fn half(query: &str, out: ResponseOutparam) {
    let announced: &[(&str, &str)] = match number(query, "length", 0) {
        1 => &[("content-length", "100")],
        _ => &[],
    };
    let mut answer = begin(out, 200, announced);
    answer.write(b"half of the ans");
    sleep(100);
    panic!("it panics half-way on purpose");
}

/// An error instead of a response.
pub fn error(out: ResponseOutparam) {
    ResponseOutparam::set(out, Err(ErrorCode::LoopDetected));
}

/// A body that is let go of before its end.
pub fn unfinished(out: ResponseOutparam) {
    let mut answer = begin(out, 200, &[]);
    answer.write(b"to be contin");
    sleep(100);
    drop(answer);
}

/// A body that is neither finished nor let go of; at once, or after a pause of `ms`.
pub fn leaked(query: &str, out: ResponseOutparam) {
    let mut answer = begin(out, 200, &[]);
    answer.write(b"to be contin");
    let ms = number(query, "ms", 0);
    if ms > 0 {
        sleep(ms);
    }
    std::mem::forget(answer);
}

/// Never answers, and sleeps meanwhile.
pub fn silent(_out: &ResponseOutparam) {
    loop {
        sleep(1000);
    }
}

/// Never answers, and computes meanwhile.
pub fn spin(_out: &ResponseOutparam) {
    loop {
        black_box(0);
    }
}

/// Never ends its answer.
pub fn endless(out: ResponseOutparam) {
    let mut answer = begin(out, 200, &[]);
    answer.write(b"this goes on");
    loop {
        sleep(1000);
    }
}

/// Writes without end.
pub fn flood(out: ResponseOutparam) {
    let mut answer = begin(out, 200, &[]);
    loop {
        answer.write(&[b'x'; 64 << 10]);
    }
}

/// Takes memory without end.
pub fn hoard(_out: &ResponseOutparam) {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}
