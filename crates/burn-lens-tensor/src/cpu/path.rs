//! Kernels compiled for several sets of instructions, one of which is taken at run time.

use pulp::NullaryFnOnce;

use crate::kernels::SimdPath;

/// Runs `op`, whose `call` must be `#[inline(always)]`, compiled for the active path.
#[inline]
pub(super) fn dispatch<Op: NullaryFnOnce>(op: Op) -> Op::Output {
    match SimdPath::active() {
        #[cfg(target_arch = "x86_64")]
        SimdPath::Avx512 | SimdPath::Amx => match pulp::x86::V4::try_new() {
            Some(simd) => pulp::Simd::vectorize(simd, op),
            None => op.call(),
        },
        #[cfg(target_arch = "x86_64")]
        SimdPath::Avx2 => match pulp::x86::V3::try_new() {
            Some(simd) => pulp::Simd::vectorize(simd, op),
            None => op.call(),
        },
        _ => op.call(),
    }
}
