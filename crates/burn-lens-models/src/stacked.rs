//! Weights under TransformerLens's names and shapes.
//!
//! Per-layer access gives views. The stacks over layers are made once, on first use, and then
//! shared: an access copies nothing.

use std::sync::OnceLock;

use burn::tensor::Tensor;

use crate::{HookedTransformer, Param};

macro_rules! stacks {
    ($($field:ident: $rank:literal),* $(,)?) => {
        /// The stacks made so far. A clone of a model starts with none.
        #[derive(Debug, Default)]
        pub(crate) struct Stacks {
            $($field: OnceLock<Option<Tensor<$rank>>>,)*
        }
    };
}

stacks! {
    w_q: 4, w_k: 4, w_v: 4, w_o: 4, b_q: 3, b_k: 3, b_v: 3, b_o: 2,
    w_in: 3, w_gate: 3, w_out: 3, b_in: 2, b_out: 2, w_e_pos: 2,
}

impl Clone for Stacks {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Stacks one tensor per layer; `None` where the model has none.
fn stack<const D: usize, const D2: usize>(
    n_layers: usize,
    of: impl Fn(usize) -> Option<Tensor<D>>,
) -> Option<Tensor<D2>> {
    let tensors: Vec<Tensor<D>> = (0..n_layers).map(of).collect::<Option<_>>()?;
    (!tensors.is_empty()).then(|| Tensor::stack(tensors, 0))
}

macro_rules! stacked {
    ($(#[$doc:meta])* $name:ident -> Tensor<$rank:literal> = |$model:ident, $layer:ident| $of:expr) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> Option<Tensor<$rank>> {
            let $model = self;
            self.stacks.$name.get_or_init(|| stack(self.config.n_layers, |$layer| $of)).clone()
        }
    };
}

impl HookedTransformer {
    /// `[d_model, heads·d_head]` as `[heads, d_model, d_head]`, a view.
    fn heads_in(&self, param: Param, heads: usize) -> Option<Tensor<3>> {
        let w = self.params.find::<2>(param)?;
        let [d_model, _] = w.dims();
        Some(w.reshape([d_model, heads, self.config.attention.d_head]).permute([1, 0, 2]))
    }

    fn heads_bias(&self, param: Param, heads: usize) -> Option<Tensor<2>> {
        Some(self.params.find::<1>(param)?.reshape([heads, self.config.attention.d_head]))
    }

    stacked! {
        /// Query weights `[n_layers, n_heads, d_model, d_head]`.
        w_q -> Tensor<4> = |model, layer| model.heads_in(Param::WQ(layer), model.config.attention.n_heads)
    }
    stacked! {
        /// Key weights `[n_layers, n_kv_heads, d_model, d_head]`: grouped heads are not repeated.
        w_k -> Tensor<4> = |model, layer| model.heads_in(Param::WK(layer), model.config.attention.n_kv_heads)
    }
    stacked! {
        /// Value weights `[n_layers, n_kv_heads, d_model, d_head]`.
        w_v -> Tensor<4> = |model, layer| model.heads_in(Param::WV(layer), model.config.attention.n_kv_heads)
    }
    stacked! {
        /// Output weights `[n_layers, n_heads, d_head, d_model]`.
        w_o -> Tensor<4> = |model, layer| {
            let attention = &model.config.attention;
            let shape = [attention.n_heads, attention.d_head, model.config.d_model];
            Some(model.params.find::<2>(Param::WO(layer))?.reshape(shape))
        }
    }
    stacked! {
        /// Query biases `[n_layers, n_heads, d_head]`; `None` in models without.
        b_q -> Tensor<3> = |model, layer| model.heads_bias(Param::BQ(layer), model.config.attention.n_heads)
    }
    stacked! {
        /// Key biases `[n_layers, n_kv_heads, d_head]`; `None` in models without.
        b_k -> Tensor<3> = |model, layer| model.heads_bias(Param::BK(layer), model.config.attention.n_kv_heads)
    }
    stacked! {
        /// Value biases `[n_layers, n_kv_heads, d_head]`; `None` in models without.
        b_v -> Tensor<3> = |model, layer| model.heads_bias(Param::BV(layer), model.config.attention.n_kv_heads)
    }
    stacked! {
        /// Attention output biases `[n_layers, d_model]`; `None` in models without.
        b_o -> Tensor<2> = |model, layer| model.params.find::<1>(Param::BO(layer))
    }
    stacked! {
        /// MLP input weights `[n_layers, d_model, d_mlp]`; `None` in attention-only models.
        w_in -> Tensor<3> = |model, layer| model.params.find::<2>(Param::WIn(layer))
    }
    stacked! {
        /// MLP gate weights `[n_layers, d_model, d_mlp]`; `None` where MLPs are not gated.
        w_gate -> Tensor<3> = |model, layer| model.params.find::<2>(Param::WGate(layer))
    }
    stacked! {
        /// MLP output weights `[n_layers, d_mlp, d_model]`; `None` in attention-only models.
        w_out -> Tensor<3> = |model, layer| model.params.find::<2>(Param::WOut(layer))
    }
    stacked! {
        /// MLP input biases `[n_layers, d_mlp]`; `None` in models without.
        b_in -> Tensor<2> = |model, layer| model.params.find::<1>(Param::BIn(layer))
    }
    stacked! {
        /// MLP output biases `[n_layers, d_model]`; `None` in models without.
        b_out -> Tensor<2> = |model, layer| model.params.find::<1>(Param::BOut(layer))
    }

    /// Token embedding `[d_vocab, d_model]`; `None` in models without a vocabulary.
    #[must_use]
    pub fn w_e(&self) -> Option<Tensor<2>> {
        self.params.find(Param::Embed)
    }

    /// Learned position embedding `[n_ctx, d_model]`; `None` in models without.
    #[must_use]
    pub fn w_pos(&self) -> Option<Tensor<2>> {
        self.pos_embed.as_ref().map(|pos_embed| pos_embed.w_pos.clone())
    }

    /// Token and position embeddings, one below the other: `[d_vocab + n_ctx, d_model]`; the
    /// token embedding alone in models without learned positions; `None` in models without a
    /// vocabulary.
    #[must_use]
    pub fn w_e_pos(&self) -> Option<Tensor<2>> {
        let stacked = self.stacks.w_e_pos.get_or_init(|| {
            let w_e = self.w_e()?;
            Some(match self.w_pos() {
                None => w_e,
                Some(w_pos) => Tensor::cat(vec![w_e, w_pos], 0),
            })
        });
        stacked.clone()
    }

    /// Unembedding `[d_model, d_vocab_out]`; `None` in models without a vocabulary.
    #[must_use]
    pub fn w_u(&self) -> Option<Tensor<2>> {
        self.params.find(Param::WU)
    }

    /// Unembedding bias `[d_vocab_out]`; `None` in models without.
    #[must_use]
    pub fn b_u(&self) -> Option<Tensor<1>> {
        self.params.find(Param::BU)
    }
}
