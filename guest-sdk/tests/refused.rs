//! What the compiler tells someone whose `fn` can't be a function.

#[test]
fn each_mistake_is_answered_at_its_place_with_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
