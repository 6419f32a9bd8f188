//! The logit lens: what the model would say if it stopped after each layer.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookedModel, ModelWeights, NormSite, Param};
use burn_lens_tensor::{Norm, Slice, Weights, kernels, numeric};

use crate::{
    AnalysisError,
    error::to_host,
    resid::{Component, Residuals, StackOptions},
};

/// What to read through the lens.
#[derive(Clone, Debug)]
pub struct LensOptions {
    /// At which positions.
    pub pos_slice: Slice,
    /// Also between attention and MLP.
    pub incl_mid: bool,
    /// How many of the likeliest tokens to list.
    pub top_k: usize,
    /// Tokens whose rank and probability are wanted besides.
    pub targets: Vec<usize>,
}

impl Default for LensOptions {
    fn default() -> Self {
        Self { pos_slice: Slice::All, incl_mid: false, top_k: 5, targets: Vec::new() }
    }
}

/// One token as the lens sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LensToken {
    /// Its id.
    pub token: usize,
    /// Its logit.
    pub logit: f64,
    /// Its probability.
    pub probability: f64,
    /// How many tokens have a larger logit; 0 for the likeliest.
    pub rank: usize,
}

/// What the lens sees of one stream at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct LensCell {
    /// The likeliest tokens, the likeliest first; ties in the order of ids.
    pub top: Vec<LensToken>,
    /// The tokens asked for, in that order.
    pub targets: Vec<LensToken>,
}

/// What the lens sees of every stream.
#[derive(Clone, Debug)]
pub struct LogitLens {
    /// Which streams, from the first block on.
    pub components: Vec<Component>,
    /// `[component][batch][pos]`
    pub cells: Vec<Vec<Vec<LensCell>>>,
}

/// Affine maps from each block's stream to the last one (a "tuned lens"): `x + x A + b` before
/// the final norm.
#[derive(Clone, Debug)]
pub struct TunedLens {
    /// For each block, `[d_model, d_model]` (in, out) and `[d_model]`.
    maps: Vec<(Tensor<2>, Tensor<1>)>,
}

impl TunedLens {
    /// Reads `{layer}.weight` (`[d_model, d_model]`, out × in) and `{layer}.bias` of each block, as
    /// the tuned-lens package saves them.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or of another shape.
    pub fn load<M: HookedModel + ?Sized>(
        model: &M,
        weights: &mut dyn Weights,
    ) -> Result<Self, AnalysisError> {
        let (d_model, device) = (model.dims().d_model, model.device());
        let dtype = model.weight::<2>(Param::WU)?.dtype();
        let mut read = |name: String, shape: &[usize]| {
            weights.get(&name, shape).map_err(|error| AnalysisError::Refused {
                what: "reading a tuned lens",
                reason: error.to_string(),
            })
        };
        let mut maps = Vec::new();
        for layer in 0..model.dims().n_layers {
            let w = read(format!("{layer}.weight"), &[d_model, d_model])?;
            let b = read(format!("{layer}.bias"), &[d_model])?;
            let w = Tensor::<2>::from_data(w, (&device, dtype));
            maps.push((w.transpose(), Tensor::<1>::from_data(b, (&device, dtype))));
        }
        Ok(Self { maps })
    }

    fn apply(&self, component: Component, x: Tensor<3>) -> Tensor<3> {
        let (Component::ResidPre(layer) | Component::ResidMid(layer)) = component else { return x };
        let (w, b) = &self.maps[layer];
        x.clone() + kernels::linear(x, w.clone(), Some(b.clone()))
    }
}

