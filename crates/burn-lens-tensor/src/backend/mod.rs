//! The one place that names burn's backends.

mod device;
mod grad_hook;

pub use device::{BackendInfo, DeviceError, DeviceSpec, backends};
pub use grad_hook::grad_hook;
