//! The one place that names burn's backends.

mod device;
mod grad_hook;
mod kernels;

pub use device::{BackendInfo, DeviceError, DeviceSpec, backends, computes};
pub use grad_hook::grad_hook;
pub(crate) use kernels::{
    affine, attention_mixed, attention_pattern, attention_scores, attention_whole, converted, gated,
    has_kernels, linear, map, negative_log_likelihood, normalize, place, rescale, root_mean_square, top,
};
