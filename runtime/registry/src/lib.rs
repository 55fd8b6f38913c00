//! What Firebox keeps: functions, their versions, the files these are made of, and who takes traffic.
//!
//! A [`Registry`] is one directory: records in sled, files beside it by their digest. A version is
//! uploaded as a [bundle], which is unpacked below [`Registry::staging`], judged by the caller, and
//! then [committed](Registry::commit): a whole version or none, whatever happens in between.
//!
//! ```
//! # use firebox_registry::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let registry = Registry::open(dir.path())?;
//!
//! let name: FunctionName = "adder".parse()?;
//! let onnx = b"bytes of a graph".as_slice();
//! let staged = tempfile::tempdir_in(registry.staging())?;
//! let unpacked = bundle::unpack(onnx, &UnpackLimits::default(), staged.path(), &name)?;
//!
//! let Commit::Created(version) = registry.commit(&name, NewVersion::from(unpacked))? else {
//!     unreachable!("the directory was empty");
//! };
//! assert_eq!(version.number, VersionNumber::FIRST);
//! assert_eq!(registry.policy(&name)?.policy, Policy::all_to(VersionNumber::FIRST));
//! # Ok(())
//! # }
//! ```

mod blobs;
pub mod bundle;
mod checksum;
mod digest;
mod error;
mod job;
mod kind;
mod manifest;
mod names;
mod nearest;
mod policy;
mod record;
mod registry;
mod rollout;
mod share;
mod sizes;
mod split;
mod sticky;
mod store;
mod usage;

pub use bundle::{BundleError, Packed, UnpackLimits, Unpacked};
pub use checksum::Checksum;
pub use digest::{Digest, Digesting, InvalidDigest};
pub use error::RegistryError;
pub use job::{
    InvalidJobId, JobId, JobMove, JobProgress, JobProtocol, JobRecord, JobState, NewJob,
};
pub use kind::Kind;
pub use manifest::{
    Batching, Cache, Device, FunctionSection, Limits, Manifest, ManifestError, ModelSection,
    Network, Precision, Sample, Scaling, Tier,
};
pub use names::{FunctionName, InvalidName, InvalidVersion, Label, VersionNumber};
pub use nearest::nearest;
pub use policy::{Change, MAX_LABELS, Policy, PolicyError, PolicyRecord, Revision, Shadow, Target};
pub use record::{FunctionRecord, NewVersion, StoredFile, VersionRecord};
pub use registry::{Commit, POLICIES_KEPT, ROLLOUTS_KEPT, Registry};
pub use rollout::{NewRollout, RolloutEnd, RolloutMove, RolloutRecord, RolloutState, RolloutStep};
pub use share::{BasisPoints, InvalidShare};
pub use sizes::{ByteSize, InvalidSize};
pub use split::Split;
pub use sticky::{InvalidStickyKey, StickyKey};
pub use usage::UsageRecord;
