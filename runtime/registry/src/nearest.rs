//! "Did you mean …?"

/// The one of `known` that `wanted` was most likely meant to be, if any is near enough.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(wanted, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_none() {
        let known = ["memory", "deadline"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("dead_line", known), Some("deadline"));
        assert_eq!(nearest("colour", known), None);
    }
}
