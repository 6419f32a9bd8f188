//! Every weight of a model, by one typed name each.
//!
//! In memory all parameters are vectors or matrices in the layout that a row-vector product
//! `x W` wants: `[in, out]`, heads side by side in `out` (`W_Q`: `[d_model, n_heads·d_head]`)
//! or in `in` (`W_O`: `[n_heads·d_head, d_model]`). TransformerLens's `[n_heads, …]` shapes are
//! views of these (`HookedTransformer::w_q`).

use std::{collections::BTreeMap, fmt};

use burn::tensor::{DType, Device, Tensor};
use burn_lens_tensor::{AnyTensor, FloatType, TypedTensor};

use crate::{
    ModelConfig, ModelError,
    components::{NormKind, Positions},
    config::{MlpBias, MlpKind, NormPlacement},
};

macro_rules! params {
    (
        model { $($m:ident $m_name:literal $m_doc:literal;)* }
        block { $($b:ident $b_name:literal $b_doc:literal;)* }
    ) => {
        /// One weight of a model; `Display` gives TransformerLens's state-dict name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Param {
            $(#[doc = concat!("`", $m_name, "`: ", $m_doc)] $m,)*
            $(#[doc = concat!("`blocks.{layer}.", $b_name, "`: ", $b_doc)] $b(usize),)*
        }

        impl Param {
            /// Those outside the blocks, then those of each block.
            pub(crate) fn every(n_layers: usize) -> Vec<Self> {
                let mut all = vec![$(Self::$m,)*];
                for layer in 0..n_layers {
                    all.extend([$(Self::$b(layer),)*]);
                }
                all
            }

            /// The block that it belongs to.
            #[must_use]
            pub fn layer(self) -> Option<usize> {
                match self {
                    $(Self::$m => None,)*
                    $(Self::$b(layer) => Some(layer),)*
                }
            }
        }

        impl fmt::Display for Param {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$m => f.pad($m_name),)*
                    $(Self::$b(layer) => write!(f, concat!("blocks.{}.", $b_name), layer),)*
                }
            }
        }
    };
}

params! {
    model {
        Embed "embed.W_E" "`[d_vocab, d_model]`";
        EmbedLnW "embed.ln.w" "`[d_model]`";
        EmbedLnB "embed.ln.b" "`[d_model]`";
        PosEmbed "pos_embed.W_pos" "`[n_ctx, d_model]`";
        LnFinalW "ln_final.w" "`[d_model]`";
        LnFinalB "ln_final.b" "`[d_model]`";
        WU "unembed.W_U" "`[d_model, d_vocab_out]`";
        BU "unembed.b_U" "`[d_vocab_out]`";
    }
    block {
        Ln1W "ln1.w" "`[d_model]`";
        Ln1B "ln1.b" "`[d_model]`";
        WQ "attn.W_Q" "`[d_model, n_heads·d_head]`";
        BQ "attn.b_Q" "`[n_heads·d_head]`";
        WK "attn.W_K" "`[d_model, n_kv_heads·d_head]`";
        BK "attn.b_K" "`[n_kv_heads·d_head]`";
        WV "attn.W_V" "`[d_model, n_kv_heads·d_head]`";
        BV "attn.b_V" "`[n_kv_heads·d_head]`";
        QNorm "attn.q_norm.w" "`[d_head]`";
        KNorm "attn.k_norm.w" "`[d_head]`";
        Sinks "attn.sinks" "`[n_heads]`";
        WO "attn.W_O" "`[n_heads·d_head, d_model]`";
        BO "attn.b_O" "`[d_model]`";
        Ln1PostW "ln1_post.w" "`[d_model]`";
        Ln1PostB "ln1_post.b" "`[d_model]`";
        Ln2W "ln2.w" "`[d_model]`";
        Ln2B "ln2.b" "`[d_model]`";
        WGate "mlp.W_gate" "`[d_model, d_mlp]`";
        BGate "mlp.b_gate" "`[d_mlp]`";
        WIn "mlp.W_in" "`[d_model, d_mlp]`";
        BIn "mlp.b_in" "`[d_mlp]`";
        BPost "mlp.b_post" "`[d_mlp]`, gated MLPs only";
        MlpLnW "mlp.ln.w" "`[d_mlp]`";
        MlpLnB "mlp.ln.b" "`[d_mlp]`";
        WOut "mlp.W_out" "`[d_mlp, d_model]`";
        BOut "mlp.b_out" "`[d_model]`";
        Ln2PostW "ln2_post.w" "`[d_model]`";
        Ln2PostB "ln2_post.b" "`[d_model]`";
    }
}

