//! What a run takes and gives: inputs, options, outputs.

use std::{fmt, sync::Arc};

use burn_lens_tensor::{
    FloatType, Slice,
    burn::tensor::{Device, Int, Tensor},
};

use crate::{Axis, RunError, Selector};

/// The sizes of a model, in the glossary's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is the axis word itself")]
pub struct ModelDims {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub d_vocab: usize,
    pub d_vocab_out: usize,
    pub n_ctx: usize,
    pub d_in: usize,
    pub d_out: usize,
}

impl ModelDims {
    /// The length of `axis`, where the model fixes it.
    #[must_use]
    pub fn len_of(&self, axis: Axis) -> Option<usize> {
        match axis {
            Axis::Head => Some(self.n_heads),
            Axis::KvHead => Some(self.n_kv_heads),
            Axis::DModel => Some(self.d_model),
            Axis::DHead => Some(self.d_head),
            Axis::DMlp => Some(self.d_mlp),
            Axis::Vocab => Some(self.d_vocab_out),
            Axis::DOut => Some(self.d_out),
            Axis::One => Some(1),
            _ => None,
        }
    }
}

/// What a model runs on.
#[derive(Clone, Debug)]
pub enum Input {
    /// Token ids `[batch, pos]`.
    Tokens(Tensor<2, Int>),
    /// Vectors `[batch, pos, d_in]`, for a model without a vocabulary; its read-in embeds them.
    Vectors(Tensor<3>),
    /// Token embeddings `[batch, pos, d_model]`, in place of `hook_embed`; positions are added.
    Embeds(Tensor<3>),
    /// A residual stream `[batch, pos, d_model]`, for `start_at_layer`.
    Resid(Tensor<3>),
}

impl Input {
    /// `[batch, pos]`.
    #[must_use]
    pub fn batch_pos(&self) -> [usize; 2] {
        match self {
            Self::Tokens(tokens) => tokens.dims(),
            Self::Vectors(x) | Self::Embeds(x) | Self::Resid(x) => [x.dims()[0], x.dims()[1]],
        }
    }
}

impl From<Tensor<2, Int>> for Input {
    fn from(tokens: Tensor<2, Int>) -> Self {
        Self::Tokens(tokens)
    }
}

impl From<&Tensor<2, Int>> for Input {
    fn from(tokens: &Tensor<2, Int>) -> Self {
        Self::Tokens(tokens.clone())
    }
}

/// What a run computes at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReturnType {
    /// Logits.
    #[default]
    Logits,
    /// The mean next-token loss.
    Loss,
    /// Logits and loss.
    Both,
    /// Nothing; the blocks and the final norm still run, the unembedding does not.
    None,
}

/// How to run a model. `RunOptions::default()` gives logits.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What to compute.
    pub return_type: ReturnType,
    /// Also give the loss at each position.
    pub loss_per_token: bool,
    /// First block to run, negative from the end; needs [`Input::Resid`].
    pub start_at_layer: Option<isize>,
    /// First block **not** to run, negative from the end; 0 stops after the embedding.
    pub stop_at_layer: Option<isize>,
    /// `[batch, pos]`, 1 for tokens and 0 for padding, on either side.
    pub attention_mask: Option<Tensor<2, Int>>,
    /// Tokens `[batch, pos]` to predict, where the input is not tokens.
    pub labels: Option<Tensor<2, Int>>,
    /// Positions to give logits for; the unembedding and its hooks see no other. An index keeps
    /// its axis. A loss needs them all. Where only the last positions are asked for and nothing is
    /// to happen at an activation of the last block or behind it, that block computes no others.
    pub logits_pos: Slice,
}

impl RunOptions {
    /// Runs with this return type.
    #[must_use]
    pub fn returning(return_type: ReturnType) -> Self {
        Self { return_type, ..Self::default() }
    }
}

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `[batch, pos, d_vocab_out]`; of a model without a vocabulary what its read-out gives,
    /// `[batch, pos, d_out]`. The positions are those of [`RunOptions::logits_pos`].
    pub logits: Option<Tensor<3>>,
    /// `[1]`: mean over predicted tokens, padding left out.
    pub loss: Option<Tensor<1>>,
    /// `[batch, pos - 1]`
    pub loss_per_token: Option<Tensor<2>>,
    /// `[batch, pos, d_model]`: the residual stream, where `stop_at_layer` was given.
    pub resid: Option<Tensor<3>>,
}

impl Output {
    fn expect<T>(value: Option<T>, what: &str) -> Result<T, RunError> {
        value.ok_or_else(|| {
            RunError::Options(format!("this run was not asked for {what}: see RunOptions::return_type"))
        })
    }

    /// The logits `[batch, pos, d_vocab_out]`.
    ///
    /// # Errors
    ///
    /// If the run was not asked for them.
    pub fn into_logits(self) -> Result<Tensor<3>, RunError> {
        Self::expect(self.logits, "logits")
    }

    /// The mean loss `[1]`.
    ///
    /// # Errors
    ///
    /// If the run was not asked for it.
    pub fn into_loss(self) -> Result<Tensor<1>, RunError> {
        Self::expect(self.loss, "the loss")
    }
}

/// A scalar `[1]` of a run's output, whose gradients are wanted.
pub type Metric = Arc<dyn Fn(&Output) -> Result<Tensor<1>, RunError> + Send + Sync>;

/// What to keep of a run. The default keeps every activation that always fires.
#[derive(Clone, Default)]
pub struct CacheOptions {
    /// Which activations; all that always fire where empty.
    pub names: Vec<Selector>,
    /// Which positions (destinations, for scores and pattern). An index keeps its axis.
    pub pos_slice: Slice,
    /// Where to keep them; where they were computed if `None`.
    pub device: Option<Device>,
    /// The float type to keep them in; the model's if `None`.
    pub dtype: Option<FloatType>,
    /// Remove the batch axis; an error above one prompt.
    pub remove_batch_dim: bool,
    /// Also keep the gradients of this metric at the chosen points.
    pub backward: Option<Metric>,
}

impl CacheOptions {
    /// Keeps only the activations that `names` select.
    pub fn names<S: Into<Selector>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Also keeps the gradients of the mean loss (TransformerLens's `incl_bwd`); the run must
    /// return the loss.
    #[must_use]
    pub fn incl_bwd(self) -> Self {
        self.incl_bwd_of(|output| output.clone().into_loss())
    }

    /// Also keeps the gradients of `metric`, a `[1]` tensor.
    #[must_use]
    pub fn incl_bwd_of(
        mut self,
        metric: impl Fn(&Output) -> Result<Tensor<1>, RunError> + Send + Sync + 'static,
    ) -> Self {
        self.backward = Some(Arc::new(metric));
        self
    }
}

impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("names", &self.names)
            .field("pos_slice", &self.pos_slice)
            .field("dtype", &self.dtype)
            .field("remove_batch_dim", &self.remove_batch_dim)
            .field("backward", &self.backward.is_some())
            .finish_non_exhaustive()
    }
}

impl Output {
    /// The same, cut off from a graph that has been walked already.
    pub(crate) fn detached(self, cut: bool) -> Self {
        if !cut {
            return self;
        }
        Self {
            logits: self.logits.map(Tensor::without_autodiff),
            loss: self.loss.map(Tensor::without_autodiff),
            loss_per_token: self.loss_per_token.map(Tensor::without_autodiff),
            resid: self.resid.map(Tensor::without_autodiff),
        }
    }
}
