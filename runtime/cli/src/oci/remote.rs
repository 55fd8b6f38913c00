//! A repository in a registry, spoken to by the OCI distribution protocol.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use firebox_registry::Digest;
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError as Error, OciEnvelope, OciErrorCode};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use reqwest::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::artifact::Artifact;
use super::{Access, Address};
use crate::failure::{Exit, Failure, Result, causes};
use crate::silence::{Pulse, within};
use crate::tls;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(120);
/// As much of a refusal in no known form as is shown.
const REASON: usize = 500;

/// A repository.
pub struct Remote {
    client: Client,
    auth: RegistryAuth,
    reference: Reference,
    named: String,
}

impl Remote {
    /// The repository of an address. Nothing is sent yet.
    pub fn new(address: &Address, access: &Access) -> Result<Remote> {
        Ok(Remote {
            client: client(address, access)?,
            auth: access.credentials(address)?,
            reference: address.reference().clone(),
            named: address.to_string(),
        })
    }

    /// The same repository at another tag.
    fn tagged(&self, tag: &str) -> Reference {
        Reference::with_tag(
            self.reference.registry().to_owned(),
            self.reference.repository().to_owned(),
            tag.to_owned(),
        )
    }

    /// Takes the account along from now on.
    pub async fn log_in(&self) {
        self.client
            .store_auth_if_needed(self.reference.resolve_registry(), &self.auth)
            .await;
    }

    /// Sends a piece of a file as a blob, unless the registry has it. Says whether it was sent.
    pub async fn put_piece(
        &self,
        file: &Path,
        (offset, bytes): (u64, u64),
        digest: Digest,
        progress: &ProgressBar,
    ) -> Result<bool> {
        let digest = digest.to_string();
        if self.has(&digest).await {
            progress.inc(bytes);
            return Ok(false);
        }
        let open = || {
            let mut file = File::open(file)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(tokio::fs::File::from_std(file))
        };
        let piece = open().map_err(|error: std::io::Error| {
            Failure::new(format!("{} can't be read: {error}", file.display()))
        })?;
        let pulse = Pulse::start();
        let (counted, beating) = (progress.clone(), pulse.clone());
        let stream = ReaderStream::new(piece.take(bytes))
            .inspect_ok(move |piece| {
                counted.inc(piece.len() as u64);
                beating.beat();
            })
            .map_err(Error::from);
        let sent = self
            .client
            .push_blob_stream(&self.reference, stream, &digest, Some(bytes));
        self.answer(&pulse, sent).await?;
        Ok(true)
    }

    /// Sends an artifact whose layers are there already, under a tag.
    pub async fn put(&self, tag: &str, artifact: &Artifact) -> Result {
        let digest = Digest::of(&artifact.config).to_string();
        if !self.has(&digest).await {
            let config = Bytes::copy_from_slice(&artifact.config);
            let sent = self.client.push_blob(&self.reference, config, &digest);
            self.answer(&Pulse::start(), sent).await?;
        }
        let manifest = Bytes::copy_from_slice(&artifact.manifest);
        let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
        let tag = self.tagged(tag);
        let sent = self.client.push_manifest_raw(&tag, manifest, media_type);
        self.answer(&Pulse::start(), sent).await.map(drop)
    }

    /// Whether there is a blob. A registry that would not say is told of it anew.
    async fn has(&self, digest: &str) -> bool {
        let asked = self.client.blob_exists(&self.reference, digest);
        self.answer(&Pulse::start(), asked).await.unwrap_or(false)
    }

    /// The manifest at the address, and its digest.
    pub async fn manifest(&self) -> Result<(OciImageManifest, String)> {
        self.manifest_at(&self.reference).await
    }

    /// A manifest of the repository by its digest.
    pub async fn manifest_of(&self, digest: Digest) -> Result<OciImageManifest> {
        let reference = self.reference.clone_with_digest(digest.to_string());
        self.manifest_at(&reference)
            .await
            .map(|(manifest, _)| manifest)
    }

    async fn manifest_at(&self, reference: &Reference) -> Result<(OciImageManifest, String)> {
        let asked = self.client.pull_manifest(reference, &self.auth);
        match self.answer(&Pulse::start(), asked).await? {
            (OciManifest::Image(manifest), digest) => Ok((manifest, digest)),
            (OciManifest::ImageIndex(_), _) => Err(Failure::new(format!(
                "{} is an index of several images, and no bundle",
                self.named
            ))),
        }
    }

