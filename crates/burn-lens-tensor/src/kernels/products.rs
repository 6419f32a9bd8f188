//! How products of `f32` with weights are computed.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use super::SimdPath;

/// How products of many rows of `f32` with a weight matrix are computed on the CPU.
///
/// As `torch.set_float32_matmul_precision` has it, for the whole process: `F32` is its `"highest"`, `Bf16x3`
/// its `"high"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// In `f32`.
    #[default]
    F32,
    /// Each number as the sum of two of `bf16`, by tile registers: three products of four, which leaves an error
    /// of at most about 3·2⁻¹⁷ of the magnitudes that are summed. Infinities give NaN. Products of
    /// up to 8 rows, of attention and with a gradient stay in `f32`.
    Bf16x3,
}

static SPLIT: AtomicBool = AtomicBool::new(false);

impl Products {
    /// How they are computed now.
    #[must_use]
    pub fn active() -> Self {
        if SPLIT.load(Ordering::Relaxed) && SimdPath::active() == SimdPath::Amx {
            Self::Bf16x3
        } else {
            Self::F32
        }
    }

    /// Makes every product of the process be computed this way from now on. False where the processor cannot
    /// (`Bf16x3` needs [`SimdPath::Amx`]): products are then of `f32`, as before.
    ///
    /// ```
    /// use burn_lens_tensor::kernels::{Products, SimdPath};
    ///
    /// assert_eq!(Products::Bf16x3.choose(), SimdPath::Amx.is_available());
    /// assert!(Products::F32.choose());
    /// assert_eq!(Products::active(), Products::F32);
    /// ```
    #[must_use]
    pub fn choose(self) -> bool {
        let available = self == Self::F32 || SimdPath::Amx.is_available();
        if available {
            SPLIT.store(self == Self::Bf16x3, Ordering::Relaxed);
        }
        available
    }
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
        })
    }
}

/// A name that is not one of [`Products`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown products `{0}`: expected f32 or bf16x3")]
pub struct UnknownProducts(pub String);

impl FromStr for Products {
    type Err = UnknownProducts;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::F32, Self::Bf16x3]
            .into_iter()
            .find(|products| products.to_string() == name)
            .ok_or_else(|| UnknownProducts(name.to_owned()))
    }
}
