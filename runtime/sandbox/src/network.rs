//! Outgoing HTTP: only to listed hosts.

use std::sync::Arc;

use http::Uri;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

/// Hosts that a guest can call over wasi:http; none by default. Cloning is cheap.
///
/// An entry is `api.example.com`, which allows the scheme's own port, or
/// `api.example.com:8443`, which allows that port. Redirects aren't followed.
#[derive(Clone, Debug, Default)]
pub struct Network {
    hosts: Arc<[String]>,
}

impl Network {
    /// Allows these hosts.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self {
            hosts: hosts
                .into_iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
        }
    }

    fn allows(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let host = host.to_ascii_lowercase();
        let own_port = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = uri.port_u16().unwrap_or(own_port);
        let with_port = format!("{host}:{port}");
        self.hosts
            .iter()
            .any(|entry| *entry == with_port || port == own_port && *entry == host)
    }
}

type Sent = wasmtime::Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

/// The most bytes of a body that a guest can write at once. Two such pieces wait at the host for
/// whoever takes the body, no more.
const PIECE: usize = 64 << 10;

impl WasiHttpHooks for Network {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _body_sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = self.allows(request.uri());
        Box::new(async move {
            if !allowed {
                let host = request
                    .uri()
                    .authority()
                    .map_or("?", |authority| authority.as_str());
                tracing::warn!(target: "firebox::guest", host, "outgoing request refused");
                return Err(Error::HttpRequestDenied);
            }
            let (response, body) = default_send_request(request, options).await?;
            let response = response.map(http_body_util::BodyExt::boxed_unsync);
            Ok((
                response,
                Box::new(body) as Box<dyn Future<Output = _> + Send>,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_its_host_on_its_port_only() {
        let network = Network::new(["API.example.com".into(), "example.org:8443".into()]);
        let allows = |uri: &str| network.allows(&uri.parse().unwrap());
        assert!(allows("https://api.example.com/x"));
        assert!(allows("http://api.EXAMPLE.com/x"));
        assert!(allows("https://example.org:8443/"));
        assert!(!allows("https://api.example.com:8443/"));
        assert!(!allows("https://example.org/"));
        assert!(!allows("https://evil.api.example.com/"));
        assert!(!Network::default().allows(&"http://localhost/".parse().unwrap()));
    }
}
