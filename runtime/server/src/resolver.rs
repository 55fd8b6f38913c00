//! Which version a request gets, asked without a server.

use axum::http::HeaderMap;
use firebox_registry::{Registry, RegistryError, VersionNumber};
use uuid::Uuid;

use crate::cache::ResponseCache;
use crate::metrics::Metrics;
use crate::protocol::selector;
use crate::routing::{Caller, Routing, Selector};

/// Answers what the gateway asks at the start of every request: pin, label, sticky key or chance.
pub struct Resolver {
    routing: Routing,
}

impl Resolver {
    /// Reads all functions of a registry; they are not followed.
    ///
    /// # Errors
    /// Where a record can't be read.
    pub fn open(registry: Registry) -> Result<Self, RegistryError> {
        let metrics = Metrics::new();
        let cache = ResponseCache::new(0, metrics.clone());
        let routing = Routing::open(registry, cache, metrics)?;
        Ok(Self { routing })
    }

    /// The version that a request with these headers gets; `id` is what chance goes by.
    ///
    /// # Errors
    /// What a caller would be told: no such function, version or label.
    pub fn resolve(
        &self,
        function: &str,
        headers: &HeaderMap,
        id: Uuid,
    ) -> Result<VersionNumber, String> {
        let caller = Caller {
            id,
            headers,
            body: None,
        };
        let found = selector(Selector::Split, headers)
            .and_then(|selector| self.routing.table().resolve(function, &selector, &caller));
        found
            .map(|version| version.record.number)
            .map_err(|failure| failure.to_string())
    }
}
