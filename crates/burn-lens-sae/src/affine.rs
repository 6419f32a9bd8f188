//! One linear encoder, an activation function, one linear decoder: most kinds of dictionaries.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation::relu};
use burn_lens_tensor::{AnyTensor, kernels};
use serde_json::{Map, Value, json};

use crate::{
    Base, Codes, SaeError, SparseAutoencoder,
    autoencoder::{Tap, along, entries, linear},
    features::SparseRows,
    rows,
};

/// What makes activations of pre-activations `p`.
#[derive(Clone, Debug)]
pub(crate) enum Activation {
    /// `relu(p)`
    Relu,
    /// `relu(p) · 1[p > θ]`, `θ: [d_sae]`
    JumpRelu(Box<Tensor<1>>),
    /// The `k` largest, of those the positive ones.
    TopK(Top),
    /// The `k` largest by magnitude, with their signs.
    AbsTopK(Top),
    /// The largest of each of `k` groups of neighbours, if positive.
    GroupMax(usize),
}

/// How many are kept, and of what the choice is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Top {
    pub(crate) k: usize,
    /// Pre-activations are multiplied by the norms of the decoder's rows, and activations divided by
    /// them before they are decoded.
    pub(crate) rescale: bool,
}

/// `f(x W_enc + b_enc)`, decoded by `a W_dec + b_dec (+ x W_skipᵀ)`.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    pub(crate) kind: &'static str,
    pub(crate) base: Base,
    /// `[d_sae]`
    pub(crate) b_enc: Tensor<1>,
    pub(crate) activation: Activation,
    /// `[d_out, d_in]`
    pub(crate) skip: Option<Tensor<2>>,
}

/// The norms of a matrix's rows.
pub(crate) fn row_norms(matrix: &Tensor<2>) -> Tensor<1> {
    matrix.clone().square().sum_dim(1).sqrt().squeeze_dim(1)
}

impl Affine {
    fn rescaled(&self) -> bool {
        matches!(&self.activation, Activation::TopK(top) | Activation::AbsTopK(top) if top.rescale)
    }

    fn scores(&self, pre: Tensor<3>) -> Tensor<3> {
        if self.rescaled() { pre * along(&row_norms(&self.base.w_dec)) } else { pre }
    }

    /// The few values that can be active, and where: `[row, k]` both.
    fn top(&self, scores: Tensor<2>) -> Option<(Tensor<2>, Tensor<2, Int>)> {
        Some(match &self.activation {
            Activation::TopK(top) => {
                let (values, indices) = kernels::top(scores, top.k);
                (relu(values), indices)
            }
            Activation::AbsTopK(top) => {
                let (_, indices) = kernels::top(scores.clone().abs(), top.k);
                (scores.gather(1, indices.clone()), indices)
            }
            Activation::GroupMax(k) => {
                let [rows, d_sae] = scores.dims();
                let (size, device) = (d_sae / k, scores.device());
                let groups = scores.reshape([rows, *k, size]);
                let (values, indices) = groups.max_dim_with_indices(2);
                let offsets =
                    Tensor::<1, Int>::arange(0..*k as i64, &device.without_autodiff()) * size as i64;
                (relu(values.squeeze_dim(2)), indices.squeeze_dim::<2>(2) + offsets.unsqueeze())
            }
            Activation::Relu | Activation::JumpRelu(_) => return None,
        })
    }

    fn pre(&self, x: Tensor<3>) -> Tensor<3> {
        linear(x, &self.base.w_enc) + along(&self.b_enc)
    }
}

