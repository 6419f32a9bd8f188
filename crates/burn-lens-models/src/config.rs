//! What a model is made of: each axis of variation is an enum with its own fields.

use burn_lens_hooks::ModelDims;
pub use burn_lens_hooks::{BlockLayout, NormPlacement};

use crate::{
    ModelError,
    components::{ActFn, NormKind, Positions},
};

/// A decoder or encoder of transformer blocks, completely described.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The class that the checkpoint names: `GPT2LMHeadModel`, `HookedTransformer`, …
    pub architecture: String,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Most positions that the model can take.
    pub n_ctx: usize,
    /// Whether tokens or vectors go in and out.
    pub interface: Interface,
    /// Size of the input vocabulary; 0 without one.
    pub d_vocab: usize,
    /// Size of the output vocabulary; 0 without one.
    pub d_vocab_out: usize,
    /// How heads attend.
    pub attention: AttentionConfig,
    /// The feed-forward half; `None` in attention-only models.
    pub mlp: Option<MlpConfig>,
    /// The norms.
    pub norm: NormConfig,
    /// Where position enters.
    pub positions: Positions,
    /// How the halves of a block are wired.
    pub layout: BlockLayout,
    /// `cap · tanh(logits / cap)` at the end.
    pub logits_soft_cap: Option<f64>,
    /// Whether the unembedding has a bias.
    pub unembed_bias: bool,
    /// Whether the checkpoint's unembedding is its embedding, transposed.
    pub tied: bool,
    /// Whether a beginning-of-sequence token belongs before a prompt, unless the user says.
    pub default_prepend_bos: bool,
}

/// What goes in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Interface {
    /// Tokens in, logits over a vocabulary out: an embedding and an unembedding.
    #[default]
    Tokens,
    /// Vectors in, vectors out: a read-in and a read-out in their places.
    Vectors(Readers),
}

/// The read-in `x W + b` and the read-out `x W + b` of a model without a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readers {
    /// Width of an input vector.
    pub d_in: usize,
    /// Width of an output vector; 1 for a scalar.
    pub d_out: usize,
    /// Whether the read-in has a bias.
    pub in_bias: bool,
    /// Whether the read-out has one.
    pub out_bias: bool,
}

impl Readers {
    /// With biases, as torch's Linear.
    #[must_use]
    pub fn plain(d_in: usize, d_out: usize) -> Self {
        Self { d_in, d_out, in_bias: true, out_bias: true }
    }
}

/// How heads attend.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a checkpoint")]
pub struct AttentionConfig {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub d_head: usize,
    /// Scores are divided by this; `sqrt(d_head)` in most families.
    pub scale: f64,
    /// The divisor also grows with the layer: `scale · (layer + 1)`.
    pub scale_by_inverse_layer: bool,
    /// `cap · tanh(scores / cap)` before the mask.
    pub scores_soft_cap: Option<f64>,
    /// Whether a position may attend to later ones.
    pub bidirectional: bool,
    /// For each layer, how many positions back (itself included) a position sees; `None` all.
    pub windows: Vec<Option<usize>>,
    /// Root-mean-square norm of each head's query and key, with this epsilon.
    pub qk_norm_eps: Option<f64>,
    /// Each head has a learned logit that takes part in the softmax and is then dropped, so
    /// that pattern rows sum to less than 1.
    pub sinks: bool,
    /// Queries, keys and values are clamped to `±clip`.
    pub clip_qkv: Option<f64>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output has one.
    pub out_bias: bool,
}

/// The feed-forward half of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// Number of neurons.
    pub d_mlp: usize,
    /// Their non-linearity.
    pub act_fn: ActFn,
    /// Plain or gated.
    pub kind: MlpKind,
    /// Which biases there are.
    pub bias: MlpBias,
}

/// Which biases an MLP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpBias {
    /// None.
    None,
    /// On each projection: `b_in`, `b_out`, and `b_gate` where gated.
    Projections,
    /// `b_out`, and in a gated MLP `b_post` behind the product (in a plain one `b_in`): what
    /// TransformerLens has.
    BehindProduct,
}

impl MlpBias {
    /// On each projection, or none.
    #[must_use]
    pub fn projections(present: bool) -> Self {
        if present { Self::Projections } else { Self::None }
    }
}

/// Plain or gated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpKind {
    /// `act(x W_in + b_in) W_out + b_out`
    Plain,
    /// `(act(x W_gate + b_gate) ⊙ (x W_in + b_in) + b_post) W_out + b_out`
    ///
    /// `b_post` is TransformerLens's `b_in`, which it adds behind the product: see [`MlpBias`].
    Gated,
}

