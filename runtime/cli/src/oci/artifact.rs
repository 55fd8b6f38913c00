//! What lies under a tag in a registry.
//!
//! A bundle is one artifact of the type [`BUNDLE`]: each of its layers is a part of the bundle file,
//! and the parts, one after another, are that file, byte for byte.
//!
//! A bundle with WebAssembly in it has its artifact under `TAG.bundle`. Under `TAG` itself lies what
//! other tools look for: the component alone, in the layout that the CNCF has written down
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>). These tools insist on a
//! single layer, so there is no room for more; an annotation names the bundle's artifact by its digest.

use std::collections::BTreeMap;

use firebox_registry::bundle::Part;
use firebox_registry::{Digest, FunctionName, Manifest};
use oci_client::manifest::{
    IMAGE_DOCKER_CONFIG_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest,
};
use serde_json::json;
use wasmparser::{Encoding, Parser, Payload};

use crate::failure::{Context, Failure, Result};
use crate::output;

/// The type of a bundle's artifact.
pub const BUNDLE: &str = "application/vnd.firebox.bundle.v1";
/// A part of a bundle file.
const PART: &str = "application/vnd.firebox.bundle.part.v1";
/// The configuration of an artifact that needs none, by the OCI image specification.
const NO_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// The configuration of a component or module.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A component or module.
const WASM: &str = "application/wasm";

/// The digest of the bundle, in its own artifact.
const DIGEST: &str = "dev.firebox.bundle.digest";
/// The digest of the bundle's artifact, in that of its component.
const ARTIFACT: &str = "dev.firebox.bundle.artifact";
const TITLE: &str = "org.opencontainers.image.title";
const DESCRIPTION: &str = "org.opencontainers.image.description";

/// The largest bundle that is taken: no more than that is unpacked of one by default either.
pub const LARGEST: u64 = 16 << 30;

/// What follows the tag in that of the bundle's artifact.
pub const SUFFIX: &str = ".bundle";

/// A manifest, and the configuration that it names.
#[derive(Debug)]
pub struct Artifact {
    /// The manifest as it is sent: its digest is that of these bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
}

impl Artifact {
    fn of(
        config: (&str, Vec<u8>),
        layers: Vec<OciDescriptor>,
        artifact_type: Option<&str>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Artifact> {
        let (media_type, config) = config;
        let manifest = OciImageManifest {
            schema_version: 2,
            media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
            config: descriptor(media_type, Digest::of(&config), config.len() as u64)?,
            layers,
            subject: None,
            artifact_type: artifact_type.map(str::to_owned),
            annotations: Some(annotations),
        };
        let manifest = serde_json::to_vec(&manifest)
            .context(|| "the artifact's manifest can't be written".into())?;
        Ok(Artifact { manifest, config })
    }

    /// The manifest's digest, by which the artifact can be pulled for ever.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// The artifact of a bundle with this digest, made of these parts. Equal bundles give equal artifacts.
pub fn of_bundle(
    name: &FunctionName,
    manifest: &Manifest,
    digest: Digest,
    parts: &[Part],
) -> Result<Artifact> {
    let layers = parts
        .iter()
        .map(|part| descriptor(PART, part.digest, part.bytes));
    let mut annotations = about(name, manifest);
    annotations.insert(DIGEST.to_owned(), digest.to_string());
    Artifact::of(
        (NO_CONFIG, b"{}".to_vec()),
        layers.collect::<Result<_>>()?,
        Some(BUNDLE),
        annotations,
    )
}

/// The artifact of a bundle's component or module.
pub fn of_wasm(
    name: &FunctionName,
    manifest: &Manifest,
    wasm: &[u8],
    bundle: &Artifact,
) -> Result<Artifact> {
    let digest = Digest::of(wasm);
    let layer = descriptor(WASM, digest, wasm.len() as u64)?;
    let mut annotations = about(name, manifest);
    annotations.insert(ARTIFACT.to_owned(), bundle.digest().to_string());
    let config = serde_json::to_vec(&wasm_config(wasm, digest)?)
        .context(|| "the component's configuration can't be written".into())?;
    Artifact::of((WASM_CONFIG, config), vec![layer], None, annotations)
}

fn about(name: &FunctionName, manifest: &Manifest) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(TITLE.to_owned(), name.to_string())]);
    if !manifest.description.is_empty() {
        annotations.insert(DESCRIPTION.to_owned(), manifest.description.clone());
    }
    annotations
}