    /// Appends a layer to a file; its digest is checked, and no more is taken than it says it has.
    pub async fn get(
        &self,
        layer: &OciDescriptor,
        file: &mut tokio::fs::File,
        progress: &ProgressBar,
    ) -> Result {
        let broken = |error: &dyn std::fmt::Display| {
            let what = format!("a layer of {} can't be had: {error}", self.named);
            Failure::new(what).hint("pull it again; if that doesn't help, it is damaged")
        };
        let mut left = u64::try_from(layer.size).unwrap_or_default();
        // Another place that the layer may name is not asked: only this registry is trusted.
        let pulled = self
            .client
            .pull_blob_stream(&self.reference, layer.digest.as_str());
        let mut pieces = self.answer(&Pulse::start(), pulled).await?.stream;
        loop {
            let next = timeout(SILENCE, pieces.next()).await;
            let Some(piece) = next.map_err(|_| self.silent())? else {
                break;
            };
            let piece = piece.map_err(|error| broken(&causes(&error)))?;
            let bytes = piece.len() as u64;
            left = left
                .checked_sub(bytes)
                .ok_or_else(|| broken(&"it is longer than the manifest says"))?;
            let unwritten = |error| Failure::new(format!("the bundle can't be written: {error}"));
            file.write_all(&piece).await.map_err(unwritten)?;
            progress.inc(bytes);
        }
        match left {
            0 => Ok(()),
            _ => Err(broken(&"it is shorter than the manifest says")),
        }
    }

    /// What the registry answers, unless it is silent too long.
    async fn answer<T>(
        &self,
        pulse: &Pulse,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T> {
        match within(SILENCE, pulse, asked).await {
            Some(answered) => answered.map_err(|error| self.refusal(error)),
            None => Err(self.silent()),
        }
    }

    fn silent(&self) -> Failure {
        let registry = self.reference.registry();
        let what = format!("{registry} was silent for {} s", SILENCE.as_secs());
        Failure::new(what).with_exit(Exit::Unreachable)
    }

    fn refusal(&self, error: Error) -> Failure {
        let named = &self.named;
        let refused = |what: String| Failure::new(what).with_exit(Exit::Refused);
        let registry = self.reference.registry();
        match &error {
            Error::UnauthorizedError { .. }
            | Error::AuthenticationFailure(_)
            | Error::ServerError {
                code: 401 | 403, ..
            } => {
                let account = match &self.auth {
                    RegistryAuth::Basic(name, _) => format!("the account {name}"),
                    _ => "callers without an account".to_owned(),
                };
                refused(format!("{registry} does not let {account} use {named}")).hint(
                    "`docker login`, or --username and --password-stdin, give another account",
                )
            }
            Error::ImageManifestNotFoundError(_) => unknown(named),
            Error::ServerError { code: 404, .. } => unknown(named),
            Error::RegistryError { envelope, .. } => {
                let is_unknown = |code: &OciErrorCode| {
                    matches!(
                        code,
                        OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown
                    )
                };
                let reasons: Vec<&str> = envelope
                    .errors
                    .iter()
                    .map(|error| error.message.as_str())
                    .collect();
                match envelope.errors.iter().any(|error| is_unknown(&error.code)) {
                    true => unknown(named),
                    false => refused(format!("{registry} refused: {}", reasons.join(", "))),
                }
            }
            Error::ServerError { code, message, .. } => {
                let reason = match serde_json::from_str::<OciEnvelope>(message) {
                    Ok(envelope) => envelope.to_string(),
                    Err(_) => message.chars().take(REASON).collect(),
                };
                refused(format!("{registry} refused with {code}: {reason}"))
            }
            Error::RequestError(request) if request.is_connect() => {
                let what = format!("no registry answers at {registry}: {}", causes(request));
                Failure::new(what).with_exit(Exit::Unreachable).hint(
                    "registries are spoken to by HTTPS, unless they are on this machine or \
                     --insecure is given; SSL_CERT_FILE may name a file of authorities instead of \
                     the system's",
                )
            }
            other => refused(format!("{named}: {}", causes(other))),
        }
    }
}

/// The client of one registry. Its timeouts are [`within`]'s.
fn client(address: &Address, access: &Access) -> Result<Client> {
    tls::ready();
    // A proxy can't reach what listens on this machine alone. The client can be told so only by a proxy
    // of its own that is used for nothing: the star stands for names, the rest for addresses.
    let proxy = address.is_loopback().then(|| "http://127.0.0.1".to_owned());
    let config = ClientConfig {
        protocol: match access.is_plain(address) {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        },
        // One request for each layer: some registries know no other way.
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT),
        user_agent: concat!("firebox/", env!("CARGO_PKG_VERSION")),
        platform_resolver: None,
        no_proxy: proxy.as_ref().map(|_| "*,0.0.0.0/0,::/0".to_owned()),
        http_proxy: proxy,
        ..ClientConfig::default()
    };
    // oci-client needs authorities even where it is to speak plain HTTP.
    Client::try_from(config).map_err(|error| {
        let what = format!("the registry's client can't be set up: {}", causes(&error));
        Failure::new(what).hint(
            "the system's authorities may be missing: install ca-certificates, or name a file of \
             them in SSL_CERT_FILE",
        )
    })
}

fn unknown(named: &str) -> Failure {
    Failure::new(format!("there is nothing at {named}"))
        .with_exit(Exit::Refused)
        .hint("check the repository and the tag")
}
