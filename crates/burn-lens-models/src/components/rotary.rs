//! Rotary position embedding: pairs of a head's dimensions turn with the position.
//!
//! `angle = pos · base^(-2i/dim)` for pair `i`, with the frequencies rescaled for long
//! contexts. Angles are computed in `f64` on the host whatever the model's dtype is: `bf16` has
//! no exact integers past 256, and Hugging Face's `f32` angles are off by 1e-4 at position 8,000.
//!
//! Sources: Su et al. (2021); Peng et al. (2023) for YARN; `modeling_rope_utils.py`,
//! transformers.

use std::f64::consts::PI;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lens_tensor::kernels::{self, Turns};

/// How queries and keys are rotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// How many of a head's dimensions are rotated, the first ones; even.
    pub dim: usize,
    /// θ.
    pub base: f64,
    /// Which dimensions make a pair.
    pub pairing: Pairing,
    /// How frequencies are rescaled.
    pub scaling: RotaryScaling,
    /// θ in layers with a window, whose frequencies are not rescaled; as elsewhere if `None`.
    pub local_base: Option<f64>,
}

/// Which dimensions make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(i, i + dim/2)`: NeoX, Llama.
    Halves,
    /// `(2i, 2i + 1)`: GPT-J.
    Adjacent,
}

/// How frequencies are rescaled for contexts longer than those trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RotaryScaling {
    /// They are not.
    None,
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: slow pairs divided, fast ones kept, those between interpolated.
    NtkByParts {
        /// Divisor of slow pairs.
        factor: f64,
        /// Pairs that turn fewer times than this in the original context are slow.
        low_freq_factor: f64,
        /// Pairs that turn more often than this are fast.
        high_freq_factor: f64,
        /// The context trained on.
        original_context: f64,
    },
    /// YARN: as by parts, with a ramp over dimensions, and a factor on the rotated values.
    Yarn {
        /// Divisor of slow pairs.
        factor: f64,
        /// Turns in the original context above which a pair is fast.
        beta_fast: f64,
        /// Turns below which it is slow.
        beta_slow: f64,
        /// The context trained on.
        original_context: f64,
        /// Factor on sine and cosine.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        truncate: bool,
    },
}

/// The tables of one pass: for layers that see everything, and for those with a window.
#[derive(Clone, Debug)]
pub(crate) struct RotaryTables {
    global: RotaryTable,
    local: Option<RotaryTable>,
}

impl RotaryTables {
    pub(crate) fn get(&self, window: Option<usize>) -> &RotaryTable {
        self.local.as_ref().filter(|_| window.is_some()).unwrap_or(&self.global)
    }
}

/// Cosine and sine for some positions.
#[derive(Clone, Debug)]
pub(crate) struct RotaryTable {
    /// `[batch or 1, pos, 1, dim / 2]`
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// The same on the host.
    turns: Turns,
    dim: usize,
    pairing: Pairing,
}

