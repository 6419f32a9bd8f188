//! Every kind of dictionary as the source of features.

use burn_lens_hooks::HookPoint;
use burn_lens_tensor::burn::tensor::Tensor;

use super::{FeatureSource, SparseRows, StoreError, source::select_rows};
use crate::{SaeError, SparseAutoencoder};

/// A dictionary as the source of features.
#[derive(Debug)]
pub struct SaeFeatures {
    sae: Box<dyn SparseAutoencoder>,
    hook_in: HookPoint,
    hook_out: HookPoint,
    d_in: usize,
    name: String,
}

impl SaeFeatures {
    /// The features of a dictionary.
    ///
    /// # Errors
    ///
    /// If it does not say which activations it reads and writes.
    pub fn new(sae: Box<dyn SparseAutoencoder>) -> Result<Self, SaeError> {
        let config = sae.config();
        let (hook_in, hook_out) = (config.hook_in()?, config.hook_out()?);
        let (d_in, name) = (config.d_in, config.name.clone());
        Ok(Self { sae, hook_in, hook_out, d_in, name })
    }

    /// The dictionary.
    #[must_use]
    pub fn sae(&self) -> &dyn SparseAutoencoder {
        &*self.sae
    }
}

impl FeatureSource for SaeFeatures {
    fn name(&self) -> &str {
        &self.name
    }

    fn n_features(&self) -> usize {
        self.sae.config().d_sae
    }

    fn hook_in(&self) -> HookPoint {
        self.hook_in
    }

    fn hook_out(&self) -> HookPoint {
        self.hook_out
    }

    fn d_in(&self) -> usize {
        self.d_in
    }

    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, StoreError> {
        let dtype = self.sae.base().w_enc.dtype();
        Ok(self.sae.encode(x.cast(dtype))?)
    }

    /// The rows of the decoder. Where inputs are normalised, what a feature adds is that, times what
    /// its token's input was divided by.
    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError> {
        Ok(select_rows(&self.sae.directions(), features))
    }

    /// The columns of the encoder; none where codes are not linear in the input below an activation
    /// function.
    fn readers(&self, features: &[usize]) -> Result<Option<Tensor<2>>, StoreError> {
        let linear = self.sae.has_pre_acts() && !self.sae.reads_context();
        Ok(linear.then(|| select_rows(&self.sae.base().w_enc.clone().transpose(), features)))
    }
}
