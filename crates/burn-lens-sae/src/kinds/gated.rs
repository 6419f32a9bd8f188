//! One half of the encoder decides whether a feature is active, the other how much.
//!
//! Source: Rajamanoharan et al. (2024), "Improving Dictionary Learning with Gated Sparse
//! Autoencoders".

use burn::tensor::{Tensor, activation::relu};
use burn_lens_tensor::AnyTensor;
use serde_json::{Map, Value};

use super::SaeKind;
use crate::{
    Base, Codes, SaeError, SparseAutoencoder,
    autoencoder::{Tap, along, entries, linear},
};

pub(super) static GATED: SaeKind = SaeKind {
    name: "gated",
    formula: "1[x W_enc + b_gate > 0] · relu(x W_enc · exp(r_mag) + b_mag)",
    build: |mut plan| {
        let (base, d_sae) = (plan.base()?, plan.config.d_sae);
        Ok(Box::new(Gated {
            base,
            b_gate: plan.reader.vector("b_gate", d_sae)?,
            b_mag: plan.reader.vector("b_mag", d_sae)?,
            r_mag: plan.reader.vector("r_mag", d_sae)?,
        }))
    },
};

/// `1[x W_enc + b_gate > 0] · relu(x W_enc · exp(r_mag) + b_mag)`
#[derive(Clone, Debug)]
struct Gated {
    base: Base,
    /// `[d_sae]`, as the others.
    b_gate: Tensor<1>,
    b_mag: Tensor<1>,
    r_mag: Tensor<1>,
}

impl SparseAutoencoder for Gated {
    fn base(&self) -> &Base {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    fn kind(&self) -> &'static str {
        GATED.name
    }

    fn codes(&self, x: Tensor<3>, tap: &mut Tap<'_>) -> Codes {
        let shared = linear(x, &self.base.w_enc);
        let shut = (shared.clone() + along(&self.b_gate)).lower_equal_elem(0.0);
        let magnitude = tap(shared * along(&self.r_mag.clone().exp()) + along(&self.b_mag));
        Codes { acts: relu(magnitude).mask_fill(shut, 0.0), predicted: None }
    }

    fn part(&self, features: &[usize]) -> Option<Box<dyn SparseAutoencoder>> {
        let (base, indices) = self.base.part(features);
        let [b_gate, b_mag, r_mag] =
            [&self.b_gate, &self.b_mag, &self.r_mag].map(|each| entries(each, &indices));
        Some(Box::new(Self { base, b_gate, b_mag, r_mag }))
    }

    fn settings(&self) -> Map<String, Value> {
        Map::new()
    }

    fn own_tensors(&self) -> Vec<(String, AnyTensor)> {
        [("b_gate", &self.b_gate), ("b_mag", &self.b_mag), ("r_mag", &self.r_mag)]
            .map(|(name, tensor)| (name.to_owned(), tensor.clone().into()))
            .into()
    }

    fn scale_latents(&mut self, factors: &Tensor<1>) -> Result<(), SaeError> {
        self.b_gate = self.b_gate.clone() * factors.clone();
        self.b_mag = self.b_mag.clone() * factors.clone();
        Ok(())
    }

    fn shift_latents(&mut self, shift: &Tensor<1>) {
        self.b_gate = self.b_gate.clone() - shift.clone();
        self.b_mag = self.b_mag.clone() - shift.clone() * self.r_mag.clone().exp();
    }
}
