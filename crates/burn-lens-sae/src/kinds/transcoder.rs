//! Dictionaries that read one activation and write another, with or without a linear skip connection.
//!
//! `b_dec` belongs to the output alone. Source: Dunefsky et al. (2024), "Transcoders Find
//! Interpretable LLM Feature Circuits"; Paulo et al. (2025) for the skip connection.

use super::{Plan, SaeKind};
use crate::{
    Base, SaeConfig, SaeError, SparseAutoencoder,
    affine::{Activation, Affine},
};

pub(super) static TRANSCODER: SaeKind = SaeKind {
    name: "transcoder",
    formula: "relu(p), to another activation",
    build: |plan| plan.transcoder("transcoder", Activation::Relu, false),
};

pub(super) static SKIP_TRANSCODER: SaeKind = SaeKind {
    name: "skip_transcoder",
    formula: "relu(p), to another activation, with x W_skipᵀ added",
    build: |plan| plan.transcoder("skip_transcoder", Activation::Relu, true),
};

pub(super) static JUMPRELU_TRANSCODER: SaeKind = SaeKind {
    name: "jumprelu_transcoder",
    formula: "relu(p) · 1[p > threshold], to another activation",
    build: |mut plan| {
        let activation = plan.jumprelu()?;
        plan.transcoder("jumprelu_transcoder", activation, false)
    },
};

pub(super) static JUMPRELU_SKIP_TRANSCODER: SaeKind = SaeKind {
    name: "jumprelu_skip_transcoder",
    formula: "relu(p) · 1[p > threshold], to another activation, with x W_skipᵀ added",
    build: |mut plan| {
        let activation = plan.jumprelu()?;
        plan.transcoder("jumprelu_skip_transcoder", activation, true)
    },
};

pub(super) static TOPK_TRANSCODER: SaeKind = SaeKind {
    name: "topk_transcoder",
    formula: "relu of the k largest of p, to another activation (sparsify; SAELens has no such kind)",
    build: |plan| {
        let activation = Activation::TopK(plan.top()?);
        plan.transcoder("topk_transcoder", activation, false)
    },
};

pub(super) static TOPK_SKIP_TRANSCODER: SaeKind = SaeKind {
    name: "topk_skip_transcoder",
    formula: "relu of the k largest of p, to another activation, with x W_skipᵀ added (sparsify)",
    build: |plan| {
        let activation = Activation::TopK(plan.top()?);
        plan.transcoder("topk_skip_transcoder", activation, true)
    },
};

impl Plan<'_, '_> {
    fn transcoder(
        mut self,
        kind: &'static str,
        activation: Activation,
        skip: bool,
    ) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
        if self.config.apply_b_dec_to_input {
            let expected = "false: the bias of a transcoder belongs to its output";
            return Err(self.settings.wrong("apply_b_dec_to_input", &true.into(), expected));
        }
        let SaeConfig { d_in, d_sae, d_out, .. } = self.config;
        let base = Base {
            w_enc: self.reader.matrix("W_enc", [d_in, d_sae])?,
            w_dec: self.reader.matrix("W_dec", [d_sae, d_out])?,
            b_dec: self.reader.vector("b_dec", d_out)?,
            output_bias: true,
            undoes_normalization: false,
            config: self.config.clone(),
        };
        let skip = if skip { Some(self.reader.matrix("W_skip", [d_out, d_in])?) } else { None };
        Ok(Box::new(Affine { kind, base, b_enc: self.b_enc()?, activation, skip }))
    }
}
