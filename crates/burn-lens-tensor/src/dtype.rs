//! The floating-point types a model can be loaded in, computed in and cached in.

use std::{fmt, str::FromStr};

use burn::tensor::DType;

/// A floating-point type, by the name users write: `f32`, `f64`, `bf16`, `f16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FloatType {
    /// 64-bit; what reference values are computed in.
    F64,
    /// 32-bit; the default.
    #[default]
    F32,
    /// bfloat16: the range of `f32` with 8 bits of precision.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl FloatType {
    /// Every float type, in order of precision.
    pub const ALL: [Self; 4] = [Self::F64, Self::F32, Self::Bf16, Self::F16];

    /// burn's name for it.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The type that norms, softmax and weight processing compute in: `f32` for the half
    /// types, the type itself otherwise.
    #[must_use]
    pub fn accumulator(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }

    /// The float type behind a burn dtype, if it is one that models are held in.
    #[must_use]
    pub fn from_dtype(dtype: DType) -> Option<Self> {
        Self::ALL.into_iter().find(|float| float.dtype() == dtype)
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// A dtype name that is not one of [`FloatType::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown dtype `{0}`: expected f64, f32, bf16 or f16")]
pub struct UnknownFloatType(pub String);

impl FromStr for FloatType {
    type Err = UnknownFloatType;

    /// Accepts torch's long names too (`float32`, `bfloat16`, …).
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f64" | "float64" | "double" => Ok(Self::F64),
            "f32" | "float32" | "float" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" | "half" => Ok(Self::F16),
            other => Err(UnknownFloatType(other.to_owned())),
        }
    }
}
