//! GPT-2's forward pass with no hook call in it: the same operations in the same order as
//! `HookedTransformer`, so that the difference in time is the price of hooks that nobody uses.

use burn::tensor::{Int, Tensor};
use burn_lens::{
    models::{HookedTransformer, Param},
    tensor::kernels::{self, Activation, AttentionScores, Looks, Sight},
};

/// The weights of a GPT-2 model, to run without hooks.
pub struct PlainGpt2 {
    w_e: Tensor<2>,
    w_pos: Tensor<2>,
    blocks: Vec<PlainBlock>,
    ln_final: [Tensor<1>; 2],
    w_u: Tensor<2>,
    n_heads: usize,
    eps: f64,
}

struct PlainBlock {
    ln1: [Tensor<1>; 2],
    qkv: [(Tensor<2>, Tensor<1>); 3],
    out: (Tensor<2>, Tensor<1>),
    ln2: [Tensor<1>; 2],
    mlp: [(Tensor<2>, Tensor<1>); 2],
}

impl PlainGpt2 {
    /// Shares the weights of `model`.
    ///
    /// # Panics
    ///
    /// If it is not a GPT-2 model.
    #[must_use]
    pub fn new(model: &HookedTransformer) -> Self {
        let params = model.parameters();
        let vector = |param: Param| params.find::<1>(param).expect("a GPT-2 model");
        let matrix = |param: Param| params.find::<2>(param).expect("a GPT-2 model");
        let pair = |w: Param, b: Param| (matrix(w), vector(b));
        let block = |l: usize| PlainBlock {
            ln1: [vector(Param::Ln1W(l)), vector(Param::Ln1B(l))],
            qkv: [
                pair(Param::WQ(l), Param::BQ(l)),
                pair(Param::WK(l), Param::BK(l)),
                pair(Param::WV(l), Param::BV(l)),
            ],
            out: pair(Param::WO(l), Param::BO(l)),
            ln2: [vector(Param::Ln2W(l)), vector(Param::Ln2B(l))],
            mlp: [pair(Param::WIn(l), Param::BIn(l)), pair(Param::WOut(l), Param::BOut(l))],
        };
        Self {
            w_e: matrix(Param::Embed),
            w_pos: matrix(Param::PosEmbed),
            blocks: (0..model.config().n_layers).map(block).collect(),
            ln_final: [vector(Param::LnFinalW), vector(Param::LnFinalB)],
            w_u: matrix(Param::WU),
            n_heads: model.config().attention.n_heads,
            eps: model.config().norm.eps,
        }
    }

    /// Logits `[batch, pos, d_vocab]` of tokens `[batch, pos]`.
    ///
    /// # Panics
    ///
    /// If a token is negative.
    #[must_use]
    pub fn forward(&self, tokens: &Tensor<2, Int>) -> Tensor<3> {
        let [batch, pos] = tokens.dims();
        let [_, d_model] = self.w_e.dims();
        // The check that every run makes.
        assert!(tokens.try_to_vec_as::<i64>().expect("tokens").iter().all(|&id| id >= 0));
        let embed = self.w_e.clone().select(0, tokens.clone().reshape([batch * pos]));
        let positions: Vec<i64> = (0..pos as i64).collect();
        let positions = Tensor::<1, Int>::from_data(positions.as_slice(), &tokens.device());
        let w_pos = self.w_pos.clone().select(0, positions).reshape([1, pos, d_model]);
        let mut resid = embed.reshape([batch, pos, d_model]) + w_pos.expand([batch, pos, d_model]);
        for block in &self.blocks {
            resid = self.block(block, resid);
        }
        kernels::linear(self.norm(&self.ln_final, resid), self.w_u.clone(), None)
    }

    fn block(&self, block: &PlainBlock, resid: Tensor<3>) -> Tensor<3> {
        let [batch, pos, d_model] = resid.dims();
        let d_head = d_model / self.n_heads;
        let x = self.norm(&block.ln1, resid.clone());
        let maps = block.qkv.each_ref().map(|(w, b)| (w, Some(b)));
        let [q, k, v] = kernels::linears(&x, maps).map(|x| x.reshape([batch, pos, self.n_heads, d_head]));
        let sight = Sight { first: 0, causal: true, window: None, tokens: None };
        let how = AttentionScores { scale: (d_head as f64).sqrt(), soft_cap: None, slopes: None, sight };
        let (k, v) = (k.swap_dims(1, 2), v.swap_dims(1, 2));
        let whole =
            kernels::attention([&q, &k, &v], None, &how, Looks::default()).expect("the CPU has kernels");
        let z = whole.z.reshape([batch, pos, d_model]);
        let resid = resid + kernels::linear(z, block.out.0.clone(), Some(block.out.1.clone()));
        let x = self.norm(&block.ln2, resid.clone());
        let [(w_in, b_in), (w_out, b_out)] = &block.mlp;
        let pre = kernels::linear(x, w_in.clone(), Some(b_in.clone()));
        let post = kernels::activation(pre, Activation::GeluTanh);
        resid + kernels::linear(post, w_out.clone(), Some(b_out.clone()))
    }

    fn norm(&self, [w, b]: &[Tensor<1>; 2], x: Tensor<3>) -> Tensor<3> {
        kernels::normalized(x, true, self.eps, Some(w), Some(b))
    }
}
