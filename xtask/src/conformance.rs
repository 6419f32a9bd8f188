//! The backend suite on one backend, in a build folder of its own.

use std::path::{Path, PathBuf};

use crate::command::{Outcome, cargo, metadata, option, run as execute};

/// The features of `burn-lens-tests` that select a backend.
const BACKENDS: &[&str] = &["cpu", "wgpu", "vulkan", "metal", "cuda"];

const NO_VULKAN: &str = "\
no Vulkan driver was found, so this backend has no device to run on.
Install the GPU's driver or, for a software one (Mesa's lavapipe), these Debian packages:
  apt-get install --no-install-recommends mesa-vulkan-drivers libvulkan1";

/// Runs `burn-lens-tests` on the backend that `--backend` names.
pub(crate) fn run(args: &[&str]) -> Outcome {
    let device = option(args, "--backend")?
        .ok_or_else(|| format!("name one: `--backend {}`", BACKENDS.join("`, `--backend ")))?;
    let backend = backend_of(device)?;
    if needs_vulkan(backend) && cfg!(target_os = "linux") && !vulkan_driver_present() {
        return Err(NO_VULKAN.to_owned());
    }

    let metadata = metadata()?;
    let target = Path::new(metadata["target_directory"].as_str().unwrap_or("target"));
    let target = target.join(format!("conformance-{backend}"));
    let mut command = cargo(["test", "-p", "burn-lens-tests", "--features", backend]);
    command.env("BURN_LENS_DEVICE", device).env("CARGO_TARGET_DIR", &target);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", runtime_dir(&target)?); // GPU drivers warn or fail without one
    }
    execute(&mut command)
}

/// The backend in a device's name: `vulkan` in `vulkan:1`.
fn backend_of(device: &str) -> Outcome<&str> {
    let backend = device.split_once(':').map_or(device, |(backend, _)| backend);
    if BACKENDS.contains(&backend) {
        return Ok(backend);
    }
    Err(format!("unknown backend `{backend}`: expected one of {}", BACKENDS.join(", ")))
}

fn needs_vulkan(backend: &str) -> bool {
    matches!(backend, "wgpu" | "vulkan")
}

/// Whether the Vulkan loader would find a driver's manifest.
fn vulkan_driver_present() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];
    if named.into_iter().any(|name| std::env::var_os(name).is_some_and(|files| !files.is_empty())) {
        return true;
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let system = ["/usr/share", "/usr/local/share", "/etc"].map(PathBuf::from);
    system.into_iter().chain(home).any(|folder| holds_manifest(&folder.join("vulkan/icd.d")))
}

fn holds_manifest(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.extension().is_some_and(|extension| extension == "json"))
}

/// A folder that only this user can read, as the XDG specification asks.
fn runtime_dir(target: &Path) -> Outcome<PathBuf> {
    let path = target.join("xdg-runtime");
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
    std::fs::create_dir_all(&path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_names_its_backend() {
        assert_eq!(backend_of("vulkan:1"), Ok("vulkan"));
        assert_eq!(backend_of("cuda"), Ok("cuda"));
        assert!(backend_of("tpu").is_err());
    }

    #[test]
    fn a_backend_must_be_named() {
        assert!(run(&[]).is_err());
        assert!(run(&["--backend"]).is_err());
    }

    #[test]
    fn a_folder_without_manifests_holds_no_driver() {
        assert!(!holds_manifest(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
