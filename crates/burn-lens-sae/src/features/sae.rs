//! Every kind of dictionary as the source of features.

use burn_lens_hooks::{HookPoint, HookedModel};
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
    /// Which head it is of, and how many there are.
    head: Option<[usize; 2]>,
}

impl SaeFeatures {
    /// The features of a dictionary.
    ///
    /// # Errors
    ///
    /// If it does not say which activations it reads and writes, or is of one head: how many heads
    /// there are beside it says the model, [`SaeFeatures::in_model`].
    pub fn new(sae: Box<dyn SparseAutoencoder>) -> Result<Self, SaeError> {
        if sae.config().head.is_some() {
            return Err(SaeError::Untold {
                origin: sae.config().name.clone(),
                what: "how many heads there are beside the one that it reads",
                how: "make it with `SaeFeatures::in_model`",
            });
        }
        Self::of(sae, None)
    }

    /// The features of a dictionary of a model's activations, or of one head of them.
    ///
    /// # Errors
    ///
    /// If it does not say which activations it reads and writes, or they do not have that head.
    pub fn in_model<M: HookedModel + ?Sized>(
        sae: Box<dyn SparseAutoencoder>,
        model: &M,
    ) -> Result<Self, SaeError> {
        let config = sae.config();
        let Some(head) = config.head else { return Self::of(sae, None) };
        let point = config.hook_in()?;
        let axis = point.head_axis().map(|axis| point.axes()[axis]);
        let n_heads = axis.and_then(|axis| model.dims().len_of(axis)).unwrap_or(0);
        if head >= n_heads {
            return Err(SaeError::Head { name: config.name.clone(), head, point, n_heads });
        }
        Self::of(sae, Some([head, n_heads]))
    }

    fn of(sae: Box<dyn SparseAutoencoder>, head: Option<[usize; 2]>) -> Result<Self, SaeError> {
        let config = sae.config();
        let (hook_in, hook_out, name) = (config.hook_in()?, config.hook_out()?, config.name.clone());
        let d_in = config.d_in * head.map_or(1, |[_, n_heads]| n_heads);
        Ok(Self { sae, hook_in, hook_out, d_in, name, head })
    }

    /// Vectors of one head as vectors of all, side by side.
    fn among_heads(&self, rows: Tensor<2>) -> Tensor<2> {
        let Some([at, n_heads]) = self.head else { return rows };
        let [n, width] = rows.dims();
        let all = Tensor::zeros([n, n_heads * width], (&rows.device(), rows.dtype()));
        all.slice_assign([0..n, at * width..(at + 1) * width], rows)
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
        let x = match self.head {
            None => x,
            Some([at, _]) => x.narrow(2, at * self.sae.config().d_in, self.sae.config().d_in),
        };
        Ok(self.sae.encode(x.cast(dtype))?)
    }

    fn part(&self, features: &[usize]) -> Option<Box<dyn FeatureSource>> {
        let sae = self.sae.part(features)?;
        let (hook_in, hook_out, d_in) = (self.hook_in, self.hook_out, self.d_in);
        Some(Box::new(Self { sae, hook_in, hook_out, d_in, name: self.name.clone(), head: self.head }))
    }

    /// The rows of the decoder. Where inputs are normalised, what a feature adds is that, times what
    /// its token's input was divided by.
    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError> {
        Ok(self.among_heads(select_rows(&self.sae.directions(), features)))
    }

    /// The columns of the encoder; none where codes are not linear in the input below an activation
    /// function.
    fn readers(&self, features: &[usize]) -> Result<Option<Tensor<2>>, StoreError> {
        let linear = self.sae.has_pre_acts() && !self.sae.reads_context();
        let rows = || select_rows(&self.sae.base().w_enc.clone().transpose(), features);
        Ok(linear.then(|| self.among_heads(rows())))
    }
}
