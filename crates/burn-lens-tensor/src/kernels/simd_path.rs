//! Which instructions the kernels use, chosen at run time.

use std::sync::atomic::{AtomicU8, Ordering};

/// A set of vector instructions that the kernels are compiled for.
///
/// The best one that the processor has is taken without anybody asking. Choosing another one
/// changes no bit of a result, only the time that it takes, but for products that tiles compute, whose
/// sums have another order; tests and measurements do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimdPath {
    /// What every processor of the target has.
    Baseline,
    /// x86-64-v3: AVX2 and FMA, 8 lanes.
    Avx2,
    /// x86-64-v4: AVX-512, 16 lanes.
    Avx512,
    /// AVX-512, and products of many rows of `bf16` by tile registers (Intel AMX).
    Amx,
}

/// Whether there are kernels that multiply by tile registers.
fn has_tiles() -> bool {
    #[cfg(feature = "cpu")]
    return crate::cpu::has_tiles();
    #[cfg(not(feature = "cpu"))]
    false
}

/// 0 while none is chosen, else 1 more than an index into [`SimdPath::ALL`].
static CHOSEN: AtomicU8 = AtomicU8::new(0);

impl SimdPath {
    /// Every path, the widest last.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Amx];

    /// Whether this processor has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl"),
            Self::Amx => Self::Avx512.is_available() && has_tiles(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The path that kernels take now.
    #[must_use]
    pub fn active() -> Self {
        match CHOSEN.load(Ordering::Relaxed) {
            0 => Self::ALL.into_iter().rfind(|path| path.is_available()).unwrap_or(Self::Baseline),
            chosen => Self::ALL[usize::from(chosen) - 1],
        }
    }

    /// Makes every kernel of the process take this path from now on. False, and nothing
    /// happens, where the processor does not have it.
    #[must_use]
    pub fn choose(self) -> bool {
        let available = self.is_available();
        if available {
            CHOSEN.store(self as u8 + 1, Ordering::Relaxed);
        }
        available
    }
}
