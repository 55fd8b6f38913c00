//! Where a model computes, and which of these places exist here.

use std::fmt;
use std::str::FromStr;

use burn_dispatch::DispatchDevice;
use serde::{Deserialize, Serialize};

use crate::error::LoadError;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::exec;

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU through Vulkan, Metal or DirectX, by its number.
    Wgpu(usize),
    /// An NVIDIA GPU through CUDA, by its number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device; expected cpu, wgpu, wgpu:N, cuda or cuda:N")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let (kind, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = index.parse().map_err(|_| UnknownDevice(text.into()))?;
        match kind {
            "cpu" if text == "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu(index)),
            "cuda" => Ok(Self::Cuda(index)),
            _ => Err(UnknownDevice(text.into())),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, UnknownDevice> {
        text.parse()
    }
}

/// A device and whether it can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// The device.
    pub device: Device,
    /// What people call it.
    pub name: String,
    /// Whether a model can be loaded on it now.
    pub available: bool,
    /// Why it can't be used, or how it is used.
    pub note: Option<String>,
}

/// The devices of this machine, and those that this build could use but does not find. GPUs
/// are opened to ask for their names.
pub fn devices() -> Vec<DeviceInfo> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found = vec![DeviceInfo {
        device: Device::Cpu,
        name: "processor".into(),
        available: true,
        note: Some(format!("{threads} threads")),
    }];
    found.extend(gpus("wgpu", Device::Wgpu, wgpu_devices()));
    found.extend(gpus("CUDA", Device::Cuda, cuda_devices()));
    found
}

fn gpus(
    name: &str,
    device: fn(usize) -> Device,
    found: Result<Vec<DispatchDevice>, String>,
) -> Vec<DeviceInfo> {
    let missing = |note: String| {
        let name = format!("{name} GPU");
        vec![DeviceInfo {
            device: device(0),
            name,
            available: false,
            note: Some(note),
        }]
    };
    match found {
        Err(reason) => missing(reason),
        Ok(found) => found
            .iter()
            .enumerate()
            .map(|(index, found)| {
                let called = adapter(found);
                DeviceInfo {
                    device: device(index),
                    available: called.is_ok(),
                    name: called.clone().unwrap_or(format!("{name} GPU {index}")),
                    note: called.err(),
                }
            })
            .collect(),
    }
}

/// Opens a GPU and says what its driver calls it.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn adapter(device: &DispatchDevice) -> Result<String, String> {
    let DispatchDevice::Cube(device) = device else {
        return Err("it is no GPU".into());
    };
    // Opening panics where the driver refuses.
    let name = || Ok(device.client().properties().identity.name.clone());
    exec::caught(name).map_err(|error| format!("it can't be opened: {error}"))
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn adapter(_: &DispatchDevice) -> Result<String, String> {
    Err("this build was made without GPUs".into())
}

/// The device as burn names it; a GPU is opened.
pub(crate) fn open(device: Device) -> Result<DispatchDevice, LoadError> {
    let (index, found) = match device {
        Device::Cpu => return Ok(cpu()),
        Device::Wgpu(index) => (index, wgpu_devices()),
        Device::Cuda(index) => (index, cuda_devices()),
    };
    let refused = |reason| LoadError::Device { device, reason };
    let found = found.map_err(refused)?;
    let count = found.len();
    let picked = found.into_iter().nth(index);
    let picked = picked
        .ok_or_else(|| refused(format!("{count} such devices were found, counted from 0")))?;
    adapter(&picked).map_err(refused)?;
    Ok(picked)
}

/// The processor as burn names it.
pub(crate) fn cpu() -> DispatchDevice {
    DispatchDevice::Flex(burn_flex::FlexDevice)
}

/// Whether it is the processor.
pub(crate) fn is_cpu(device: &DispatchDevice) -> bool {
    matches!(device, DispatchDevice::Flex(_))
}

/// The devices that a driver lists; `none` says why there may be none. A missing driver may
/// panic.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn enumerate(
    runtime: burn_dispatch::devices::RuntimeId,
    none: &str,
) -> Result<Vec<DispatchDevice>, String> {
    let found = exec::caught(|| Ok(burn_dispatch::Dispatch::enumerate_cube(runtime)));
    match found {
        Ok(found) if found.is_empty() => Err(none.into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("its driver could not be asked: {error}")),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu_devices() -> Result<Vec<DispatchDevice>, String> {
    let none = "no GPU with a driver for Vulkan, Metal or DirectX was found";
    enumerate(burn_dispatch::devices::RuntimeId::Wgpu, none)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_devices() -> Result<Vec<DispatchDevice>, String> {
    Err("this build was made without the feature `wgpu`".into())
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> Result<Vec<DispatchDevice>, String> {
    let none = "no NVIDIA GPU was found, or its driver (libcuda) is not installed";
    enumerate(burn_dispatch::devices::RuntimeId::Cuda, none)
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Result<Vec<DispatchDevice>, String> {
    Err("this build was made without the feature `cuda`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_back_as_it_is_written() {
        for device in [Device::Cpu, Device::Wgpu(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        assert!("tpu".parse::<Device>().is_err());
        assert!("cpu:1".parse::<Device>().is_err());
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        for device in [Device::Wgpu(9999), Device::Cuda(9999)] {
            let error = open(device).unwrap_err().to_string();
            let said = format!("device {device} is not available: ");
            assert!(error.starts_with(&said), "{error}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        let cpu = devices()
            .into_iter()
            .find(|info| info.device == Device::Cpu)
            .unwrap();
        assert!(cpu.available);
    }
}
