//! Devices by name: `cpu`, `wgpu`, `vulkan:1`, `metal`, `cuda:0`, `auto`.

use std::{fmt, str::FromStr};

use burn::tensor::Device;

use crate::{FloatType, nearest};

/// The backends this product knows, whether or not this build holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Backend {
    Cpu,
    Wgpu,
    Vulkan,
    Metal,
    Cuda,
}

impl Backend {
    /// In the order in which `auto` tries them, `cpu` last.
    const ALL: [Self; 5] = [Self::Cuda, Self::Metal, Self::Vulkan, Self::Wgpu, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
        }
    }

    fn compiled(self) -> bool {
        match self {
            Self::Cpu => cfg!(feature = "cpu"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }

    /// The devices that this backend reaches now; empty where it is not compiled in.
    fn devices(self) -> Vec<Device> {
        #[allow(unused_imports, reason = "used by the arms that are compiled in")]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => vec![Device::flex()],
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::enumerate(DeviceType::Wgpu).into_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).into_vec(),
            #[allow(unreachable_patterns, reason = "every backend may be compiled in")]
            _ => Vec::new(),
        }
    }
}

/// A device as a user names it: a backend and, where it has several devices, which one.
///
/// ```
/// # use burn_lens_tensor::DeviceSpec;
/// let device = "cpu".parse::<DeviceSpec>()?.open()?;
/// let error = "vulcan".parse::<DeviceSpec>().unwrap_err();
/// assert!(error.to_string().contains("vulkan"));
/// # let _ = device;
/// # Ok::<(), burn_lens_tensor::DeviceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    /// `None` is `auto`.
    backend: Option<Backend>,
    index: usize,
}

impl DeviceSpec {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self { backend: Some(Backend::Cpu), index: 0 }
    }

    /// The first GPU that answers among the compiled backends, the CPU where none does.
    #[must_use]
    pub fn auto() -> Self {
        Self { backend: None, index: 0 }
    }

    /// Opens the device.
    ///
    /// # Errors
    ///
    /// If this build lacks the backend (the error names the feature to build with), or the
    /// backend finds no such device.
    pub fn open(&self) -> Result<Device, DeviceError> {
        let Some(backend) = self.backend else {
            return Backend::ALL
                .into_iter()
                .find_map(|backend| backend.devices().into_iter().next())
                .ok_or(DeviceError::NoBackend);
        };
        if !backend.compiled() {
            return Err(DeviceError::NotCompiled {
                backend: backend.name(),
                compiled: Backend::ALL.iter().filter(|b| b.compiled()).map(|b| b.name()).collect(),
            });
        }
        let mut devices = backend.devices();
        if self.index >= devices.len() {
            return Err(DeviceError::NoSuchDevice {
                backend: backend.name(),
                index: self.index,
                found: devices.len(),
            });
        }
        Ok(devices.swap_remove(self.index))
    }
}

impl Default for DeviceSpec {
    fn default() -> Self {
        Self::cpu()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.backend, self.index) {
            (None, _) => f.write_str("auto"),
            (Some(backend), 0) => f.write_str(backend.name()),
            (Some(backend), index) => write!(f, "{}:{index}", backend.name()),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == "auto" {
            return Ok(Self::auto());
        }
        let unknown = || DeviceError::Unknown {
            name: name.to_owned(),
            nearest: nearest(
                name.split(':').next().unwrap_or(name),
                Backend::ALL.iter().map(|backend| backend.name()).chain(["auto"]),
            ),
        };
        let (backend, index) = name.split_once(':').unwrap_or((name, "0"));
        let backend = Backend::ALL.into_iter().find(|b| b.name() == backend).ok_or_else(unknown)?;
        let index = index.parse().map_err(|_| unknown())?;
        Ok(Self { backend: Some(backend), index })
    }
}

/// One backend as `burn-lens devices` lists it.
#[derive(Clone, Debug)]
pub struct BackendInfo {
    /// The name to pass as `--device`.
    pub name: &'static str,
    /// Whether this build holds it; if not, build with the feature of the same name.
    pub compiled: bool,
    /// Its devices, described; empty where none answers.
    pub devices: Vec<String>,
}

/// Every backend, `cpu` first, with the devices that it reaches now.
#[must_use]
pub fn backends() -> Vec<BackendInfo> {
    Backend::ALL
        .into_iter()
        .rev()
        .map(|backend| BackendInfo {
            name: backend.name(),
            compiled: backend.compiled(),
            devices: backend.devices().iter().map(describe).collect(),
        })
        .collect()
}

/// Whether a device computes in a float type, and rightly.
///
/// Drivers behind WebGPU, Vulkan and Metal may offer `f64`, but its functions are missing there or wrong
/// (logits were off by their own size on an NVIDIA GPU): it is taken on the CPU and with CUDA alone.
#[must_use]
pub fn computes(device: &Device, float: FloatType) -> bool {
    let device = device.clone().without_autodiff();
    let trusted = || [Backend::Cpu, Backend::Cuda].iter().any(|backend| backend.devices().contains(&device));
    device.supports_dtype(float.dtype()) && (float != FloatType::F64 || trusted())
}

fn describe(device: &Device) -> String {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(identity) = device.identity() {
        return format!("{identity:?}");
    }
    format!("{device:?}")
}

/// Why a device could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not a device name.
    #[error("unknown device `{name}`: expected cpu, wgpu, vulkan, metal, cuda (with an index, as in `vulkan:1`) or auto{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
    Unknown {
        /// The name as given.
        name: String,
        /// The closest names.
        nearest: Vec<String>,
    },
    /// This build does not hold the backend.
    #[error("this build has no `{backend}` backend (it has: {}); build with `--features {backend}`", compiled.join(", "))]
    NotCompiled {
        /// The backend asked for, also the name of its feature.
        backend: &'static str,
        /// The backends that are compiled in.
        compiled: Vec<&'static str>,
    },
    /// The backend has no device of that index.
    #[error("backend `{backend}` found {found} device(s), so there is no `{backend}:{index}`")]
    NoSuchDevice {
        /// The backend.
        backend: &'static str,
        /// The index asked for.
        index: usize,
        /// How many devices it found.
        found: usize,
    },
    /// No backend is compiled in.
    #[error("this build has no backend; build with `--features cpu`")]
    NoBackend,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["auto", "cpu", "wgpu", "vulkan:1", "metal", "cuda:3"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "gpu", "cuda:", "cuda:x", "cpu:0:1", "cpu:-1"] {
            assert!(matches!(name.parse::<DeviceSpec>(), Err(DeviceError::Unknown { .. })), "{name}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_missing_backend_names_its_feature() {
        let error = "cuda".parse::<DeviceSpec>().unwrap().open().unwrap_err();
        assert!(error.to_string().contains("--features cuda"), "{error}");
    }
}