impl Param {
    /// Its shape in memory.
    #[must_use]
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let dims = config.dims();
        let (d_model, d_mlp) = (dims.d_model, dims.d_mlp);
        let (query, key) = (dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head);
        match self {
            Self::Embed => vec![dims.d_vocab, d_model],
            Self::PosEmbed => vec![dims.n_ctx, d_model],
            Self::WU => vec![d_model, dims.d_vocab_out],
            Self::BU => vec![dims.d_vocab_out],
            Self::WQ(_) => vec![d_model, query],
            Self::BQ(_) => vec![query],
            Self::WK(_) | Self::WV(_) => vec![d_model, key],
            Self::BK(_) | Self::BV(_) => vec![key],
            Self::QNorm(_) | Self::KNorm(_) => vec![dims.d_head],
            Self::Sinks(_) => vec![dims.n_heads],
            Self::WO(_) => vec![query, d_model],
            Self::WGate(_) | Self::WIn(_) => vec![d_model, d_mlp],
            Self::BGate(_) | Self::BIn(_) | Self::BPost(_) | Self::MlpLnW(_) | Self::MlpLnB(_) => vec![d_mlp],
            Self::WOut(_) => vec![d_mlp, d_model],
            _ => vec![d_model],
        }
    }

    /// Whether a model of this configuration has it. Processing may add biases beyond that.
    #[must_use]
    pub fn belongs_to(self, config: &ModelConfig) -> bool {
        let norm = config.norm;
        let mlp = config.mlp.as_ref();
        let gated = mlp.is_some_and(|mlp| mlp.kind == MlpKind::Gated);
        let has = |bias: MlpBias| mlp.is_some_and(|mlp| mlp.bias == bias);
        let norm_w = |kind: NormKind| norm.weights && kind != NormKind::None;
        let norm_b = |kind: NormKind| norm.weights && kind == NormKind::Layer;
        let post = norm.placement == NormPlacement::Both;
        match self {
            Self::Embed | Self::WU | Self::WQ(_) | Self::WK(_) | Self::WV(_) | Self::WO(_) => true,
            Self::EmbedLnW => norm.after_embedding && norm.kind != NormKind::None,
            Self::EmbedLnB => norm.after_embedding && norm.kind == NormKind::Layer,
            Self::PosEmbed => config.positions == Positions::Learned,
            Self::LnFinalW => norm_w(norm.final_kind),
            Self::LnFinalB => norm_b(norm.final_kind),
            Self::BU => config.unembed_bias,
            Self::Ln1W(_) => norm_w(norm.kind),
            Self::Ln1B(_) => norm_b(norm.kind),
            Self::BQ(_) | Self::BK(_) | Self::BV(_) => config.attention.qkv_bias,
            Self::QNorm(_) | Self::KNorm(_) => config.attention.qk_norm_eps.is_some(),
            Self::Sinks(_) => config.attention.sinks,
            Self::BO(_) => config.attention.out_bias,
            Self::Ln1PostW(_) => post && norm.kind != NormKind::None,
            Self::Ln1PostB(_) => post && norm.kind == NormKind::Layer,
            Self::Ln2W(_) => mlp.is_some() && norm_w(norm.kind),
            Self::Ln2B(_) => mlp.is_some() && norm_b(norm.kind),
            Self::WGate(_) => gated,
            Self::BGate(_) => gated && has(MlpBias::Projections),
            Self::WIn(_) | Self::WOut(_) => mlp.is_some(),
            Self::BIn(_) => has(MlpBias::Projections) || (!gated && has(MlpBias::BehindProduct)),
            Self::BPost(_) => gated && has(MlpBias::BehindProduct),
            Self::BOut(_) => has(MlpBias::Projections) || has(MlpBias::BehindProduct),
            Self::MlpLnW(_) | Self::MlpLnB(_) => {
                norm.weights && mlp.is_some_and(|mlp| mlp.act_fn.has_inner_norm())
            }
            Self::Ln2PostW(_) => mlp.is_some() && post && norm.kind != NormKind::None,
            Self::Ln2PostB(_) => mlp.is_some() && post && norm.kind == NormKind::Layer,
        }
    }

    /// Every parameter of a model of this configuration, in a fixed order.
    #[must_use]
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        Self::every(config.n_layers).into_iter().filter(|param| param.belongs_to(config)).collect()
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
        for param in Param::all(config) {
            if !self.contains(param) {
                return Err(ModelError::MissingParam(param));
            }
        }
        for (param, tensor) in self.iter() {
            let (expected, found) = (param.shape(config), tensor.shape());
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

    /// The dtype of the embedding, which is the model's.
    ///
    /// # Errors
    ///
    /// If there is no embedding.
    pub fn dtype(&self) -> Result<DType, ModelError> {
        self.0.get(&Param::Embed).map(AnyTensor::dtype).ok_or(ModelError::MissingParam(Param::Embed))
    }
}

impl FromIterator<(Param, AnyTensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (Param, AnyTensor)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}