fn descriptor(media_type: &str, digest: Digest, bytes: u64) -> Result<OciDescriptor> {
    Ok(OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: i64::try_from(bytes).context(|| "a layer is too large".into())?,
        ..OciDescriptor::default()
    })
}

/// What the layout wants to be known of a component, or of a core module.
fn wasm_config(wasm: &[u8], digest: Digest) -> Result<serde_json::Value> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let (mut depth, mut component) = (0, true);
    let invalid = || "the bundle's WebAssembly can't be read".into();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.context(invalid)? {
            Payload::Version { encoding, .. } if depth == 0 => {
                component = encoding == Encoding::Component;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.context(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.context(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let os = if component { "wasip2" } else { "wasip1" };
    let component =
        component.then(|| json!({"exports": exports, "imports": imports, "target": null}));
    Ok(json!({
        // Not the present: the same bundle has the same artifact, whenever it is pushed.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": os,
        "layerDigests": [digest],
        "component": component,
    }))
}

/// What a manifest from a registry turns out to be.
#[derive(Debug)]
pub enum Found {
    /// A bundle, in parts.
    Bundle(Content),
    /// The component of a bundle whose artifact has this digest.
    ComponentOf(Digest),
    /// WebAssembly that somebody else published: a bundle of that file alone.
    Wasm(Content),
}

/// What to fetch.
#[derive(Debug)]
pub struct Content {
    /// The layers, in order.
    pub layers: Vec<OciDescriptor>,
    /// What their bytes, one after another, must have.
    pub digest: Digest,
    /// How many these are.
    pub bytes: u64,
    /// The function's name, where it is told.
    pub name: Option<FunctionName>,
}

/// Reads a manifest, which says nothing that could be trusted.
pub fn read(manifest: OciImageManifest) -> Result<Found> {
    let annotations = manifest.annotations.unwrap_or_default();
    let digest_in = |key: &str| match annotations.get(key) {
        Some(text) => text
            .parse()
            .map(Some)
            .context(|| format!("annotation {key}")),
        None => Ok(None),
    };
    let bundle = digest_in(DIGEST)?;
    let artifact = digest_in(ARTIFACT)?;
    let name = annotations.get(TITLE).and_then(|title| title.parse().ok());
    let bytes = manifest.layers.iter().try_fold(0u64, |sum, layer| {
        let bytes = u64::try_from(layer.size).ok()?;
        sum.checked_add(bytes)
    });
    let bytes = bytes.ok_or_else(|| Failure::new("the artifact has layers of no possible size"))?;
    if bytes > LARGEST {
        return Err(Failure::new(format!(
            "the artifact announces {}, and at most {} are taken",
            output::bytes(bytes),
            output::bytes(LARGEST)
        )));
    }
    let content = |digest| Content {
        digest,
        bytes,
        name,
        layers: manifest.layers.clone(),
    };
    let all_are = |media_type| {
        let mut layers = manifest.layers.iter();
        layers.all(|layer| layer.media_type == media_type)
    };
    match (manifest.artifact_type.as_deref(), bundle, artifact) {
        (Some(BUNDLE), Some(digest), _) if all_are(PART) => Ok(Found::Bundle(content(digest))),
        (_, _, Some(artifact)) => Ok(Found::ComponentOf(artifact)),
        _ => match manifest.layers.as_slice() {
            [layer] if layer.media_type == WASM => {
                let digest = layer.digest.parse().context(|| "the layer".into())?;
                Ok(Found::Wasm(content(digest)))
            }
            _ => Err(stranger(&manifest.config.media_type)),
        },
    }
}

fn stranger(config: &str) -> Failure {
    let what = match config {
        IMAGE_DOCKER_CONFIG_MEDIA_TYPE | "application/vnd.oci.image.config.v1+json" => {
            "a container image".to_owned()
        }
        other => format!("something else, of the type {other}"),
    };
    Failure::new(format!("there is no bundle at this address: it is {what}"))
        .hint("`firebox push` puts a bundle there; a lone WebAssembly component can be used too")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> FunctionName {
        "adder".parse().unwrap()
    }

    fn parse(artifact: &Artifact) -> OciImageManifest {
        serde_json::from_slice(&artifact.manifest).unwrap()
    }

    fn bundle() -> (Artifact, Digest) {
        let digest = Digest::of(b"one two");
        let part = |offset: u64, text: &[u8]| Part {
            offset,
            bytes: text.len() as u64,
            digest: Digest::of(text),
        };
        let parts = [part(0, b"one "), part(4, b"two")];
        let manifest = Manifest::of_component(name());
        let artifact = of_bundle(&name(), &manifest, digest, &parts).unwrap();
        (artifact, digest)
    }

    #[test]
    fn a_bundles_artifact_says_how_to_put_it_together() {
        let (artifact, digest) = bundle();
        let Found::Bundle(content) = read(parse(&artifact)).unwrap() else {
            panic!("it is a bundle");
        };
        assert_eq!((content.digest, content.bytes), (digest, 7));
        assert_eq!(content.name, Some(name()));
        assert_eq!(content.layers[1].digest, Digest::of(b"two").to_string());
    }

    #[test]
    fn a_components_artifact_is_one_layer_and_leads_to_the_bundle() {
        let (bundle, _) = bundle();
        let wasm = b"\0asm\x0d\0\x01\0";
        let manifest = Manifest::of_component(name());
        let artifact = of_wasm(&name(), &manifest, wasm, &bundle).unwrap();
        let parsed = parse(&artifact);
        assert_eq!(
            parsed.config.media_type,
            "application/vnd.wasm.config.v0+json"
        );
        assert_eq!(parsed.layers.len(), 1);
        assert_eq!(parsed.layers[0].media_type, "application/wasm");
        let config: serde_json::Value = serde_json::from_slice(&artifact.config).unwrap();
        assert_eq!(config["os"], "wasip2");
        assert_eq!(config["layerDigests"][0], Digest::of(wasm).to_string());
        assert!(
            matches!(read(parsed).unwrap(), Found::ComponentOf(digest) if digest == bundle.digest())
        );
        let module = of_wasm(&name(), &manifest, b"\0asm\x01\0\0\0", &bundle).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&module.config).unwrap();
        assert_eq!(config["os"], "wasip1");
    }

    #[test]
    fn a_component_of_somebody_else_is_taken_and_an_image_is_not() {
        let (bundle, _) = bundle();
        let manifest = Manifest::of_component(name());
        let artifact = of_wasm(&name(), &manifest, b"\0asm\x0d\0\x01\0", &bundle).unwrap();
        let mut foreign = parse(&artifact);
        foreign.annotations = None;
        assert!(matches!(read(foreign.clone()).unwrap(), Found::Wasm(_)));
        foreign.layers.clear();
        foreign.config.media_type = IMAGE_DOCKER_CONFIG_MEDIA_TYPE.into();
        let failure = read(foreign).unwrap_err();
        assert!(failure.what.contains("container image"), "{failure}");
    }

    #[test]
    fn sizes_that_can_not_be_are_refused() {
        let mut manifest = parse(&bundle().0);
        manifest.layers[0].size = i64::try_from(LARGEST).unwrap();
        let failure = read(manifest.clone()).unwrap_err();
        assert!(failure.what.contains("at most 16"), "{failure}");
        manifest.layers[0].size = -1;
        assert!(read(manifest.clone()).is_err());
        manifest.layers[0].size = i64::MAX;
        manifest.layers.push(manifest.layers[0].clone());
        manifest.layers.push(manifest.layers[0].clone());
        assert!(read(manifest).is_err());
    }
}
