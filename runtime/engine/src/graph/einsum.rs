//! Products by letters.

/// Sums of products over axes named by letters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Einsum {
    pub inputs: Vec<Letters>,
    pub output: Letters,
}

/// The names of a tensor's axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Letters {
    pub before: Vec<char>,
    /// The axes after `before` that have no names, and the names after these.
    pub ellipsis: Option<Vec<char>>,
}

impl Letters {
    /// All names.
    pub fn names(&self) -> impl Iterator<Item = char> {
        self.before
            .iter()
            .chain(self.ellipsis.iter().flatten())
            .copied()
    }
}
