//! What has features: a dictionary, or a set of plain vectors.

use burn_lens_hooks::HookPoint;
use burn_lens_tensor::burn::tensor::Tensor;

use super::{SparseRows, StoreError};

/// A set of features that read one activation of a model and write one, which is most often the
/// same.
///
/// Every [`SparseAutoencoder`](crate::SparseAutoencoder) is one, in [`SaeFeatures`](super::SaeFeatures);
/// so are plain [`Vectors`].
pub trait FeatureSource {
    /// What it is called, in reports and errors.
    fn name(&self) -> &str;

    /// How many features it has.
    fn n_features(&self) -> usize;

    /// The activation that it reads.
    fn hook_in(&self) -> HookPoint;

    /// The activation that its directions are added to.
    fn hook_out(&self) -> HookPoint {
        self.hook_in()
    }

    /// The length of the vectors that it reads, heads side by side.
    fn d_in(&self) -> usize;

    /// The features' activations, a row for each token; those that are NaN or infinite too.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`; returns `batch · pos` rows
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, StoreError>;

    /// Some of the features alone, in this order, where they can be computed without the others.
    fn part(&self, features: &[usize]) -> Option<Box<dyn FeatureSource>> {
        let _ = features;
        None
    }

    /// What each of `features` adds to the activation that it writes, per unit of activation.
    ///
    /// # Shapes
    ///
    /// - returns `[feature, d_out]`
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError>;

    /// What each of `features` reads linearly, for attribution to source positions; `None` where
    /// there is no such vector.
    ///
    /// # Shapes
    ///
    /// - returns `[feature, d_in]`
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn readers(&self, features: &[usize]) -> Result<Option<Tensor<2>>, StoreError> {
        let _ = features;
        Ok(None)
    }

    /// What a feature is called, if it has a name.
    fn label(&self, feature: usize) -> Option<String> {
        let _ = feature;
        None
    }
}

/// Plain vectors in place of features: probes, steering vectors, neurons. The activation of a
/// vector is its product with the activation that it reads, of either sign.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// What they are called together.
    pub name: String,
    /// A name for each.
    pub labels: Vec<String>,
    /// `[vector, d_in]`
    pub vectors: Tensor<2>,
    /// The activation that they read and write.
    pub hook: HookPoint,
}

impl FeatureSource for Vectors {
    fn name(&self) -> &str {
        &self.name
    }

    fn n_features(&self) -> usize {
        self.vectors.dims()[0]
    }

    fn hook_in(&self) -> HookPoint {
        self.hook
    }

    fn d_in(&self) -> usize {
        self.vectors.dims()[1]
    }

    fn encode(&self, x: Tensor<3>) -> Result<SparseRows, StoreError> {
        let [batch, pos, d_in] = x.dims();
        let products = x.reshape([batch * pos, d_in]).matmul(self.vectors.clone().transpose());
        let values = products.try_into_data()?.try_into_vec_as::<f32>()?;
        Ok(SparseRows::of_dense(&values, self.n_features()))
    }

    fn part(&self, features: &[usize]) -> Option<Box<dyn FeatureSource>> {
        let labels = features.iter().map(|&at| self.label(at).unwrap_or_default()).collect();
        let vectors = select_rows(&self.vectors, features);
        Some(Box::new(Self { name: self.name.clone(), labels, vectors, hook: self.hook }))
    }

    fn directions(&self, features: &[usize]) -> Result<Tensor<2>, StoreError> {
        Ok(select_rows(&self.vectors, features))
    }

    fn readers(&self, features: &[usize]) -> Result<Option<Tensor<2>>, StoreError> {
        Ok(Some(select_rows(&self.vectors, features)))
    }

    fn label(&self, feature: usize) -> Option<String> {
        self.labels.get(feature).cloned()
    }
}

/// Some rows of a matrix.
pub(super) fn select_rows(matrix: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let indices = Tensor::from_data(rows.as_slice(), &matrix.device());
    matrix.clone().select(0, indices)
}