/// Reads every stream through the final norm and the unembedding.
///
/// Each row goes through the norm with its own statistics, its weight and bias, then `W_U`, `b_U`
/// and the soft-cap, so the last row gives the model's own logits. One stream at a time is
/// unembedded: the peak is `batch × pos × d_vocab_out` numbers.
///
/// # Errors
///
/// If the streams were not kept, a target is outside the vocabulary, or the device fails.
pub fn logit_lens<M: HookedModel + ?Sized>(
    residuals: &Residuals<'_, M>,
    options: &LensOptions,
    tuned: Option<&TunedLens>,
) -> Result<LogitLens, AnalysisError> {
    let d_vocab_out = residuals.dims.d_vocab_out;
    if let Some(&token) = options.targets.iter().find(|&&token| token >= d_vocab_out) {
        return Err(AnalysisError::Token { token, d_vocab_out });
    }
    let stack = StackOptions { pos_slice: options.pos_slice.clone(), ..StackOptions::default() };
    let streams = residuals.accumulated_resid(&stack, options.incl_mid)?;
    let readout = Readout::of(residuals)?;
    let [n, batch, pos, d_model] = streams.values().dims();
    let mut cells = Vec::with_capacity(n);
    for (row, &component) in streams.components().iter().enumerate() {
        let x: Tensor<3> = streams.values().narrow(0, row, 1).reshape([batch, pos, d_model]);
        let x = tuned.map_or_else(|| x.clone(), |tuned| tuned.apply(component, x.clone()));
        let logits = to_host(readout.logits(x))?;
        let row = logits
            .chunks(pos * d_vocab_out)
            .map(|prompt| prompt.chunks(d_vocab_out).map(|logits| cell(logits, options)).collect());
        cells.push(row.collect());
    }
    Ok(LogitLens { components: streams.components().to_vec(), cells })
}

/// The end of a model: final norm, unembedding, soft-cap.
struct Readout {
    norm: Norm,
    w_u: Tensor<2>,
    b_u: Option<Tensor<1>>,
    soft_cap: Option<f64>,
}

impl Readout {
    fn of<M: HookedModel + ?Sized>(residuals: &Residuals<'_, M>) -> Result<Self, AnalysisError> {
        Ok(Self {
            norm: residuals.model.norm_at(NormSite::Final)?,
            w_u: residuals.model.weight(Param::WU)?,
            b_u: residuals.model.find_weight(Param::BU),
            soft_cap: residuals.wiring.logits_soft_cap,
        })
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let logits = kernels::linear(self.norm.apply(x), self.w_u.clone(), self.b_u.clone());
        match self.soft_cap {
            Some(cap) => numeric::soft_cap(logits, cap),
            None => logits,
        }
    }
}

fn cell(logits: &[f64], options: &LensOptions) -> LensCell {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let see = |token: usize, rank: usize| LensToken {
        token,
        logit: logits[token],
        probability: (logits[token] - largest).exp() / sum,
        rank,
    };
    let rank = |token: usize| logits.iter().filter(|&&logit| logit > logits[token]).count();
    let top = top_k(logits, options.top_k).into_iter().enumerate();
    LensCell {
        top: top.map(|(rank, token)| see(token, rank)).collect(),
        targets: options.targets.iter().map(|&token| see(token, rank(token))).collect(),
    }
}

/// The indices of the `k` largest values, the largest first; ties in the order of indices.
fn top_k(values: &[f64], k: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..values.len()).collect();
    let k = k.min(indices.len());
    if k == 0 {
        return Vec::new();
    }
    indices.select_nth_unstable_by(k - 1, order);
    indices.truncate(k);
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_breaks_ties_by_index() {
        assert_eq!(top_k(&[1.0, 3.0, 3.0, 0.0, 2.0], 3), [1, 2, 4]);
        assert_eq!(top_k(&[1.0], 5), [0]);
        assert!(top_k(&[1.0], 0).is_empty());
    }

    #[test]
    fn a_cell_gives_ranks_and_probabilities() {
        let options = LensOptions { top_k: 2, targets: vec![0, 2], ..LensOptions::default() };
        let cell = cell(&[0.0, 2.0f64.ln(), f64::NEG_INFINITY], &options);
        assert_eq!(cell.top[0].token, 1);
        assert!((cell.top[0].probability - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((cell.targets[0].rank, cell.targets[1].rank), (1, 2));
        assert_eq!(cell.targets[1].probability, 0.0);
    }
}