impl Rotary {
    /// The frequency of each pair, `[dim / 2]`.
    #[must_use]
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let plain = (0..self.dim / 2).map(|i| self.base.powf(-2.0 * i as f64 / self.dim as f64));
        match self.scaling {
            RotaryScaling::None => plain.collect(),
            RotaryScaling::Linear { factor } => plain.map(|inv| inv / factor).collect(),
            RotaryScaling::NtkByParts { factor, low_freq_factor, high_freq_factor, original_context } => {
                plain
                    .map(|inv| {
                        let wavelength = 2.0 * PI / inv;
                        let turns = original_context / wavelength;
                        let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        let smooth = smooth.clamp(0.0, 1.0);
                        (1.0 - smooth) * inv / factor + smooth * inv
                    })
                    .collect()
            }
            RotaryScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } => {
                let (low, high) = self.yarn_range(beta_fast, beta_slow, original_context, truncate);
                plain
                    .enumerate()
                    .map(|(i, inv)| {
                        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        inv * (1.0 - ramp) + inv / factor * ramp
                    })
                    .collect()
            }
        }
    }

    /// Between which pairs YARN's ramp lies.
    fn yarn_range(&self, beta_fast: f64, beta_slow: f64, original: f64, truncate: bool) -> (f64, f64) {
        let dim = self.dim as f64;
        let pair = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low >= high {
            high = low + 0.001; // as transformers: no division by zero
        }
        (low, high)
    }

    /// The tables for `positions`, one row of them for each row of the batch, or one for all.
    pub(crate) fn tables(&self, positions: &[Vec<usize>], device: &Device, dtype: DType) -> RotaryTables {
        let local = self.local_base.map(|base| {
            let local = Self { base, scaling: RotaryScaling::None, local_base: None, ..self.clone() };
            local.table(positions, device, dtype)
        });
        RotaryTables { global: self.table(positions, device, dtype), local }
    }

    fn table(&self, positions: &[Vec<usize>], device: &Device, dtype: DType) -> RotaryTable {
        let frequencies = self.inverse_frequencies();
        let factor = match self.scaling {
            RotaryScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        let angles = || {
            positions.iter().flatten().flat_map(|&pos| frequencies.iter().map(move |inv| pos as f64 * inv))
        };
        let pos = positions.first().map_or(0, Vec::len);
        let shape = [positions.len(), pos, 1, self.dim / 2];
        let cos: Vec<f64> = angles().map(|angle| factor * angle.cos()).collect();
        let sin: Vec<f64> = angles().map(|angle| factor * angle.sin()).collect();
        let host = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let turns = Turns {
            cos: host(&cos),
            sin: host(&sin),
            positions: positions.len() * pos,
            half: self.dim / 2,
            adjacent: self.pairing == Pairing::Adjacent,
        };
        let tensor =
            |values: Vec<f64>| Tensor::<4>::from_data(TensorData::new(values, shape), (device, dtype));
        RotaryTable { cos: tensor(cos), sin: tensor(sin), turns, dim: self.dim, pairing: self.pairing }
    }
}

impl RotaryTable {
    /// Rotates `x`.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, heads, d_head]`; returns the same
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::rotate(x, &self.turns, |x| self.composed(x))
    }

    fn composed(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, pos, heads, d_head] = x.dims();
        let half = self.dim / 2;
        let rotated = x.clone().narrow(3, 0, self.dim);
        let (first, second) = match self.pairing {
            Pairing::Halves => (rotated.clone().narrow(3, 0, half), rotated.narrow(3, half, half)),
            Pairing::Adjacent => {
                let pairs = rotated.reshape([batch, pos, heads, half, 2]);
                let part = |at: usize| pairs.clone().narrow(4, at, 1).reshape([batch, pos, heads, half]);
                (part(0), part(1))
            }
        };
        let turned_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let turned_second = second * self.cos.clone() + first * self.sin.clone();
        let turned = match self.pairing {
            Pairing::Halves => Tensor::cat(vec![turned_first, turned_second], 3),
            Pairing::Adjacent => Tensor::stack::<5>(vec![turned_first, turned_second], 4)
                .reshape([batch, pos, heads, self.dim]),
        };
        if self.dim == d_head {
            return turned;
        }
        Tensor::cat(vec![turned, x.narrow(3, self.dim, d_head - self.dim)], 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3(factor: f64) -> Rotary {
        Rotary {
            dim: 128,
            local_base: None,
            base: 500_000.0,
            pairing: Pairing::Halves,
            scaling: RotaryScaling::NtkByParts {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192.0,
            },
        }
    }

    #[test]
    fn ntk_by_parts_keeps_fast_pairs_and_divides_slow_ones() {
        let scaled = llama3(8.0).inverse_frequencies();
        let plain = Rotary { scaling: RotaryScaling::None, ..llama3(8.0) }.inverse_frequencies();
        assert!((scaled[0] - plain[0]).abs() < 1e-15);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-15);
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let plain = Rotary { scaling: RotaryScaling::None, ..llama3(1.0) }.inverse_frequencies();
        for (a, b) in llama3(1.0).inverse_frequencies().iter().zip(&plain) {
            assert!((a - b).abs() < 1e-15);
        }
    }
}