impl SparseAutoencoder for Affine {
    fn base(&self) -> &Base {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn codes(&self, x: Tensor<3>, tap: &mut Tap<'_>) -> Codes {
        let pre = tap(self.pre(x));
        let [batch, pos, d_sae] = pre.dims();
        let acts = match &self.activation {
            Activation::Relu => relu(pre),
            Activation::JumpRelu(threshold) => {
                let off = pre.clone().lower_equal(along(threshold).expand(pre.dims()));
                relu(pre).mask_fill(off, 0.0)
            }
            _ => {
                let scores = self.scores(pre).reshape([batch * pos, d_sae]);
                let zeros = scores.zeros_like();
                match self.top(scores) {
                    Some((values, indices)) => zeros.scatter(1, indices, values, IndexingUpdateOp::Add),
                    None => zeros,
                }
                .reshape([batch, pos, d_sae])
            }
        };
        Codes { acts, predicted: None }
    }

    fn part(&self, features: &[usize]) -> Option<Box<dyn SparseAutoencoder>> {
        let (base, indices) = self.base.part(features);
        let activation = match &self.activation {
            Activation::Relu => Activation::Relu,
            Activation::JumpRelu(threshold) => Activation::JumpRelu(Box::new(entries(threshold, &indices))),
            _ => return None,
        };
        let b_enc = entries(&self.b_enc, &indices);
        Some(Box::new(Self { kind: self.kind, base, b_enc, activation, skip: self.skip.clone() }))
    }

    fn sparse_codes(&self, x: Tensor<3>) -> Result<SparseRows, SaeError> {
        if matches!(self.activation, Activation::Relu | Activation::JumpRelu(_)) {
            return rows::of_dense(self.codes(x, &mut |pre| pre).acts);
        }
        let [batch, pos, _] = x.dims();
        let scores = self.scores(self.pre(x));
        let d_sae = scores.dims()[2];
        match self.top(scores.reshape([batch * pos, d_sae])) {
            Some((values, indices)) => rows::of_top(values, indices),
            None => Ok(SparseRows::default()),
        }
    }

    fn directions(&self) -> Tensor<2> {
        let w_dec = self.base.w_dec.clone();
        if self.rescaled() { w_dec.clone() / row_norms(&w_dec).unsqueeze_dim(1) } else { w_dec }
    }

    fn skip(&self, x: &Tensor<3>) -> Option<Tensor<3>> {
        self.skip.as_ref().map(|skip| linear(x.clone(), &skip.clone().transpose()))
    }

    fn settings(&self) -> Map<String, Value> {
        let settings = match &self.activation {
            Activation::TopK(top) | Activation::AbsTopK(top) => {
                json!({ "k": top.k, "rescale_acts_by_decoder_norm": top.rescale })
            }
            Activation::GroupMax(k) => json!({ "k": k }),
            Activation::Relu | Activation::JumpRelu(_) => json!({}),
        };
        settings.as_object().cloned().unwrap_or_default()
    }

    fn own_tensors(&self) -> Vec<(String, AnyTensor)> {
        let mut tensors = vec![("b_enc".to_owned(), self.b_enc.clone().into())];
        if let Activation::JumpRelu(threshold) = &self.activation {
            tensors.push(("threshold".to_owned(), (**threshold).clone().into()));
        }
        if let Some(skip) = &self.skip {
            tensors.push(("W_skip".to_owned(), skip.clone().into()));
        }
        tensors
    }

    fn scale_latents(&mut self, factors: &Tensor<1>) -> Result<(), SaeError> {
        match &mut self.activation {
            Activation::Relu => {}
            Activation::JumpRelu(threshold) => **threshold = *threshold.clone() * factors.clone(),
            Activation::TopK(top) | Activation::AbsTopK(top) if top.rescale => {}
            Activation::TopK(_) | Activation::AbsTopK(_) | Activation::GroupMax(_) => {
                return Err(SaeError::Refused {
                    change: "folding the decoder's norms",
                    kind: self.kind,
                    reason: "it would change which features are among the largest",
                });
            }
        }
        self.b_enc = self.b_enc.clone() * factors.clone();
        Ok(())
    }

    fn chooses_by_decoder_norms(&self) -> bool {
        self.rescaled()
    }

    fn forget_decoder_norms(&mut self) {
        if let Activation::TopK(top) | Activation::AbsTopK(top) = &mut self.activation {
            top.rescale = false;
        }
    }

    fn shift_latents(&mut self, shift: &Tensor<1>) {
        self.b_enc = self.b_enc.clone() - shift.clone();
    }
}
