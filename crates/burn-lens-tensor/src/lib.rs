//! Policy over burn: which device, which dtype, how slices and weights are named.
//!
//! burn 0.22 chooses its backend at run time, so nothing here is generic over one.
//! This crate decides what burn leaves open:
//!
//! - [`DeviceSpec`]: a device from a name (`cpu`, `vulkan:1`), or an error that says what to build with
//! - [`FloatType`]: the floating-point types a model can be held in
//! - [`AnyTensor`]: a tensor whose rank is known at run time, for caches and weight tables
//! - [`Slice`]: positions along an axis, with Python's meaning
//! - [`Weights`]: where named weights come from, without opening a file
//! - [`grad_hook`]: an identity that hands the gradient passing through it to a closure
//! - [`Norm`]: layer norm and root-mean-square norm, as arithmetic
//! - [`kernels`]: the operations that transformers spend their time in, fused on the CPU
//! - [`numeric`]: the few numerically delicate operations, written once
//!
//! Only the private module `backend` names a burn backend.

mod any;
mod backend;
mod columns;
#[cfg(feature = "cpu")]
mod cpu;
mod dtype;
pub mod kernels;
mod nearest;
mod norm;
pub mod numeric;
mod slice;
mod weights;

pub use any::{AnyTensor, RankError, TypedTensor, kept};
pub use backend::{BackendInfo, DeviceError, DeviceSpec, backends, computes, grad_hook};
pub use dtype::{FloatType, UnknownFloatType};
pub use nearest::nearest;
pub use norm::{Norm, NormKind};
pub use slice::{Indices, Slice, SliceError};
pub use weights::{MemoryWeights, WeightError, Weights};

pub use burn;