/// The norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// The kind inside blocks.
    pub kind: NormKind,
    /// The kind before the unembedding.
    pub final_kind: NormKind,
    /// Added to the mean square.
    pub eps: f64,
    /// Where norms sit.
    pub placement: NormPlacement,
    /// Whether norms on what a half or the unembedding reads have weights (and, where they
    /// centre, biases). Folding removes them; norms after the embedding and on what a half
    /// writes always have theirs.
    pub weights: bool,
    /// A further norm right after the embedding.
    pub after_embedding: bool,
}

impl AttentionConfig {
    /// As many key as query heads, scaled by `sqrt(d_head)`, causal, no biases, no extras.
    #[must_use]
    pub fn plain(n_heads: usize, d_head: usize, n_layers: usize) -> Self {
        Self {
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            scale: (d_head as f64).sqrt(),
            scale_by_inverse_layer: false,
            scores_soft_cap: None,
            bidirectional: false,
            windows: vec![None; n_layers],
            qk_norm_eps: None,
            sinks: false,
            clip_qkv: None,
            qkv_bias: false,
            out_bias: false,
        }
    }
}

impl NormConfig {
    /// The same kind everywhere, with weights.
    #[must_use]
    pub fn plain(kind: NormKind, eps: f64, placement: NormPlacement) -> Self {
        Self { kind, final_kind: kind, eps, placement, weights: true, after_embedding: false }
    }
}

impl ModelConfig {
    /// Its sizes.
    #[must_use]
    pub fn dims(&self) -> ModelDims {
        ModelDims {
            n_layers: self.n_layers,
            d_model: self.d_model,
            n_heads: self.attention.n_heads,
            n_kv_heads: self.attention.n_kv_heads,
            d_head: self.attention.d_head,
            d_mlp: self.mlp.as_ref().map_or(0, |mlp| mlp.d_mlp),
            d_vocab: self.d_vocab,
            d_vocab_out: self.d_vocab_out,
            n_ctx: self.n_ctx,
            d_in: self.readers().map_or(0, |readers| readers.d_in),
            d_out: self.readers().map_or(0, |readers| readers.d_out),
        }
    }

    /// Its read-in and read-out, if it has those in place of a vocabulary.
    #[must_use]
    pub fn readers(&self) -> Option<Readers> {
        match self.interface {
            Interface::Tokens => None,
            Interface::Vectors(readers) => Some(readers),
        }
    }

    /// Whether each half's input is normed.
    #[must_use]
    pub fn has_pre_norm(&self) -> bool {
        self.norm.placement != NormPlacement::Post
    }
}

impl ModelConfig {
    /// Checks what the parts imply for one another.
    ///
    /// # Errors
    ///
    /// If heads do not divide into groups, or a list has another length than there are layers.
    pub fn check(&self) -> Result<(), ModelError> {
        let bad = |key: &str, expected: String, found: String| {
            Err(ModelError::BadValue { key: key.to_owned(), expected, found })
        };
        let attention = &self.attention;
        if attention.n_kv_heads == 0 || !attention.n_heads.is_multiple_of(attention.n_kv_heads) {
            let expected = format!("a divisor of the {} query heads", attention.n_heads);
            return bad("number of key-value heads", expected, attention.n_kv_heads.to_string());
        }
        if attention.windows.len() != self.n_layers {
            let expected = format!("{} windows, one for each layer", self.n_layers);
            return bad("windows", expected, attention.windows.len().to_string());
        }
        if attention.windows.contains(&Some(0)) {
            return bad("window", "at least 1".to_owned(), "0".to_owned());
        }
        if !(attention.scale.is_finite() && attention.scale > 0.0) {
            return bad("attention scale", "a positive number".to_owned(), attention.scale.to_string());
        }
        let gated = |mlp: &MlpConfig| mlp.kind == MlpKind::Gated && mlp.act_fn.has_inner_norm();
        if self.mlp.as_ref().is_some_and(gated) {
            return bad("act_fn", "one without a norm, in a gated MLP".to_owned(), "solu_ln".to_owned());
        }
        if self.n_layers == 0 || attention.n_heads == 0 || attention.d_head == 0 || self.d_model == 0 {
            return bad("sizes", "at least one layer, head and dimension".to_owned(), "0".to_owned());
        }
        let Some(readers) = self.readers() else { return Ok(()) };
        if readers.d_in == 0 || readers.d_out == 0 {
            return bad("d_in and d_out", "at least 1".to_owned(), "0".to_owned());
        }
        if self.d_vocab != 0 || self.d_vocab_out != 0 || self.unembed_bias || self.tied {
            let expected = "neither vocabulary nor unembedding beside d_in and d_out".to_owned();
            return bad("d_vocab", expected, self.d_vocab.max(self.d_vocab_out).to_string());
        }
        if self.norm.after_embedding || self.logits_soft_cap.is_some() {
            let found = "a norm after the embedding or a soft-cap on logits".to_owned();
            return bad("d_in and d_out", "a plain read-in and read-out".to_owned(), found);
        }
        Ok(())
    }
}
