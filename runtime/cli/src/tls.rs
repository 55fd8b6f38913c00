//! Which cryptography TLS uses here.

/// Makes ring the process's provider, where none was chosen before. Clients of HTTP can't be made
/// without one.
pub fn ready() {
    // The error is that one was chosen before.
    drop(rustls::crypto::ring::default_provider().install_default());
}
