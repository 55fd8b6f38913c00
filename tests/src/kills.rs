//! What tests that kill servers at random moments share.

/// The next number of a xorshift generator (Marsaglia, 2003), never 0: the rounds are the same every
/// time. The state isn't 0 either.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A number from the environment, `default` where it says none.
pub fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    match text.as_str() {
        "" => default,
        text => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    }
}
