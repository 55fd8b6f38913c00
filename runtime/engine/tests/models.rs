//! Real models give what onnxruntime gives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

/// Runs a case twice: the first run makes the plan, the second follows it.
fn check(name: &str) {
    let case = support::case(name);
    let model = support::open(case["model"].as_str().unwrap());
    for _ in 0..2 {
        let outputs = model.run(support::inputs(&case)).unwrap();
        support::assert_expected(&case, &outputs);
    }
}

macro_rules! cases {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

cases! {
    magika_1
    magika_3
    minilm_1x32
    minilm_2x17
    silero_16k
    silero_16k_batch
    silero_8k
    silero_op15
    orientation_1
    orientation_2
    text_direction_1
    text_direction_2
}
