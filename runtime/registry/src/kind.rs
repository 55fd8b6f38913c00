//! What a version's code is, which says how it is called.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a version's code is. A version without code has the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component of the `firebox:function` world: named tensors in, named tensors out.
    #[default]
    Function,
    /// A component that exports `wasi:http/incoming-handler`: a request in, a response out.
    Http,
    /// A core module of WASI 0.1 with a `_start`: standard input in, standard output out.
    Command,
}

impl Kind {
    /// Its name in records and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Http => "http",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
