//! Rotary positions as Hugging Face configurations spell them.

use serde_json::Value;

use crate::{
    HfConfig, ModelError,
    components::{Pairing, Rotary, RotaryScaling},
    hf_config::bad,
};

/// Everything that a rotary dictionary may say.
const ROPE_KEYS: [&str; 16] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
];

impl HfConfig {
    /// Rotary positions over heads of `d_head` dimensions, in the spelling of transformers 4
    /// (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`).
    ///
    /// # Errors
    ///
    /// If a scaling is unknown or incomplete.
    pub fn rotary(&self, d_head: usize, max_positions: usize, fraction: f64) -> Result<Rotary, ModelError> {
        let nested = self.nested("rope_scaling")?.or(self.nested("rope_parameters")?);
        let top_theta = self.find_f64("rope_theta")?;
        let top_fraction = self.find_f64("partial_rotary_factor")?;
        let top_original = self.find_f64("original_max_position_embeddings")?;
        let nested = nested.unwrap_or_default();
        let number = |key: &str| match nested.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| bad(key, "a number", value)),
        };
        let base = number("rope_theta")?.or(top_theta).unwrap_or(10_000.0);
        let fraction = number("partial_rotary_factor")?.or(top_fraction).unwrap_or(fraction);
        let original = number("original_max_position_embeddings")?;
        let original = top_original.or(original).unwrap_or(max_positions as f64);
        let kind =
            match ["rope_type", "type"].iter().find_map(|key| nested.get(*key).filter(|x| !x.is_null())) {
                None => "default",
                Some(value) => value.as_str().ok_or_else(|| bad("rope_type", "a text", value))?,
            };
        if let Some(key) = nested.keys().find(|key| !ROPE_KEYS.contains(&key.as_str())) {
            return Err(ModelError::Unsupported {
                key: format!("{key} (of rope type {kind})"),
                value: nested[key].to_string(),
                reason: "this key is not understood".to_owned(),
            });
        }
        let need = |key: &str| number(key)?.ok_or_else(|| self.missing_rope(kind, key));
        let scaling = match kind {
            // Dynamic is the plain table up to the context trained on, which is where we stop.
            "default" | "dynamic" => RotaryScaling::None,
            "linear" => RotaryScaling::Linear { factor: need("factor")? },
            "llama3" => RotaryScaling::NtkByParts {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_context: original,
            },
            "yarn" => {
                let factor = number("factor")?.unwrap_or(max_positions as f64 / original);
                RotaryScaling::Yarn {
                    factor,
                    beta_fast: number("beta_fast")?.unwrap_or(32.0),
                    beta_slow: number("beta_slow")?.unwrap_or(1.0),
                    original_context: original,
                    attention_factor: yarn_attention_factor(
                        factor,
                        number("attention_factor")?,
                        number("mscale")?,
                        number("mscale_all_dim")?,
                    ),
                    truncate: match nested.get("truncate") {
                        None | Some(Value::Null) => true,
                        Some(value) => {
                            value.as_bool().ok_or_else(|| bad("truncate", "true or false", value))?
                        }
                    },
                }
            }
            other => {
                return Err(ModelError::Unsupported {
                    key: "rope_type".to_owned(),
                    value: other.to_owned(),
                    reason: "known are default, linear, dynamic, llama3 and yarn".to_owned(),
                });
            }
        };
        let dim = (d_head as f64 * fraction) as usize;
        if dim == 0 || dim % 2 == 1 || dim > d_head {
            return Err(ModelError::BadValue {
                key: "partial_rotary_factor".to_owned(),
                expected: format!("a fraction that gives an even number of the {d_head} head dimensions"),
                found: fraction.to_string(),
            });
        }
        Ok(Rotary { dim, base, pairing: Pairing::Halves, scaling, local_base: None })
    }

    fn missing_rope(&self, kind: &str, key: &str) -> ModelError {
        ModelError::MissingKey {
            key: format!("{key} (of rope type {kind})"),
            architecture: self.architecture.clone(),
        }
    }
}

/// As `_compute_yarn_parameters`, transformers.
fn yarn_attention_factor(
    factor: f64,
    given: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
) -> f64 {
    let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    given.unwrap_or_else(|| match (mscale, mscale_all_dim) {
        (Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => scale(mscale) / scale(all),
        _ => scale(1.0),
    })
}
