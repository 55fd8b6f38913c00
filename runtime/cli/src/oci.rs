//! Bundles in OCI registries: where they lie ([`Address`]), how one gets in ([`Access`]), and what
//! [`push`](crate::push) and [`pull`](crate::pull) do there.
//!
//! 1. [`artifact`] says what lies under a tag: manifests, layers, media types;
//! 2. [`remote`] speaks with the registry.

pub mod artifact;
pub mod remote;

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use firebox_registry::FunctionName;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;

use crate::failure::{Context, Failure, Result};

/// What an address begins with.
pub const SCHEME: &str = "oci://";
/// What a helper of docker's prints where it keeps no account, by the protocol of
/// <https://github.com/docker/docker-credential-helpers>.
const NO_ACCOUNT: &str = "credentials not found in native keychain";
/// Longer than any password or token.
const PASSWORD_BYTES: u64 = 64 << 10;

/// Where a bundle lies: `oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Clone, Debug)]
pub struct Address(Reference);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        const LIKE: &str = "an address is like oci://ghcr.io/someone/greeter:1";
        let wrong = |why: &str| format!("'{text}' {why}: {LIKE}");
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| wrong("doesn't begin with oci://"))?;
        // Without a host, references mean Docker Hub's; nobody should push there by mistake.
        let host = rest.split_once('/').map(|(host, _)| host);
        let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
        if !host.is_some_and(is_host) {
            return Err(wrong("names no registry"));
        }
        let reference = Reference::try_from(rest).map_err(|error| wrong(&error.to_string()))?;
        Ok(Address(reference))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl Address {
    /// The address in a path, if it is one rather than a file.
    pub fn in_path(path: &Path) -> Option<Result<Address>> {
        let text = path.to_str().filter(|text| text.starts_with(SCHEME))?;
        Some(text.parse().map_err(|why: String| Failure::usage(why)))
    }

    /// What the function is called if nothing else says so: the repository's last part.
    pub fn function_name(&self) -> Option<FunctionName> {
        let last = self.0.repository().rsplit('/').next()?;
        last.replace(['_', '.'], "-").parse().ok()
    }

    /// The tag; `latest` where none is given.
    pub fn tag(&self) -> &str {
        self.0.tag().unwrap_or("latest")
    }

    /// Whether it names a digest, under which nothing else can ever lie.
    pub fn is_pinned(&self) -> bool {
        self.0.digest().is_some()
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.0
    }

    fn is_loopback(&self) -> bool {
        let host = self.0.registry();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name == "localhost"
            || name
                .parse::<std::net::Ipv4Addr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}

/// How to get into a registry.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// The account at the registry; that of `docker login`, or none, where it is not given
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the account's password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP with a registry on another machine; on this one that is usual, and
    /// --insecure=false speaks TLS
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    insecure: Option<bool>,
}

impl Access {
    /// Whether the registry is spoken to without TLS.
    pub fn is_plain(&self, address: &Address) -> bool {
        self.insecure.unwrap_or_else(|| address.is_loopback())
    }

    /// The account, or none.
    pub fn credentials(&self, address: &Address) -> Result<RegistryAuth> {
        match &self.username {
            Some(name) => Ok(RegistryAuth::Basic(name.clone(), password()?)),
            None => kept_by_docker(address.0.registry()),
        }
    }
}

fn password() -> Result<String> {
    let mut password = String::new();
    let mut input = std::io::stdin().lock().take(PASSWORD_BYTES);
    input
        .read_to_string(&mut password)
        .context(|| "no password can be read from standard input".into())?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage("standard input holds no password")
            .hint("pipe it in: printf %s \"$TOKEN\" | firebox push … --password-stdin"));
    }
    Ok(password.to_owned())
}

/// The account that `docker login` has kept for a registry, in docker's file or by its helpers.
fn kept_by_docker(registry: &str) -> Result<RegistryAuth> {
    let Some(path) = docker_config() else {
        return Ok(RegistryAuth::Anonymous);
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(error) => {
            return Err(Failure::new(format!(
                "{} can't be read: {error}",
                path.display()
            )));
        }
    };
    // Docker keeps its own registry under the address of an earlier protocol.
    let server = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    let wrong = |why: String| {
        Failure::new(format!(
            "the account for {registry} in {} {why}",
            path.display()
        ))
        .hint("log in again with `docker login`, or give --username and --password-stdin")
    };
    match docker_credential::get_credential_from_reader(std::io::BufReader::new(file), server) {
        Ok(DockerCredential::UsernamePassword(name, password)) => {
            Ok(RegistryAuth::Basic(name, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(wrong("is an identity token, which is not supported".into()))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.trim() == NO_ACCOUNT =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        // What a helper printed may be a secret.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            Err(wrong(format!("can't be had: {helper} failed")))
        }
        Err(error) => Err(wrong(format!("can't be had: {error}"))),
    }
}

fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let in_home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    Some(folder.or_else(in_home)?.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_registry_repository_and_tag() {
        let address: Address = "oci://ghcr.io/someone/my_greeter:1.2".parse().unwrap();
        assert_eq!(address.reference().registry(), "ghcr.io");
        assert_eq!(address.tag(), "1.2");
        assert_eq!(
            address.function_name().map(|name| name.to_string()),
            Some("my-greeter".into())
        );
        assert_eq!(address.to_string(), "oci://ghcr.io/someone/my_greeter:1.2");
        let untagged: Address = "oci://localhost:5000/greeter".parse().unwrap();
        assert_eq!(untagged.tag(), "latest");
        assert!(!untagged.is_pinned());
    }

    #[test]
    fn an_address_without_a_registry_is_refused() {
        for text in [
            "greeter:1",
            "oci://greeter",
            "oci://someone/greeter:1",
            "oci://ghcr.io/",
        ] {
            let why = text.parse::<Address>().unwrap_err();
            assert!(why.contains("oci://ghcr.io/someone/greeter:1"), "{why}");
        }
    }

    #[test]
    fn http_is_for_this_machine_alone_unless_asked_for() {
        let is_plain = |text: &str, insecure| {
            let access = Access {
                insecure,
                ..Access::default()
            };
            access.is_plain(&text.parse().unwrap())
        };
        assert!(is_plain("oci://127.0.0.1:5000/a:1", None));
        assert!(is_plain("oci://localhost:5000/a:1", None));
        assert!(!is_plain("oci://localhost:5000/a:1", Some(false)));
        assert!(!is_plain("oci://localhost.example.org/a:1", None));
        assert!(!is_plain("oci://10.0.0.7:5000/a:1", None));
        assert!(is_plain("oci://10.0.0.7:5000/a:1", Some(true)));
    }
}
