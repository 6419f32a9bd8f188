//! The kinds of dictionaries, a file each. [`SAE_KINDS`] is the only list of them.

mod abstopk;
mod gated;
mod groupmax;
mod jumprelu;
mod matching_pursuit;
mod standard;
mod temporal;
mod topk;
mod transcoder;

use burn_lens_tensor::nearest;

use crate::{
    Base, Reader, SaeConfig, SaeError, Settings, SparseAutoencoder,
    affine::{Activation, Affine, Top},
};

/// A kind of dictionary, under SAELens's name.
#[derive(Debug)]
pub struct SaeKind {
    /// SAELens's name for it.
    pub name: &'static str,
    /// Its codes, in a formula: `p = (x − b_dec) W_enc + b_enc`, where `b_dec` is subtracted at all.
    pub formula: &'static str,
    /// What it makes of configuration and weights.
    build: fn(Plan<'_, '_>) -> Result<Box<dyn SparseAutoencoder>, SaeError>,
}

/// Every kind that is known.
pub static SAE_KINDS: &[&SaeKind] = &[
    &standard::STANDARD,
    &gated::GATED,
    &topk::TOPK,
    &abstopk::ABSTOPK,
    &groupmax::GROUPMAX,
    &jumprelu::JUMPRELU,
    &transcoder::TRANSCODER,
    &transcoder::SKIP_TRANSCODER,
    &transcoder::JUMPRELU_TRANSCODER,
    &transcoder::JUMPRELU_SKIP_TRANSCODER,
    &transcoder::TOPK_TRANSCODER,
    &transcoder::TOPK_SKIP_TRANSCODER,
    &matching_pursuit::MATCHING_PURSUIT,
    &temporal::TEMPORAL,
];

/// What a dictionary is built from.
struct Plan<'a, 'w> {
    config: SaeConfig,
    settings: &'a Settings,
    reader: &'a mut Reader<'w>,
}

impl SaeKind {
    /// The kind of this name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn named(name: &str, origin: &str) -> Result<&'static Self, SaeError> {
        SAE_KINDS.iter().copied().find(|kind| kind.name == name).ok_or_else(|| SaeError::UnknownKind {
            origin: origin.to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, SAE_KINDS.iter().map(|kind| kind.name)),
        })
    }

    /// A dictionary of this kind.
    ///
    /// # Errors
    ///
    /// If a setting or a weight is missing or wrong.
    pub fn build(
        &self,
        config: SaeConfig,
        settings: &Settings,
        reader: &mut Reader<'_>,
    ) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
        (self.build)(Plan { config, settings, reader })
    }
}

impl Plan<'_, '_> {
    /// Encoder, decoder and bias of an autoencoder.
    fn base(&mut self) -> Result<Base, SaeError> {
        let SaeConfig { d_in, d_sae, .. } = self.config;
        self.config.d_out = d_in;
        Ok(Base {
            w_enc: self.reader.matrix("W_enc", [d_in, d_sae])?,
            w_dec: self.reader.matrix("W_dec", [d_sae, d_in])?,
            b_dec: self.reader.vector("b_dec", d_in)?,
            output_bias: true,
            undoes_normalization: true,
            config: self.config.clone(),
        })
    }

    fn b_enc(&mut self) -> Result<burn::tensor::Tensor<1>, SaeError> {
        self.reader.vector("b_enc", self.config.d_sae)
    }

    /// A dictionary with one linear encoder.
    fn affine(
        mut self,
        kind: &'static str,
        activation: Activation,
    ) -> Result<Box<dyn SparseAutoencoder>, SaeError> {
        let base = self.base()?;
        Ok(Box::new(Affine { kind, base, b_enc: self.b_enc()?, activation, skip: None }))
    }

    /// `k`, and how many there are to choose from.
    fn top(&self) -> Result<Top, SaeError> {
        Ok(Top { k: self.k()?, rescale: self.settings.flag("rescale_acts_by_decoder_norm", false)? })
    }

    fn k(&self) -> Result<usize, SaeError> {
        let k = self.settings.size("k")?;
        if k > self.config.d_sae {
            let expected = format!("at most the number of features, {}", self.config.d_sae);
            return Err(self.settings.wrong("k", &k.into(), &expected));
        }
        Ok(k)
    }

    fn jumprelu(&mut self) -> Result<Activation, SaeError> {
        Ok(Activation::JumpRelu(Box::new(self.reader.vector("threshold", self.config.d_sae)?)))
    }
}
