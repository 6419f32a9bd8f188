//! The weights of one model, and which ones a configuration has.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use burn_lens_hooks::Param;
use burn_lens_tensor::{AnyTensor, FloatType, TypedTensor};

use crate::{
    ModelConfig, ModelError,
    components::{NormKind, Positions},
    config::{Interface, MlpBias, MlpKind, NormPlacement},
};

impl ModelConfig {
    /// Whether a model of this configuration has `param`. Processing may add biases beyond that.
    #[must_use]
    pub fn has(&self, param: Param) -> bool {
        let norm = self.norm;
        let mlp = self.mlp.as_ref();
        let gated = mlp.is_some_and(|mlp| mlp.kind == MlpKind::Gated);
        let has = |bias: MlpBias| mlp.is_some_and(|mlp| mlp.bias == bias);
        let norm_w = |kind: NormKind| norm.weights && kind != NormKind::None;
        let norm_b = |kind: NormKind| norm.weights && kind == NormKind::Layer;
        let post = norm.placement == NormPlacement::Both;
        match param {
            Param::Embed | Param::WU => self.interface == Interface::Tokens,
            Param::ReadInW | Param::ReadOutW => self.readers().is_some(),
            Param::ReadInB => self.readers().is_some_and(|readers| readers.in_bias),
            Param::ReadOutB => self.readers().is_some_and(|readers| readers.out_bias),
            Param::WQ(_) | Param::WK(_) | Param::WV(_) | Param::WO(_) => true,
            Param::EmbedLnW => norm.after_embedding && norm.kind != NormKind::None,
            Param::EmbedLnB => norm.after_embedding && norm.kind == NormKind::Layer,
            Param::PosEmbed => self.positions == Positions::Learned,
            Param::LnFinalW => norm_w(norm.final_kind),
            Param::LnFinalB => norm_b(norm.final_kind),
            Param::BU => self.unembed_bias,
            Param::Ln1W(_) => norm_w(norm.kind),
            Param::Ln1B(_) => norm_b(norm.kind),
            Param::BQ(_) | Param::BK(_) | Param::BV(_) => self.attention.qkv_bias,
            Param::QNorm(_) | Param::KNorm(_) => self.attention.qk_norm_eps.is_some(),
            Param::Sinks(_) => self.attention.sinks,
            Param::BO(_) => self.attention.out_bias,
            Param::Ln1PostW(_) => post && norm.kind != NormKind::None,
            Param::Ln1PostB(_) => post && norm.kind == NormKind::Layer,
            Param::Ln2W(_) => mlp.is_some() && norm_w(norm.kind),
            Param::Ln2B(_) => mlp.is_some() && norm_b(norm.kind),
            Param::WGate(_) => gated,
            Param::BGate(_) => gated && has(MlpBias::Projections),
            Param::WIn(_) | Param::WOut(_) => mlp.is_some(),
            Param::BIn(_) => has(MlpBias::Projections) || (!gated && has(MlpBias::BehindProduct)),
            Param::BPost(_) => gated && has(MlpBias::BehindProduct),
            Param::BOut(_) => has(MlpBias::Projections) || has(MlpBias::BehindProduct),
            Param::MlpLnW(_) | Param::MlpLnB(_) => {
                norm.weights && mlp.is_some_and(|mlp| mlp.act_fn.has_inner_norm())
            }
            Param::Ln2PostW(_) => mlp.is_some() && post && norm.kind != NormKind::None,
            Param::Ln2PostB(_) => mlp.is_some() && post && norm.kind == NormKind::Layer,
        }
    }

    /// Every parameter of a model of this configuration, in a fixed order.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        Param::every(self.n_layers).into_iter().filter(|&param| self.has(param)).collect()
    }
}

/// The weights of one model.
///
/// Cheap to clone: tensors are shared until they are changed.
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<Param, AnyTensor>);

impl Parameters {
    /// Adds or replaces one.
    pub fn insert(&mut self, param: Param, tensor: impl TypedTensor) {
        self.0.insert(param, tensor.into_any());
    }

    /// Removes one.
    pub fn remove(&mut self, param: Param) {
        self.0.remove(&param);
    }

    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, param: Param) -> bool {
        self.0.contains_key(&param)
    }

    /// In a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Param, &AnyTensor)> {
        self.0.iter().map(|(&param, tensor)| (param, tensor))
    }

    /// The tensor `param` whatever its rank, if it is there.
    #[must_use]
    pub fn any(&self, param: Param) -> Option<&AnyTensor> {
        self.0.get(&param)
    }

    /// The tensor `param`, if it is there.
    ///
    /// # Panics
    ///
    /// If it is of another rank than `D`: ranks are checked when a model is built.
    #[must_use]
    pub fn find<const D: usize>(&self, param: Param) -> Option<Tensor<D>>
    where
        Tensor<D>: TypedTensor,
    {
        let tensor = self.0.get(&param)?.clone();
        Some(Tensor::<D>::from_any(tensor).unwrap_or_else(|error| panic!("{param}: {error}")))
    }

    /// The tensor `param`.
    ///
    /// # Errors
    ///
    /// If it is missing.
    pub fn get<const D: usize>(&self, param: Param) -> Result<Tensor<D>, ModelError>
    where
        Tensor<D>: TypedTensor,
    {
        self.find(param).ok_or(ModelError::MissingParam(param))
    }

    /// Checks every shape against the configuration, and that nothing is missing.
    ///
    /// # Errors
    ///
    /// Names the first parameter that is missing or of another shape.
    pub fn check(&self, config: &ModelConfig) -> Result<(), ModelError> {
        for param in config.params() {
            if !self.contains(param) {
                return Err(ModelError::MissingParam(param));
            }
        }
        for (param, tensor) in self.iter() {
            let (expected, found) = (param.shape(&config.dims()), tensor.shape());
            if expected != found {
                return Err(ModelError::ParamShape { param, expected, found });
            }
        }
        Ok(())
    }

    /// Applies `f` to each.
    #[must_use]
    pub fn map(self, mut f: impl FnMut(Param, AnyTensor) -> AnyTensor) -> Self {
        Self(self.0.into_iter().map(|(param, tensor)| (param, f(param, tensor))).collect())
    }

    /// Casts each.
    #[must_use]
    pub fn cast(self, dtype: FloatType) -> Self {
        self.map(|_, tensor| tensor.cast(dtype))
    }

    /// Moves each.
    #[must_use]
    pub fn to_device(self, device: &Device) -> Self {
        self.map(|_, tensor| tensor.to_device(device))
    }

    /// How many numbers there are.
    #[must_use]
    pub fn num_params(&self) -> usize {
        self.0.values().map(|tensor| tensor.shape().iter().product::<usize>()).sum()
    }

    /// The dtype of the embedding or read-in, which is the model's.
    ///
    /// # Errors
    ///
    /// If there is neither.
    pub fn dtype(&self) -> Result<DType, ModelError> {
        let first = self.0.get(&Param::Embed).or(self.0.get(&Param::ReadInW));
        first.map(AnyTensor::dtype).ok_or(ModelError::MissingParam(Param::Embed))
    }
}

impl FromIterator<(Param, AnyTensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (Param, AnyTensor)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}
