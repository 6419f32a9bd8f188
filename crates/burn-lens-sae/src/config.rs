//! What is common to dictionaries of every kind.

use burn_lens_hooks::HookPoint;
use serde_json::{Map, Value};

use crate::SaeError;

/// How inputs are normalised before they are encoded, and reconstructions brought back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalization {
    /// Not at all.
    None,
    /// `(x − μ) / (s + 1e-5)` with the mean μ and the unbiased standard deviation s of each vector;
    /// back by `x̂ s + μ`.
    LayerNorm,
    /// `x √d_in / ‖x‖`, and back by the same factor. A vector of zeros stays as it is.
    ConstantNormRescale,
    /// `x f` with one factor f, and back by `1 / f`.
    ConstantScalarRescale(f64),
}

impl Normalization {
    /// SAELens's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LayerNorm => "layer_norm",
            Self::ConstantNormRescale => "constant_norm_rescale",
            Self::ConstantScalarRescale(_) => "constant_scalar_rescale",
        }
    }
}

/// What is common to dictionaries of every kind.
#[derive(Clone, Debug, PartialEq)]
pub struct SaeConfig {
    /// What it is called, in reports and errors.
    pub name: String,
    /// The length of the vectors that it reads, heads side by side.
    pub d_in: usize,
    /// How many features it has.
    pub d_sae: usize,
    /// The length of the vectors that it writes.
    pub d_out: usize,
    /// Whether `b_dec` is subtracted from what it reads.
    pub apply_b_dec_to_input: bool,
    /// How inputs are normalised.
    pub normalization: Normalization,
    /// Whether it reads an activation with heads, `[batch, pos, head, d_head]`, side by side.
    pub hook_z: bool,
    /// The one head that it reads and writes, of an activation with heads; the others are left alone.
    pub head: Option<usize>,
    /// The hook that it reads.
    pub hook_name: Option<String>,
    /// The hook that it writes, where that is another one.
    pub hook_name_out: Option<String>,
    /// What else its files say, as they say it.
    pub metadata: Map<String, Value>,
}

impl SaeConfig {
    fn parsed(&self, hook: Option<&str>) -> Result<HookPoint, SaeError> {
        let untold = || SaeError::Untold {
            origin: self.name.clone(),
            what: "which activation it reads",
            how: "name its hook (`hook_name`; `--hook` of the command)",
        };
        let name = hook.ok_or_else(untold)?;
        name.parse().map_err(|source| SaeError::Hook { name: self.name.clone(), source })
    }

    /// The activation that it reads.
    ///
    /// # Errors
    ///
    /// If its files name none, or none that exists.
    pub fn hook_in(&self) -> Result<HookPoint, SaeError> {
        self.parsed(self.hook_name.as_deref())
    }

    /// The activation that it writes.
    ///
    /// # Errors
    ///
    /// As [`SaeConfig::hook_in`].
    pub fn hook_out(&self) -> Result<HookPoint, SaeError> {
        self.parsed(self.hook_name_out.as_deref().or(self.hook_name.as_deref()))
    }

    /// Whether what it writes is something else than what it reads.
    #[must_use]
    pub fn is_transcoder(&self) -> bool {
        self.hook_name_out.as_ref().is_some_and(|out| Some(out) != self.hook_name.as_ref())
    }
}
