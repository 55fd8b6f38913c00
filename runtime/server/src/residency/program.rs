//! A version's linked code, by its kind.

use std::path::Path;

use firebox_registry::Kind;
use firebox_sandbox::{Command, Component, Handler, LinkError, Sandbox};

/// Code that can be called, each kind in its own way.
pub enum Program {
    /// Tensors in, tensors out.
    Function(Component),
    /// A request in, a response out.
    Http(Handler),
    /// Standard input in, standard output out.
    Command(Command),
}

impl Program {
    /// Maps a file of machine code; `snapshot` is whether it starts from the memory that `init`
    /// left.
    ///
    /// # Errors
    /// As [`Sandbox::link`].
    pub fn link(
        sandbox: &Sandbox,
        kind: Kind,
        cwasm: &Path,
        snapshot: bool,
    ) -> Result<Self, LinkError> {
        match kind {
            Kind::Function => sandbox.link(cwasm, snapshot).map(Self::Function),
            Kind::Http => sandbox.link_handler(cwasm).map(Self::Http),
            Kind::Command => sandbox.link_command(cwasm).map(Self::Command),
        }
    }
}
